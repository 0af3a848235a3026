//! Search: messages, names and topics by their words.
//!
//! The log is taken into the index a little after it is written, by the node whose duty that is, and at once when
//! somebody searches. History that is fetched later is not in the log: it waits in a table of its own until it is taken,
//! and is found at its place in the room. Everything else knows of the index only what `store::search` offers: to add and
//! remove documents, and to find the newest that match. Another search engine would take its place.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#server-side-search>

mod document;
mod feed;
mod find;
mod place;
mod rank;
mod scope;
mod searches;
mod words;

pub(crate) use self::{
    find::{FoundEvent, SearchPage},
    place::{Group, ResultPlace},
    searches::{Criteria, ResultOrder, Searches},
};
pub(crate) use crate::store::search::Fields;
