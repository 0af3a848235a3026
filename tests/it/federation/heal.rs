//! Servers that were parted, and find each other again with rooms that went on on both sides.
//!
//! <https://spec.matrix.org/v1.19/rooms/v12/#state-resolution>

use serde_json::json;

use super::peer::{Peer, as_time_goes_by, shared_room, until_they_agree};
use crate::{
    between,
    world::{Engine, at},
};

between! {
    async fn a_parted_room_becomes_one_again(internet, one, two) {
        let (alice, bob) = (one.user("alice").await, two.user("bob").await);
        for version in ["6", "10", "12"] {
            let room = shared_room(&alice, &bob, version).await;
            let powers = json!({ "users": { bob.user_id.as_str(): 50 }, "users_default": 0 });
            let powers = if version == "12" { powers } else {
                json!({ "users": { alice.user_id.as_str(): 100, bob.user_id.as_str(): 50 } })
            };
            alice.put(&at(&room, "/state/m.room.power_levels"), powers).await.ok();
            until_they_agree(&[&alice, &bob], &room).await;
            internet.part("one.test", "two.test");
            for (user, who) in [(&alice, "alice"), (&bob, "bob")] {
                user.put(&at(&room, "/state/m.room.topic"), json!({ "topic": format!("{who}'s") })).await.ok();
                user.put(&at(&room, &format!("/state/org.example.{who}/")), json!({ "by": who })).await.ok();
                user.say(&room, &format!("{who} was here")).await;
            }
            internet.mend("one.test", "two.test");
            one.world.clock.advance(std::time::Duration::from_mins(10));
            two.world.clock.advance(std::time::Duration::from_mins(10));
            alice.say(&room, "hello again").await;
            bob.say(&room, "hello you").await;
            let healed = async {
                bob.hears(&room, "alice was here").await;
                alice.hears(&room, "bob was here").await;
                until_they_agree(&[&alice, &bob], &room).await;
            };
            as_time_goes_by([&one, &two], healed).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_servers_agree_after_two_of_them_were_parted() {
    let internet = super::internet::Internet::new();
    let mut peers = Vec::new();
    for name in ["one.test", "two.test", "three.test"] {
        peers.push(Peer::start(&internet, name, Engine::Sqlite).await.unwrap());
    }
    let alice = peers[0].user("alice").await;
    let bob = peers[1].user("bob").await;
    let carol = peers[2].user("carol").await;
    let room = shared_room(&alice, &bob, "12").await;
    carol.join_via(&room, "two.test").await.ok();
    until_they_agree(&[&alice, &bob, &carol], &room).await;
    internet.part("one.test", "two.test");
    alice.say(&room, "bob does not hear this at once").await;
    carol.hears(&room, "bob does not hear this at once").await;
    carol.say(&room, "everybody hears this").await;
    // It follows what bob has not heard, and carol's server has it.
    bob.hears(&room, "bob does not hear this at once").await;
    bob.hears(&room, "everybody hears this").await;
    alice.hears(&room, "everybody hears this").await;
    internet.mend("one.test", "two.test");
    until_they_agree(&[&alice, &bob, &carol], &room).await;
}
