//! The log: one totally ordered, durable list of facts, and everything that writes or follows it.
//!
//! Writers hand a [`crate::fact::Write`] to [`Log::submit`] and know no listeners. Readers are handed each [`crate::fact::Batch`]
//! in order by the [`Tail`], whichever node wrote it.

mod commit;
mod judge;
mod marks;
mod refresh;
mod replay;
mod tail;
mod write;

pub use self::{
    commit::{CommitError, Committed, Log, Submitted},
    marks::Tokens,
    tail::{Reader, Tail},
};
