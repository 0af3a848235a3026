//! How many requests of one device wait for news at once.
//!
//! Each waiting request keeps a connection, or a stream of one. A client needs one of them; it has another for a moment
//! when it has lost a connection and this server has not noticed. So one too many ends the oldest, which is answered as
//! if its time were up, and never the one that has just come: whoever reconnects is not locked out by what they have
//! lost.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::client::Client;
use crate::edge::metrics::{Metrics, Strike};

/// All that wait on this node.
#[derive(Clone)]
pub(crate) struct Waits(Arc<Inner>);

struct Inner {
    most: usize,
    waiting: Mutex<Waiting>,
    metrics: Metrics,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    /// Oldest first.
    by_device: HashMap<Client, VecDeque<(u64, oneshot::Sender<()>)>>,
}

/// One that waits, until it is dropped.
pub(crate) struct Wait {
    waits: Waits,
    client: Client,
    number: u64,
    ended: oneshot::Receiver<()>,
}

impl Waits {
    /// `most`: of one device.
    pub(crate) fn new(most: u32, metrics: Metrics) -> Self {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        Self(Arc::new(Inner { most, waiting: Mutex::default(), metrics }))
    }

    /// Begins to wait, and ends the oldest of the same device if there are too many.
    pub(crate) fn begin(&self, client: &Client) -> Wait {
        let (end, ended) = oneshot::channel();
        let mut waiting = self.0.waiting.lock();
        let number = waiting.next;
        waiting.next += 1;
        let of_device = waiting.by_device.entry(client.clone()).or_default();
        of_device.push_back((number, end));
        let oldest = if of_device.len() > self.0.most { of_device.pop_front() } else { None };
        drop(waiting);
        if let Some((_, end)) = oldest
            && end.send(()).is_ok()
        {
            self.0.metrics.limit_struck(Strike::SyncsOfDevice, &client.user_id);
        }
        Wait { waits: self.clone(), client: client.clone(), number, ended }
    }
}

impl Wait {
    /// Until it has to end because of others.
    pub(crate) async fn ended(&mut self) {
        // An error would be that the other end is gone, which is there as long as this is waiting.
        drop((&mut self.ended).await);
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let mut waiting = self.waits.0.waiting.lock();
        if let Some(of_device) = waiting.by_device.get_mut(&self.client) {
            of_device.retain(|(number, _)| *number != self.number);
            if of_device.is_empty() {
                waiting.by_device.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use ruma::{owned_device_id, owned_user_id};

    use super::*;

    fn has_ended(wait: &mut Wait) -> bool {
        wait.ended().now_or_never().is_some()
    }

    #[tokio::test]
    async fn the_oldest_gives_way_to_the_newest_of_its_device() {
        let waits = Waits::new(2, Metrics::new());
        let phone = Client { user_id: owned_user_id!("@alice:example.org"), device_id: owned_device_id!("PHONE") };
        let laptop = Client { device_id: owned_device_id!("LAPTOP"), ..phone.clone() };
        let mut first = waits.begin(&phone);
        let mut other = waits.begin(&laptop);
        let mut second = waits.begin(&phone);
        assert!(!has_ended(&mut first));
        let mut third = waits.begin(&phone);
        assert!(has_ended(&mut first) && !has_ended(&mut second) && !has_ended(&mut third) && !has_ended(&mut other));
        // Whoever has been answered makes room by that.
        drop((first, third));
        let mut fourth = waits.begin(&phone);
        assert!(!has_ended(&mut second) && !has_ended(&mut fourth));
        drop((second, fourth, other));
        assert!(waits.0.waiting.lock().by_device.is_empty());
    }
}
