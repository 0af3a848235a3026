//! The keys of other servers: what they sign their events and requests with, and until when each may have signed
//! something.
//!
//! A key that is not known here, or not for long enough, is asked for of its server and then of the notaries whom the
//! operator trusts, for many servers at once where many are asked for. What was found out stays in the database, because
//! events are verified for as long as anybody holds them.
//!
//! The keys of this server are among them: its own events come back from others.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#retrieving-server-keys>

mod asked;
mod document;
mod fetch;
mod known;
mod lookup;
mod needs;
mod notary;
mod request;
mod ring;
mod source;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod verify;

pub(crate) use self::{
    document::{PublishedKeys, read_published},
    notary::{AskedKeys, KeyQuery, LIFETIME},
    ring::ServerKeys,
    source::KeyServers,
    verify::VerifyError,
};
