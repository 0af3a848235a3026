//! Rooms: what is said in them, by whom, and who may read it.
//!
//! [`graph`] holds their events and the state that these make, [`act`] is what users do in them, and [`read`] what is
//! read of them, and by whom.

pub mod act;
mod author;
pub mod graph;
pub mod read;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod world;

pub use self::read::for_server::ServerReading;
pub use self::{
    act::{
        admission::{Handshake, Joined},
        create::{InitialState, NewRoom},
        elsewhere::Introduction,
        notice::NoticeRoom,
        outgoing_invite::OutgoingInvite,
        outside::{Ending, FromOutside},
        preset::Preset,
        send::{Message, NewState, check_transaction_id},
        template::{Asking, Template},
        third_party_invite::{Invitation, Offer, OfferedKey, Redemption},
        upgrade::Upgrade,
    },
    author::Author,
    graph::{
        cache::RoomCache,
        enter::Entry,
        residency::{Held, Resident},
        room::Room,
        rooms::Rooms,
        servers::Servers,
        state::State,
        view::View,
    },
};
pub(crate) use self::{
    graph::{outlier::list_allowed, rooms::OtherAliases, thread::Related},
    read::erasure::EventTrace,
};
