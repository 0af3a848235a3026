//! Answers that are being read: large ones take their size out of the budget until the last byte has left this process.
//!
//! An answer is handed to the connection whole, and the client decides how fast it is read. On HTTP/1.1 the connection
//! itself is cut when nothing is read any more (`edge/serve/connection.rs`), and its answer goes with it. A connection
//! of HTTP/2 carries many answers, each of which its client may leave unread while it reads the others, and a proxy may
//! carry those of several people there. So of such an answer only a portion is handed over at a time, and where the next
//! one is not asked for in time the rest is forgotten, which resets its stream and no other.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
    time::Duration,
};

use axum::body::{Body, Bytes, HttpBody};
use http::Version;
use hyper::body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::budget::{Budget, Exhausted, Holder, SMALL, Share};
use crate::{
    edge::metrics::{Metrics, Strike},
    ground::tasks::Shutdown,
};

/// How much of an answer is handed to a connection of HTTP/2 at once, in bytes: a frame.
const PORTION: usize = 16 * 1024;

/// Answers that are being read. Clones share them.
#[derive(Clone)]
pub(crate) struct Answers(Arc<Inner>);

struct Inner {
    budget: Budget,
    patience: Duration,
    /// Those that are handed over in portions. Some are read by now.
    in_portions: Mutex<Vec<Weak<Unread>>>,
    metrics: Metrics,
}

impl Answers {
    /// An answer is given up where nothing of it is read for `patience`.
    pub(crate) fn new(budget: Budget, patience: Duration, metrics: Metrics) -> Self {
        Self(Arc::new(Inner { budget, patience, in_portions: Mutex::default(), metrics }))
    }

    /// A body that holds room for itself until it is read. Fails where there is none; nothing of it has been sent then.
    pub(crate) fn admit(&self, answer: Bytes, version: Version, caller: Holder) -> Result<Body, Exhausted> {
        if answer.len() <= SMALL {
            return Ok(answer.into());
        }
        let share = self.0.budget.take(caller, answer.len())?;
        if version != Version::HTTP_2 {
            return Ok(Bytes::from_owner(Held { answer, _share: share }).into());
        }
        let left = Left { answer, share: Some(share), moved: Instant::now(), given_up: false };
        let unread = Arc::new(Unread(Mutex::new(left)));
        self.0.in_portions.lock().push(Arc::downgrade(&unread));
        Ok(Body::new(Portions(unread)))
    }

    /// Gives up what nobody reads on, until shutdown has done the last request.
    pub(crate) async fn give_up_unread(self, shutdown: Shutdown) {
        let mut looks = interval((self.0.patience / 4).min(Duration::from_secs(1)));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = looks.tick() => self.look(Instant::now()),
                () = shutdown.requests_done() => return,
            }
        }
    }

    fn look(&self, now: Instant) {
        let unread: Vec<Arc<Unread>> = {
            let mut in_portions = self.0.in_portions.lock();
            in_portions.retain(|unread| unread.strong_count() > 0);
            in_portions.iter().filter_map(Weak::upgrade).collect()
        };
        for unread in unread {
            if let Some(caller) = unread.give_up(now, self.0.patience) {
                self.0.metrics.limit_struck(Strike::SlowReader, caller);
            }
        }
    }
}

/// An answer with its room.
struct Held {
    answer: Bytes,
    _share: Share,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.answer
    }
}

/// What has not been handed over yet of an answer.
struct Unread(Mutex<Left>);

struct Left {
    answer: Bytes,
    /// None at the end.
    share: Option<Share>,
    /// When the last portion was handed over.
    moved: Instant,
    given_up: bool,
}

impl Unread {
    /// Forgets what is left if nothing was handed over for so long. Returns whose it was.
    fn give_up(&self, now: Instant, patience: Duration) -> Option<Holder> {
        let mut left = self.0.lock();
        if now.saturating_duration_since(left.moved) < patience {
            return None;
        }
        let share = left.share.take()?;
        left.answer = Bytes::new();
        left.given_up = true;
        Some(share.caller().clone())
    }
}

/// The body that is made of it.
struct Portions(Arc<Unread>);

impl HttpBody for Portions {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let mut left = self.0.0.lock();
        if left.given_up {
            return Poll::Ready(Some(Err(io::Error::new(io::ErrorKind::TimedOut, "nobody has read on"))));
        }
        if left.answer.is_empty() {
            return Poll::Ready(None);
        }
        let size = left.answer.len().min(PORTION);
        // A copy, because a part of the answer would keep all of it in memory.
        let portion = Bytes::copy_from_slice(&left.answer.split_to(size));
        left.moved = Instant::now();
        if left.answer.is_empty() {
            left.answer = Bytes::new();
            left.share = None;
        }
        Poll::Ready(Some(Ok(Frame::data(portion))))
    }

    fn is_end_stream(&self) -> bool {
        let left = self.0.0.lock();
        left.answer.is_empty() && !left.given_up
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.0.lock().answer.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn answers() -> (Answers, Budget) {
        let budget = Budget::new(1, 1, Metrics::new());
        (Answers::new(budget.clone(), PATIENCE, Metrics::new()), budget)
    }

    fn somebody() -> Holder {
        Holder::at("192.0.2.1".parse().unwrap())
    }

    fn text(size: usize) -> Bytes {
        (0..size).map(|place| u8::try_from(place % 251).unwrap()).collect()
    }

    #[tokio::test]
    async fn an_answer_is_the_same_in_one_piece_and_in_portions() {
        for (version, size) in [
            (Version::HTTP_11, SMALL),
            (Version::HTTP_11, 100_000),
            (Version::HTTP_2, SMALL),
            (Version::HTTP_2, 100_000),
            (Version::HTTP_2, 2 * PORTION),
        ] {
            let (answers, budget) = answers();
            let body = answers.admit(text(size), version, somebody()).unwrap();
            assert_eq!(budget.held(), if size > SMALL { size } else { 0 }, "{version:?}, {size} bytes");
            assert_eq!(body.size_hint().exact(), Some(size as u64));
            assert_eq!(body.collect().await.unwrap().to_bytes(), text(size));
            assert_eq!(budget.held(), 0, "{version:?}, {size} bytes");
        }
    }

    #[tokio::test]
    async fn an_answer_that_is_dropped_is_not_held() {
        for version in [Version::HTTP_11, Version::HTTP_2] {
            let (answers, budget) = answers();
            let mut body = answers.admit(text(100_000), version, somebody()).unwrap();
            let first = body.frame().await.unwrap().unwrap();
            drop((body, first));
            assert_eq!(budget.held(), 0);
        }
    }

    #[tokio::test]
    async fn what_finds_no_room_is_refused() {
        let (answers, _) = answers();
        let held = answers.admit(text(1024 * 1024), Version::HTTP_2, somebody()).unwrap();
        assert_eq!(answers.admit(text(SMALL + 1), Version::HTTP_2, somebody()).err(), Some(Exhausted::ByCaller));
        assert!(answers.admit(text(SMALL), Version::HTTP_2, somebody()).is_ok(), "small answers are not counted");
        drop(held);
        assert!(answers.admit(text(SMALL + 1), Version::HTTP_2, somebody()).is_ok());
    }

    #[tokio::test]
    async fn what_nobody_reads_on_is_forgotten() {
        let (answers, budget) = answers();
        let mut body = answers.admit(text(100_000), Version::HTTP_2, somebody()).unwrap();
        let begun = Instant::now();
        answers.look(begun + PATIENCE / 2);
        body.frame().await.unwrap().unwrap();
        assert_eq!(budget.held(), 100_000);
        answers.look(Instant::now() + PATIENCE);
        assert_eq!(budget.held(), 0);
        assert!(body.frame().await.unwrap().is_err(), "an answer that is cut short does not look whole");
    }
}
