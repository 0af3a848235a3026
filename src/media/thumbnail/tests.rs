//! Pictures of each kind, and files that only look like some.

use std::{io::Cursor, num::NonZeroU32, time::Duration};

use image::{
    AnimationDecoder as _, DynamicImage, ImageFormat, Rgb, RgbImage, Rgba, RgbaImage,
    codecs::{gif::GifDecoder, png::PngDecoder},
};

use super::{
    examples::{
        BLUE, CLEAR, FORMATS, GREEN, RED, SECRET, WHITE, apng, bmp_of_size, encode, exif, gif, gif_of_size, half_clear,
        jpeg_with_exif, png_of_size, png_with_exif, quarters, tiff_of_size, webp, webp_header, webp_of, webp_part,
        webp_pixels,
    },
    *,
};

fn limits() -> Limits {
    Limits {
        max_pixels: 50_000_000,
        max_frames: 20,
        max_animated_pixels: 10_000_000,
        time: Duration::from_mins(5),
        max_memory: 512 * 1024 * 1024,
    }
}

fn make_within(bytes: &[u8], name: &str, limits: &Limits) -> Result<Outcome, NoThumbnail> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let variant = Variant::parse(name).unwrap();
    let made = make(file.path(), &variant, limits);
    if let Err(NoThumbnail::Broken(why)) = &made {
        assert!(!why.contains("panicked"), "{why}");
    }
    made
}

fn make_of(bytes: &[u8], name: &str) -> Result<Outcome, NoThumbnail> {
    make_within(bytes, name, &limits())
}

fn picture(bytes: &[u8], name: &str) -> (Picture, RgbaImage) {
    match make_of(bytes, name) {
        Ok(Outcome::Made(picture)) => {
            let image = image::load_from_memory(&picture.bytes).unwrap().into_rgba8();
            (picture, image)
        }
        other => panic!("{other:?}"),
    }
}

fn size_of(picture: &Picture) -> (u32, u32) {
    image::load_from_memory(&picture.bytes).unwrap().into_rgba8().dimensions()
}

fn is_as_it_is(bytes: &[u8], name: &str) -> bool {
    matches!(make_of(bytes, name), Ok(Outcome::AsItIs))
}

fn no_thumbnail(bytes: &[u8], name: &str) -> NoThumbnail {
    make_of(bytes, name).unwrap_err()
}

/// The nearest colour of the examples: JPEG changes them a little.
fn colour(pixel: Rgba<u8>) -> &'static str {
    let distance =
        |other: &Rgba<u8>| -> u32 { pixel.0.iter().zip(other.0).map(|(a, b)| u32::from(a.abs_diff(b))).sum() };
    let known = [("red", RED), ("green", GREEN), ("blue", BLUE), ("white", WHITE), ("clear", CLEAR)];
    known.into_iter().min_by_key(|(_, other)| distance(other)).unwrap().0
}

/// Of the middles of its quarters: at the top left and right, at the bottom left and right.
fn colours(image: &RgbaImage) -> [&'static str; 4] {
    let (width, height) = image.dimensions();
    let at = |x: u32, y: u32| colour(*image.get_pixel(width * x / 4, height * y / 4));
    [at(1, 1), at(3, 1), at(1, 3), at(3, 3)]
}

#[test]
fn each_format_becomes_a_smaller_picture() {
    for format in FORMATS {
        let (picture, image) = picture(&encode(&quarters(400, 300), format), "320x240-scale");
        assert_eq!((picture.content_type, image.dimensions()), ("image/jpeg", (320, 240)), "{format:?}");
        assert_eq!(colours(&image), ["red", "green", "blue", "white"], "{format:?}");
    }
}

#[test]
fn what_is_small_is_served_as_it_is_if_clients_show_it() {
    for format in FORMATS {
        let bytes = encode(&quarters(90, 60), format);
        if matches!(format, ImageFormat::Bmp | ImageFormat::Tiff) {
            let (picture, image) = picture(&bytes, "96x96-crop");
            assert_eq!((picture.content_type, image.dimensions()), ("image/jpeg", (90, 60)), "{format:?}");
        } else {
            assert!(is_as_it_is(&bytes, "96x96-crop"), "{format:?}");
            assert!(is_as_it_is(&bytes, "320x240-scale-animated"), "{format:?}");
        }
    }
}

#[test]
fn what_is_made_anew_is_never_as_it_is() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), encode(&quarters(90, 60), ImageFormat::Png)).unwrap();
    let made = make_anew(file.path(), &choose(96, 96, None, false), &limits()).unwrap();
    assert_eq!((made.content_type, size_of(&made)), ("image/jpeg", (90, 60)));
}

#[test]
fn nothing_becomes_larger() {
    let size = |image: &RgbaImage, name| picture(&encode(image, ImageFormat::Png), name).1.dimensions();
    assert_eq!(size(&quarters(50, 400), "96x96-crop"), (50, 96));
    assert_eq!(size(&quarters(50, 400), "320x240-scale"), (30, 240));
    assert_eq!(size(&quarters(1000, 3), "32x32-crop"), (32, 3));
    assert_eq!(size(&quarters(1000, 3), "320x240-scale"), (320, 1));
}

#[test]
fn what_is_cropped_shows_its_middle() {
    let (_, image) = picture(&encode(&quarters(900, 300), ImageFormat::Png), "96x96-crop");
    assert_eq!(image.dimensions(), (96, 96));
    assert_eq!(colours(&image), ["red", "green", "blue", "white"]);
    let edges = RgbaImage::from_fn(900, 300, |x, _| if (300..600).contains(&x) { BLUE } else { RED });
    let (_, image) = picture(&encode(&edges, ImageFormat::Png), "96x96-crop");
    assert!(image.pixels().all(|pixel| colour(*pixel) == "blue"));
}

/// Nothing moves where a picture is decoded at a smaller size.
#[test]
fn a_jpeg_looks_as_other_formats_do() {
    let wave = |at: u32, length: u32| u8::try_from(20 + (at % (2 * length)).abs_diff(length) * 200 / length).unwrap();
    let soft = RgbImage::from_fn(1003, 751, |x, y| Rgb([wave(x, 400), wave(y, 500), wave(x + y, 700)]));
    let [jpeg, png] = [ImageFormat::Jpeg, ImageFormat::Png].map(|format| {
        let mut bytes = Cursor::new(Vec::new());
        soft.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    });
    for name in ["32x32-crop", "96x96-crop", "320x240-crop", "32x32-scale", "96x96-scale", "320x240-scale"] {
        let [(_, one), (_, other)] = [&jpeg, &png].map(|bytes| picture(bytes, name));
        assert_eq!(one.dimensions(), other.dimensions(), "{name}");
        let pixels = one.pixels().zip(other.pixels());
        let differences = pixels.flat_map(|(one, other)| [0, 1, 2].map(|place| one.0[place].abs_diff(other.0[place])));
        let (sum, most) = differences.fold((0, 0), |(sum, most), one| (sum + u32::from(one), one.max(most)));
        let mean = f64::from(sum) / f64::from(3 * one.width() * one.height());
        assert!(mean < 1.5 && most < 20, "{name}: {mean} and at most {most}");
    }
}

/// By EXIF's own words for what the first row and the first column are.
#[test]
fn a_picture_stands_upright_however_the_camera_was_held() {
    let upright = [
        ["red", "green", "blue", "white"],
        ["green", "red", "white", "blue"],
        ["white", "blue", "green", "red"],
        ["blue", "white", "red", "green"],
        ["red", "blue", "green", "white"],
        ["blue", "red", "white", "green"],
        ["white", "green", "blue", "red"],
        ["green", "white", "red", "blue"],
    ];
    let stored = quarters(640, 480);
    for (orientation, expected) in (1..).zip(upright) {
        let size = if orientation < 5 { (320, 240) } else { (180, 240) };
        for bytes in [jpeg_with_exif(&stored, orientation), png_with_exif(&stored, orientation)] {
            let (_, image) = picture(&bytes, "320x240-scale");
            assert_eq!(image.dimensions(), size, "{orientation}");
            assert_eq!(colours(&image), expected, "{orientation}");
        }
        let (_, image) = picture(&jpeg_with_exif(&stored, orientation), "96x96-crop");
        assert_eq!(image.dimensions(), (96, 96), "{orientation}");
        assert_eq!(colours(&image), expected, "{orientation}");
    }
}

#[test]
fn what_shines_through_goes_on_to() {
    for format in [ImageFormat::Png, ImageFormat::Gif, ImageFormat::WebP, ImageFormat::Tiff] {
        let (picture, image) = picture(&encode(&half_clear(400, 300), format), "320x240-scale");
        assert_eq!(picture.content_type, "image/png", "{format:?}");
        assert_eq!(colours(&image), ["blue", "clear", "blue", "clear"], "{format:?}");
    }
    // No dark edges: what is clear has no colour.
    let (_, image) = picture(&encode(&half_clear(1000, 750), ImageFormat::Png), "320x240-scale");
    assert!(image.pixels().filter(|pixel| pixel.0[3] > 32).all(|pixel| pixel.0[2] > 200 && pixel.0[0] < 20));
}

#[test]
fn nothing_but_what_is_seen_goes_on() {
    let contains = |bytes: &[u8]| bytes.windows(SECRET.len()).any(|window| window == SECRET);
    for (width, height) in [(640, 480), (60, 40)] {
        for bytes in [jpeg_with_exif(&quarters(width, height), 1), png_with_exif(&half_clear(width, height), 1)] {
            assert!(contains(&bytes));
            let (picture, _) = picture(&bytes, "96x96-crop");
            assert!(!contains(&picture.bytes));
            for name in [&b"Exif"[..], b"eXIf", b"tEXt", b"II*\0", b"http://ns.adobe.com"] {
                assert!(!picture.bytes.windows(name.len()).any(|window| window == name), "{name:?}");
            }
        }
    }
}

fn three() -> NonZeroU32 {
    NonZeroU32::new(3).unwrap()
}

/// The size and the colour of each frame, and how long it is shown, in milliseconds.
fn frames_of(picture: &Picture) -> Vec<(u32, u32, &'static str, u32)> {
    let bytes = Cursor::new(picture.bytes.clone());
    let frames = match picture.content_type {
        "image/gif" => GifDecoder::new(bytes).unwrap().into_frames(),
        "image/apng" => PngDecoder::new(bytes).unwrap().apng().unwrap().into_frames(),
        other => panic!("{other}"),
    };
    let frame = |frame: image::ImageResult<image::Frame>| {
        let frame = frame.unwrap();
        let (image, (numerator, denominator)) = (frame.buffer(), frame.delay().numer_denom_ms());
        (image.width(), image.height(), colour(*image.get_pixel(10, 10)), numerator / denominator)
    };
    frames.map(frame).collect()
}

#[test]
fn what_moves_goes_on_to_where_it_is_asked_to() {
    for (bytes, content_type) in
        [(gif(3, 400, 300), "image/gif"), (apng(three(), 400, 300), "image/apng"), (webp(3, 400, 300), "image/apng")]
    {
        let Ok(Outcome::Made(moving)) = make_of(&bytes, "320x240-scale-animated") else { panic!("{content_type}") };
        assert_eq!((moving.content_type, size_of(&moving)), (content_type, (320, 240)));
        assert_eq!(frames_of(&moving), [(320, 240, "red", 100), (320, 240, "blue", 100), (320, 240, "red", 100)]);
        let (still, image) = picture(&bytes, "320x240-scale");
        assert_eq!((still.content_type, colours(&image)), ("image/jpeg", ["red"; 4]));
    }
}

/// A small animation is not served as it is to who does not want one.
#[test]
fn what_moves_stands_still_where_it_is_not_asked_to() {
    for bytes in [gif(3, 40, 30), apng(three(), 40, 30), webp(3, 40, 30)] {
        assert!(is_as_it_is(&bytes, "320x240-scale-animated"));
        let (still, image) = picture(&bytes, "320x240-scale");
        assert_eq!((still.content_type, image.dimensions()), ("image/jpeg", (40, 30)));
    }
    assert!(is_as_it_is(&gif(1, 40, 30), "320x240-scale"));
    assert!(is_as_it_is(&webp(1, 40, 30), "320x240-scale"));
}

#[test]
fn what_does_not_move_is_no_animation() {
    for format in FORMATS {
        let (still, _) = picture(&encode(&quarters(400, 300), format), "320x240-scale-animated");
        assert_eq!(still.content_type, "image/jpeg");
    }
    for bytes in [gif(1, 400, 300), webp(1, 400, 300)] {
        assert_eq!(picture(&bytes, "320x240-scale-animated").0.content_type, "image/jpeg");
    }
}

#[test]
fn what_moves_for_too_long_stands_still() {
    let many = NonZeroU32::new(21).unwrap();
    for bytes in [gif(21, 330, 250), apng(many, 330, 250), webp(21, 330, 250)] {
        assert_eq!(picture(&bytes, "320x240-scale-animated").0.content_type, "image/jpeg");
    }
    let few_pixels = Limits { max_animated_pixels: 2 * 330 * 250, ..limits() };
    for bytes in [gif(3, 330, 250), apng(three(), 330, 250), webp(3, 330, 250)] {
        let made = make_within(&bytes, "320x240-scale-animated", &few_pixels);
        assert!(matches!(made, Ok(Outcome::Made(Picture { content_type: "image/jpeg", .. }))), "{made:?}");
    }
}

/// A picture that moves and can't be compressed.
fn noise(count: u32, width: u32, height: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgba);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_animated(count, 0).unwrap();
    let mut writer = encoder.write_header().unwrap();
    let mut seed = 1_u32;
    for _ in 0..count {
        let sample = |_| {
            seed ^= seed << 13;
            seed ^= seed >> 17;
            seed ^= seed << 5;
            seed.to_be_bytes()[0]
        };
        let image: Vec<u8> = (0..width * height * 4).map(sample).collect();
        writer.write_image_data(&image).unwrap();
    }
    writer.finish().unwrap();
    bytes
}

/// It would be in memory as a whole, however small the original is.
#[test]
fn what_would_be_too_large_as_it_moves_stands_still() {
    let bytes = noise(16, 400, 300);
    assert_eq!(picture(&bytes, "320x240-scale-animated").0.content_type, "image/apng");
    let little = Limits { max_memory: 32 * 1024 * 1024, ..limits() };
    let made = make_within(&bytes, "320x240-scale-animated", &little);
    let Ok(Outcome::Made(Picture { bytes, content_type: "image/png" })) = made else { panic!("it moves") };
    assert!(bytes.len() < 2 * 1024 * 1024);
    // Without noise there is room enough.
    let made = make_within(&apng(three(), 400, 300), "320x240-scale-animated", &little);
    assert!(matches!(made, Ok(Outcome::Made(Picture { content_type: "image/apng", .. }))), "{made:?}");
}

/// What broke off shows what came before.
#[test]
fn an_animation_without_its_end_moves_as_far_as_it_goes() {
    let whole = gif(3, 400, 300);
    let Ok(Outcome::Made(moving)) = make_of(&whole[..whole.len() - 20], "320x240-scale-animated") else { panic!() };
    assert_eq!(frames_of(&moving).len(), 2);
}

#[test]
fn a_picture_may_be_long() {
    for (format, height) in [(ImageFormat::Png, 20), (ImageFormat::Jpeg, 16), (ImageFormat::Bmp, 8)] {
        let (_, image) = picture(&encode(&quarters(50_000, height), format), "320x240-scale");
        assert_eq!(image.dimensions(), (320, 1), "{format:?}");
    }
    let (_, image) = picture(&encode(&quarters(20, 50_000), ImageFormat::Png), "96x96-crop");
    assert_eq!(image.dimensions(), (20, 96));
}

#[test]
fn what_says_that_it_is_too_large_is_not_decoded() {
    for bytes in [
        png_of_size(50_000, 50_000),
        png_of_size(u32::MAX >> 1, 1),
        gif_of_size(u16::MAX, u16::MAX),
        bmp_of_size(50_000, 50_000),
        tiff_of_size(50_000, 50_000),
        tiff_of_size(u32::MAX, u32::MAX),
        webp_of(&[webp_header(0, 1 << 24, 200), webp_pixels(&quarters(8, 8))]),
        webp_of(&[webp_header(2, 1 << 24, 200), webp_part(*b"ANIM", &[0; 6])]),
    ] {
        for name in ["32x32-crop", "800x600-scale", "320x240-scale-animated"] {
            let why = no_thumbnail(&bytes, name);
            // A decoder may refuse the size itself, in its own words.
            assert!(!matches!(why, NoThumbnail::TooSlow | NoThumbnail::Unread(_)), "{why}");
        }
    }
    assert_eq!(no_thumbnail(&png_of_size(50_000, 50_000), "32x32-crop"), NoThumbnail::TooLarge);
    assert_eq!(no_thumbnail(&gif_of_size(u16::MAX, u16::MAX), "32x32-crop"), NoThumbnail::TooLarge);
    assert_eq!(no_thumbnail(&tiff_of_size(50_000, 50_000), "32x32-crop"), NoThumbnail::TooLarge);
}

#[test]
fn what_has_less_than_it_says_is_broken() {
    for bytes in [png_of_size(7000, 7000), bmp_of_size(7000, 7000), tiff_of_size(7000, 7000)] {
        assert!(matches!(no_thumbnail(&bytes, "96x96-crop"), NoThumbnail::Broken(_) | NoThumbnail::TooLarge));
    }
    // The rest of the canvas is clear.
    let (picture, image) = picture(&gif_of_size(5000, 5000), "96x96-crop");
    assert_eq!((picture.content_type, colours(&image)), ("image/png", ["clear"; 4]));
}

/// A decoder would decode all of the part before it looks whether it fits.
#[test]
fn a_part_that_is_larger_than_its_whole_is_not_decoded() {
    // A key frame of 16,383 times 16,383 pixels.
    let mut huge = vec![0x10, 0, 0, 0x9d, 0x01, 0x2a, 0xff, 0x3f, 0xff, 0x3f];
    huge.extend([0; 100]);
    let frame =
        |pixels: Vec<u8>| webp_part(*b"ANMF", &[vec![0; 6], vec![9, 0, 0, 9, 0, 0, 100, 0, 0, 0], pixels].concat());
    for bytes in [
        webp_of(&[webp_header(0, 10, 10), webp_part(*b"VP8 ", &huge)]),
        webp_of(&[webp_header(0, 10, 10), webp_pixels(&quarters(20, 20))]),
        webp_of(&[webp_header(2, 10, 10), webp_part(*b"ANIM", &[0; 6]), frame(webp_part(*b"VP8 ", &huge))]),
        webp_of(&[
            webp_header(2, 10, 10),
            webp_part(*b"ANIM", &[0; 6]),
            frame([webp_part(*b"ALPH", &[0; 4]), webp_part(*b"ABCD", &huge)].concat()),
        ]),
    ] {
        assert!(matches!(no_thumbnail(&bytes, "96x96-crop"), NoThumbnail::Broken(_)));
    }
    // A part that is longer than the file is not made room for.
    let mut cut = webp_of(&[webp_header(8, 10, 10), webp_pixels(&quarters(10, 10)), webp_part(*b"EXIF", &exif(1))]);
    let length = cut.len() - exif(1).len() - 4;
    cut[length..length + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(no_thumbnail(&cut, "96x96-crop"), NoThumbnail::Broken(_)));
}

#[test]
fn what_breaks_off_harms_nobody() {
    let mut whole: Vec<Vec<u8>> = FORMATS.map(|format| encode(&quarters(40, 30), format)).into();
    whole.extend([gif(2, 40, 30), apng(three(), 40, 30), webp(2, 40, 30), jpeg_with_exif(&quarters(40, 30), 6)]);
    for bytes in whole {
        for end in (0..bytes.len()).filter(|end| *end < 150 || end % 97 == 0) {
            for name in ["32x32-crop", "32x32-scale-animated"] {
                match make_of(&bytes[..end], name) {
                    Ok(Outcome::Made(picture)) => {
                        let (width, height) = size_of(&picture);
                        assert!(width <= 32 && height <= 32);
                    }
                    Ok(Outcome::AsItIs) => panic!("a broken picture is as it is"),
                    Err(NoThumbnail::NotAPicture | NoThumbnail::Broken(_) | NoThumbnail::TooLarge) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }
}

#[test]
fn what_is_no_picture_is_none() {
    for bytes in [
        &b""[..],
        b"x",
        b"hello world, this is a text",
        b"<!DOCTYPE html><script>alert(1)</script>",
        b"<svg xmlns=\"http://www.w3.org/2000/svg\" onload=\"alert(1)\"/>",
        b"\0\0\0\x20ftypavif\0\0\0\0avifmif1miaf",
        b"%PDF-1.7",
        b"\0\0\0\x18ftypmp42",
    ] {
        assert_eq!(no_thumbnail(bytes, "96x96-crop"), NoThumbnail::NotAPicture, "{bytes:?}");
    }
    let nowhere = Path::new("/nowhere/at/all");
    let made = make(nowhere, &choose(96, 96, None, false), &limits());
    assert!(matches!(made, Err(NoThumbnail::Unread(_))), "{made:?}");
}

#[test]
fn what_takes_too_long_is_broken_off() {
    for format in FORMATS {
        let no_time = Limits { time: Duration::ZERO, ..limits() };
        let made = make_within(&encode(&quarters(400, 300), format), "96x96-crop", &no_time);
        assert!(matches!(made, Err(NoThumbnail::TooSlow)), "{format:?}: {made:?}");
    }
}

#[test]
fn what_needs_too_much_memory_is_not_decoded() {
    let needed = |bytes: &[u8], name: &str, limits: &Limits| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        memory_needed(file.path(), &Variant::parse(name).unwrap(), limits)
    };
    let little = Limits { max_memory: 4 * 1024 * 1024, ..limits() };
    for format in FORMATS {
        let bytes = encode(&quarters(400, 300), format);
        let memory = needed(&bytes, "96x96-crop", &limits()).unwrap();
        assert!((400 * 300 * 3..32 * 1024 * 1024).contains(&memory), "{format:?}: {memory}");
        assert_eq!(needed(&bytes, "96x96-crop", &little), Err(NoThumbnail::TooLarge), "{format:?}");
        assert!(matches!(make_within(&bytes, "96x96-crop", &little), Err(NoThumbnail::TooLarge)), "{format:?}");
    }
    let moving = webp(2, 400, 300);
    let (still, moves) = (needed(&moving, "96x96-crop", &limits()), needed(&moving, "96x96-crop-animated", &limits()));
    assert!(still.unwrap() < moves.unwrap());
}

#[test]
fn more_than_eight_bits_become_eight() {
    let deep = image::ImageBuffer::from_fn(400, 300, |x, _| {
        Rgba([if x < 200 { u16::MAX } else { 0 }, 0, if x < 200 { 0 } else { u16::MAX }, u16::MAX])
    });
    for format in [ImageFormat::Png, ImageFormat::Tiff] {
        let mut bytes = Cursor::new(Vec::new());
        DynamicImage::ImageRgba16(deep.clone()).write_to(&mut bytes, format).unwrap();
        let (picture, image) = picture(&bytes.into_inner(), "320x240-scale");
        assert_eq!((picture.content_type, colours(&image)), ("image/jpeg", ["red", "blue", "red", "blue"]));
    }
}
