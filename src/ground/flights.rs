//! Work that several ask for at once and that is done once: who comes while it is under way waits for its end, too.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use parking_lot::Mutex;

/// Work that is under way, for all who wait for it.
pub(crate) type Flight<T> = Shared<BoxFuture<'static, T>>;

/// What is under way, by what it is for. Clones share it.
pub(crate) struct Flights<K, T>(Arc<Mutex<HashMap<K, Flight<T>>>>);

impl<K, T> Clone for Flights<K, T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K, T> Default for Flights<K, T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

/// Ends a flight when it is dropped: whoever comes from then on begins a new one.
pub(crate) struct Landing<K: Eq + Hash, T> {
    flights: Flights<K, T>,
    key: K,
}

impl<K: Eq + Hash, T> Drop for Landing<K, T> {
    fn drop(&mut self) {
        let landed = self.flights.0.lock().remove(&self.key);
        // It may hold much, and is dropped once nothing is locked.
        drop(landed);
    }
}

impl<K, T> Flights<K, T>
where
    K: Clone + Eq + Hash + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    /// What is under way for this key, or what `begin` returns, which is to drop the landing once the work is done. It is
    /// not polled here, and goes on as long as anybody who waits for it is.
    pub(crate) fn join<F>(&self, key: K, begin: impl FnOnce(Landing<K, T>) -> F) -> Flight<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut under_way = self.0.lock();
        if let Some(flight) = under_way.get(&key) {
            return flight.clone();
        }
        let landing = Landing { flights: self.clone(), key: key.clone() };
        let flight = begin(landing).boxed().shared();
        under_way.insert(key, flight.clone());
        flight
    }
}

#[cfg(test)]
impl<K, T> Flights<K, T> {
    /// Whether nothing is under way.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn who_asks_meanwhile_waits_for_the_same_and_who_asks_later_has_it_done_again() {
        let (flights, done) = (Flights::<&str, usize>::default(), Arc::new(AtomicUsize::new(0)));
        let ask = |gate: Option<oneshot::Receiver<()>>| {
            let done = Arc::clone(&done);
            flights.join("key", move |landing| async move {
                if let Some(gate) = gate {
                    gate.await.unwrap();
                }
                let count = done.fetch_add(1, Ordering::Relaxed);
                drop(landing);
                count
            })
        };
        let (open, gate) = oneshot::channel();
        let first = ask(Some(gate));
        let mut waiting: Vec<_> = (0..10).map(|_| ask(None)).collect();
        waiting.push(first);
        open.send(()).unwrap();
        assert_eq!(join_all(waiting).await, [0; 11]);
        assert_eq!(ask(None).await, 1);
        assert!(flights.is_empty());
    }
}
