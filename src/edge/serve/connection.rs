//! A connection that ends by itself: where nobody reads what is written to it, and where its place is taken away.
//!
//! What is written and not read fills the buffers of both ends, then the connection takes nothing more. If that lasts
//! too long it is cut, with all that waits to be written to it. The system lets bytes through in steps of some ten
//! kilobytes, so a reader who is slow but steady makes progress often enough.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::Router;
use axum_server::accept::Accept;
use futures_util::future::{MapOk, TryFutureExt as _};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

use super::{admission::Place, peer::WithClientAddress};

/// What is served on a connection.
type Service = WithClientAddress<Router>;

/// Accepts what `inner` does, as a [`Guarded`] connection.
#[derive(Clone)]
pub(super) struct Guarding<A> {
    inner: A,
    patience: Duration,
}

impl<A> Guarding<A> {
    /// A connection is cut that takes nothing of what is written for `patience`.
    pub(super) fn new(inner: A, patience: Duration) -> Self {
        Self { inner, patience }
    }
}

impl<I, A> Accept<I, Service> for Guarding<A>
where
    A: Accept<I, Service, Service = Service>,
{
    type Stream = Guarded<A::Stream>;
    type Service = Service;
    type Future = MapOk<A::Future, Guard<A::Stream>>;

    fn accept(&self, stream: I, service: Service) -> Self::Future {
        let patience = self.patience;
        let place = service.place();
        let guard: Guard<A::Stream> =
            Box::new(move |(stream, service)| (Guarded { stream, place, patience, rests: None }, service));
        self.inner.accept(stream, service).map_ok(guard)
    }
}

/// Makes a connection a guarded one.
type Guard<S> = Box<dyn FnOnce((S, Service)) -> (Guarded<S>, Service) + Send>;

/// A connection with the place that it takes.
pub(super) struct Guarded<S> {
    stream: S,
    place: Arc<Place>,
    patience: Duration,
    /// Until when nothing of what is written may be taken. None while something is.
    rests: Option<Pin<Box<Sleep>>>,
}

impl<S> Guarded<S> {
    fn check_place(&self, context: &Context<'_>) -> io::Result<()> {
        if self.place.is_taken_away(context) {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the connection made room for another"));
        }
        Ok(())
    }

    /// Follows what has become of writing: an error where it rests for too long.
    fn watch(&mut self, context: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.rests = None;
            return written;
        }
        let patience = self.patience;
        let rests = self.rests.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + patience)));
        if rests.as_mut().poll(context).is_ready() {
            self.place.struck_slow_reader();
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "nobody reads what is written")));
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_place(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check_place(context)?;
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check_place(context)?;
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.watch(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_place(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
