//! Who may connect: so many of one address, so many in all.
//!
//! Of one address those that come later are refused: who is there already stays. Where there are as many as there may be
//! in all, whoever has few gets in all the same: the address that has most loses its oldest connection. So nobody is
//! shut out by few addresses, however many connections they have and whatever they do or don't do with them.
//!
//! Trusted proxies, unix sockets and this machine itself carry connections of many people, so they are counted in all
//! but not by address, and none of theirs is taken away.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Context,
};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

use super::block::block_of;
use crate::edge::metrics::{GaugeGuard, Metrics, Strike};

/// Everybody who is connected.
pub(super) struct Admission {
    most: usize,
    most_of_address: usize,
    open: Mutex<Open>,
    metrics: Metrics,
}

/// The connections that are open, by what counts as one address.
#[derive(Default)]
struct Open {
    /// Numbers are given out in the order in which connections came.
    next: u64,
    total: usize,
    by_address: HashMap<IpAddr, BTreeMap<u64, Arc<Notice>>>,
}

/// Why somebody may not connect.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("the address has too many connections")]
    TooManyOfAddress,
    #[error("there are too many connections")]
    TooMany,
}

/// Whose connection it is, for the log.
struct Whose(Option<IpAddr>);

impl fmt::Display for Whose {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => write!(formatter, "{address}"),
            None => formatter.write_str("a proxy or this machine"),
        }
    }
}

impl Admission {
    pub(super) fn new(most: usize, most_of_address: usize, metrics: Metrics) -> Arc<Self> {
        Arc::new(Self { most, most_of_address, open: Mutex::default(), metrics })
    }

    /// A place for one more connection. `address`: None where it is not limited by address.
    pub(super) fn admit(self: &Arc<Self>, address: Option<IpAddr>) -> Result<Place, Refused> {
        let address = address.map(block_of);
        let entered = self.open.lock().enter(address, self.most, self.most_of_address);
        match entered {
            Ok(Entered { number, notice, ended }) => {
                if let Some((whose, notice)) = ended {
                    notice.end();
                    self.metrics.limit_struck(Strike::MadeRoom, whose);
                }
                let counted = self.metrics.open_connection();
                Ok(Place { admission: Arc::clone(self), address, number, notice, _counted: counted })
            }
            Err(refused) => {
                let strike = match refused {
                    Refused::TooManyOfAddress => Strike::ConnectionsOfAddress,
                    Refused::TooMany => Strike::Connections,
                };
                self.metrics.limit_struck(strike, Whose(address));
                Err(refused)
            }
        }
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}

/// A connection that has been let in, and the one that made room for it.
struct Entered {
    number: u64,
    notice: Arc<Notice>,
    ended: Option<(IpAddr, Arc<Notice>)>,
}

impl Open {
    fn enter(&mut self, address: Option<IpAddr>, most: usize, most_of_address: usize) -> Result<Entered, Refused> {
        let own = address.and_then(|address| self.by_address.get(&address)).map_or(0, BTreeMap::len);
        if address.is_some() && own >= most_of_address {
            return Err(Refused::TooManyOfAddress);
        }
        let ended = if self.total < most { None } else { Some(self.take_from_largest(own).ok_or(Refused::TooMany)?) };
        let number = self.next;
        self.next += 1;
        self.total += 1;
        let notice = Arc::new(Notice::default());
        if let Some(address) = address {
            self.by_address.entry(address).or_default().insert(number, Arc::clone(&notice));
        }
        Ok(Entered { number, notice, ended })
    }

    /// Takes its oldest connection away from the address that has most. None if that would have no more than `own` and
    /// the newcomer: two that are alike would drive each other out for ever.
    fn take_from_largest(&mut self, own: usize) -> Option<(IpAddr, Arc<Notice>)> {
        let (address, largest) = self.by_address.iter_mut().max_by_key(|(_, connections)| connections.len())?;
        if largest.len() <= own + 1 {
            return None;
        }
        let (address, (_, notice)) = (*address, largest.pop_first()?);
        self.total -= 1;
        Some((address, notice))
    }

    fn leave(&mut self, address: Option<IpAddr>, number: u64) {
        let Some(address) = address else {
            self.total -= 1;
            return;
        };
        let Some(connections) = self.by_address.get_mut(&address) else { return };
        // Not there any more where it was taken away.
        if connections.remove(&number).is_some() {
            self.total -= 1;
        }
        if connections.is_empty() {
            self.by_address.remove(&address);
        }
    }
}

/// The place of one connection, free again when it is dropped.
pub(super) struct Place {
    admission: Arc<Admission>,
    address: Option<IpAddr>,
    number: u64,
    notice: Arc<Notice>,
    _counted: GaugeGuard,
}

impl Place {
    /// Whether the connection has to end. If not, whoever asks is woken when it has to.
    pub(super) fn is_taken_away(&self, context: &Context<'_>) -> bool {
        self.notice.is_given(context)
    }

    /// Counts that nobody reads what is written to this connection.
    pub(super) fn struck_slow_reader(&self) {
        self.admission.metrics().limit_struck(Strike::SlowReader, Whose(self.address));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.admission.open.lock().leave(self.address, self.number);
    }
}

/// Tells a connection that it has to end.
#[derive(Default)]
struct Notice {
    given: AtomicBool,
    connection: AtomicWaker,
}

impl Notice {
    fn end(&self) {
        self.given.store(true, Ordering::Release);
        self.connection.wake();
    }

    fn is_given(&self, context: &Context<'_>) -> bool {
        // First this: else a notice between the two would wake nobody.
        self.connection.register(context.waker());
        self.given.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(most: usize, most_of_address: usize) -> Arc<Admission> {
        Admission::new(most, most_of_address, Metrics::new())
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn is_taken_away(place: &Place) -> bool {
        place.is_taken_away(&Context::from_waker(std::task::Waker::noop()))
    }

    #[test]
    fn one_address_has_so_many_and_others_have_theirs() {
        let admission = admission(100, 2);
        let first = admission.admit(Some(address("192.0.2.1"))).unwrap();
        let _second = admission.admit(Some(address("::ffff:192.0.2.1"))).unwrap();
        assert_eq!(admission.admit(Some(address("192.0.2.1"))).err(), Some(Refused::TooManyOfAddress));
        assert!(admission.admit(Some(address("192.0.2.2"))).is_ok());
        drop(first);
        assert!(admission.admit(Some(address("192.0.2.1"))).is_ok(), "a place that is free again is given again");
    }

    #[test]
    fn a_network_of_one_household_is_one_address() {
        let admission = admission(100, 1);
        let _first = admission.admit(Some(address("2001:db8:1:2::1"))).unwrap();
        assert_eq!(admission.admit(Some(address("2001:db8:1:2:ffff::2"))).err(), Some(Refused::TooManyOfAddress));
        assert!(admission.admit(Some(address("2001:db8:1:3::1"))).is_ok());
    }

    #[test]
    fn those_behind_a_proxy_are_not_one() {
        let admission = admission(100, 1);
        let places: Vec<_> = (0..50).map(|_| admission.admit(None).unwrap()).collect();
        assert!(places.iter().all(|place| !is_taken_away(place)));
    }

    #[test]
    fn whoever_has_few_gets_in_where_others_have_all() {
        let admission = admission(4, 100);
        let mut places: Vec<_> = (0..4).map(|_| admission.admit(Some(address("192.0.2.1"))).unwrap()).collect();
        let other = admission.admit(Some(address("192.0.2.2"))).unwrap();
        assert_eq!(places.iter().map(is_taken_away).collect::<Vec<_>>(), [true, false, false, false], "the oldest");
        let proxy = admission.admit(None).unwrap();
        assert!(is_taken_away(&places[1]) && !is_taken_away(&places[2]));
        // Two each of four, the proxy's apart: nobody drives the other out.
        let second = admission.admit(Some(address("192.0.2.2")));
        assert_eq!(second.err(), Some(Refused::TooMany));
        assert_eq!(admission.admit(Some(address("192.0.2.1"))).err(), Some(Refused::TooMany));
        // What was taken away is not given back a second time.
        places.truncate(2);
        assert_eq!(admission.open.lock().total, 2);
        drop((places, other, proxy));
        let open = admission.open.lock();
        assert_eq!((open.total, open.by_address.len()), (0, 0));
    }
}
