//! A room: what is newest in it for each of its servers.
//!
//! Servers do not say which events they would build on. They do when they propose an event, so each is asked for one by which
//! somebody of this server would leave the room, which the rules let everybody do. It is never sent.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1make_leaveroomiduserid>

use std::collections::BTreeSet;

use futures_util::{StreamExt as _, stream};
use ruma::{
    EventId, OwnedEventId, OwnedServerName, OwnedUserId, RoomId, ServerName,
    api::federation::membership::prepare_leave_event::v1 as prepare_leave_event,
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{FederationCheck, Told, tell};
use crate::{
    edge::federation_client::{Bounds, RemoteError, Step},
    error::{Error, Result},
    event::{Standing, Stored},
    ground::date,
    store::{event, membership, room},
};

/// How many servers are asked at once.
const AT_ONCE: usize = 16;
/// Of how many newest events a server may name some alone.
const NEWEST: usize = 10;
/// How many events are named one by one.
const NAMED: usize = 3;
/// How many newest events of a server are looked at.
const MAX_NEWEST: usize = 100;

/// A room as this server has it.
struct RoomHere {
    extremities: BTreeSet<OwnedEventId>,
    /// When the newest of them was sent, in milliseconds since the Unix epoch.
    newest_ts: i64,
    /// But for this one.
    servers: Vec<OwnedServerName>,
    /// Somebody of this server who is in the room.
    member: OwnedUserId,
}

/// An event that another server has as one of the newest, and that is here.
#[derive(Clone, Copy, Debug)]
struct KnownHere<'a> {
    event_id: &'a EventId,
    standing: Standing,
    ts: i64,
}

/// What two servers have as the newest of a room.
#[derive(Clone, Copy, Debug)]
struct Compared<'a> {
    server: &'a ServerName,
    theirs: &'a BTreeSet<OwnedEventId>,
    /// What is here, before that one was asked and after.
    here: [&'a BTreeSet<OwnedEventId>; 2],
    newest_ts: i64,
    /// Those of theirs that are here.
    known: &'a [KnownHere<'a>],
}

impl FederationCheck {
    /// Which of a room's servers have other newest events than this one, or lag behind, or can't be reached.
    pub(crate) async fn room(&self, room_id: &RoomId, told: &Told) -> Result<()> {
        let here = self.read_room(room_id).await?;
        let (count, newest) = (here.extremities.len(), date::second(here.newest_ts));
        tell(told, Step::well(format!("what is newest here is of {newest}: {}", list(&here.extremities))));
        if count > NEWEST {
            let step = Step::oddly(format!("{count} events have no other that follows them"));
            tell(told, step.advise("A running server follows them up with an event of its own that nobody sees"));
        }
        if here.servers.is_empty() {
            tell(told, Step::well("no other server is in the room"));
        }
        let asking = stream::iter(&here.servers).map(|server| self.compare(room_id, server, &here));
        let mut compared = asking.buffered(AT_ONCE);
        while let Some(step) = compared.next().await {
            tell(told, step?);
        }
        Ok(())
    }

    async fn read_room(&self, room_id: &RoomId) -> Result<RoomHere> {
        let mut conn = self.db.read().await?;
        let head = room::find_head(&mut conn, room_id).await?;
        let (head, _) = head.ok_or_else(|| Error::not_found(format!("There is no room {room_id} here")))?;
        let member = membership::find_local_member(&mut conn, room_id).await?;
        let member = member.ok_or_else(|| Error::not_found(format!("Nobody of this server is in {room_id}")))?;
        let mut servers: Vec<_> = membership::list_servers(&mut conn, room_id).await?.into_keys().collect();
        servers.retain(|server| *server != self.server_name);
        let newest: Vec<&EventId> = head.extremities.iter().map(|id| &**id).collect();
        let newest_ts = event::list(&mut conn, &newest).await?.iter().map(sent_at).max().unwrap_or(0);
        Ok(RoomHere { extremities: head.extremities.into_iter().collect(), newest_ts, servers, member })
    }

    /// Asks one server, and says how it stands with it.
    async fn compare(&self, room_id: &RoomId, server: &ServerName, here: &RoomHere) -> Result<Step> {
        let request = prepare_leave_event::Request::new(room_id.to_owned(), here.member.clone());
        let answer = self.remote.call(server, request, Bounds::ANSWER).await;
        let theirs = match answer.and_then(|answer| newest_of(&answer.event)) {
            Ok(theirs) => theirs,
            Err(error) => return Ok(not_answered(server, &error, self.find_owing(server).await?)),
        };
        let ids: Vec<&EventId> = theirs.iter().map(|id| &**id).collect();
        let mut conn = self.db.read().await?;
        let stored = event::list(&mut conn, &ids).await?;
        let now = room::find_head(&mut conn, room_id).await?.map(|(head, _)| head.extremities).unwrap_or_default();
        drop(conn);
        let now: BTreeSet<OwnedEventId> = now.into_iter().collect();
        let of_room = stored.iter().filter(|stored| stored.pdu.room_id() == room_id);
        let known: Vec<KnownHere<'_>> = of_room
            .map(|stored| KnownHere { event_id: stored.pdu.event_id(), standing: stored.standing, ts: sent_at(stored) })
            .collect();
        let step = judge(Compared {
            server,
            theirs: &theirs,
            here: [&here.extremities, &now],
            newest_ts: here.newest_ts,
            known: &known,
        });
        Ok(match self.find_owing(server).await? {
            Some(owing) => append(step, &owing),
            None => step,
        })
    }
}

/// The events that a server would build on.
fn newest_of(template: &RawValue) -> Result<BTreeSet<OwnedEventId>, RemoteError> {
    #[derive(Deserialize)]
    struct Template {
        prev_events: BTreeSet<OwnedEventId>,
    }
    let read: Option<Template> = serde_json::from_str(template.get()).ok();
    let fits = |newest: &BTreeSet<OwnedEventId>| (1..=MAX_NEWEST).contains(&newest.len());
    let newest = read.map(|template| template.prev_events).filter(fits);
    newest.ok_or_else(|| RemoteError::Malformed("the event that it proposes is not as specified".to_owned()))
}

fn not_answered(server: &ServerName, error: &RemoteError, owing: Option<String>) -> Step {
    let step = match error {
        RemoteError::Off | RemoteError::NotAllowed => {
            return Step::oddly(format!("{server} is not asked: {error}")).advise(
                "It is in the room, and nothing goes there or comes from there. A room's administrators can keep it out with \
                 an m.room.server_acl",
            );
        }
        RemoteError::Refused { status: 403 | 404, .. } => Step::badly(format!(
            "{server} has another state of the room, or is not in it any more: {error}"
        ))
        .advise(
            "For it, nobody of this server is in the room, or the room's m.room.server_acl keeps this server out. That \
                 ends when its state and this one's are resolved, with the next events that reach both",
        ),
        _ => Step::badly(format!("{server} does not answer: {error}"))
            .advise(format!("`hearth admin federation-check {server}` shows why")),
    };
    match owing {
        Some(owing) => append(step, &owing),
        None => step,
    }
}

/// Says something more. Whoever lags behind need not be owed anything, so nothing is made of it.
fn append(step: Step, more: &str) -> Step {
    Step { text: format!("{}. {more}", step.text), ..step }
}

fn judge(compared: Compared<'_>) -> Step {
    let Compared { server, theirs, here: [before, after], newest_ts, known } = compared;
    let agrees = |here: &BTreeSet<OwnedEventId>| theirs == here || (theirs.len() >= NEWEST && theirs.is_subset(here));
    if agrees(before) || agrees(after) {
        return Step::well(format!("{server} has the same"));
    }
    let again = "Where somebody writes at this moment it may only be on its way: look again in a minute";
    let known_ids: BTreeSet<&EventId> = known.iter().map(|known| known.event_id).collect();
    let unknown: BTreeSet<OwnedEventId> = theirs.iter().filter(|id| !known_ids.contains(&***id)).cloned().collect();
    if !unknown.is_empty() {
        return Step::badly(format!("{server} has what has not come here: {}", list(&unknown))).advise(format!(
            "{again}. Else it does not reach this server, or has given up on it for a while: \
             `hearth admin federation-check {server}`"
        ));
    }
    let refused: BTreeSet<OwnedEventId> = known
        .iter()
        .filter(|known| matches!(known.standing, Standing::Rejected | Standing::SoftFailed))
        .map(|known| known.event_id.to_owned())
        .collect();
    if !refused.is_empty() {
        return Step::badly(format!("{server} goes on from what this server has refused: {}", list(&refused))).advise(
            "The two have resolved the room's state otherwise for a while, or one of them takes what the rules forbid. The \
             next events of both bring them together, unless it stays so",
        );
    }
    let newest = known.iter().map(|known| known.ts).max().unwrap_or(0);
    let (newest, here) = (date::second(newest), date::second(newest_ts));
    Step::badly(format!("{server} lags behind: what is newest there is of {newest}, and of {here} here")).advise(format!(
        "{again}. Else this server does not reach it: `hearth admin list-destinations --owed` shows whether it is tried, and \
         `hearth admin federation-check {server}` what stands in the way"
    ))
}

fn sent_at(stored: &Stored) -> i64 {
    stored.pdu.origin_server_ts().get().into()
}

/// Some of them, and how many more there are.
fn list(ids: &BTreeSet<OwnedEventId>) -> String {
    let mut text = ids.iter().take(NAMED).map(|id| id.as_str()).collect::<Vec<_>>().join(", ");
    let more = ids.len().saturating_sub(NAMED);
    if more > 0 {
        let rest = format!(" and {more} more");
        text.push_str(&rest);
    }
    text
}

#[cfg(test)]
mod tests {
    use ruma::{event_id, server_name};
    use serde_json::{json, value::to_raw_value};

    use super::*;
    use crate::edge::federation_client::Went;

    fn ids(names: &[&str]) -> BTreeSet<OwnedEventId> {
        names.iter().map(|name| OwnedEventId::try_from(*name).unwrap()).collect()
    }

    fn many(count: usize) -> BTreeSet<OwnedEventId> {
        (0..count).map(|number| OwnedEventId::try_from(format!("$many{number:02}")).unwrap()).collect()
    }

    fn judged(
        theirs: &BTreeSet<OwnedEventId>,
        here: [&BTreeSet<OwnedEventId>; 2],
        known: &[KnownHere<'_>],
    ) -> (Went, String) {
        let step = judge(Compared { server: server_name!("there"), theirs, here, newest_ts: 60_000, known });
        assert_eq!(step.advice.is_some(), step.went != Went::Well, "{step:?}");
        (step.went, step.text)
    }

    #[test]
    fn what_is_newest_there_is_compared_with_what_is_newest_here() {
        let (a, b, both, c) = (ids(&["$a"]), ids(&["$b"]), ids(&["$a", "$b"]), ids(&["$c"]));
        let known = |standing| [KnownHere { event_id: event_id!("$a"), standing, ts: 0 }];
        let same = (Went::Well, "there has the same".to_owned());
        assert_eq!(judged(&a, [&a, &a], &known(Standing::Accepted)), same);
        assert_eq!(judged(&a, [&b, &a], &known(Standing::Accepted)), same, "something came while it was asked");
        let (went, text) = judged(&c, [&a, &a], &[]);
        assert!(went == Went::Badly && text.ends_with("has not come here: $c"), "{text}");
        for here in [&b, &both] {
            let (went, text) = judged(&a, [here, here], &known(Standing::Accepted));
            let expected = "there lags behind: what is newest there is of 1970-01-01 00:00:00 UTC, and of 1970-01-01 00:01:00 UTC here";
            assert_eq!((went, text.as_str()), (Went::Badly, expected));
        }
        for standing in [Standing::Rejected, Standing::SoftFailed] {
            let (went, text) = judged(&a, [&b, &b], &known(standing));
            assert!(went == Went::Badly && text.ends_with("has refused: $a"), "{text}");
        }
    }

    #[test]
    fn of_many_newest_events_a_server_names_some() {
        let (all, some) = (many(15), many(10));
        assert_eq!(judged(&some, [&all, &all], &[]).0, Went::Well);
        assert_eq!(list(&all), "$many00, $many01, $many02 and 12 more");
        assert_eq!(list(&ids(&["$a"])), "$a");
    }

    #[test]
    fn a_proposal_is_read_for_what_it_follows() {
        let read = |json: serde_json::Value| newest_of(&to_raw_value(&json).unwrap()).ok();
        assert_eq!(read(json!({ "prev_events": ["$b", "$a", "$b"], "type": 5 })), Some(ids(&["$a", "$b"])));
        for nonsense in [json!({}), json!({ "prev_events": [] }), json!({ "prev_events": [["$a", {}]] }), json!([])] {
            assert_eq!(read(nonsense.clone()), None, "{nonsense}");
        }
        assert_eq!(read(json!({ "prev_events": many(MAX_NEWEST + 1) })), None);
    }

    #[test]
    fn who_does_not_answer_is_told_from_who_refuses() {
        let there = server_name!("there");
        let refused = |status| RemoteError::Refused { status, errcode: None, message: "no".to_owned() };
        let step =
            not_answered(there, &RemoteError::Unreachable("gone".to_owned()), Some("It is owed something".to_owned()));
        assert!(step.went == Went::Badly && step.text.ends_with("gone. It is owed something"), "{step:?}");
        assert!(step.advice.unwrap().contains("federation-check there"));
        assert!(not_answered(there, &refused(403), None).text.contains("another state"));
        assert!(not_answered(there, &refused(502), None).text.contains("does not answer"));
        assert_eq!(not_answered(there, &RemoteError::NotAllowed, None).went, Went::Oddly);
    }
}
