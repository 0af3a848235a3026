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
    db::{Db, DbResult},
    error::Error,
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
#[derive(Default)]
struct Looked {
    /// How many had asked when it began: all of them are served by it.
    serves: u64,
    /// That it failed.
    failed: Option<String>,
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
            let failed = self.look().await.err().map(|error| error.to_string());
            *looked = Looked { serves, failed };
        }
        looked.failed.clone().map_or(Ok(()), |error| Err(Error::Unavailable(error)))
    }

    async fn look(&self) -> Result<(), Error> {
        let last = self.last_position().await?;
        let reached = timeout(PATIENCE, self.tail.reach(last)).await;
        reached.map_err(|_elapsed| Error::Unavailable("this node lags behind the database".to_owned()))
    }

    async fn last_position(&self) -> DbResult<crate::position::Position> {
        store::log::last_position(&mut self.db.read().await?).await
    }
}
