//! Pictures and what only looks like some: whatever is made of them is a picture, of the size that was asked for at most
//! and of the specification's types. A decoder that panics is caught, which shows here as a broken picture.

use std::{num::NonZeroU32, path::Path, time::Duration};

use super::{cases, dice::Dice, mutate};
use crate::media::thumbnail::{Limits, Outcome, Variant, choose, examples, make, memory_needed};

/// Small enough for many cases, and larger than some variants.
fn pictures() -> Vec<Vec<u8>> {
    let (opaque, clear) = (examples::quarters(120, 70), examples::half_clear(50, 110));
    let mut pictures: Vec<Vec<u8>> = examples::FORMATS
        .iter()
        .flat_map(|format| [&opaque, &clear].map(|image| examples::encode(image, *format)))
        .collect();
    pictures.extend((1..=8).map(|orientation| examples::jpeg_with_exif(&opaque, orientation)));
    // Decoded at a smaller size.
    pictures.push(examples::jpeg_with_exif(&examples::quarters(300, 200), 1));
    pictures.extend([
        examples::png_with_exif(&clear, 6),
        examples::png_of_size(900, 900),
        examples::gif(3, 110, 60),
        examples::apng(NonZeroU32::MIN.saturating_add(2), 110, 60),
        examples::webp(3, 110, 60),
        examples::gif_of_size(900, 900),
        examples::bmp_of_size(900, 900),
        examples::tiff_of_size(900, 900),
    ]);
    pictures
}

fn variant(dice: &mut Dice) -> Variant {
    let names = ["32x32-crop", "32x32-scale", "96x96-crop", "96x96-scale", "320x240-crop", "320x240-scale"];
    let variant = Variant::parse(dice.pick(&names)).unwrap();
    Variant { animated: dice.one_in(2), ..variant }
}

/// Bytes with something changed. Checksums would hide most of it from PNG's decoder, so they are made right again.
fn changed(dice: &mut Dice, picture: Vec<u8>) -> Vec<u8> {
    let is_png = picture.starts_with(b"\x89PNG\r\n\x1a\n");
    let picture = mutate::bytes(dice, picture);
    if !is_png || dice.one_in(4) {
        return picture;
    }
    let mut mended = picture.get(..8).unwrap_or_default().to_vec();
    let mut rest = picture.get(8..).unwrap_or_default();
    while let Some((head, after)) = rest.split_first_chunk::<8>() {
        let [l0, l1, l2, l3, n0, n1, n2, n3] = *head;
        let length = usize::try_from(u32::from_be_bytes([l0, l1, l2, l3])).unwrap();
        let Some((contents, after)) = after.split_at_checked(length) else { break };
        mended.extend(examples::png_chunk([n0, n1, n2, n3], contents));
        rest = after.get(4..).unwrap_or_default();
    }
    mended.extend(rest);
    mended
}

#[test]
fn a_thumbnail_of_anything_is_a_picture_or_none() {
    let limits = Limits {
        max_pixels: 1_000_000,
        max_frames: 10,
        max_animated_pixels: 2_000_000,
        time: Duration::from_mins(2),
        max_memory: 64 * 1024 * 1024,
    };
    let pictures = pictures();
    let file = tempfile::NamedTempFile::new().unwrap();
    for mut case in cases("pictures", 10) {
        let dice = &mut case.dice;
        let picture = dice.of(&pictures).clone();
        // Each of them is one, to begin with.
        let picture = if dice.one_in(50) { picture } else { changed(dice, picture) };
        std::fs::write(file.path(), &picture).unwrap();
        let variant = variant(dice);
        check(file.path(), &variant, &limits);
    }
}

fn check(file: &Path, variant: &Variant, limits: &Limits) {
    let needed = memory_needed(file, variant, limits);
    match make(file, variant, limits) {
        Ok(Outcome::Made(made)) => {
            assert!(needed.is_ok(), "made without the memory for it: {needed:?}");
            assert!(["image/jpeg", "image/png", "image/gif", "image/apng"].contains(&made.content_type));
            let is_moving = matches!(made.content_type, "image/gif" | "image/apng");
            assert!(variant.animated || !is_moving, "{}", made.content_type);
            let image = image::load_from_memory(&made.bytes).unwrap();
            assert!(image.width() <= variant.width && image.height() <= variant.height, "{made:?}");
            let contains = |secret: &[u8]| made.bytes.windows(secret.len()).any(|window| window == secret);
            assert!(!contains(examples::SECRET));
        }
        Ok(Outcome::AsItIs) | Err(_) => {}
    }
}

/// What is asked for is covered by what is made, or nothing larger is ever made.
#[test]
fn any_size_has_a_variant() {
    for mut case in cases("sizes", 1) {
        let dice = &mut case.dice;
        let side = |dice: &mut Dice| u32::try_from(dice.small(5_000)).unwrap();
        let (width, height) = (side(dice), side(dice));
        let variant = choose(width, height, None, dice.one_in(2));
        assert_eq!(Variant::parse(&variant.name()), Some(variant));
        let is_largest = (variant.width, variant.height) == (1600, 1200);
        assert!(is_largest || (variant.width >= width && variant.height >= height), "{width}x{height}: {variant}");
    }
}
