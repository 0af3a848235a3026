//! What a node does without being asked.
//!
//! Each runs on every node and works only where its duty is. What it does can be done twice without harm, because for a
//! moment two nodes may believe that a duty is theirs.

pub(crate) mod delayed_event;
pub(crate) mod errand;
pub(crate) mod federation_sender;
pub(crate) mod upkeep;

use std::{ops::Deref, sync::Arc};

use futures_util::future::BoxFuture;
use ruma::OwnedUserId;

use self::{
    delayed_event::DelayedEvents,
    errand::{Aftermath, DEPARTURE, Errands},
    federation_sender::FederationSender,
    upkeep::UpkeepTargets,
};
use crate::{error::Result, federation::entrance::Entrance, reader::Readers, room::Rooms};

/// The modules of this layer at work, on those below.
pub struct Workers {
    readers: Readers,
    pub(crate) delayed_events: DelayedEvents,
}

impl Deref for Workers {
    type Target = Readers;

    fn deref(&self) -> &Readers {
        &self.readers
    }
}

impl Workers {
    /// Starts the tasks, each with a duty by a name of its own, so that several nodes may share the work. From here on
    /// they write, so every layer below has to be at work by then.
    pub(crate) async fn start(readers: Readers) -> Result<Self> {
        let (db, rooms, nodes, tasks) = (readers.db.clone(), readers.rooms.clone(), &readers.nodes, &readers.tasks);
        let parts = (db.clone(), rooms.clone(), readers.clock.clone(), readers.random.clone());
        let limits = (&readers.config.delayed_events).into();
        let delayed_events = DelayedEvents::start(parts.clone(), limits, nodes, tasks).await?;
        let (outward, is_federating) =
            ((readers.metrics.clone(), readers.remote.clone()), readers.config.federation.enabled);
        Box::pin(FederationSender::start(parts, outward, is_federating, nodes, tasks)).await?;
        let tidied = UpkeepTargets {
            accounts: readers.accounts.clone(),
            uia: readers.uia.clone(),
            delayed_events: delayed_events.clone(),
            key_backups: readers.key_backups.clone(),
            library: readers.library.clone(),
            media: readers.upkeep.clone(),
            threepids: readers.threepids.clone(),
            to_device: readers.to_device.clone(),
            user_directory: readers.user_directory.clone(),
            rooms: rooms.clone(),
            log: readers.log.clone(),
            prune: readers.sizes.prune,
        };
        tasks.spawn("upkeep", upkeep::run(tidied, nodes.duty("upkeep").await?, tasks.shutdown().clone()));
        let accounts = readers.accounts.clone();
        let senders = (readers.notices.clone(), Some(readers.threepids.clone()));
        let errands =
            Errands::new(db, accounts, aftermath(&rooms, &readers.entrance), senders, nodes.duty("errands").await?);
        tasks.spawn("errands", errands.run(tasks.shutdown().clone()));
        Ok(Self { readers, delayed_events })
    }
}

/// What follows in rooms from changes of accounts.
///
/// As functions, because errands know accounts and nothing of rooms.
fn aftermath(rooms: &Rooms, entrance: &Entrance) -> Aftermath {
    let (left, profiles) = (entrance.clone(), rooms.clone());
    let leave_rooms = move |user_id: OwnedUserId| {
        let entrance = left.clone();
        Box::pin(async move { entrance.leave_all(&user_id, Some(DEPARTURE)).await }) as BoxFuture<'static, _>
    };
    let update_profile = move |user_id: OwnedUserId| {
        let rooms = profiles.clone();
        Box::pin(async move { rooms.update_profile(&user_id).await }) as BoxFuture<'static, _>
    };
    Aftermath { leave_rooms: Arc::new(leave_rooms), update_profile: Arc::new(update_profile) }
}
