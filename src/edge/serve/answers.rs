//! Answers that are being read: large ones take their size out of the budget until the last byte has left this process.
//!
//! An answer is handed to the connection whole, and the client decides how fast it is read. On HTTP/1.1 the connection
//! itself is cut when nothing is read any more (`edge/serve/connection.rs`), and its answer goes with it. A connection
//! of HTTP/2 carries many answers, each of which its client may leave unread while it reads the others, and a proxy may
//! carry those of several people there. So of such an answer only a portion is handed over at a time, and where the next
//! one is not asked for in time the rest is forgotten, which resets its stream and no other.
//!
//! What would be too much at once is made while it is read, part by part: a part takes its size out of the budget, and
//! the next is made when it has been handed over.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::{Body, Bytes, HttpBody};
use futures_util::stream::BoxStream;
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
        Ok(self.hand_over(Left::new(Some(PORTION), Some(Part { left: answer, share: Some(share) }), None)))
    }

    /// A body that is made while it is read. It ends with an error where there is no room for a part: what has been sent
    /// by then does not look whole.
    pub(crate) fn admit_parts(
        &self,
        parts: BoxStream<'static, io::Result<Bytes>>,
        version: Version,
        caller: Holder,
    ) -> Body {
        let unmade = Unmade { parts, budget: self.0.budget.clone(), caller };
        let portion = (version == Version::HTTP_2).then_some(PORTION);
        self.hand_over(Left::new(portion, None, Some(unmade)))
    }

    fn hand_over(&self, left: Left) -> Body {
        let unread = Arc::new(Unread(Mutex::new(left)));
        self.0.in_portions.lock().push(Arc::downgrade(&unread));
        Body::new(Portions(unread))
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
    /// How much is handed over at once, in bytes. None for as much as there is.
    portion: Option<usize>,
    part: Option<Part>,
    /// None once all of it has been made.
    unmade: Option<Unmade>,
    /// Whether the client waits for a part, rather than this server for the client.
    awaited: bool,
    /// When the last portion was handed over.
    moved: Instant,
    given_up: bool,
}

/// A piece that is in memory, with its room.
struct Part {
    left: Bytes,
    /// None where it is small.
    share: Option<Share>,
}

/// The parts that have not been made, and what they take room with.
struct Unmade {
    parts: BoxStream<'static, io::Result<Bytes>>,
    budget: Budget,
    caller: Holder,
}

impl Unread {
    /// Forgets what is left if nothing was handed over for so long. Returns whose it was.
    fn give_up(&self, now: Instant, patience: Duration) -> Option<Holder> {
        let mut left = self.0.lock();
        if left.awaited || now.saturating_duration_since(left.moved) < patience {
            return None;
        }
        let of_part = left.part.take().and_then(|part| part.share).map(|share| share.caller().clone());
        let caller = left.unmade.take().map(|unmade| unmade.caller).or(of_part)?;
        left.given_up = true;
        Some(caller)
    }
}

impl Left {
    fn new(portion: Option<usize>, part: Option<Part>, unmade: Option<Unmade>) -> Self {
        Self { portion, part, unmade, awaited: false, moved: Instant::now(), given_up: false }
    }

    /// Waits for the next part. None at the end, and an error where there can't be one.
    fn poll_part(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Part>>> {
        let Some(unmade) = &mut self.unmade else { return Poll::Ready(None) };
        let made = unmade.parts.as_mut().poll_next(context);
        self.awaited = made.is_pending();
        let part = match ready!(made) {
            Some(Ok(left)) if left.len() <= SMALL => Ok(Part { left, share: None }),
            Some(Ok(left)) => match unmade.budget.take(unmade.caller.clone(), left.len()) {
                Ok(share) => Ok(Part { left, share: Some(share) }),
                Err(_exhausted) => Err(io::Error::new(io::ErrorKind::QuotaExceeded, "there is no room for the rest")),
            },
            Some(Err(error)) => Err(error),
            None => {
                self.unmade = None;
                return Poll::Ready(None);
            }
        };
        if part.is_err() {
            // Nothing comes after an error.
            (self.unmade, self.given_up) = (None, true);
        }
        Poll::Ready(Some(part))
    }
}

impl Part {
    /// The next piece of at most so many bytes. Its room is given back with the last.
    fn take(&mut self, portion: Option<usize>) -> Bytes {
        let Some(portion) = portion else {
            let whole = std::mem::take(&mut self.left);
            return match self.share.take() {
                Some(share) => Bytes::from_owner(Held { answer: whole, _share: share }),
                None => whole,
            };
        };
        // A copy, because a part of the answer would keep all of it in memory.
        let size = self.left.len().min(portion);
        Bytes::copy_from_slice(&self.left.split_to(size))
    }
}

/// The body that is made of it.
struct Portions(Arc<Unread>);

impl HttpBody for Portions {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let mut left = self.0.0.lock();
        if left.given_up {
            return Poll::Ready(Some(Err(io::Error::new(io::ErrorKind::TimedOut, "nobody has read on"))));
        }
        // A part without anything in it would look like the end of the answer.
        while left.part.as_ref().is_none_or(|part| part.left.is_empty()) {
            left.part = None;
            match ready!(left.poll_part(context)) {
                Some(Ok(part)) => left.part = Some(part),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        left.moved = Instant::now();
        let portion = left.portion;
        let piece = left.part.as_mut().map(|part| part.take(portion));
        if left.part.as_ref().is_some_and(|part| part.left.is_empty()) {
            left.part = None;
        }
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        let left = self.0.0.lock();
        left.part.is_none() && left.unmade.is_none() && !left.given_up
    }

    fn size_hint(&self) -> SizeHint {
        let left = self.0.0.lock();
        let size = left.part.as_ref().map_or(0, |part| part.left.len() as u64);
        if left.unmade.is_none() {
            return SizeHint::with_exact(size);
        }
        let mut hint = SizeHint::new();
        hint.set_lower(size);
        hint
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, StreamExt as _, stream};
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

    /// Parts that are made as they are asked for.
    fn parts(sizes: &'static [usize]) -> BoxStream<'static, io::Result<Bytes>> {
        stream::iter(sizes).map(|size| Ok(text(*size))).boxed()
    }

    #[tokio::test]
    async fn of_what_is_made_while_it_is_read_one_part_at_a_time_is_held() {
        for version in [Version::HTTP_11, Version::HTTP_2] {
            let (answers, budget) = answers();
            let mut body = answers.admit_parts(parts(&[10_000, 0, 100_000, SMALL]), version, somebody());
            assert_eq!(budget.held(), 0, "nothing is made before it is asked for");
            let (mut read, mut most) = (Vec::new(), 0);
            while let Some(frame) = body.frame().await {
                most = most.max(budget.held());
                read.extend(frame.unwrap().into_data().unwrap());
            }
            assert_eq!(read, [text(10_000), text(100_000), text(SMALL)].concat());
            assert_eq!((most, budget.held()), (100_000, 0), "{version:?}");
            assert!(body.is_end_stream());
        }
    }

    #[tokio::test]
    async fn a_part_that_can_not_be_made_or_held_breaks_the_answer_off() {
        let broken = stream::iter([Ok(text(10_000)), Err(io::Error::other("the database is gone"))]).boxed();
        for (parts, version) in [(broken, Version::HTTP_2), (parts(&[SMALL, 600_000]), Version::HTTP_11)] {
            let (answers, budget) = answers();
            let _held = answers.admit(text(700_000), Version::HTTP_11, somebody()).unwrap();
            let mut body = answers.admit_parts(parts, version, somebody());
            assert!(body.frame().await.unwrap().is_ok());
            assert!(body.frame().await.unwrap().is_err());
            assert_eq!(budget.held(), 700_000);
            assert!(!body.is_end_stream() && body.frame().await.unwrap().is_err(), "it does not look whole");
        }
    }

    #[tokio::test]
    async fn whoever_waits_for_a_part_is_not_given_up() {
        let (answers, _) = answers();
        let never = stream::pending().boxed();
        let mut body =
            answers.admit_parts(stream::iter([Ok(text(10))]).chain(never).boxed(), Version::HTTP_2, somebody());
        body.frame().await.unwrap().unwrap();
        assert!(body.frame().now_or_never().is_none());
        answers.look(Instant::now() + 2 * PATIENCE);
        assert!(body.frame().now_or_never().is_none(), "it still waits");

        let mut unread = answers.admit_parts(parts(&[10, 10]), Version::HTTP_2, somebody());
        unread.frame().await.unwrap().unwrap();
        answers.look(Instant::now() + 2 * PATIENCE);
        assert!(unread.frame().await.unwrap().is_err());
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
