//! What users do in rooms: create and upgrade them, join and leave, send, invite, moderate.
//!
//! Each act is a plan: a function of the room's head that says which events to build, or that nothing is to be done, or
//! why it is refused. It may be called again where another node has changed the room meanwhile, so it looks at nothing
//! but the head and what it was given.
//!
//! A plan is called under the room's lock and does no I/O: what it needs of the database is read before. What was read
//! may be out of date by then; what must not be is compared again by the log when the write is committed
//! ([`crate::log`]).

pub(super) mod admission;
pub(super) mod alias;
pub(super) mod create;
pub(super) mod dry_run;
pub(super) mod elsewhere;
pub(super) mod guest;
pub(super) mod invite_permission;
pub(super) mod join;
pub(crate) mod member_profile;
pub(super) mod membership;
pub(super) mod notice;
pub(super) mod outgoing_invite;
pub(super) mod outside;
pub(super) mod power;
pub(super) mod predecessor;
pub(super) mod preset;
pub(super) mod send;
pub(super) mod successor;
pub(super) mod template;
pub(super) mod third_party_invite;
pub(super) mod upgrade;
