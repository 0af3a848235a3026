//! Reading up to the present: whoever asks is sure to find everything that was committed before they asked.
//!
//! Many may ask at once, and one look at the database serves all who asked before it began.
//!
//! A look that began after somebody asked sees everything that was committed before they asked; one that was under way
//! already may not. So whoever asks is numbered, and a look notes how many had asked when it began.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::{
    sync::Mutex,
    time::{Duration, timeout},
};

use super::Tail;
use crate::{
    db::{Db, DbError, DbResult},
    error::Error,
    ground::position::Position,
    store,
};

/// How long this node may lag behind the database before whoever waits gets the error that they may try later.
const PATIENCE: Duration = Duration::from_secs(5);

/// Brings this node up to the present for whoever is about to answer. One for each node.
pub(super) struct Refresher {
    db: Db,
    tail: Arc<Tail>,
    /// Counts those who have asked.
    asked: AtomicU64,
    /// Held during a look: those who wait for it are those whom the next one serves. No connection is held by who
    /// waits.
    looked: Mutex<LastLook>,
}

/// The last look at the database.
struct LastLook {
    /// How many had asked when it began: all of them are served by it.
    serves: u64,
    outcome: LookOutcome,
}

type LookOutcome = Result<(), LookError>;

/// Why a look did not bring this node up to the present.
#[derive(Clone, Debug)]
enum LookError {
    Db(Arc<DbError>),
    /// The database did not say within [`PATIENCE`] where the log ends.
    Silent,
    /// The database said so, and this node had not read up to there within [`PATIENCE`] after that.
    Lagging,
}

impl Default for LastLook {
    fn default() -> Self {
        Self { serves: 0, outcome: Ok(()) }
    }
}

impl From<LookError> for Error {
    fn from(error: LookError) -> Self {
        match error {
            LookError::Db(error) if error.is_unavailable() => Self::Unavailable(error.to_string()),
            LookError::Db(error) => Self::broken(error),
            LookError::Silent => Self::Unavailable("the database does not answer".to_owned()),
            LookError::Lagging => Self::Unavailable("this node lags behind the database".to_owned()),
        }
    }
}

impl Refresher {
    pub(super) fn new(db: Db, tail: Arc<Tail>) -> Self {
        Self { db, tail, asked: AtomicU64::new(0), looked: Mutex::default() }
    }

    /// Waits until this node has read whatever had been committed when this was called. If it is dropped during its
    /// look, the next in line finds that nobody has looked for them and does.
    pub(super) async fn refresh(&self) -> Result<(), Error> {
        let number = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let mut looked = self.looked.lock().await;
        if looked.serves < number {
            // Counted before the look begins, which is what makes it serve them. Whoever comes later gets a number
            // above it.
            let serves = self.asked.load(Ordering::SeqCst);
            *looked = LastLook { serves, outcome: self.look().await };
        }
        Ok(looked.outcome.clone()?)
    }

    async fn look(&self) -> LookOutcome {
        // A database that is cut off may never say no.
        let last = timeout(PATIENCE, self.last_position()).await.map_err(|_elapsed| {
            Db::note_silence();
            LookError::Silent
        })?;
        let last = last.map_err(|error| LookError::Db(Arc::new(error)))?;
        timeout(PATIENCE, self.tail.reach(last)).await.map_err(|_elapsed| LookError::Lagging)
    }

    async fn last_position(&self) -> DbResult<Position> {
        store::log::last_position(&mut self.db.read().await?).await
    }
}
