//! Frequencies become pixels: of the 8 × 8 of a block only the lowest, which are the block at a smaller size.
//!
//! <https://www.w3.org/Graphics/JPEG/itu-t81.pdf>, A.3.3 and A.3.6

/// Where the coefficients of a block go, in the order of the file, and what they are multiplied with.
pub(super) type Places = [(u8, f32); 64];
/// Four rows of four coefficients. What a smaller size has no use for goes to one place behind them.
pub(super) type Block = [f32; 17];

pub(super) const EMPTY: Block = [0.0; 17];
const UNUSED: u8 = 16;
/// `√2 · cos(π/8)` and `√2 · sin(π/8)`.
const ODD: (f32, f32) = (1.306_563, 0.541_196_1);
/// Grey, in the middle between black and white, with which no coefficient has to do.
const MIDDLE: f32 = 128.0;
/// Of a coefficient, eight times its row and its column, in the order of the file.
pub(super) const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21,
    28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54,
    47, 55, 62, 63,
];

/// For a table of quantization, and blocks that are to have 4, 2 or 1 pixels on a side.
pub(super) fn places(quantization: &[u8; 64], side: u8) -> Places {
    let mut places = [(UNUSED, 0.0); 64];
    for ((place, step), coefficient) in places.iter_mut().zip(quantization).zip(ZIGZAG) {
        let (row, column) = (coefficient / 8, coefficient % 8);
        if row < side && column < side {
            // Those of a smaller block are smaller by its side, and all factors that its pixels have in common are here.
            *place = (4 * row + column, f32::from(*step) / 8.0);
        }
    }
    places
}

/// Puts a coefficient to its place.
#[inline]
pub(super) fn put(block: &mut Block, (place, factor): (u8, f32), number: i32) -> Option<()> {
    #[expect(clippy::cast_precision_loss, reason = "no file has numbers that a float is too small for")]
    let number = number as f32;
    *block.get_mut(usize::from(place))? = number * factor;
    Some(())
}

/// Writes the pixels of a block to where its first one is, in rows of so many bytes.
#[inline]
pub(super) fn write(block: &Block, side: u8, pixels: &mut [u8], row: usize) -> Option<()> {
    match side {
        4 => write_rows(&four(block), pixels, row),
        2 => write_rows(&two(block), pixels, row),
        _ => write_rows(&[[byte(block[0] + MIDDLE)]], pixels, row),
    }
}

#[inline]
fn write_rows<const N: usize>(block: &[[u8; N]; N], mut pixels: &mut [u8], row: usize) -> Option<()> {
    for (index, line) in block.iter().enumerate() {
        if index > 0 {
            pixels = pixels.get_mut(row..)?;
        }
        *pixels.first_chunk_mut()? = *line;
    }
    Some(())
}

#[inline]
fn four(block: &Block) -> [[u8; 4]; 4] {
    let [a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3, _] = *block;
    let rows = transform([[a0 + MIDDLE, a1, a2, a3], [b0, b1, b2, b3], [c0, c1, c2, c3], [d0, d1, d2, d3]]);
    let [a, b, c, d] = transform(mirror(rows));
    mirror([bytes(a), bytes(b), bytes(c), bytes(d)])
}

/// Transforms four columns at once: the rows are their frequencies.
#[inline]
fn transform([f0, f1, f2, f3]: [[f32; 4]; 4]) -> [[f32; 4]; 4] {
    let (outer, inner) = (sum(f0, f2), difference(f0, f2));
    let (far, near) = (sum(product(f1, ODD.0), product(f3, ODD.1)), difference(product(f1, ODD.1), product(f3, ODD.0)));
    [sum(outer, far), sum(inner, near), difference(inner, near), difference(outer, far)]
}

#[inline]
fn sum([a0, a1, a2, a3]: [f32; 4], [b0, b1, b2, b3]: [f32; 4]) -> [f32; 4] {
    [a0 + b0, a1 + b1, a2 + b2, a3 + b3]
}

#[inline]
fn difference([a0, a1, a2, a3]: [f32; 4], [b0, b1, b2, b3]: [f32; 4]) -> [f32; 4] {
    [a0 - b0, a1 - b1, a2 - b2, a3 - b3]
}

#[inline]
fn product([a0, a1, a2, a3]: [f32; 4], factor: f32) -> [f32; 4] {
    [a0 * factor, a1 * factor, a2 * factor, a3 * factor]
}

#[inline]
fn bytes([a0, a1, a2, a3]: [f32; 4]) -> [u8; 4] {
    [byte(a0), byte(a1), byte(a2), byte(a3)]
}

/// Rows become columns.
#[inline]
fn mirror<T>([[a0, a1, a2, a3], [b0, b1, b2, b3], [c0, c1, c2, c3], [d0, d1, d2, d3]]: [[T; 4]; 4]) -> [[T; 4]; 4] {
    [[a0, b0, c0, d0], [a1, b1, c1, d1], [a2, b2, c2, d2], [a3, b3, c3, d3]]
}

#[inline]
fn two(block: &Block) -> [[u8; 2]; 2] {
    let [a0, a1, _, _, b0, b1, ..] = *block;
    let (sum, difference) = (a0 + MIDDLE + b0, a0 + MIDDLE - b0);
    let (sums, differences) = (a1 + b1, a1 - b1);
    [[byte(sum + sums), byte(sum - sums)], [byte(difference + differences), byte(difference - differences)]]
}

/// The nearest. Beside so large a number no fraction has room, and the whole is in the lowest bits.
#[inline]
pub(super) fn byte(value: f32) -> u8 {
    const LARGE: f32 = 8_388_608.0;
    (value.clamp(0.0, 255.0) + LARGE).to_bits().to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use std::f64::consts::{FRAC_1_SQRT_2, PI};

    use super::*;

    /// By the definition, for frequencies that fit into a block of this size.
    fn transformed(frequencies: &[(u8, u8, i32)], side: u8, x: u8, y: u8) -> f64 {
        let scale = |frequency| if frequency == 0 { FRAC_1_SQRT_2 } else { 1.0 };
        let wave = |at: u8, frequency: u8| {
            ((2.0 * f64::from(at) + 1.0) * f64::from(frequency) * PI / (2.0 * f64::from(side))).cos()
        };
        let part = |(column, row, value): &(u8, u8, i32)| {
            f64::from(*value) * scale(*column) * scale(*row) * wave(x, *column) * wave(y, *row) / 4.0
        };
        128.0 + frequencies.iter().map(part).sum::<f64>()
    }

    #[test]
    fn low_frequencies_are_the_same_waves_on_fewer_pixels() {
        let all = [(0, 0, -80), (1, 0, 90), (0, 1, -70), (1, 1, 60), (2, 0, 50), (3, 1, -40), (2, 3, 30)];
        for side in [1, 2, 4] {
            let places = places(&[2; 64], side);
            let fitting: Vec<_> = all.into_iter().filter(|(column, row, _)| *column < side && *row < side).collect();
            let mut block = EMPTY;
            for (column, row, value) in all {
                let index = ZIGZAG.iter().position(|place| *place == 8 * row + column).unwrap();
                put(&mut block, places[index], value / 2).unwrap();
            }
            let mut pixels = vec![0; 28];
            write(&block, side, &mut pixels, 7).unwrap();
            for (x, y) in (0..side).flat_map(|y| (0..side).map(move |x| (x, y))) {
                let made = f64::from(pixels[usize::from(7 * y + x)]);
                let expected = transformed(&fitting, side, x, y);
                assert!((made - expected).abs() < 0.51, "{side}: {made} is not {expected}");
            }
        }
        assert_eq!(write(&EMPTY, 4, &mut [0; 24], 7), None, "there is no room for the last row");
    }

    #[test]
    fn all_coefficients_have_a_place() {
        let mut known: Vec<u8> = ZIGZAG.into();
        known.sort_unstable();
        assert!(known.into_iter().eq(0..64));
    }

    #[test]
    fn bytes_are_rounded_and_kept_within_their_bounds() {
        for (value, expected) in [(-1e9, 0), (-0.1, 0), (0.4, 0), (0.6, 1), (127.4, 127), (254.6, 255), (1e9, 255)] {
            assert_eq!(byte(value), expected, "{value}");
        }
    }
}
