//! Thumbnails that move: GIF of GIF, and of everything else APNG, which knows half transparency and all colours.
//!
//! One frame is in memory at a time, beside what was written of those before it.

use std::{cell::RefCell, io, rc::Rc};

use image::{
    ColorType, Delay, Frame, RgbaImage,
    codecs::gif::{GifEncoder, Repeat},
    metadata::LoopCount,
};

use super::{
    bounds::{Limits, NoThumbnail},
    resize::{self, Decoded, Plan},
    source::Source,
    still::Picture,
};

/// Of 1 to 30: how little of a frame is looked at to find its 256 colours.
const GIF_SPEED: i32 = 10;
/// Of 255. What is less opaque is transparent in a GIF, which knows nothing between.
const GIF_OPACITY: u8 = 128;
/// Where an APNG says how many frames it has, if it says nothing else before: behind its signature and its header.
const ANIMATION_CONTROL: usize = 33;

/// Makes one. None where the picture does not move after all, or for longer than is allowed, or would be too large: then a
/// thumbnail that stands still is all that there is.
pub(super) fn make(source: &Source<'_>, plan: &Plan, limits: &Limits) -> Result<Option<Picture>, NoThumbnail> {
    let Ok((frames, loops)) = source.frames() else { return Ok(None) };
    let (mut count, mut pixels) = (0, 0_u64);
    let mut film: Option<Film> = None;
    for frame in frames {
        source.deadline.check()?;
        // What broke off still shows what came before.
        let Ok(frame) = frame else { break };
        count += 1;
        pixels += u64::from(frame.buffer().width()) * u64::from(frame.buffer().height());
        if count > limits.max_frames || pixels > limits.max_animated_pixels {
            return Ok(None);
        }
        let delay = frame.delay();
        let image = frame.into_buffer();
        let (width, color) = (image.width(), ColorType::Rgba8);
        let small = resize::resize(Decoded { bytes: image.into_raw(), width, color }, plan)?;
        let image = source.turn_upright(small.image);
        if film.is_none() {
            film = Some(Film::begin(source.is_gif(), image.dimensions(), loops, limits.max_frames)?);
        }
        if let Some(film) = &mut film {
            film.add(image, delay)?;
            if film.bytes() > limits.max_film() {
                return Ok(None);
            }
        }
    }
    match film {
        Some(film) if count > 1 => film.end(count).map(Some),
        _ => Ok(None),
    }
}

/// What has been written so far.
struct Film {
    encoder: Encoder,
    written: Written,
}

enum Encoder {
    Gif(Box<GifEncoder<Written>>),
    Png(Box<png::Writer<Written>>),
}

/// Where the encoder writes, who does not give it back.
#[derive(Clone, Default)]
struct Written(Rc<RefCell<Vec<u8>>>);

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Film {
    fn begin(
        is_gif: bool,
        (width, height): (u32, u32),
        loops: LoopCount,
        max_frames: u32,
    ) -> Result<Self, NoThumbnail> {
        let times = match loops {
            LoopCount::Infinite => 0,
            LoopCount::Finite(times) => times.get(),
        };
        let written = Written::default();
        let encoder = if is_gif {
            let mut encoder = GifEncoder::new_with_speed(written.clone(), GIF_SPEED);
            encoder.set_repeat(match u16::try_from(times).unwrap_or(u16::MAX) {
                0 => Repeat::Infinite,
                times => Repeat::Finite(times),
            })?;
            Encoder::Gif(Box::new(encoder))
        } else {
            let mut encoder = png::Encoder::new(written.clone(), width, height);
            encoder.set_color(png::ColorType::Rgba);
            encoder.set_depth(png::BitDepth::Eight);
            // How many there are, the end says.
            encoder.set_animated(max_frames.max(1), times).map_err(NoThumbnail::broken)?;
            Encoder::Png(Box::new(encoder.write_header().map_err(NoThumbnail::broken)?))
        };
        Ok(Self { encoder, written })
    }

    fn add(&mut self, mut image: RgbaImage, delay: Delay) -> Result<(), NoThumbnail> {
        match &mut self.encoder {
            Encoder::Gif(encoder) => {
                for pixel in image.pixels_mut() {
                    let [_, _, _, a] = pixel.0;
                    if a < GIF_OPACITY {
                        pixel.0 = [0; 4];
                    }
                }
                encoder.encode_frame(Frame::from_parts(image, 0, 0, delay))?;
            }
            Encoder::Png(writer) => {
                let (numerator, denominator) = delay.numer_denom_ms();
                let milliseconds = u16::try_from(numerator / denominator.max(1)).unwrap_or(u16::MAX);
                writer.set_frame_delay(milliseconds, 1000).map_err(NoThumbnail::broken)?;
                writer.write_image_data(image.as_raw()).map_err(NoThumbnail::broken)?;
            }
        }
        Ok(())
    }

    /// How many were written so far.
    fn bytes(&self) -> u64 {
        u64::try_from(self.written.0.borrow().len()).unwrap_or(u64::MAX)
    }

    /// Of so many frames.
    fn end(self, count: u32) -> Result<Picture, NoThumbnail> {
        let Self { encoder, written } = self;
        let content_type = match encoder {
            Encoder::Gif(encoder) => {
                // Writes the end.
                drop(encoder);
                "image/gif"
            }
            Encoder::Png(writer) => {
                writer.finish().map_err(NoThumbnail::broken)?;
                set_frames(&mut written.0.borrow_mut(), count)?;
                "image/apng"
            }
        };
        let bytes = written.0.take();
        Ok(Picture { bytes, content_type })
    }
}

/// Writes into an APNG how many frames it has.
fn set_frames(bytes: &mut [u8], count: u32) -> Result<(), NoThumbnail> {
    let lost = || NoThumbnail::broken("it does not begin as an animation");
    let control = bytes.get_mut(ANIMATION_CONTROL..ANIMATION_CONTROL + 20).ok_or_else(lost)?;
    // Length, name, frames, how often they are shown, checksum of all but the length.
    let (summed, sum) = control.split_at_mut(16);
    let summed = summed.get_mut(4..).filter(|summed| summed.starts_with(b"acTL")).ok_or_else(lost)?;
    summed.get_mut(4..8).ok_or_else(lost)?.copy_from_slice(&count.to_be_bytes());
    sum.copy_from_slice(&checksum(summed).to_be_bytes());
    Ok(())
}

/// As PNG has it: CRC-32.
pub(super) fn checksum(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ if sum & 1 == 1 { 0xedb8_8320 } else { 0 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_is_the_known_one() {
        assert_eq!(checksum(b"123456789"), 0xcbf4_3926);
        assert_eq!(checksum(b"IEND"), 0xae42_6082);
    }
}
