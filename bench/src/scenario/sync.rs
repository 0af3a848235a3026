//! A user in many rooms, a hundred unless `--joined-rooms` says otherwise: the first `/sync`, and one that brings nothing.

use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use hyper::Method;

use crate::client::{Client, Preset, User};
use crate::latency::{millis, number};
use crate::message::{micros, text};
use crate::meter::Meter;
use crate::reader::Reader;
use crate::report::Outcome;
use crate::stage::Stage;
use crate::tasks::Tasks;

const MESSAGES: usize = 10;
/// Clients that prepare the rooms at once.
const HANDS: usize = 10;
/// Enough initial syncs for a median.
const INITIAL_LIMIT: usize = 500;
const IDLE_LIMIT: usize = 100_000;

pub(super) async fn initial(name: &'static str, stage: &mut Stage) -> Result<Outcome> {
    let user = roomy_user(stage).await?;
    let clock = stage.clock;
    let mut client = stage.client(&user);
    let begun = clock.micros();
    initial_sync(&mut client, 0).await?;
    let cold = clock.micros() - begun;
    let bytes = initial_sync(&mut client, 1).await?.len();

    let meter = Meter::start(&stage.options).await?;
    let end = clock.micros() + micros(Duration::from_secs(stage.options.seconds));
    let mut latencies = Vec::new();
    while latencies.is_empty() || (clock.micros() < end && latencies.len() < INITIAL_LIMIT) {
        let begun = clock.micros();
        initial_sync(&mut client, 2 + latencies.len()).await?;
        latencies.push(clock.micros() - begun);
    }
    let cost = meter.stop()?;
    Ok(Outcome::new(name, "syncs", latencies.len(), latencies, cost)
        .with("first_ms", millis(cold))
        .with("bytes", number(u64::try_from(bytes)?)))
}

pub(super) async fn idle(name: &'static str, stage: &mut Stage) -> Result<Outcome> {
    let user = roomy_user(stage).await?;
    let clock = stage.clock;
    let mut reader = Reader::new(stage.client(&user), &user).await?;
    let bytes = reader.sync(0).await?.len();

    let meter = Meter::start(&stage.options).await?;
    let end = clock.micros() + micros(Duration::from_secs(stage.options.seconds));
    let mut latencies = Vec::new();
    while clock.micros() < end && latencies.len() < IDLE_LIMIT {
        let begun = clock.micros();
        reader.sync(0).await?;
        latencies.push(clock.micros() - begun);
    }
    let cost = meter.stop()?;
    Ok(Outcome::new(name, "syncs", latencies.len(), latencies, cost).with("bytes", number(u64::try_from(bytes)?)))
}

/// A `/sync` without `since`. Each has another timeout, which means nothing here but keeps a server from repeating
/// an earlier answer: a cached answer is not a sync.
async fn initial_sync(client: &mut Client, nth: usize) -> Result<Bytes> {
    let path = format!("/_matrix/client/v3/sync?set_presence=offline&timeout={}", 30_000 + nth);
    client.call(&Method::GET, &path, Bytes::new()).await
}

/// The member of the rooms, in each of which somebody else has said ten things.
async fn roomy_user(stage: &mut Stage) -> Result<User> {
    if let Some(user) = &stage.roomy {
        return Ok(user.clone());
    }
    let users = stage.new_users(2).await?;
    let [speaks, reads] = users.as_slice() else {
        anyhow::bail!("two users were asked for, {} came", users.len());
    };
    let rooms = usize::try_from(stage.options.joined_rooms)?;
    eprintln!("  making {rooms} rooms with {MESSAGES} messages each");
    let made = Tasks::start((0..HANDS).map(|hand| {
        let share = (hand..rooms).step_by(HANDS).count();
        let (mut speaker, mut reader) = (stage.client(speaks), stage.client(reads));
        let clock = stage.clock;
        async move {
            for _ in 0..share {
                let room = speaker.create_room(Preset::PublicChat, "Bench").await?;
                reader.join(&room).await?;
                for _ in 0..MESSAGES {
                    speaker.send(&room, &text(0, clock.micros())).await?;
                }
            }
            Ok(())
        }
    }));
    made.finish().await?;
    stage.roomy = Some(reads.clone());
    Ok(reads.clone())
}
