//! Pages that are being looked at: each once, however many wait for it.
//!
//! A look is a future that all who wait for it share, driven by whichever of them is polled. Once nobody waits any more
//! it is dropped, and whoever comes next begins anew: unlike those of [`crate::ground::flights`], which are kept until
//! they end, it holds no place that others wait for.

use std::{collections::HashMap, sync::Arc};

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared, WeakShared},
};
use parking_lot::Mutex;

use super::kept::Kept;
use crate::error::{Error, Result};

/// A page and the languages that it is asked for in.
pub(super) type Wanted = (String, String);
type Look = BoxFuture<'static, Result<Kept, Arc<Error>>>;

#[derive(Clone, Default)]
pub(super) struct Looks(Arc<Mutex<UnderWay>>);

#[derive(Default)]
struct UnderWay {
    /// Weak, so that being listed here keeps none alive.
    looks: HashMap<Wanted, (u64, WeakShared<Look>)>,
    /// Counts them, so that one that has ended takes nothing of a later one away.
    count: u64,
}

/// Takes a look out of those under way, however it ends.
struct Ending {
    flights: Looks,
    wanted: Wanted,
    number: u64,
}

impl Drop for Ending {
    fn drop(&mut self) {
        let mut under_way = self.flights.0.lock();
        if under_way.looks.get(&self.wanted).is_some_and(|(number, _)| *number == self.number) {
            under_way.looks.remove(&self.wanted);
        }
    }
}

impl Looks {
    /// The look that is under way, or this one.
    pub(super) fn join(
        &self,
        wanted: Wanted,
        look: impl Future<Output = Result<Kept>> + Send + 'static,
    ) -> Shared<Look> {
        let mut under_way = self.0.lock();
        if let Some(look) = under_way.looks.get(&wanted).and_then(|(_, look)| look.upgrade()) {
            return look;
        }
        under_way.count += 1;
        let number = under_way.count;
        let ending = Ending { flights: self.clone(), wanted: wanted.clone(), number };
        let look: Shared<Look> = async move {
            let kept = look.await;
            drop(ending);
            kept.map_err(Arc::new)
        }
        .boxed()
        .shared();
        if let Some(weak) = look.downgrade() {
            under_way.looks.insert(wanted, (number, weak));
        }
        look
    }
}
