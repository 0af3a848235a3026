//! Thumbnails that stand still: JPEG where nothing shines through, PNG where something does.

use image::{
    ExtendedColorType, ImageDecoder as _, ImageEncoder as _, RgbaImage,
    codecs::{
        jpeg::JpegEncoder,
        png::{CompressionType, FilterType, PngEncoder},
    },
};

use super::{
    bounds::NoThumbnail,
    resize::{self, Decoded, Plan},
    source::Source,
};

/// Of 100. Above it files grow faster than pictures become better.
const QUALITY: u8 = 82;

/// A thumbnail.
#[derive(Debug)]
pub(crate) struct Picture {
    pub(crate) bytes: Vec<u8>,
    pub(crate) content_type: &'static str,
}

/// Makes one of a picture, or of its first frame.
pub(super) fn make(source: &Source<'_>, plan: &Plan) -> Result<Picture, NoThumbnail> {
    let small = match source.scaled(plan)? {
        Some(scaled) => resize::resize_scaled(&scaled, plan)?,
        None => resize::resize(decode(source)?, plan)?,
    };
    encode(&source.turn_upright(small.image), small.is_opaque)
}

/// All of its pixels.
fn decode(source: &Source<'_>) -> Result<Decoded, NoThumbnail> {
    let decoder = source.decoder()?;
    let ((width, _), color) = (decoder.dimensions(), decoder.color_type());
    let length = usize::try_from(decoder.total_bytes()).ok().ok_or(NoThumbnail::TooLarge)?;
    let mut bytes = vec![0; length];
    decoder.read_image(&mut bytes)?;
    source.deadline.check()?;
    Ok(Decoded { bytes, width, color })
}

fn encode(image: &RgbaImage, is_opaque: bool) -> Result<Picture, NoThumbnail> {
    let (width, height) = image.dimensions();
    let mut bytes = Vec::new();
    let content_type = if is_opaque {
        let (pixels, _) = image.as_raw().as_chunks::<4>();
        let mut rgb = Vec::with_capacity(3 * pixels.len());
        for [r, g, b, _] in pixels {
            rgb.extend_from_slice(&[*r, *g, *b]);
        }
        JpegEncoder::new_with_quality(&mut bytes, QUALITY).encode(&rgb, width, height, ExtendedColorType::Rgb8)?;
        "image/jpeg"
    } else {
        PngEncoder::new_with_quality(&mut bytes, CompressionType::Default, FilterType::Adaptive).write_image(
            image.as_raw(),
            width,
            height,
            ExtendedColorType::Rgba8,
        )?;
        "image/png"
    };
    Ok(Picture { bytes, content_type })
}
