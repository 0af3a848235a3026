//! Idle long polls: how many the server holds, and what memory each of them costs it.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::client::{Client, User};
use crate::inbox::Inbox;
use crate::latency::number;
use crate::meter::{self, Meter};
use crate::procfs;
use crate::reader::{Position, Reader};
use crate::report::Outcome;
use crate::stage::Stage;
use crate::tasks::Tasks;

/// Members of each of the polling users' rooms.
const MEMBERS: usize = 50;
/// The shortest timeout of a poll: it should outlast the measurement, though a server may cut it short.
const TIMEOUT_MS: u64 = 300_000;
/// Connections that are opened at once: fewer than any server queues.
const BURST: usize = 32;
/// Files the generator needs besides its connections.
const OTHER_FILES: u64 = 64;

pub(super) async fn hold(name: &'static str, stage: &mut Stage) -> Result<Outcome> {
    let polls = usize::try_from(stage.options.polls)?;
    let limit = procfs::find_open_files_limit();
    if limit.is_some_and(|limit| limit < u64::from(stage.options.polls) + OTHER_FILES) {
        bail!("{polls} connections need a higher `ulimit -n` (the server needs one, too)");
    }
    let followers = followers(stage, polls).await?;
    meter::quiet(&stage.options.pids).await?;
    let before = meter::server_memory(&stage.options.pids)?;

    let inbox = Arc::new(Inbox::new(stage.clock, stage.next_run()));
    let mut polling = Tasks::none();
    for first in (0..polls).step_by(BURST) {
        let places = first..polls.min(first + BURST);
        let opened = open(stage, &followers, places).await;
        for (place, (client, position)) in
            opened.with_context(|| format!("only {first} connections could be opened"))?
        {
            // A server may answer equal requests of one device as one; each gets a timeout of its own.
            let timeout_ms = TIMEOUT_MS + u64::try_from(place / followers.len())?;
            polling.add(poll(client, position, Arc::clone(&inbox), timeout_ms));
        }
    }
    let (after, waiting, cost) = polling
        .during(async {
            inbox.rest(polls).await?;
            meter::quiet(&stage.options.pids).await?;
            let after = meter::server_memory(&stage.options.pids)?;
            let meter = Meter::start(&stage.options).await?;
            tokio::time::sleep(Duration::from_secs(stage.options.seconds)).await;
            Ok((after, inbox.waiting(), meter.stop()?))
        })
        .await?;

    let mut outcome = Outcome::at_rest(name, "polls", waiting, cost)
        .with("asked_for", f64::from(stage.options.polls))
        .with("users", number(u64::try_from(followers.len())?));
    if let Some((before, after)) = before.zip(after) {
        let each = |before: u64, after: u64| (number(after) - number(before)) / f64::from(stage.options.polls);
        outcome = outcome
            .with("kib_each", each(before.kib(), after.kib()))
            .with("rss_kib_each", each(before.rss_kib, after.rss_kib));
    }
    Ok(outcome)
}

/// Opens connections and has the server answer on each, so that its queue of new ones does not overflow.
async fn open(
    stage: &Stage,
    followers: &[(User, Position)],
    places: Range<usize>,
) -> Result<Vec<(usize, (Client, Position))>> {
    let users = followers.iter().cycle().skip(places.start % followers.len());
    let opening = Tasks::start(places.zip(users).map(|(place, (user, position))| {
        let (mut client, position) = (client(stage, user, place), position.clone());
        async move {
            client.connect().await?;
            Ok((place, (client, position)))
        }
    }));
    opening.finish().await
}

async fn poll(client: Client, position: Position, inbox: Arc<Inbox>, timeout_ms: u64) -> Result<Infallible> {
    Reader::at(client, position).follow_with(&inbox, timeout_ms).await
}

/// Users in rooms of fifty, caught up after all of them have joined.
async fn followers(stage: &mut Stage, polls: usize) -> Result<Vec<(User, Position)>> {
    let users = stage.users(usize::try_from(stage.options.poll_users)?.min(polls)).await?;
    eprintln!("  making rooms for {} users", users.len());
    for members in users.chunks(MEMBERS) {
        stage.room_of(members).await?;
    }
    let mut followers = Vec::with_capacity(users.len());
    for user in users {
        let reader = Reader::new(stage.client(&user), &user).await?;
        followers.push((user, reader.position()));
    }
    Ok(followers)
}

/// Connections to a server on this machine come from eight addresses, so that ports do not run short.
fn client(stage: &Stage, user: &User, place: usize) -> Client {
    let last = u8::try_from(place % 8).unwrap_or(0) + 1;
    if stage.target.is_loopback() {
        Client::with_source(&stage.target, user, Ipv4Addr::new(127, 0, 0, last))
    } else {
        stage.client(user)
    }
}
