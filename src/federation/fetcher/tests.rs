//! What is made of the answers of another server, honest and other ones.

use serde_json::json;

use super::{
    testing::{Elsewhere, Stage, carol, raw},
    *,
};
use crate::event::Standing;

#[tokio::test]
async fn what_is_missing_is_fetched_in_rounds_and_in_order() {
    let stage = Stage::new().await;
    let said: Vec<Pdu> = (0..50).map(|count| stage.elsewhere.say(&format!("number {count}"))).collect();
    let (last, missing) = said.split_last().unwrap();
    let room = stage.room().await;
    let fetched = stage.fetcher.list_missing_before(&room, last, &Elsewhere::name()).await.unwrap();
    let ids = |pdus: &[Pdu]| pdus.iter().map(|pdu| pdu.event_id().to_owned()).collect::<Vec<_>>();
    assert_eq!(ids(&fetched), ids(missing));
    assert_eq!(stage.elsewhere.asked(), ["missing_events"; 3]);
    stage.close().await;
}

#[tokio::test]
async fn a_walk_does_not_leave_the_room_and_ends() {
    let stage = Stage::new().await;
    let (missing, astray) = (stage.elsewhere.say("missing"), stage.elsewhere.astray());
    let last = stage.elsewhere.say("last");
    // Events of another room, that event itself, one twice, and no progress from the second round on.
    let told = vec![raw(&astray), raw(&last), raw(&missing), raw(&missing)];
    stage.elsewhere.script.lock().missing_events = Some(told);
    let room = stage.room().await;
    let fetched = stage.fetcher.list_missing_before(&room, &last, &Elsewhere::name()).await.unwrap();
    assert_eq!(fetched.iter().map(Pdu::event_id).collect::<Vec<_>>(), [missing.event_id()]);
    assert!(stage.find(astray.event_id()).await.is_none());
    assert_eq!(stage.elsewhere.asked(), ["missing_events"]);

    stage.elsewhere.script.lock().missing_events = Some(vec![raw(&astray); 10_000]);
    let fetched = stage.fetcher.list_missing_before(&room, &last, &Elsewhere::name()).await.unwrap();
    assert!(fetched.is_empty());
    assert_eq!(stage.elsewhere.asked(), ["missing_events"], "it is not asked again");
    stage.close().await;
}

#[tokio::test]
async fn a_server_that_never_comes_to_an_end_is_asked_so_often_and_not_more() {
    let stage = Stage::new().await;
    let said: Vec<Pdu> = (0..300).map(|count| stage.elsewhere.say(&format!("number {count}"))).collect();
    let room = stage.room().await;
    let last = said.last().unwrap();
    let fetched = stage.fetcher.list_missing_before(&room, last, &Elsewhere::name()).await.unwrap();
    assert_eq!(fetched.len(), 200);
    assert_eq!(stage.elsewhere.asked().len(), 10);
    stage.close().await;
}

#[tokio::test]
async fn a_cited_event_that_the_rules_refuse_is_not_kept() {
    let stage = Stage::new().await;
    let powers = json!({ "users": { "@alice:localhost": 100, "@carol:elsewhere": 50 }, "state_default": 0 });
    // Not allowed, and so is everything that cites it.
    let refused = stage.elsewhere.set(&carol(), "m.room.power_levels", "", powers);
    let citing = stage.elsewhere.say("by what nobody granted");
    let room = stage.room().await;
    let servers = [Elsewhere::name()];
    assert!(citing.auth_events().iter().any(|id| id == refused.event_id()));
    let kept = stage.fetcher.keep_cited(&room, &citing, &servers).await;
    assert!(matches!(kept, Err(FetchError::Missing(_))), "{kept:?}");
    assert!(stage.find(refused.event_id()).await.is_none(), "what the rules refuse is not kept");
    stage.close().await;
}

#[tokio::test]
async fn a_new_membership_that_is_cited_is_fetched() {
    let stage = Stage::new().await;
    let member = json!({ "membership": "join", "displayname": "Carol" });
    let renamed = stage.elsewhere.set(&carol(), "m.room.member", carol().as_str(), member);
    let citing = stage.elsewhere.say("as Carol");
    let room = stage.room().await;
    stage.fetcher.keep_cited(&room, &citing, &[Elsewhere::name()]).await.unwrap();
    let kept = stage.find(renamed.event_id()).await.unwrap();
    assert_eq!(kept.standing, Standing::Outlier);
    assert_eq!(stage.elsewhere.asked(), ["event_auth"]);
    stage.close().await;
}

#[tokio::test]
async fn a_state_has_to_have_the_rooms_beginning_and_only_events_that_are_here() {
    let stage = Stage::new().await;
    let topic = stage.elsewhere.set(&carol(), "m.room.topic", "", json!({ "topic": "apples" }));
    let last = stage.elsewhere.say("last");
    let (room, servers) = (stage.room().await, [Elsewhere::name()]);
    let state = stage.fetcher.fetch_state(&room, last.event_id(), &servers).await.unwrap();
    assert!(state.iter().any(|id| id == topic.event_id()));
    assert_eq!(stage.find(topic.event_id()).await.unwrap().standing, Standing::Outlier);

    // A message is no state, and neither is an event that nobody has.
    let made_up = OwnedEventId::try_from("$nothing").unwrap();
    for told in [vec![], vec![last.event_id().to_owned(), made_up]] {
        stage.elsewhere.script.lock().state = Some(told);
        let state = stage.fetcher.fetch_state(&room, last.event_id(), &servers).await;
        assert!(matches!(state, Err(FetchError::Missing(_))), "{state:?}");
    }
    stage.close().await;
}

#[tokio::test]
async fn history_is_fetched_into_a_gap() {
    let stage = Stage::new().await;
    let said: Vec<Pdu> = (0..30).map(|count| stage.elsewhere.say(&format!("number {count}"))).collect();
    let (last, missing) = said.split_last().unwrap();
    let (room, servers) = (stage.room().await, [Elsewhere::name()]);
    let state = stage.fetcher.fetch_state(&room, last.event_id(), &servers).await.unwrap();
    stage.rooms.append_after_gap(&room, last.clone(), &state).await.unwrap();
    let placed = stage.fetcher.backfill(&room, last.prev_events(), 10, &servers).await.unwrap();
    assert_eq!(placed, 10);
    assert!(stage.has_placed(&missing[19]).await && !stage.has_placed(&missing[18]).await);
    let placed = stage.fetcher.backfill(&room, missing[19].prev_events(), 100, &servers).await.unwrap();
    assert_eq!(placed, 19);
    for pdu in &said {
        assert!(stage.has_placed(pdu).await);
        assert_eq!(stage.find(pdu.event_id()).await.unwrap().standing, Standing::Accepted);
    }
    assert_eq!(stage.fetcher.backfill(&room, missing[19].prev_events(), 100, &servers).await.unwrap(), 0);
    stage.close().await;
}

#[tokio::test]
async fn history_comes_from_the_first_server_that_has_it() {
    let stage = Stage::new().await;
    stage.elsewhere.script.lock().is_silent = true;
    let room = stage.room().await;
    let servers = [Elsewhere::name(), ruma::owned_server_name!("nowhere")];
    let placed = stage.fetcher.backfill(&room, &stage.ends().await, 10, &servers).await;
    assert!(matches!(placed, Err(FetchError::Remote(..))), "{placed:?}");
    assert_eq!(stage.elsewhere.asked(), ["backfill", "backfill"]);
    stage.close().await;
}
