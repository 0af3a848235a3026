//! Files to upload, no two of them equal, and where they are to be had afterwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result};
use aws_lc_rs::rand;
use bytes::Bytes;
use image::ExtendedColorType;
use image::codecs::jpeg::JpegEncoder;

use crate::pieces::Pieces;

/// The length of what is uploaded, as a picture that a phone sends has it.
pub(crate) const FILE_BYTES: u64 = 500_000;
/// Digits of the number with which each file begins.
const HEAD: usize = 16;
const QUALITY: u8 = 85;
/// The marker of a comment in a JPEG.
const COMMENT: [u8; 2] = [0xff, 0xfe];

/// Files of noise, which nobody can compress and no server has had before.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    noise: Bytes,
    next: Arc<AtomicU64>,
}

impl Files {
    pub(crate) fn new() -> Result<Self> {
        let mut noise = vec![0; usize::try_from(FILE_BYTES)? - HEAD];
        rand::fill(&mut noise).context("no random numbers")?;
        Ok(Self { noise: noise.into(), next: Arc::default() })
    }

    /// One that was not there before.
    pub(crate) fn fresh(&self) -> Pieces {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Pieces::new(format!("{number:0HEAD$}").into(), self.noise.clone())
    }
}

/// A picture as cameras take them. Its copies look the same and are different files.
#[derive(Debug)]
pub(crate) struct Photograph {
    /// Up to where a comment may stand, and from there.
    start: Bytes,
    rest: Bytes,
    mark: u64,
}

impl Photograph {
    /// Slopes of colours with grain on them: neither flat, nor noise alone.
    pub(crate) fn take(width: u32, height: u32) -> Result<Self> {
        let mut mark = [0; 8];
        rand::fill(&mut mark).context("no random numbers")?;
        let mark = u64::from_le_bytes(mark);
        let mut grain = mark | 1;
        let mut pixels = Vec::with_capacity(usize::try_from(u64::from(width) * u64::from(height) * 3)?);
        for (x, y) in (0..height).flat_map(|y| (0..width).map(move |x| (x, y))) {
            grain ^= grain << 13;
            grain ^= grain >> 7;
            grain ^= grain << 17;
            pixels.extend([slope(x + y, 1_700), slope(x, 1_100), slope(y, 700)].map(|colour| with(colour, grain)));
        }
        let mut jpeg = Vec::new();
        let mut encoder = JpegEncoder::new_with_quality(&mut jpeg, QUALITY);
        encoder.encode(&pixels, width, height, ExtendedColorType::Rgb8).context("the picture is not to be encoded")?;
        Self::cut(jpeg, mark).context("the encoder made something that is no JPEG")
    }

    /// A comment may follow the first segment.
    fn cut(jpeg: Vec<u8>, mark: u64) -> Option<Self> {
        let length: [u8; 2] = jpeg.get(4..6)?.try_into().ok()?;
        let mut start = Bytes::from(jpeg);
        let at = 4 + usize::from(u16::from_be_bytes(length));
        let rest = (at < start.len()).then(|| start.split_off(at))?;
        Some(Self { start, rest, mark })
    }

    pub(crate) fn copy(&self, number: u64) -> Result<Pieces> {
        let comment = format!("{:016x}{number:016}", self.mark);
        let length = u16::try_from(comment.len() + 2)?.to_be_bytes();
        let head = [&*self.start, &COMMENT, &length, comment.as_bytes()].concat();
        Ok(Pieces::new(head.into(), self.rest.clone()))
    }
}

/// From 0 up to 255 and down again, over so many pixels.
fn slope(at: u32, length: u32) -> u32 {
    let up = at % length * 510 / length;
    up.min(510 - up)
}

fn with(colour: u32, grain: u64) -> u8 {
    u8::try_from(u64::from(colour) * 15 / 16 + (grain >> 32) % 16).unwrap_or(u8::MAX)
}

/// Something that was uploaded, kept as the end of the paths to it.
#[derive(Debug, Clone)]
pub(crate) struct Media(String);

impl Media {
    /// By its `mxc:` URI.
    pub(crate) fn parse(uri: &str) -> Result<Self> {
        let path = uri.strip_prefix("mxc://").with_context(|| format!("{uri:?} is no mxc: URI"))?;
        Ok(Self(path.to_owned()))
    }

    pub(crate) fn download(&self) -> String {
        format!("/_matrix/client/v1/media/download/{}", self.0)
    }

    /// The whole of a picture, scaled so that it fits.
    pub(crate) fn thumbnail(&self, width: u32, height: u32) -> String {
        format!("/_matrix/client/v1/media/thumbnail/{}?width={width}&height={height}&method=scale", self.0)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[test]
    fn no_two_files_are_equal() {
        let files = Files::new().unwrap();
        let [first, second] = [files.fresh(), files.fresh()];
        assert_eq!((first.len(), second.len()), (FILE_BYTES, FILE_BYTES));
        assert_ne!(format!("{first:?}"), format!("{second:?}"));
    }

    #[tokio::test]
    async fn copies_of_a_photograph_are_pictures() {
        let photograph = Photograph::take(320, 240).unwrap();
        let mut copies = Vec::new();
        for number in [0, 1] {
            copies.push(photograph.copy(number).unwrap().collect().await.unwrap().to_bytes());
        }
        assert_ne!(copies[0], copies[1]);
        for copy in copies {
            let picture = image::load_from_memory(&copy).unwrap();
            assert_eq!((picture.width(), picture.height()), (320, 240));
        }
    }

    #[test]
    fn colours_go_up_and_down() {
        assert_eq!([0, 25, 50, 75, 100].map(|at| slope(at, 100)), [0, 127, 255, 128, 0]);
        assert_eq!((with(0, 0), with(255, u64::MAX)), (0, 254));
    }

    #[test]
    fn a_uri_becomes_a_path() {
        let media = Media::parse("mxc://localhost:8448/abc").unwrap();
        assert_eq!(media.download(), "/_matrix/client/v1/media/download/localhost:8448/abc");
        assert!(Media::parse("https://localhost/abc").is_err());
    }
}
