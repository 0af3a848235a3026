//! Which rooms this node takes in hand.
//!
//! A room with events that wait is taken by its preferred node, where what is written in it becomes part of bigger batches,
//! or by whichever node finds that nobody has come for it. It is taken for a time, and until its node is dead: then others
//! take it. That two nodes have one for a moment does no harm.

use std::time::Duration;

use ruma::OwnedRoomId;
use tokio::time::Instant;

use super::Inbox;
use crate::{
    error::Result,
    ground::{clock::millis, tasks::Shutdown},
    store::inbound::{self, WaitingRoom},
};

/// How often a node looks for what others have received, where there are others.
const LOOK: Duration = Duration::from_millis(100);
/// How often it looks for what was put off, where there are none.
const LOOK_ALONE: Duration = Duration::from_secs(1);
/// How long it waits after it could not look.
const PAUSE: Duration = Duration::from_secs(2);
/// For how long a room is left to its preferred node.
const LEFT: Duration = Duration::from_secs(3);
/// For how long a room is taken. It is renewed while it is worked on.
const LEASE: Duration = Duration::from_mins(5);
/// How many rooms a node has in hand at once.
const MOST_ROOMS: usize = 512;
/// How many rooms are looked at.
const MOST_LISTED: i64 = 1_000;
/// How long it is remembered which transactions there were. Servers repeat one for days at most where it was not answered.
const REMEMBERED: Duration = Duration::from_hours(48);
/// How often those from before are forgotten.
const FORGET: Duration = Duration::from_hours(1);

/// A room that this node has in hand, until it is dropped.
pub(super) struct InHand {
    inbox: Inbox,
    pub(super) room_id: OwnedRoomId,
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.inbox.0.at_work.lock().remove(&self.room_id);
        // Something may have come after the last look into the room.
        self.inbox.0.wake.notify_one();
    }
}

impl Inbox {
    /// Takes rooms in hand until the server stops. What is broken off then is begun again by whoever comes next.
    pub(super) async fn look_on(self, shutdown: Shutdown) {
        let mut forgotten: Option<Instant> = None;
        loop {
            if forgotten.is_none_or(|at| at.elapsed() >= FORGET) {
                forgotten = Some(Instant::now());
                if let Err(error) = self.forget_transactions().await {
                    tracing::warn!(%error, "old transactions of other servers could not be forgotten");
                }
            }
            let pause = match self.look().await {
                Ok(rooms) => {
                    for room in rooms {
                        self.begin(room, &shutdown);
                    }
                    if self.0.nodes.is_alone() { LOOK_ALONE } else { LOOK }
                }
                Err(error) => {
                    tracing::warn!(%error, "what other servers have sent can't be read; it is tried again");
                    PAUSE
                }
            };
            tokio::select! {
                biased;
                () = shutdown.started() => return,
                () = self.0.wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Takes a room's turn in a task of its own, which ends where it is when the server stops.
    fn begin(&self, room: InHand, shutdown: &Shutdown) {
        let (inbox, shutdown) = (self.clone(), shutdown.clone());
        self.0.tasks.spawn("inbound room", async move {
            tokio::select! {
                biased;
                () = shutdown.started() => {}
                () = inbox.take_turn(&room) => {}
            }
        });
    }

    /// Takes those rooms in hand in which something waits and which are this node's to take.
    pub(super) async fn look(&self) -> Result<Vec<InHand>> {
        let now = self.now();
        let waiting = inbound::list_rooms(&mut self.0.db.read().await?, now, MOST_LISTED).await?;
        let mut taken = Vec::new();
        for room in waiting {
            if !self.is_free(&room, now) {
                continue;
            }
            let Some(in_hand) = self.take_in_hand(&room.room_id) else { continue };
            if !self.is_shared() || self.claim(&room, now).await? {
                taken.push(in_hand);
            }
        }
        Ok(taken)
    }

    /// Whether it is this node's turn to take a room.
    fn is_free(&self, room: &WaitingRoom, now: i64) -> bool {
        let nodes = &self.0.nodes;
        let is_held = !room.holder.as_str().is_empty() && room.holder != *nodes.id();
        if is_held && room.until > now && nodes.lives(&room.holder) {
            return false;
        }
        nodes.find_preferred(room.room_id.as_str()).is_none() || now.saturating_sub(room.due) >= millis(LEFT)
    }

    /// None where this node has the room already, or as many as it takes.
    fn take_in_hand(&self, room_id: &OwnedRoomId) -> Option<InHand> {
        let mut at_work = self.0.at_work.lock();
        if at_work.len() >= MOST_ROOMS || !at_work.insert(room_id.clone()) {
            return None;
        }
        Some(InHand { inbox: self.clone(), room_id: room_id.clone() })
    }

    async fn claim(&self, room: &WaitingRoom, now: i64) -> Result<bool> {
        let mut tx = self.0.db.begin().await?;
        let claimed = inbound::claim(&mut tx, room, self.0.nodes.id(), now.saturating_add(millis(LEASE))).await?;
        tx.commit().await?;
        Ok(claimed)
    }

    /// Until when a room is taken whose lease is renewed now.
    pub(super) fn lease_end(&self) -> i64 {
        self.now().saturating_add(millis(LEASE))
    }

    async fn forget_transactions(&self) -> Result<()> {
        let before = self.now().saturating_sub(millis(REMEMBERED));
        let mut tx = self.0.db.begin().await?;
        inbound::delete_old_transactions(&mut tx, before).await?;
        Ok(tx.commit().await?)
    }
}
