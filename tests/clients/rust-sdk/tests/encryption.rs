//! Encrypted conversations through matrix-sdk, the engine of Element X: every message decrypts for whom it should, and
//! for nobody else. The README beside this crate says how they are run.

// The SDK's futures are deep, and the compiler looks through all of them.
#![recursion_limit = "256"]

mod person;

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use matrix_sdk::{
    Room,
    encryption::verification::SasVerification,
    ruma::{
        OwnedDeviceId, OwnedUserId, api::client::room::create_room::v3::RoomPreset,
        events::room::member::MembershipState,
    },
};

use self::person::{
    Message, Person, encrypted_room, eventually,
    flow::{Audience, Flow},
    say,
};

/// More keys than the answer to one sync has room for.
const MANY_KEYS: usize = 110;

/// Waits until a client knows somebody's device, or no longer.
async fn knows(person: &Person, of: &OwnedUserId, device: &OwnedDeviceId, known: bool) -> Result<()> {
    eventually(&format!("{} to know {device}: {known}", person.name), async || {
        let found = person.client.encryption().get_device(of, device).await?;
        Ok((found.is_some() == known).then_some(()))
    })
    .await
}

/// Waits until a client sees somebody in a room, or out of it.
async fn sees(room: &Room, user: &OwnedUserId, membership: MembershipState) -> Result<()> {
    eventually(&format!("{user}: {membership}"), async || {
        let member = room.get_member_no_sync(user).await?;
        Ok(member.is_some_and(|member| *member.membership() == membership).then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn texts_go_both_ways_and_the_server_sees_none_of_it() -> Result<()> {
    let [alice, bob] = [Person::arrive("alice").await?, Person::arrive("bob").await?];
    let [hers, his] = encrypted_room(&alice, &bob, RoomPreset::PrivateChat).await?;
    for (room, listener, text) in
        [(&hers, &his, "can anybody hear us?"), (&his, &hers, "nobody but you 🔒"), (&hers, &his, "then listen")]
    {
        let message = say(room, text).await?;
        message.is_read_in(listener).await?;
        ensure!(!message.wire.json().get().contains(text), "the server sees {text}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_does_not_sync_misses_no_key() -> Result<()> {
    let [alice, mut bob] = [Person::arrive("alice").await?, Person::arrive("bob").await?];
    let [hers, his] = encrypted_room(&alice, &bob, RoomPreset::PrivateChat).await?;
    bob.goes_away().await;
    let mut said = Vec::new();
    for number in 0..MANY_KEYS {
        hers.discard_room_key().await?;
        said.push(say(&hers, &format!("whisper {number}")).await?);
    }
    bob.comes_back();
    for message in &said {
        message.is_read_in(&his).await?;
    }
    Ok(())
}

/// Waits until each of them has sent so many more.
async fn go_on(flows: &mut [Flow], count: usize) -> Result<()> {
    for flow in flows {
        flow.go_on(count).await?;
    }
    Ok(())
}

/// Checks that somebody can read what was meant for them so far, of which there has to be enough, and returns it.
async fn reads_what_is_meant(flows: &[Flow], who: &str, room: &Room) -> Result<Vec<Arc<Message>>> {
    let mut all = Vec::new();
    for flow in flows {
        let readable = flow.meant_for(who);
        ensure!(readable.len() >= 5, "only {} messages were meant for {who}", readable.len());
        all.extend(readable);
    }
    for message in &all {
        message.is_read_in(room).await?;
    }
    Ok(all)
}

/// Ends the flows and checks that the listener of each could read all of it.
async fn all_is_read(flows: &mut [Flow], listeners: [&Room; 2]) -> Result<()> {
    for (flow, listener) in flows.iter_mut().zip(listeners) {
        flow.stop().await?;
        for message in flow.all() {
            message.is_read_in(listener).await?;
        }
    }
    Ok(())
}

/// Checks that somebody can read nothing of what was not meant for them; `until` is how many messages each flow had
/// when they had to go.
async fn reads_nothing_else(flows: &[Flow], until: &[usize], who: &str, room: &Room) -> Result<()> {
    for (flow, until) in flows.iter().zip(until) {
        let others = flow.not_meant_for(who);
        let [before, after] = [others.iter().any(|one| one.0 < *until), others.iter().any(|one| one.0 > *until)];
        ensure!(before && after, "nothing was said before {who} came, or nothing after they went");
        for (_, message) in others {
            message.is_closed_in(room).await?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_reads_from_its_arrival_to_its_end_while_messages_flow() -> Result<()> {
    let [alice, bob] = [Person::arrive("alice").await?, Person::arrive("bob").await?];
    let [hers, his] = encrypted_room(&alice, &bob, RoomPreset::PrivateChat).await?;
    let mut flows = [&hers, &his].map(|room| Flow::start(room, Audience::Devices(bob.id.clone())));
    go_on(&mut flows, 5).await?;

    let second = bob.elsewhere().await?;
    for person in [&alice, &bob] {
        knows(person, &bob.id, &second.device, true).await?;
    }
    let there = second.room(hers.room_id()).await?;
    go_on(&mut flows, 10).await?;
    let meant = reads_what_is_meant(&flows, second.device.as_str(), &there).await?;

    let until = flows.each_ref().map(Flow::count);
    second.client.matrix_auth().logout().await?;
    for person in [&alice, &bob] {
        knows(person, &bob.id, &second.device, false).await?;
    }
    go_on(&mut flows, 10).await?;
    all_is_read(&mut flows, [&his, &hers]).await?;
    // What was read can still be: it is not the client that has stopped opening anything.
    for message in &meant {
        message.is_read_in(&there).await?;
    }
    reads_nothing_else(&flows, &until, second.device.as_str(), &there).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_reads_from_joining_to_leaving_while_messages_flow() -> Result<()> {
    let [alice, bob] = [Person::arrive("alice").await?, Person::arrive("bob").await?];
    let carol = Person::arrive("carol").await?;
    let [hers, his] = encrypted_room(&alice, &bob, RoomPreset::PublicChat).await?;
    let mut flows = [&hers, &his].map(|room| Flow::start(room, Audience::Members));
    go_on(&mut flows, 5).await?;

    carol.client.join_room_by_id(hers.room_id()).await?;
    let there = carol.room(hers.room_id()).await?;
    for room in [&hers, &his] {
        sees(room, &carol.id, MembershipState::Join).await?;
    }
    go_on(&mut flows, 10).await?;
    let meant = reads_what_is_meant(&flows, carol.id.as_str(), &there).await?;
    let hello = say(&there, "hello, all of you").await?;
    for room in [&hers, &his] {
        hello.is_read_in(room).await?;
    }

    let until = flows.each_ref().map(Flow::count);
    there.leave().await?;
    for room in [&hers, &his] {
        sees(room, &carol.id, MembershipState::Leave).await?;
    }
    go_on(&mut flows, 10).await?;
    all_is_read(&mut flows, [&his, &hers]).await?;
    carol.catches_up().await?;
    // What was read can still be: it is not the client that has stopped opening anything.
    for message in &meant {
        message.is_read_in(&there).await?;
    }
    reads_nothing_else(&flows, &until, carol.id.as_str(), &there).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_session_reads_the_old_messages_with_the_recovery_key() -> Result<()> {
    let [alice, bob] = [Person::arrive("alice").await?, Person::arrive("bob").await?];
    let [hers, his] = encrypted_room(&alice, &bob, RoomPreset::PrivateChat).await?;
    let said: [Message; 2] = [say(&hers, "remember this").await?, say(&his, "I will").await?];
    for message in &said {
        message.is_read_in(&his).await?;
    }
    // The first keys of an account need no password.
    bob.client.encryption().bootstrap_cross_signing(None).await?;
    let recovery_key = bob.client.encryption().recovery().enable().wait_for_backups_to_upload().await?;

    let session = bob.elsewhere().await?;
    let room = session.room(his.room_id()).await?;
    for message in &said {
        message.is_closed_in(&room).await?;
    }
    alice.client.encryption().bootstrap_cross_signing(None).await?;
    let other_key = alice.client.encryption().recovery().enable().await?;
    let refusal = session.client.encryption().recovery().recover(&other_key).await;
    ensure!(refusal.is_err(), "somebody else's recovery key was taken");
    for message in &said {
        message.is_closed_in(&room).await?;
    }
    session.client.encryption().recovery().recover(&recovery_key).await?;
    session.client.encryption().backups().download_room_keys_for_room(room.room_id()).await?;
    for message in &said {
        message.is_read_in(&room).await?;
    }
    session.is_signed().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_sessions_of_one_user_verify_each_other() -> Result<()> {
    let alice = Person::arrive("alice").await?;
    alice.client.encryption().bootstrap_cross_signing(None).await?;
    alice.client.encryption().recovery().enable().await?;
    let session = alice.elsewhere().await?;
    knows(&alice, &alice.id, &session.device, true).await?;
    knows(&session, &alice.id, &alice.device, true).await?;

    let identity =
        eventually("her own identity", async || Ok(alice.client.encryption().get_user_identity(&alice.id).await?))
            .await?;
    let request = identity.request_verification().await?;
    let flow = request.flow_id().to_owned();
    let incoming = eventually("the request", async || {
        Ok(session.client.encryption().get_verification_request(&alice.id, &flow).await)
    })
    .await?;
    incoming.accept().await?;
    eventually("the request to be accepted", async || Ok(request.is_ready().then_some(()))).await?;

    let mine = request.start_sas().await?.context("the other side knows no emoji")?;
    let theirs = eventually("the start", async || {
        let verification = session.client.encryption().get_verification(&alice.id, &flow).await;
        Ok(verification.and_then(|verification| verification.sas()))
    })
    .await?;
    theirs.accept().await?;
    assert_eq!(shown(&mine).await?, shown(&theirs).await?);
    mine.confirm().await?;
    theirs.confirm().await?;
    for sas in [&mine, &theirs] {
        eventually("the end of the verification", async || Ok(sas.is_done().then_some(()))).await?;
    }
    session.is_signed().await?;
    alice.trusts(&session.device).await?;
    session.trusts(&alice.device).await?;
    // The old session sends the new one its private keys, and that of the backup.
    eventually("the private keys", async || {
        let status = session.client.encryption().cross_signing_status().await;
        Ok(status.filter(|status| status.is_complete()).map(|_| ()))
    })
    .await?;
    eventually("the key of the backup", async || {
        Ok(session.client.encryption().backups().are_enabled().await.then_some(()))
    })
    .await
}

/// The symbols of the emoji that a side of a verification shows.
async fn shown(sas: &SasVerification) -> Result<[&'static str; 7]> {
    eventually("the emoji", async || Ok(sas.emoji().map(|emoji| emoji.map(|one| one.symbol)))).await
}
