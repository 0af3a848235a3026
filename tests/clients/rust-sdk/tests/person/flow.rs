//! Messages that somebody sends one after the other, and whom the sender knew at each of them.

use std::{
    collections::BTreeSet,
    mem,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Result, bail};
use matrix_sdk::{Room, RoomMemberships, ruma::OwnedUserId};
use tokio::task::JoinHandle;

use super::{Message, eventually, say};

/// For whom the messages are meant, as far as the sender knows.
#[derive(Clone)]
pub enum Audience {
    /// The devices of a user.
    Devices(OwnedUserId),
    /// The members of the room.
    Members,
}

impl Audience {
    async fn known_in(&self, room: &Room) -> Result<BTreeSet<String>> {
        Ok(match self {
            Self::Devices(owner) => {
                let devices = room.client().encryption().get_user_devices(owner).await?;
                devices.keys().map(ToString::to_string).collect()
            }
            Self::Members => {
                let members = room.members_no_sync(RoomMemberships::JOIN).await?;
                members.iter().map(|member| member.user_id().to_string()).collect()
            }
        })
    }
}

struct Said {
    message: Arc<Message>,
    known_before: BTreeSet<String>,
    known_after: BTreeSet<String>,
}

#[derive(Default)]
struct Shared {
    said: Mutex<Vec<Said>>,
    enough: AtomicBool,
}

pub struct Flow {
    shared: Arc<Shared>,
    sending: JoinHandle<Result<()>>,
}

impl Flow {
    /// Sends into the room until it is stopped; who speaks is whose room it is.
    pub fn start(room: &Room, audience: Audience) -> Self {
        let shared = Arc::new(Shared::default());
        let sending = tokio::spawn(send(room.clone(), audience, Arc::clone(&shared)));
        Self { shared, sending }
    }

    /// How many were sent so far.
    pub fn count(&self) -> usize {
        self.look(<[_]>::len)
    }

    /// Waits until so many more were sent.
    pub async fn go_on(&mut self, count: usize) -> Result<()> {
        let wanted = self.count() + count;
        eventually(&format!("{wanted} messages"), async || {
            if self.sending.is_finished() {
                (&mut self.sending).await??;
                bail!("no more messages are sent");
            }
            Ok((self.count() >= wanted).then_some(()))
        })
        .await
    }

    /// Lets the last message end.
    pub async fn stop(&mut self) -> Result<()> {
        self.shared.enough.store(true, Ordering::Relaxed);
        (&mut self.sending).await?
    }

    pub fn all(&self) -> Vec<Arc<Message>> {
        self.look(|said| said.iter().map(|one| Arc::clone(&one.message)).collect())
    }

    /// The messages that somebody has to be able to read: the sender knew them at this message and at the one before.
    /// (An SDK that has just heard of somebody does not wait for all that it starts then.)
    pub fn meant_for(&self, who: &str) -> Vec<Arc<Message>> {
        self.look(|said| {
            let mut knew = true;
            let meant = said.iter().filter(|one| {
                let knows = one.known_before.contains(who);
                mem::replace(&mut knew, knows) && knows
            });
            meant.map(|one| Arc::clone(&one.message)).collect()
        })
    }

    /// The messages that somebody must not be able to read, with the place of each among all: the sender knew them
    /// neither before nor after it.
    pub fn not_meant_for(&self, who: &str) -> Vec<(usize, Arc<Message>)> {
        self.look(|said| {
            let all = said.iter().enumerate();
            let others = all.filter(|(_, one)| !one.known_before.contains(who) && !one.known_after.contains(who));
            others.map(|(place, one)| (place, Arc::clone(&one.message))).collect()
        })
    }

    fn look<T>(&self, look: impl FnOnce(&[Said]) -> T) -> T {
        look(&self.shared.said.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.sending.abort();
    }
}

async fn send(room: Room, audience: Audience, shared: Arc<Shared>) -> Result<()> {
    for number in 0.. {
        if shared.enough.load(Ordering::Relaxed) {
            break;
        }
        let known_before = audience.known_in(&room).await?;
        let message = Arc::new(say(&room, &format!("{} says {number}", room.own_user_id())).await?);
        let known_after = audience.known_in(&room).await?;
        let said = Said { message, known_before, known_after };
        shared.said.lock().unwrap_or_else(PoisonError::into_inner).push(said);
    }
    Ok(())
}
