//! Other homeservers, played by the generator: each with a name, a key and a listener of its own, and as much of a
//! homeserver as a measurement needs (<https://spec.matrix.org/v1.19/server-server-api/>).
//!
//! They are called 127.0.0.1 and their port, so that nobody has to ask a name server. What they ask the server under test
//! goes to its base URL, without TLS, as from a reverse proxy; what it asks them goes over TLS.

pub(crate) mod authority;
pub(crate) mod caller;
pub(crate) mod event;
pub(crate) mod identity;
mod listener;
pub(crate) mod resident_room;

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use tokio::net::TcpListener;

use self::authority::Authority;
use self::identity::Identity;
use self::resident_room::ResidentRoom;
use crate::inbox::Inbox;
use crate::tasks::Tasks;

/// One of them.
#[derive(Debug)]
pub(crate) struct RemoteServer {
    pub(crate) identity: Identity,
    /// What the server under test sends it.
    pub(crate) inbox: Inbox,
    /// The room that it lets others into.
    room: Mutex<Option<Arc<ResidentRoom>>>,
}

impl RemoteServer {
    /// Starts so many of them, with an inbox each. They answer for as long as the tasks run.
    pub(crate) async fn start(
        authority: &Authority,
        count: usize,
        inbox: impl Fn() -> Inbox,
        tasks: &mut Tasks<Infallible>,
    ) -> Result<Vec<Arc<Self>>> {
        let mut servers = Vec::with_capacity(count);
        for _ in 0..count {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("no port to listen on")?;
            let name = listener.local_addr()?.to_string();
            let server = Arc::new(Self { identity: Identity::new(name)?, inbox: inbox(), room: Mutex::default() });
            tasks.add(listener::serve(Arc::clone(&server), listener, authority.acceptor()));
            servers.push(server);
        }
        Ok(servers)
    }

    /// From now on this is the room that it lets others into.
    pub(crate) fn host(&self, room: Arc<ResidentRoom>) {
        *self.room.lock().unwrap_or_else(PoisonError::into_inner) = Some(room);
    }

    fn room(&self) -> Option<Arc<ResidentRoom>> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
