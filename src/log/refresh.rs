//! Reading up to the present: whoever asks is sure to find everything that was committed before they asked.
//!
//! Many may ask at once, and one look at the database serves all who asked before it began.

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
    position::Position,
    store,
};

/// How long this node may lag behind the database before whoever waits is told to try later.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) struct Refresher {
    db: Db,
    tail: Arc<Tail>,
    /// Counts those who have asked.
    asked: AtomicU64,
    looked: Mutex<Looked>,
}

/// The last look at the database.
struct Looked {
    /// How many had asked when it began: all of them are served by it.
    serves: u64,
    outcome: Outcome,
}

type Outcome = Result<(), LookError>;

/// Why a look did not bring this node up to the present.
#[derive(Clone, Debug)]
enum LookError {
    Db(Arc<DbError>),
    Silent,
    Lagging,
}

impl Default for Looked {
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

    /// Waits until this node has read whatever had been committed when this was called.
    pub(super) async fn refresh(&self) -> Result<(), Error> {
        let number = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let mut looked = self.looked.lock().await;
        if looked.serves < number {
            let serves = self.asked.load(Ordering::SeqCst);
            *looked = Looked { serves, outcome: self.look().await };
        }
        Ok(looked.outcome.clone()?)
    }

    async fn look(&self) -> Outcome {
        // A database that is cut off may never say no.
        let last = timeout(PATIENCE, self.last_position()).await.map_err(|_elapsed| LookError::Silent)?;
        let last = last.map_err(|error| LookError::Db(Arc::new(error)))?;
        timeout(PATIENCE, self.tail.reach(last)).await.map_err(|_elapsed| LookError::Lagging)
    }

    async fn last_position(&self) -> DbResult<Position> {
        store::log::last_position(&mut self.db.read().await?).await
    }
}
