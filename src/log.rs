//! The log: one totally ordered, durable list of facts, and everything that writes or follows it.
//!
//! Writers hand a [`Write`](crate::event::fact::Write) to [`Log::submit`] and know no listeners; whoever writes rows of
//! their own that readers have to be notified of ends their transaction with [`Log::commit`]. Readers are handed each
//! [`Batch`](crate::event::fact::Batch) in order by the [`Tail`], whichever node wrote it.
//!
//! What always holds, on every node: positions are dense and counted from 1, a position is visible to readers of the
//! database only once every lower one is, and a node's readers are handed each entry once, in order. A token
//! ([`Tokens`]) and a durable cursor ([`cursor`]) rest on that and on nothing else.
//!
//! Locks, in the order in which they are taken: rows of whoever commits with [`Log::commit`], the rooms' rows in the
//! order of room ids ([`judge`]), the log's own lock (`store::log::lock`), and in memory the tail's ([`tail`]), which
//! is taken after the commit and with no transaction open.

mod commit;
pub(crate) mod cursor;
mod ground;
mod judge;
mod kind;
mod marks;
mod own_rows;
mod prune;
mod quotas;
mod refresh;
mod replay;
mod snapshot;
mod stretch;
mod tail;
mod tokens;
mod writable;
mod write;

pub use self::{
    commit::{CommitError, Committed, Log, Submitted},
    ground::Ground,
    quotas::{Quotas, WhichQuota},
    tail::{Reader, Tail},
    tokens::Tokens,
};
pub(crate) use self::{prune::Pruned, stretch::Stretch};
