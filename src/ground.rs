//! What everything stands on and what knows nothing of Matrix rooms: time, chance, places in the log, tasks, words.
//!
//! Nothing here imports anything else of this program, and nothing here waits for another machine.

pub mod cause;
pub mod claim;
pub mod clock;
pub mod data_folder;
pub(crate) mod date;
pub mod digest;
pub(crate) mod flights;
pub(crate) mod glob;
pub mod position;
pub mod random;
pub mod room_version;
pub mod sizes;
pub mod tasks;
pub mod weighed;
pub(crate) mod words;
