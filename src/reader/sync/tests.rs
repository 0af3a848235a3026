//! What a user has not seen, gathered from the log of a real server.

mod device_lists;
mod outside;
mod watch;

use ruma::{OwnedRoomId, UserId};
use serde_json::json;

use super::{Client, Gathered, SyncRequest, Syncs, wanted::Wanted};
use crate::{
    ground::position::Position,
    reader::unread::Count,
    testing::{World, user},
};

impl World {
    /// The rooms that are told after a place, with what is unread in them, in their order.
    async fn told(&self, user_id: &UserId, since: Option<Position>) -> Vec<(OwnedRoomId, Count)> {
        let gathered = self.gathered(user_id, "D", since).await;
        let mut told: Vec<_> = gathered.joined.into_iter().map(|room| (room.room_id, room.unread.total())).collect();
        told.sort_by(|(one, _), (other, _)| one.cmp(other));
        told
    }

    /// What a sync gathers for a device.
    async fn gathered(&self, user_id: &UserId, device: &str, since: Option<Position>) -> Gathered {
        gather_all(&self.app.syncs, &request(user_id, device, since)).await
    }

    async fn ignore(&self, user_id: &UserId, list: &[&UserId]) -> Position {
        let list: serde_json::Map<_, _> = list.iter().map(|other| (other.to_string(), json!({}))).collect();
        let content = serde_json::value::to_raw_value(&json!({ "ignored_users": list })).unwrap();
        let before = self.reached();
        self.app.account_data.set(user_id, None, "m.ignored_user_list", content).await.unwrap();
        before
    }
}

/// What a client asks for that wants everything.
fn request(user_id: &UserId, device: &str, since: Option<Position>) -> SyncRequest {
    SyncRequest {
        client: Client { user_id: user_id.to_owned(), device_id: device.into() },
        wanted: Wanted::default(),
        since,
        delivered: None,
        begins_anew: false,
        full_state: false,
        state_after: false,
    }
}

/// All that a sync gathers, one part after the other as an answer has them.
async fn gather_all(syncs: &Syncs, request: &SyncRequest) -> Gathered {
    let watcher = syncs.watcher(&request.client.user_id).await.unwrap();
    let first = syncs.gather(request, &watcher, watcher.turn().await.unwrap()).await.unwrap();
    // Each part has a turn of its own.
    let mut all = Gathered { _turn: None, ..first };
    while !all.rest.is_empty() {
        let rest = std::mem::take(&mut all.rest);
        let turn = watcher.turn().await.unwrap();
        let part = syncs.gather_more(request, (all.until, rest), turn).await.unwrap();
        assert!(part.invited.is_empty() && part.knocked.is_empty() && part.device_lists.is_empty(), "these come first");
        all.left.extend(part.left);
        all.joined.extend(part.joined);
        all.rest = part.rest;
    }
    all
}

fn count(notifications: u64) -> Count {
    Count { notifications, highlights: 0 }
}

#[tokio::test]
async fn whom_somebody_ignores_is_told_where_it_changes_what_is_unread() {
    let (alice, bob, carol) = (user("alice"), user("bob"), user("carol"));
    let world = World::new().await;
    let (loud, other) = (world.room(&[&bob, &alice, &carol]).await, world.room(&[&bob, &carol]).await);
    // She has said something that is read, and in another room she is only a member.
    let (read, silent) = (world.room(&[&bob, &alice]).await, world.room(&[&bob, &alice, &carol]).await);
    world.say(&loud, &alice, "one").await;
    world.say(&loud, &carol, "two").await;
    world.say(&other, &carol, "three").await;
    world.say(&read, &alice, "four").await;
    world.say(&read, &bob, "five").await;
    world.say(&silent, &carol, "six").await;
    world.membership(&loud, &alice, "leave").await;
    assert_eq!(world.told(&bob, None).await.len(), 4);

    let since = world.ignore(&bob, &[&alice]).await;
    assert_eq!(world.told(&bob, Some(since)).await, [(loud.clone(), count(1))]);
    assert_eq!(world.told(&bob, Some(since)).await, [(loud.clone(), count(1))], "who asks again is told again");
    assert_eq!(world.told(&bob, Some(world.reached())).await, []);
    let again = world.ignore(&bob, &[&alice]).await;
    assert_eq!(world.told(&bob, Some(again)).await, [], "whom he ignored before");

    let since = world.ignore(&bob, &[]).await;
    assert_eq!(world.told(&bob, Some(since)).await, [(loud.clone(), count(2))], "her words count again");
    // After a restart nobody knows whom he ignored then: every room may be another.
    let world = world.restart().await;
    let told = world.told(&bob, Some(since)).await;
    assert_eq!(told.len(), 4);
    assert!(told.contains(&(loud, count(2))), "{told:?}");
    assert_eq!(world.told(&bob, Some(world.reached())).await, []);
    world.close().await;
}
