//! What a user has not seen, gathered from the log of a real server.

mod device_lists;
mod outside;

use ruma::{OwnedRoomId, UserId};
use serde_json::json;

use super::{Client, SyncRequest, wanted::Wanted};
use crate::{
    ground::position::Position,
    reader::unread::Count,
    testing::{World, user},
};

impl World {
    /// The rooms that are told after a place, with what is unread in them, in their order.
    async fn told(&self, user_id: &UserId, since: Option<Position>) -> Vec<(OwnedRoomId, Count)> {
        let (client, wanted) = (Client { user_id: user_id.to_owned(), device_id: "D".into() }, Wanted::default());
        let request = SyncRequest {
            client,
            wanted,
            since,
            delivered: None,
            begins_anew: false,
            full_state: false,
            state_after: false,
        };
        let watcher = self.app.syncs.watcher(user_id).await.unwrap();
        let gathered = self.app.syncs.gather_all(&request, &watcher).await.unwrap();
        let mut told: Vec<_> = gathered.joined.into_iter().map(|room| (room.room_id, room.unread.total())).collect();
        told.sort_by(|(one, _), (other, _)| one.cmp(other));
        told
    }

    async fn ignore(&self, user_id: &UserId, list: &[&UserId]) -> Position {
        let list: serde_json::Map<_, _> = list.iter().map(|other| (other.to_string(), json!({}))).collect();
        let content = serde_json::value::to_raw_value(&json!({ "ignored_users": list })).unwrap();
        let before = self.reached();
        self.app.account_data.set(user_id, None, "m.ignored_user_list", content).await.unwrap();
        before
    }
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
