//! A picture in a file: what its beginning says of it, and the decoders for the rest.
//!
//! Everything that decides what a picture costs is read before anything is decoded.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read as _, Seek},
    path::Path,
};

use image::{
    AnimationDecoder as _, DynamicImage, ExtendedColorType, Frames, ImageDecoder, ImageFormat, ImageReader, RgbaImage,
    codecs::{gif::GifDecoder, png::PngDecoder, webp::WebPDecoder},
    metadata::{LoopCount, Orientation},
};

use super::{
    bounds::{Deadline, Limits, NoThumbnail, Timed},
    jpeg::{self, scaled::Scaled},
    resize::Plan,
    variant::Variant,
    webp,
};

type Reader = BufReader<Timed<File>>;

/// How much of the file is read at once.
const BUFFER: usize = 64 * 1024;
/// What any decoder takes: tables, palettes, rows, colour profiles.
const OVERHEAD: u64 = 4 * 1024 * 1024;
/// For each byte of a list of a TIFF.
const LISTED: u64 = 16;
/// Of a canvas of an animation, for each pixel: what is shown, what was before, the frame as it is stored and as it is
/// laid over.
const ANIMATION: u64 = 24;

/// A picture whose beginning has been read.
pub(super) struct Source<'a> {
    path: &'a Path,
    limits: &'a Limits,
    pub(super) deadline: Deadline,
    format: ImageFormat,
    /// As it is stored.
    width: u32,
    height: u32,
    orientation: Orientation,
    /// How many frames the file says that it has. None if it does not say.
    frames: Option<u32>,
    /// In bytes, for reading its beginning, for decoding it or its first frame, and of what comes out.
    opening: u64,
    decoding: u64,
    decoded: u64,
}

impl<'a> Source<'a> {
    pub(super) fn open(path: &'a Path, limits: &'a Limits, deadline: Deadline) -> Result<Self, NoThumbnail> {
        let mut file = reader(path, deadline)?;
        let file_bytes = file.get_ref().length();
        let format = image::guess_format(file.fill_buf()?).ok().filter(|format| is_read(*format));
        let format = format.ok_or(NoThumbnail::NotAPicture)?;
        // Coefficients of two bytes.
        let mut coefficients = 0;
        // What is read to know what decoding costs.
        let mut head = u64::MAX;
        let mut frames = Some(1);
        match format {
            ImageFormat::Jpeg => {
                let header = jpeg::read(&mut file)?;
                check_pixels((header.width, header.height), limits)?;
                head = header.head;
                if header.comes_in_parts {
                    coefficients = 2 * u64::from(header.components);
                }
                // Its decoder has all of the file in memory.
                if file_bytes > limits.max_memory / 2 {
                    return Err(NoThumbnail::TooLarge);
                }
            }
            ImageFormat::WebP => {
                let header = webp::read(&mut file, file_bytes)?;
                check_pixels((header.width, header.height), limits)?;
                frames = Some(header.frames.max(1));
            }
            ImageFormat::Png | ImageFormat::Gif => frames = None,
            _ => {}
        }
        let mut decoder: Box<dyn ImageDecoder> = match format {
            // Its decoder would have all of the file in memory.
            ImageFormat::Jpeg => {
                Box::new(decoder(reader(path, deadline)?.take(head), format, limits.max_memory, limits)?)
            }
            _ => Box::new(decoder(reader(path, deadline)?, format, limits.max_memory, limits)?),
        };
        let (width, height) = decoder.dimensions();
        let pixels = check_pixels((width, height), limits)?;
        let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
        let total = decoder.total_bytes();
        let decoding = match format {
            // The file grows by doubling.
            ImageFormat::Jpeg => total + 2 * file_bytes + coefficients * pixels,
            // The frame before it is laid over the canvas.
            ImageFormat::Gif => 2 * total,
            ImageFormat::WebP => total + 8 * pixels,
            // As it is stored, which may be more than what comes out, and the largest strip.
            ImageFormat::Tiff => {
                let stored = match decoder.original_color_type() {
                    ExtendedColorType::Cmyk8 => 4 * pixels,
                    ExtendedColorType::Cmyk16 => 8 * pixels,
                    _ => total,
                };
                total + stored + file_bytes
            }
            _ => total,
        };
        let decoding = decoding.saturating_add(OVERHEAD);
        if format == ImageFormat::Png && !png(path, limits, deadline)?.is_apng()? {
            frames = Some(1);
        }
        let opening = if format == ImageFormat::Tiff { lists(file_bytes, limits) } else { 0 };
        let decoded = total;
        Ok(Self { path, limits, deadline, format, width, height, orientation, frames, opening, decoding, decoded })
    }

    /// As it is seen.
    pub(super) fn upright_size(&self) -> (u32, u32) {
        if self.is_turned() { (self.height, self.width) } else { (self.width, self.height) }
    }

    pub(super) fn plan(&self, variant: &Variant) -> Plan {
        Plan::of((self.width, self.height), variant, self.is_turned())
    }

    /// In bytes, for a thumbnail that stands still.
    pub(super) fn memory(&self, plan: &Plan) -> u64 {
        // What the decoder has kept is gone by the time that pixels become fewer.
        self.decoding.max(self.decoded.saturating_add(plan.memory())).max(self.opening)
    }

    /// In bytes, for one that moves. None where there is none: because nothing moves, or too much does.
    pub(super) fn animation_memory(&self, plan: &Plan) -> Option<u64> {
        let pixels = u64::from(self.width) * u64::from(self.height);
        let frames = u64::from(self.frames.unwrap_or(2));
        let made = u64::from(plan.out_width) * u64::from(plan.out_height);
        // What was written grows by doubling.
        let film = 2 * self.limits.max_film();
        let memory = self.decoding + ANIMATION * pixels + 16 * made + plan.memory() + film;
        let is_allowed = frames > 1
            && frames <= u64::from(self.limits.max_frames)
            && pixels.saturating_mul(frames) <= self.limits.max_animated_pixels
            && memory <= self.limits.max_memory;
        is_allowed.then_some(memory)
    }

    /// Whether clients show files like this one as they are.
    pub(super) fn is_servable(&self) -> bool {
        matches!(self.format, ImageFormat::Jpeg | ImageFormat::Png | ImageFormat::Gif | ImageFormat::WebP)
    }

    /// Whether a file that is served as it is says more than what is seen.
    pub(super) fn carries_metadata(&self) -> Result<bool, NoThumbnail> {
        let mut decoder = self.decoder()?;
        // What can't be read may be anything.
        let there = |found: image::ImageResult<Option<Vec<u8>>>| found.map_or(true, |found| found.is_some());
        Ok(there(decoder.exif_metadata()) || there(decoder.xmp_metadata()) || there(decoder.iptc_metadata()))
    }

    /// Whether it moves. Looks at the first two frames where the file does not say.
    pub(super) fn is_animated(&self) -> Result<bool, NoThumbnail> {
        match self.frames {
            Some(frames) => Ok(frames > 1),
            // Also where it says that it is an animation of one frame.
            None if self.format == ImageFormat::Png => Ok(true),
            None => Ok(self.frames()?.0.take(2).take_while(Result::is_ok).count() == 2),
        }
    }

    /// For the picture, or for its first frame.
    pub(super) fn decoder(&self) -> Result<impl ImageDecoder + use<>, NoThumbnail> {
        decoder(reader(self.path, self.deadline)?, self.format, self.decoding, self.limits)
    }

    /// The picture at a smaller size that is enough for a plan. None where there is nothing to do but decode all of it.
    pub(super) fn scaled(&self, plan: &Plan) -> Result<Option<Scaled>, NoThumbnail> {
        let scale = plan.scale();
        if self.format != ImageFormat::Jpeg || scale == 1 {
            return Ok(None);
        }
        let mut file = reader(self.path, self.deadline)?;
        let mut bytes = Vec::with_capacity(usize::try_from(file.get_ref().length()).unwrap_or_default());
        file.read_to_end(&mut bytes)?;
        jpeg::scaled::decode(&bytes, (self.width, self.height), scale, self.deadline)
    }

    /// All frames, each as a whole, and how often they are shown.
    pub(super) fn frames(&self) -> Result<(Frames<'static>, LoopCount), NoThumbnail> {
        let mut limits = image::Limits::no_limits();
        limits.max_alloc = Some(self.decoding + ANIMATION * u64::from(self.width) * u64::from(self.height));
        match self.format {
            ImageFormat::Gif => {
                let mut decoder = GifDecoder::new(reader(self.path, self.deadline)?)?;
                decoder.set_limits(limits)?;
                let loops = decoder.loop_count();
                Ok((decoder.into_frames(), loops))
            }
            ImageFormat::Png => {
                let decoder = PngDecoder::with_limits(reader(self.path, self.deadline)?, limits)?.apng()?;
                let loops = decoder.loop_count();
                Ok((decoder.into_frames(), loops))
            }
            ImageFormat::WebP => {
                let decoder = WebPDecoder::new(reader(self.path, self.deadline)?)?;
                // It has frames, and does not say so: the decoder would panic.
                if !decoder.has_animation() {
                    return Err(NoThumbnail::broken("it is no animation"));
                }
                let loops = decoder.loop_count();
                Ok((decoder.into_frames(), loops))
            }
            _ => Err(NoThumbnail::broken("it has no frames")),
        }
    }

    /// Whether a thumbnail that moves is a GIF, as the picture is.
    pub(super) fn is_gif(&self) -> bool {
        self.format == ImageFormat::Gif
    }

    /// Turns what was made of the picture as it is stored into what is seen.
    pub(super) fn turn_upright(&self, image: RgbaImage) -> RgbaImage {
        let mut image = DynamicImage::ImageRgba8(image);
        image.apply_orientation(self.orientation);
        image.into_rgba8()
    }

    /// Whether the picture lies on its side.
    fn is_turned(&self) -> bool {
        match self.orientation {
            Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH => true,
            Orientation::NoTransforms
            | Orientation::Rotate180
            | Orientation::FlipHorizontal
            | Orientation::FlipVertical => false,
        }
    }
}

/// In bytes, at most, of the lists that the beginning of a TIFF is made of: its decoder has many bytes for each number,
/// and reads as many as the file has.
pub(super) fn lists(file_bytes: u64, limits: &Limits) -> u64 {
    file_bytes.saturating_mul(LISTED).min(limits.max_memory)
}

fn is_read(format: ImageFormat) -> bool {
    matches!(
        format,
        ImageFormat::Jpeg
            | ImageFormat::Png
            | ImageFormat::Gif
            | ImageFormat::WebP
            | ImageFormat::Bmp
            | ImageFormat::Tiff
    )
}

/// How many there are.
fn check_pixels((width, height): (u32, u32), limits: &Limits) -> Result<u64, NoThumbnail> {
    match u64::from(width) * u64::from(height) {
        0 => Err(NoThumbnail::broken("it has no size")),
        pixels if pixels > limits.max_pixels => Err(NoThumbnail::TooLarge),
        pixels => Ok(pixels),
    }
}

fn reader(path: &Path, deadline: Deadline) -> Result<Reader, NoThumbnail> {
    let file = File::open(path).map_err(|error| NoThumbnail::Unread(error.to_string()))?;
    let length = file.metadata().map_err(|error| NoThumbnail::Unread(error.to_string()))?.len();
    Ok(BufReader::with_capacity(BUFFER, Timed::new(file, length, deadline)))
}

fn decoder<R: BufRead + Seek + 'static>(
    file: R,
    format: ImageFormat,
    memory: u64,
    limits: &Limits,
) -> Result<impl ImageDecoder + use<R>, NoThumbnail> {
    let mut reader = ImageReader::with_format(file, format);
    reader.limits(decoder_limits(memory, limits));
    Ok(reader.into_decoder()?)
}

fn png(path: &Path, limits: &Limits, deadline: Deadline) -> Result<PngDecoder<Reader>, NoThumbnail> {
    Ok(PngDecoder::with_limits(reader(path, deadline)?, decoder_limits(limits.max_memory, limits))?)
}

/// A side may be as long as a picture with a width of one could be.
fn decoder_limits(memory: u64, limits: &Limits) -> image::Limits {
    let side = u32::try_from(limits.max_pixels).unwrap_or(u32::MAX);
    let mut limits = image::Limits::no_limits();
    limits.max_image_width = Some(side);
    limits.max_image_height = Some(side);
    limits.max_alloc = Some(memory);
    limits
}
