//! What making a thumbnail may cost, and why there may be none.

use std::{
    io::{self, Read, Seek, SeekFrom},
    time::{Duration, Instant},
};

use image::ImageError;

/// What a picture may cost. Beyond it there is no thumbnail of it, however it came to be so large.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// Of a picture, or of one frame.
    pub(crate) max_pixels: u64,
    /// Of an animation. Of one with more there is a thumbnail that stands still.
    pub(crate) max_frames: u32,
    /// Of all frames of an animation together, likewise.
    pub(crate) max_animated_pixels: u64,
    /// For one thumbnail.
    pub(crate) time: Duration,
    /// In bytes, of decoded pictures and what decoders keep beside them.
    pub(crate) max_memory: u64,
}

impl Limits {
    /// In bytes, of a thumbnail that moves, all of which is in memory until it ends. Noise grows when it is written in a
    /// way that loses nothing.
    pub(super) fn max_film(&self) -> u64 {
        self.max_memory / 16
    }
}

/// Why there is no thumbnail.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoThumbnail {
    /// Something else, or a picture of a kind that is not read here.
    #[error("it is no picture of a kind that is read here")]
    NotAPicture,
    #[error("the picture is too large")]
    TooLarge,
    #[error("the picture is broken: {0}")]
    Broken(String),
    #[error("the picture takes too long to read")]
    TooSlow,
    /// The file, which says nothing of the picture.
    #[error("the file can't be read: {0}")]
    Unread(String),
}

impl NoThumbnail {
    pub(super) fn broken(what: impl std::fmt::Display) -> Self {
        Self::Broken(what.to_string())
    }
}

impl From<io::Error> for NoThumbnail {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut => Self::TooSlow,
            // Decoders say so of what they read.
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::InvalidData
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::Other => Self::Broken(error.to_string()),
            _ => Self::Unread(error.to_string()),
        }
    }
}

impl From<ImageError> for NoThumbnail {
    fn from(error: ImageError) -> Self {
        match error {
            ImageError::Limits(_) => Self::TooLarge,
            ImageError::Unsupported(_) => Self::NotAPicture,
            ImageError::IoError(error) => error.into(),
            error => Self::Broken(error.to_string()),
        }
    }
}

/// When a thumbnail has to be ready.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline(Instant);

impl Deadline {
    pub(super) fn after(time: Duration) -> Self {
        Self(Instant::now() + time)
    }

    pub(super) fn is_over(self) -> bool {
        Instant::now() > self.0
    }

    pub(super) fn check(self) -> Result<(), NoThumbnail> {
        if self.is_over() { Err(NoThumbnail::TooSlow) } else { Ok(()) }
    }
}

/// A file that can't be read any more once the time is over: decoders have no other way to be broken off.
pub(super) struct Timed<R> {
    inner: R,
    /// Of all of it, in bytes.
    length: u64,
    deadline: Deadline,
}

impl<R> Timed<R> {
    pub(super) fn new(inner: R, length: u64, deadline: Deadline) -> Self {
        Self { inner, length, deadline }
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }
}

impl<R: Read> Read for Timed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.deadline.is_over() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.inner.read(buffer)
    }
}

impl<R: Seek> Seek for Timed<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}
