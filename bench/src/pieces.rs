//! The body of a request: a few bytes of its own before what it shares with others.
//!
//! A server that keeps equal files once would have nothing to do with the second of them, so every file that is uploaded
//! begins with something else. The rest, the most of it, lies in memory once, and the kernel copies it from there.

use std::convert::Infallible;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// Two pieces, one after the other. Either may be empty.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pieces {
    head: Bytes,
    rest: Bytes,
}

impl Pieces {
    pub(crate) fn new(head: Bytes, rest: Bytes) -> Self {
        Self { head, rest }
    }

    /// In bytes.
    pub(crate) fn len(&self) -> u64 {
        let len = |piece: &Bytes| u64::try_from(piece.len()).unwrap_or(u64::MAX);
        len(&self.head) + len(&self.rest)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.head.is_empty() && self.rest.is_empty()
    }

    /// Whether these are the same bytes, however they are cut.
    pub(crate) fn are(&self, bytes: &[u8]) -> bool {
        bytes.strip_prefix(&*self.head).is_some_and(|rest| *rest == *self.rest)
    }
}

impl From<Bytes> for Pieces {
    fn from(bytes: Bytes) -> Self {
        Self::new(Bytes::new(), bytes)
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Self { head, rest } = self.get_mut();
        let piece = mem::take(if head.is_empty() { rest } else { head });
        Poll::Ready((!piece.is_empty()).then(|| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.len())
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn pieces_come_one_after_the_other() {
        for (head, rest) in [("ab", "cde"), ("", "abcde"), ("abcde", "")] {
            let pieces = Pieces::new(Bytes::from_static(head.as_bytes()), Bytes::from_static(rest.as_bytes()));
            assert_eq!((pieces.len(), pieces.size_hint().exact()), (5, Some(5)));
            assert!(pieces.are(b"abcde") && !pieces.are(b"abcd") && !pieces.are(b"abcdef"));
            assert_eq!(pieces.collect().await.unwrap().to_bytes(), "abcde");
        }
        assert!(Pieces::default().is_end_stream());
    }
}
