//! How fast the server takes in what another homeserver sends: transactions of 50 PDUs, each as soon as the last one is
//! acknowledged, until the last event of each room is there for its members.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::client::{Client, Preset, Room};
use crate::inbox::Inbox;
use crate::latency::{millis, number};
use crate::message::{Clock, micros, sent_in, text};
use crate::meter::Meter;
use crate::remote::RemoteServer;
use crate::remote::authority::Authority;
use crate::remote::caller::Caller;
use crate::remote::event::{Event, JoinedRoom};
use crate::report::Outcome;
use crate::stage::Stage;
use crate::tasks::Tasks;

/// As many as a transaction may have.
const PDUS: usize = 50;
/// Transactions that may be acknowledged and not yet in their rooms. A server need not keep more than it can take in.
const AHEAD: usize = 20;
/// Between two looks whether an event is there, and how long to go on.
const LOOK: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_mins(1);
/// Transactions before those that count: keys are fetched, connections opened.
const WARM_UP: usize = 3;

/// The other homeserver and its rooms, and somebody here who is in them, too.
struct Push {
    clock: Clock,
    run: u16,
    server: Arc<RemoteServer>,
    caller: Caller,
    member: Client,
    rooms: Vec<Shared>,
}

/// A room of both.
struct Shared {
    joined: JoinedRoom,
    /// When the last event was made.
    said: u64,
}

pub(super) async fn push(name: &'static str, stage: &mut Stage, rooms: usize) -> Result<Outcome> {
    let authority = Authority::load(stage.options.authority.as_deref())?;
    let users = stage.users(1).await?;
    let user = users.first().context("somebody has to be in the rooms")?;
    let (clock, run) = (stage.clock, stage.next_run());
    let mut listening = Tasks::none();
    let servers = RemoteServer::start(&authority, 1, || Inbox::new(clock, run), &mut listening).await?;
    let server = Arc::clone(servers.first().context("one homeserver was started")?);
    let caller = Caller::new(&stage.target, &server, user.server_name()?);
    let mut push = Push { clock, run, server, caller, member: stage.client(user), rooms: Vec::new() };
    listening
        .during(async {
            push.enter(rooms).await?;
            push.push(WARM_UP, u64::MAX).await?;
            let meter = Meter::start(&stage.options).await?;
            let begun = clock.micros();
            let length = micros(Duration::from_secs(stage.options.seconds));
            let answers = push.push(usize::MAX, begun + length).await?;
            let acknowledged = clock.micros();
            push.wait_for_all().await?;
            let seconds = number(clock.micros() - begun) / 1e6;
            let cost = meter.stop()?;
            let behind = millis(clock.micros() - acknowledged);
            let pdus = answers.len() * PDUS;
            Ok(Outcome::new(name, "PDUs", pdus, answers, cost)
                .within(seconds)
                .with_disk()
                .with("rooms", number(u64::try_from(rooms)?))
                .with("taken_in_after_last_answer_ms", behind))
        })
        .await
}

impl Push {
    /// Joins new rooms of the server under test.
    async fn enter(&mut self, rooms: usize) -> Result<()> {
        eprintln!("  making {rooms} room(s) that both homeservers are in");
        for _ in 0..rooms {
            let room = self.member.create_room(Preset::PublicChat, "Bench").await?;
            let joined = self.caller.join(&mut self.member, &room).await?;
            self.rooms.push(Shared { joined, said: 0 });
        }
        Ok(())
    }

    /// Sends so many transactions, or until then. Returns how long their answers took.
    async fn push(&mut self, transactions: usize, end: u64) -> Result<Vec<u64>> {
        let (mut answers, mut ahead) = (Vec::new(), VecDeque::new());
        while answers.len() < transactions && self.clock.micros() < end {
            let events = self.speak()?;
            let begun = self.clock.micros();
            self.caller.send(&events).await?;
            answers.push(self.clock.micros() - begun);

            let place = answers.len() % self.rooms.len();
            ahead.extend(self.rooms.get(place).map(|room| (room.joined.room.clone(), room.said)));
            if ahead.len() > AHEAD {
                let (room, said) = ahead.pop_front().context("there is an oldest")?;
                self.wait_for(&room, said).await?;
            }
        }
        Ok(answers)
    }

    /// Says something in one room after the other.
    fn speak(&mut self) -> Result<Vec<Event>> {
        let Self { clock, run, server, rooms, .. } = self;
        let mut events = Vec::with_capacity(PDUS);
        while events.len() < PDUS {
            for room in rooms.iter_mut().take(PDUS - events.len()) {
                room.said = clock.micros();
                events.push(room.joined.say(&server.identity, &text(*run, room.said))?);
            }
        }
        Ok(events)
    }

    /// Waits until everything is in its room.
    async fn wait_for_all(&mut self) -> Result<()> {
        let last: Vec<_> = self.rooms.iter().map(|room| (room.joined.room.clone(), room.said)).collect();
        for (room, said) in last {
            self.wait_for(&room, said).await?;
        }
        Ok(())
    }

    /// Waits until the member can see what was said at that time, or something later: it is one after the other.
    async fn wait_for(&mut self, room: &Room, said: u64) -> Result<()> {
        let looking = async {
            while sent_in(&self.member.newest(room).await?, self.run).max() < Some(said) {
                tokio::time::sleep(LOOK).await;
            }
            Ok(())
        };
        let waited = tokio::time::timeout(PATIENCE, looking).await;
        waited.context("what was acknowledged did not come into its room within a minute")?
    }
}
