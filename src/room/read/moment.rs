//! The event that is closest to a time.
//!
//! Nearly every event of a room is later than all before it. These stand in the order of their timestamps and are found
//! by halving the log again and again, which costs a message nothing when it is sent. Those that are not later, because
//! another server's clock is behind or history was imported, have an index of their own.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidtimestamp_to_event>
//!
//! Times are `origin_server_ts`, in milliseconds since the Unix epoch: what the sender's server claims, whatever it is.
//! All statements of one question see one state of the data.

use ruma::{MilliSecondsSinceUnixEpoch, RoomId, api::Direction};

use super::reading::ReadableRoom;
use crate::{
    db::{Conn, DbResult},
    error::Result,
    event::Stored,
    ground::position::{Order, Position},
    room::Rooms,
    store::{
        self,
        moment::{self, MomentAt, find_late},
    },
};

/// A stretch of a room's log: after the first place, up to the second.
struct MomentRange<'a> {
    room_id: &'a RoomId,
    after: Order,
    until: Order,
}

impl Rooms {
    /// Of the events that the reader sees the one closest to a time: sent then or later, backwards then or earlier. Of
    /// two at one time the one that stands first in that direction. None where there is none, however far from the
    /// time.
    pub async fn find_closest(
        &self,
        reading: &ReadableRoom,
        ts: MilliSecondsSinceUnixEpoch,
        direction: Direction,
    ) -> Result<Option<Stored>> {
        let room_id = reading.room.view(|view| view.room_id.clone());
        let stretches = reading.sight.within(Order::START, reading.until).collect();
        self.find_closest_within(&room_id, stretches, ts, direction).await
    }

    /// Of the events of some stretches of a room the one closest to a time. The stretches are given from the oldest.
    pub(super) async fn find_closest_within(
        &self,
        room_id: &RoomId,
        mut stretches: Vec<(Order, Order)>,
        ts: MilliSecondsSinceUnixEpoch,
        direction: Direction,
    ) -> Result<Option<Stored>> {
        let ts = i64::from(ts.get());
        let backward = direction == Direction::Backward;
        let mut snapshot = self.0.db.snapshot().await?;
        if backward {
            stretches.reverse();
        }
        // Over the whole room events in order get later and later: the first stretch that has one has the closest.
        let mut in_order: Option<(i64, Order)> = None;
        let mut closest_late: Option<(i64, Order)> = None;
        for (after, until) in stretches {
            let stretch = MomentRange { room_id, after, until };
            in_order = match in_order {
                Some(found) => Some(found),
                None if backward => stretch.last_before(&mut snapshot, ts).await?,
                None => stretch.first_after(&mut snapshot, ts).await?,
            };
            let late = find_late(&mut snapshot, room_id, ts, backward, (after, until)).await?;
            closest_late = closer(closest_late, late, backward);
        }
        let Some((_, order)) = closer(in_order, closest_late, backward) else { return Ok(None) };
        Ok(store::event::list_in(&mut snapshot, room_id, &[order]).await?.pop())
    }
}

/// The one of two events that is closer to the time at or after which both are, backwards at or before which. The order
/// in the room decides between equals.
fn closer(one: Option<(i64, Order)>, other: Option<(i64, Order)>, backward: bool) -> Option<(i64, Order)> {
    let found = one.into_iter().chain(other);
    if backward { found.max() } else { found.min() }
}

impl MomentRange<'_> {
    /// The first event at or after `ts` of those that were later than all before them.
    async fn first_after(&self, conn: &mut Conn, ts: i64) -> DbResult<Option<(i64, Order)>> {
        let Some(first) = self.reaches(conn, ts).await? else { return Ok(None) };
        if first.is_newest {
            return Ok(Some((first.newest_ts, first.order)));
        }
        // It was so late before this stretch began: the next one that makes it later is the first one here.
        let rest = MomentRange { after: first.order, ..*self };
        let next = rest.reaches(conn, first.newest_ts.saturating_add(1)).await?;
        Ok(next.map(|next| (next.newest_ts, next.order)))
    }

    /// The last event at or before `ts` of those that were later than all before them.
    async fn last_before(&self, conn: &mut Conn, ts: i64) -> DbResult<Option<(i64, Order)>> {
        let later = self.reaches(conn, ts.saturating_add(1)).await?;
        let until = later.map_or(self.until, |later| later.order.before());
        let before = MomentRange { until, ..*self };
        let Some(last) = moment::last(conn, self.room_id, before.after, before.until).await? else { return Ok(None) };
        // What made it so late lies at the last event or before it, perhaps before this stretch.
        let newest = before.reaches(conn, last.newest_ts).await?.filter(|newest| newest.is_newest);
        Ok(newest.map(|newest| (newest.newest_ts, newest.order)))
    }

    /// The first event with which it was `ts` or later, by halving: it never gets earlier. About as many statements as
    /// the number of positions in the stretch has binary digits.
    async fn reaches(&self, conn: &mut Conn, ts: i64) -> DbResult<Option<MomentAt>> {
        let Some(last) = moment::last(conn, self.room_id, self.after, self.until).await? else { return Ok(None) };
        if last.newest_ts < ts {
            return Ok(None);
        }
        // It may have been so late before this stretch, as it was in all that follow one in which it got there.
        let Some(first) = moment::next(conn, self.room_id, self.after, last.order).await? else { return Ok(None) };
        if first.newest_ts >= ts {
            return Ok(Some(first));
        }
        // What is found so came through the log: between two positions there is nothing to look at.
        let (mut low, mut high) = (first.order.floor(), last.order.floor());
        let mut reached = last;
        while low < high {
            let middle = Position(low.0 + (high.0 - low.0) / 2);
            match moment::next(conn, self.room_id, Order::at(middle), Order::at(high)).await? {
                Some(moment) if moment.newest_ts < ts => low = moment.order.floor(),
                Some(moment) => (reached, high) = (moment, middle),
                None => high = middle,
            }
        }
        Ok(Some(reached))
    }
}

#[cfg(test)]
mod tests {
    use ruma::{UInt, UserId, events::TimelineEventType};
    use serde_json::json;

    use super::*;
    use crate::{
        event::{Draft, Standing},
        testing::{World, user},
    };

    async fn say_at(world: &World, room_id: &RoomId, sender: &UserId, ts: UInt) {
        let content = serde_json::from_value(json!({ "msgtype": "m.text", "body": ts.to_string() })).unwrap();
        let mut draft = Draft::message(sender.to_owned(), TimelineEventType::RoomMessage, content);
        draft.origin_server_ts = Some(MilliSecondsSinceUnixEpoch(ts));
        world.send(room_id, draft).await;
    }

    /// Every event that the user sees, by its timestamp and place.
    async fn seen(world: &World, reading: &ReadableRoom) -> Vec<(i64, Order)> {
        let mut conn = world.app.db.read().await.unwrap();
        let all = store::event::list_between(&mut conn, Position::START, world.reached()).await.unwrap();
        let room_id = reading.room.view(|view| view.room_id.clone());
        let is_seen = |event: &&Stored| {
            event.pdu.room_id() == room_id && event.standing == Standing::Accepted && reading.sight.sees(event)
        };
        all.iter().filter(is_seen).map(|event| (event.pdu.origin_server_ts().get().into(), event.order)).collect()
    }

    /// Whatever the order of the timestamps is, and whatever a reader sees of the room.
    #[tokio::test]
    async fn the_closest_event_is_the_one_that_looking_at_all_finds() {
        for world in World::on_each_engine().await {
            let (alice, bob) = (user("alice"), user("bob"));
            let room_id = world.room(&[&alice]).await;
            let other = world.room(&[&alice]).await;
            let hidden = serde_json::from_value(json!({ "history_visibility": "joined" })).unwrap();
            let kind = TimelineEventType::RoomHistoryVisibility;
            world.send(&room_id, Draft::state(alice.clone(), kind, "", hidden)).await;
            let now = world.app.clock.now().get();
            let later = |by: u32| now + UInt::from(by);
            let orders: [&[u32]; 5] = [
                &[10, 20, 30, 30, 40],
                &[35, 5, 5, 50, 49],
                &[45, 60, 60, 61],
                &[4_000_000, 70, 65, 70, 80],
                &[90, 85, 90, 4_000_001],
            ];
            for (nth, order) in orders.into_iter().enumerate() {
                world.membership(&room_id, &bob, if nth % 2 == 0 { "join" } else { "leave" }).await;
                for by in order {
                    say_at(&world, &room_id, &alice, later(*by)).await;
                    say_at(&world, &other, &alice, later(*by + 1)).await;
                }
            }
            for reader in [&alice, &bob] {
                let reading = world.rooms().open(&room_id, reader).await.unwrap();
                let seen = seen(&world, &reading).await;
                assert!(seen.len() > 10);
                let times = (0..95).chain([3_999_999, 4_000_000, 4_000_001, 4_000_002]).map(later);
                for ts in times.chain([UInt::MIN, now - UInt::from(1_u32), UInt::MAX]) {
                    for direction in [Direction::Forward, Direction::Backward] {
                        let at = i64::from(ts);
                        let expected = match direction {
                            Direction::Forward => seen.iter().filter(|(ts, _)| *ts >= at).min(),
                            Direction::Backward => seen.iter().filter(|(ts, _)| *ts <= at).max(),
                        };
                        let time = MilliSecondsSinceUnixEpoch(ts);
                        let found = world.rooms().find_closest(&reading, time, direction).await.unwrap();
                        let found = found.map(|event| event.order);
                        assert_eq!(found, expected.map(|(_, at)| *at), "{reader} {ts} {direction:?}");
                    }
                }
            }
            world.close().await;
        }
    }
}
