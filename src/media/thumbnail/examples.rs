//! Pictures for tests, good and bad, made here: no file of them has to be kept.

use std::{io::Cursor, num::NonZeroU32};

use image::{
    Delay, DynamicImage, Frame, ImageFormat, Rgba, RgbaImage,
    codecs::gif::{GifEncoder, Repeat},
};

use super::animation::checksum;

/// All that are read.
pub(crate) const FORMATS: [ImageFormat; 6] =
    [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::Gif, ImageFormat::WebP, ImageFormat::Bmp, ImageFormat::Tiff];
pub(crate) const RED: Rgba<u8> = Rgba([250, 0, 0, 255]);
pub(crate) const GREEN: Rgba<u8> = Rgba([0, 250, 0, 255]);
pub(crate) const BLUE: Rgba<u8> = Rgba([0, 0, 250, 255]);
pub(crate) const WHITE: Rgba<u8> = Rgba([250, 250, 250, 255]);
pub(crate) const CLEAR: Rgba<u8> = Rgba([0, 0, 0, 0]);
/// What stands in metadata and must not be anywhere else.
pub(crate) const SECRET: &[u8] = b"48.8584N 2.2945E";

/// Four quarters: at the top red and green, at the bottom blue and white.
pub(crate) fn quarters(width: u32, height: u32) -> RgbaImage {
    RgbaImage::from_fn(width, height, |x, y| match (2 * x < width, 2 * y < height) {
        (true, true) => RED,
        (false, true) => GREEN,
        (true, false) => BLUE,
        (false, false) => WHITE,
    })
}

/// Blue on the left, clear on the right.
pub(crate) fn half_clear(width: u32, height: u32) -> RgbaImage {
    RgbaImage::from_fn(width, height, |x, _| if 2 * x < width { BLUE } else { CLEAR })
}

pub(crate) fn encode(image: &RgbaImage, format: ImageFormat) -> Vec<u8> {
    let image = DynamicImage::ImageRgba8(image.clone());
    let image = if format == ImageFormat::Jpeg { image.to_rgb8().into() } else { image };
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// EXIF of a camera that was held in one of eight ways, with a place in it.
pub(crate) fn exif(orientation: u8) -> Vec<u8> {
    let mut exif = b"II*\0\x08\0\0\0\x02\0".to_vec();
    // Orientation: one number of two bytes.
    exif.extend([0x12, 0x01, 3, 0, 1, 0, 0, 0, orientation, 0, 0, 0]);
    // A description: text behind all entries.
    let length = u8::try_from(SECRET.len()).unwrap();
    exif.extend([0x0e, 0x01, 2, 0, length, 0, 0, 0, 38, 0, 0, 0]);
    exif.extend([0; 4]);
    exif.extend(SECRET);
    exif
}

/// A JPEG with EXIF.
pub(crate) fn jpeg_with_exif(image: &RgbaImage, orientation: u8) -> Vec<u8> {
    let plain = encode(image, ImageFormat::Jpeg);
    let contents = [b"Exif\0\0", &exif(orientation)[..]].concat();
    let length = u16::try_from(contents.len() + 2).unwrap().to_be_bytes();
    [&plain[..2], &[0xff, 0xe1], &length, &contents, &plain[2..]].concat()
}

/// One piece of a PNG.
pub(crate) fn png_chunk(name: [u8; 4], contents: &[u8]) -> Vec<u8> {
    let summed = [&name[..], contents].concat();
    let length = u32::try_from(contents.len()).unwrap();
    [&length.to_be_bytes()[..], &summed, &checksum(&summed).to_be_bytes()].concat()
}

/// A PNG with EXIF and a comment.
pub(crate) fn png_with_exif(image: &RgbaImage, orientation: u8) -> Vec<u8> {
    let plain = encode(image, ImageFormat::Png);
    let comment = [b"Comment\0", SECRET].concat();
    [&plain[..33], &png_chunk(*b"eXIf", &exif(orientation)), &png_chunk(*b"tEXt", &comment), &plain[33..]].concat()
}

/// A PNG that says that it is of another size than its pixels are.
pub(crate) fn png_of_size(width: u32, height: u32) -> Vec<u8> {
    let plain = encode(&quarters(8, 8), ImageFormat::Png);
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &plain[24..29]].concat();
    [&plain[..8], &png_chunk(*b"IHDR", &header), &plain[33..]].concat()
}

/// Likewise.
pub(crate) fn gif_of_size(width: u16, height: u16) -> Vec<u8> {
    let mut gif = encode(&quarters(8, 8), ImageFormat::Gif);
    gif[6..8].copy_from_slice(&width.to_le_bytes());
    gif[8..10].copy_from_slice(&height.to_le_bytes());
    gif
}

/// Likewise.
pub(crate) fn bmp_of_size(width: u32, height: u32) -> Vec<u8> {
    let mut bmp = encode(&quarters(8, 8), ImageFormat::Bmp);
    bmp[18..22].copy_from_slice(&width.to_le_bytes());
    bmp[22..26].copy_from_slice(&height.to_le_bytes());
    bmp
}

/// A TIFF of grey pixels, of which it has a few, whatever it says.
pub(crate) fn tiff_of_size(width: u32, height: u32) -> Vec<u8> {
    let pixels = [0x80; 64];
    let entries: [(u16, u32); 9] = [
        (256, width),
        (257, height),
        (258, 8),
        (259, 1),
        (262, 1),
        (273, 8),
        (277, 1),
        (278, height),
        (279, width.wrapping_mul(height)),
    ];
    let mut tiff = b"II*\0".to_vec();
    tiff.extend(u32::try_from(8 + pixels.len()).unwrap().to_le_bytes());
    tiff.extend(pixels);
    tiff.extend(u16::try_from(entries.len()).unwrap().to_le_bytes());
    for (tag, value) in entries {
        tiff.extend(tag.to_le_bytes());
        // A number, of two bytes or of four: then two of them are zero.
        let kind = if matches!(tag, 258 | 259 | 262 | 277) { 3 } else { 4 };
        tiff.extend([kind, 0, 1, 0, 0, 0]);
        tiff.extend(value.to_le_bytes());
    }
    tiff.extend([0; 4]);
    tiff
}

fn frames(count: u32, width: u32, height: u32) -> impl Iterator<Item = RgbaImage> {
    (0..count).map(move |number| RgbaImage::from_pixel(width, height, if number % 2 == 0 { RED } else { BLUE }))
}

/// Red and blue by turns, for 100 ms each.
pub(crate) fn gif(count: u32, width: u32, height: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = GifEncoder::new_with_speed(&mut bytes, 30);
    encoder.set_repeat(Repeat::Infinite).unwrap();
    for image in frames(count, width, height) {
        let delay = Delay::from_numer_denom_ms(100, 1);
        encoder.encode_frame(Frame::from_parts(image, 0, 0, delay)).unwrap();
    }
    drop(encoder);
    bytes
}

/// Likewise.
pub(crate) fn apng(count: NonZeroU32, width: u32, height: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgba);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_animated(count.get(), 0).unwrap();
    encoder.set_frame_delay(1, 10).unwrap();
    let mut writer = encoder.write_header().unwrap();
    for image in frames(count.get(), width, height) {
        writer.write_image_data(image.as_raw()).unwrap();
    }
    writer.finish().unwrap();
    bytes
}

/// One piece of a WebP.
pub(crate) fn webp_part(name: [u8; 4], contents: &[u8]) -> Vec<u8> {
    let length = u32::try_from(contents.len()).unwrap().to_le_bytes();
    let padding = vec![0; contents.len() % 2];
    [&name[..], &length, contents, &padding].concat()
}

/// A WebP of these pieces.
pub(crate) fn webp_of(parts: &[Vec<u8>]) -> Vec<u8> {
    let contents = [b"WEBP", &parts.concat()[..]].concat();
    webp_part(*b"RIFF", &contents)
}

/// The piece that says how large a WebP is, and what it has: 2 frames, 8 EXIF, 16 transparency.
pub(crate) fn webp_header(flags: u8, width: u32, height: u32) -> Vec<u8> {
    let (width, height) = ((width - 1).to_le_bytes(), (height - 1).to_le_bytes());
    webp_part(*b"VP8X", &[&[flags, 0, 0, 0][..], &width[..3], &height[..3]].concat())
}

/// The piece that has the pixels.
pub(crate) fn webp_pixels(image: &RgbaImage) -> Vec<u8> {
    encode(image, ImageFormat::WebP).split_off(12)
}

/// Red and blue by turns, for 100 ms each.
pub(crate) fn webp(count: u32, width: u32, height: u32) -> Vec<u8> {
    let mut parts = vec![webp_header(2 | 16, width, height), webp_part(*b"ANIM", &[0; 6])];
    for image in frames(count, width, height) {
        let (width, height) = ((width - 1).to_le_bytes(), (height - 1).to_le_bytes());
        let head = [&[0; 6][..], &width[..3], &height[..3], &[100, 0, 0, 0]].concat();
        parts.push(webp_part(*b"ANMF", &[head, webp_pixels(&image)].concat()));
    }
    webp_of(&parts)
}
