//! Encrypted conversations through matrix-sdk, the engine of Element X: every message decrypts for whom it should, and
//! for nobody else. The README beside this crate says how they are run.

// The SDK's futures are deep, and the compiler looks through all of them.
#![recursion_limit = "256"]

mod person;

use anyhow::{Context, Result, ensure};
use matrix_sdk::{
    Room,
    encryption::verification::SasVerification,
    ruma::{
        OwnedDeviceId, OwnedUserId, api::client::room::create_room::v3::RoomPreset,
        events::room::member::MembershipState,
    },
};

use self::person::{Message, Person, encrypted_room, eventually};

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
    for (speaker, room, listener, text) in [
        (&alice, &hers, &his, "can anybody hear us?"),
        (&bob, &his, &hers, "nobody but you 🔒"),
        (&alice, &hers, &his, "then listen"),
    ] {
        let message = speaker.say(room, text).await?;
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
        said.push(alice.say(&hers, &format!("whisper {number}")).await?);
    }
    bob.comes_back();
    for message in &said {
        message.is_read_in(&his).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_reads_from_its_arrival_to_its_end() -> Result<()> {
    let [alice, bob] = [Person::arrive("alice").await?, Person::arrive("bob").await?];
    let [hers, his] = encrypted_room(&alice, &bob, RoomPreset::PrivateChat).await?;
    let before = alice.say(&hers, "before").await?;

    let second = bob.elsewhere().await?;
    knows(&alice, &bob.id, &second.device, true).await?;
    let during = alice.say(&hers, "during").await?;
    let there = second.room(hers.room_id()).await?;
    during.is_read_in(&there).await?;

    second.client.matrix_auth().logout().await?;
    knows(&alice, &bob.id, &second.device, false).await?;
    let after = alice.say(&hers, "after").await?;
    for message in [&before, &during, &after] {
        message.is_read_in(&his).await?;
    }
    for message in [&before, &after] {
        message.is_closed_in(&there).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_reads_from_joining_to_leaving() -> Result<()> {
    let [alice, bob] = [Person::arrive("alice").await?, Person::arrive("bob").await?];
    let carol = Person::arrive("carol").await?;
    let [hers, his] = encrypted_room(&alice, &bob, RoomPreset::PublicChat).await?;
    let before = alice.say(&hers, "before").await?;

    carol.client.join_room_by_id(hers.room_id()).await?;
    let there = carol.room(hers.room_id()).await?;
    sees(&hers, &carol.id, MembershipState::Join).await?;
    let during = alice.say(&hers, "during").await?;
    during.is_read_in(&there).await?;
    let hello = carol.say(&there, "hello, all of you").await?;
    hello.is_read_in(&hers).await?;
    hello.is_read_in(&his).await?;

    there.leave().await?;
    sees(&hers, &carol.id, MembershipState::Leave).await?;
    let after = alice.say(&hers, "after").await?;
    for message in [&before, &during, &after] {
        message.is_read_in(&his).await?;
    }
    for message in [&before, &after] {
        message.is_closed_in(&there).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_session_reads_the_old_messages_with_the_recovery_key() -> Result<()> {
    let [alice, bob] = [Person::arrive("alice").await?, Person::arrive("bob").await?];
    let [hers, his] = encrypted_room(&alice, &bob, RoomPreset::PrivateChat).await?;
    let said: [Message; 2] = [alice.say(&hers, "remember this").await?, bob.say(&his, "I will").await?];
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
    // The old session sends the new one its private keys.
    eventually("the private keys", async || {
        let status = session.client.encryption().cross_signing_status().await;
        Ok(status.filter(|status| status.is_complete()).map(|_| ()))
    })
    .await
}

/// The symbols of the emoji that a side of a verification shows.
async fn shown(sas: &SasVerification) -> Result<[&'static str; 7]> {
    eventually("the emoji", async || Ok(sas.emoji().map(|emoji| emoji.map(|one| one.symbol)))).await
}
