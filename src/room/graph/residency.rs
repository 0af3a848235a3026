//! Whether this server takes part in a room.
//!
//! A room is *resident* while a user of this server is in it: other servers send it what happens there. It is *left* once
//! the last of them has gone: its history up to there is ours and stays readable for those who were in it, but what
//! others did since is not known here. Any other room is *outside*: this server holds no history of it, and knows at
//! most that a user is invited to it or knocks on it (`room/act/outside.rs`), or some of its events as outliers.
//!
//! Which of these a room is follows from its members alone, so it needs no record of its own and is the same on every
//! node. It is the answer of one moment, as everything is that is read of a room.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#pdus>

use std::{ops::Deref, sync::Arc};

use ruma::ServerName;

use super::{room::Room, view::View};

/// A room that a user of this server is in. A proof that somebody was in it when it was made, not that they still are.
#[derive(Clone)]
pub struct Resident(Arc<Room>);

/// A room that no user of this server is in any more.
#[derive(Clone)]
pub struct Left(Arc<Room>);

/// A room whose history this server holds: all of it, or up to when the last of its users left.
#[derive(Clone)]
pub enum Held {
    Resident(Resident),
    Left(Left),
}

impl View {
    /// Whether a user of a server is in the room. Joined users alone count: an invitation makes no resident.
    pub fn has_server(&self, server: &ServerName) -> bool {
        self.servers().contains_key(server)
    }
}

impl Held {
    /// A room as it is to the server of this name.
    pub(super) fn by(room: Arc<Room>, here: &ServerName) -> Self {
        if room.view(|view| view.has_server(here)) { Self::Resident(Resident(room)) } else { Self::Left(Left(room)) }
    }

    /// None of one that was left.
    pub fn resident(self) -> Option<Resident> {
        match self {
            Self::Resident(room) => Some(room),
            Self::Left(_) => None,
        }
    }

    /// The room itself, for whom it makes no difference.
    pub fn into_room(self) -> Arc<Room> {
        match self {
            Self::Resident(Resident(room)) | Self::Left(Left(room)) => room,
        }
    }

    /// The room as if somebody of this server were in it, for tests of what other servers send.
    #[cfg(test)]
    pub(in crate::room) fn into_resident(self) -> Resident {
        Resident(self.into_room())
    }
}

impl Resident {
    /// The room itself, of which nothing is known any more about who is in it.
    pub fn into_room(self) -> Arc<Room> {
        self.0
    }
}

impl Left {
    /// Whether everybody has left. What this server holds is the whole room then, and nobody else could let anybody in.
    pub fn is_empty(&self) -> bool {
        self.0.view(View::joined) == 0
    }
}

impl Deref for Resident {
    type Target = Arc<Room>;

    fn deref(&self) -> &Arc<Room> {
        &self.0
    }
}

impl Deref for Held {
    type Target = Arc<Room>;

    fn deref(&self) -> &Arc<Room> {
        match self {
            Self::Resident(Resident(room)) | Self::Left(Left(room)) => room,
        }
    }
}
