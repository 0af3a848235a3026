//! Events: what a persistent data unit is, how one is made, how it reads to a client. No I/O.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#pdus>

mod client;
mod content;
mod draft;
pub mod fact;
mod key;
mod pdu;
mod received;
mod relation;
mod relation_filter;
mod signing_keys;
mod stored;
mod strict_json;
#[cfg(test)]
mod tests;

pub use self::{
    client::{ClientFormat, client_event, stripped_state},
    content::{Content, ContentError, content, parse_content},
    draft::{Draft, DraftError, GraphPlace},
    key::{SigningKey, SigningKeyError},
    pdu::{Pdu, PduError, Standing},
    received::{ReceivedError, ReceivedPdu},
    relation::Relation,
    relation_filter::{ChildFilter, RelationFilter},
    signing_keys::{DatedKey, PublishedKey, SigningKeys},
    stored::{Logged, NoticeFrom, StateChange, Stored, Transaction, TransactionOrigin},
};
