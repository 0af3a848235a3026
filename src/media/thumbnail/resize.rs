//! Pixels become fewer.
//!
//! A proper filter does it where they are of the usual kind: three bytes, all opaque. What else becomes much smaller is
//! averaged over squares first, in one pass over what the decoder has left, whatever its samples are; the filter does the
//! last factor of two to four. So a large picture is not copied as a whole.
//!
//! These loops go over millions of pixels, and are written so that they are quick also where the compiler puts little of
//! other crates into them: no `array::map` and no `flat_map` for each pixel.

use fast_image_resize::{
    FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer,
    images::{Image, ImageRef},
};
use image::{ColorType, RgbaImage};

use super::{
    bounds::NoThumbnail,
    jpeg::scaled::{self, Scaled},
    variant::{Method, Variant},
};

/// Larger squares might not be summed up in 32 bits.
const MAX_STEP: u32 = 128;
const OPAQUE: u8 = u8::MAX;
/// In bytes, for each column and row of a picture: what the filter has of it to know how much weight it has where.
const WEIGHTS: u64 = 128;

/// Which part of a picture becomes how large. In pixels as they are stored, before the picture is turned upright.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    left: u32,
    top: u32,
    width: u32,
    height: u32,
    pub(super) out_width: u32,
    pub(super) out_height: u32,
}

impl Plan {
    /// For a picture of this size, which is not zero. Nothing becomes larger. `is_turned` says that the picture will be
    /// turned by a quarter afterwards.
    pub(super) fn of((width, height): (u32, u32), variant: &Variant, is_turned: bool) -> Self {
        let (max_width, max_height) =
            if is_turned { (variant.height, variant.width) } else { (variant.width, variant.height) };
        match variant.method {
            Method::Scale => {
                let is_wide = wider((width, height), (max_width, max_height));
                let (out_width, out_height) = if is_wide {
                    let out_width = max_width.min(width);
                    (out_width, portion(height, out_width, width).clamp(1, max_height.max(1)))
                } else {
                    let out_height = max_height.min(height);
                    (portion(width, out_height, height).clamp(1, max_width.max(1)), out_height)
                };
                Self { left: 0, top: 0, width, height, out_width, out_height }
            }
            Method::Crop => {
                let (out_width, out_height) = (max_width.min(width), max_height.min(height));
                let (part_width, part_height) = if out_width < max_width || out_height < max_height {
                    // It is smaller than what is wanted, and only loses what is too much on the other side.
                    (out_width, out_height)
                } else if wider((width, height), (out_width, out_height)) {
                    (portion(height, out_width, out_height).clamp(1, width), height)
                } else {
                    (width, portion(width, out_height, out_width).clamp(1, height))
                };
                let (left, top) = ((width - part_width) / 2, (height - part_height) / 2);
                Self { left, top, width: part_width, height: part_height, out_width, out_height }
            }
        }
    }

    /// The sides of the squares that are averaged.
    fn step(&self) -> u32 {
        let times = (self.width / self.out_width.max(1)).min(self.height / self.out_height.max(1));
        (times / 2).clamp(1, MAX_STEP)
    }

    /// At how small a size a picture may be decoded: half or more of what is left is for the filter.
    pub(super) fn scale(&self) -> u8 {
        match self.step() {
            1 => 1,
            2..4 => 2,
            4..8 => 4,
            _ => 8,
        }
    }

    /// In bytes, beside the decoded picture.
    pub(super) fn memory(&self) -> u64 {
        let [width, height, step] = [self.width, self.height, self.step()].map(u64::from);
        let reduced = (width / step) * (height / step);
        let made = u64::from(self.out_width) * u64::from(self.out_height);
        // Squares, both with and without transparency counted in, and the picture as it is between its two dimensions.
        let filtering = (12 * reduced).max(3 * u64::from(self.out_width) * height);
        filtering + 16 * made + WEIGHTS * (width + height)
    }
}

/// Whether a size is wider than another, at the same height.
fn wider((width, height): (u32, u32), (other_width, other_height): (u32, u32)) -> bool {
    u64::from(width) * u64::from(other_height) >= u64::from(other_width) * u64::from(height)
}

/// `of * part / whole`, rounded.
fn portion(of: u32, part: u32, whole: u32) -> u32 {
    let whole = u64::from(whole.max(1));
    u32::try_from((u64::from(of) * u64::from(part) + whole / 2) / whole).unwrap_or(u32::MAX)
}

/// What a decoder has left.
pub(super) struct Decoded {
    pub(super) bytes: Vec<u8>,
    /// In pixels.
    pub(super) width: u32,
    pub(super) color: ColorType,
}

/// A picture that is small.
pub(super) struct Small {
    pub(super) image: RgbaImage,
    pub(super) is_opaque: bool,
}

/// Does what is planned.
pub(super) fn resize(decoded: Decoded, plan: &Plan) -> Result<Small, NoThumbnail> {
    if decoded.color == ColorType::Rgb8 {
        return filter_opaque(&decoded.bytes, decoded.width, 1, plan, |pixel| pixel);
    }
    let reduced = reduce_any(&decoded, plan)?;
    drop(decoded);
    let (width, height) = (plan.width / plan.step(), plan.height / plan.step());
    let source = ImageRef::new(width, height, &reduced.pixels, PixelType::U8x4).map_err(NoThumbnail::broken)?;
    let options = filter().use_alpha(!reduced.is_opaque);
    image_of(filtered(&source, plan, &options)?, plan, reduced.is_opaque)
}

/// As [`resize`], of what was decoded at a smaller size.
pub(super) fn resize_scaled(scaled: &Scaled, plan: &Plan) -> Result<Small, NoThumbnail> {
    filter_opaque(&scaled.pixels, scaled.width, scaled.scale, plan, scaled::rgb)
}

/// Of pixels of three bytes, from which `rgb` makes red, green and blue. `scale`: for how many pixels of the plan one of
/// them stands, on each side.
fn filter_opaque(
    bytes: &[u8],
    width: u32,
    scale: u8,
    plan: &Plan,
    rgb: impl Fn([u8; 3]) -> [u8; 3],
) -> Result<Small, NoThumbnail> {
    let height = bytes.len() / (3 * index(width)).max(1);
    let height = u32::try_from(height).map_err(NoThumbnail::broken)?;
    let source = ImageRef::new(width, height, bytes, PixelType::U8x3).map_err(NoThumbnail::broken)?;
    let part = |pixels: u32| f64::from(pixels) / f64::from(scale);
    let [left, top, width, height] = [plan.left, plan.top, plan.width, plan.height].map(part);
    let made = filtered(&source, plan, &filter().use_alpha(false).crop(left, top, width, height))?;
    let mut pixels = Vec::with_capacity(made.len() / 3 * 4);
    for pixel in made.as_chunks().0 {
        let [r, g, b] = rgb(*pixel);
        pixels.extend_from_slice(&[r, g, b, OPAQUE]);
    }
    image_of(pixels, plan, true)
}

fn filter() -> ResizeOptions {
    ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3))
}

/// Pixels of the same type.
fn filtered(source: &ImageRef<'_>, plan: &Plan, options: &ResizeOptions) -> Result<Vec<u8>, NoThumbnail> {
    let mut made = Image::new(plan.out_width, plan.out_height, source.pixel_type());
    Resizer::new().resize(source, &mut made, options).map_err(NoThumbnail::broken)?;
    Ok(made.into_vec())
}

fn image_of(pixels: Vec<u8>, plan: &Plan, is_opaque: bool) -> Result<Small, NoThumbnail> {
    let image = RgbaImage::from_raw(plan.out_width, plan.out_height, pixels);
    let image = image.ok_or_else(|| NoThumbnail::broken("its size is not that of its pixels"))?;
    Ok(Small { image, is_opaque })
}

/// Pixels of four bytes.
struct Reduced {
    pixels: Vec<u8>,
    is_opaque: bool,
}

fn reduce_any(decoded: &Decoded, plan: &Plan) -> Result<Reduced, NoThumbnail> {
    let Decoded { bytes, width, color } = decoded;
    let width = index(*width);
    // Of a sample of two bytes, or of four.
    let high = |bytes: [u8; 2]| u16::from_ne_bytes(bytes).to_be_bytes()[0];
    Ok(match color {
        ColorType::L8 => reduce(bytes, width, plan, |&[l]: &[u8; 1]| [l, l, l, OPAQUE]),
        ColorType::La8 => reduce(bytes, width, plan, |&[l, a]: &[u8; 2]| [l, l, l, a]),
        ColorType::Rgba8 => reduce(bytes, width, plan, |pixel: &[u8; 4]| *pixel),
        ColorType::L16 => reduce(bytes, width, plan, |pixel: &[u8; 2]| {
            let l = high(*pixel);
            [l, l, l, OPAQUE]
        }),
        ColorType::La16 => reduce(bytes, width, plan, |&[l0, l1, a0, a1]: &[u8; 4]| {
            let l = high([l0, l1]);
            [l, l, l, high([a0, a1])]
        }),
        ColorType::Rgb16 => reduce(bytes, width, plan, |&[r0, r1, g0, g1, b0, b1]: &[u8; 6]| {
            [high([r0, r1]), high([g0, g1]), high([b0, b1]), OPAQUE]
        }),
        ColorType::Rgba16 => reduce(bytes, width, plan, |&[r0, r1, g0, g1, b0, b1, a0, a1]: &[u8; 8]| {
            [high([r0, r1]), high([g0, g1]), high([b0, b1]), high([a0, a1])]
        }),
        ColorType::Rgb32F => reduce(bytes, width, plan, |pixel: &[u8; 12]| {
            let [r, g, b, _] = floats(pixel);
            [r, g, b, OPAQUE]
        }),
        ColorType::Rgba32F => reduce(bytes, width, plan, |pixel: &[u8; 16]| floats(pixel)),
        _ => return Err(NoThumbnail::NotAPicture),
    })
}

/// Up to four samples of four bytes each, from 0 to 1.
fn floats(pixel: &[u8]) -> [u8; 4] {
    let mut samples = [0; 4];
    let (floats, _) = pixel.as_chunks::<4>();
    for (sample, float) in samples.iter_mut().zip(floats) {
        let scaled = (f32::from_ne_bytes(*float) * 255.0).round();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "what is out of range is cut off")]
        let whole = scaled as u8;
        *sample = whole;
    }
    samples
}

/// Averages squares of pixels of `N` bytes each. `row` is how many are in a row of the whole picture.
fn reduce<const N: usize>(bytes: &[u8], row: usize, plan: &Plan, rgba: impl Fn(&[u8; N]) -> [u8; 4]) -> Reduced {
    let step = index(plan.step());
    let (width, height) = (index(plan.width) / step, index(plan.height) / step);
    let (left, top) = (index(plan.left), index(plan.top));
    let mean = Mean::new(plan.step());
    let mut pixels = Vec::with_capacity(width * height * 4);
    let mut opacity = OPAQUE;
    let mut sums = vec![[0_u32; 4]; width];
    let mut rows = bytes.chunks_exact((row * N).max(1)).skip(top);
    for _ in 0..height {
        sums.fill([0; 4]);
        for source in rows.by_ref().take(step) {
            let (source, _) = source.as_chunks::<N>();
            let source = source.get(left..left + width * step).unwrap_or_default();
            if step == 1 {
                for [r, g, b, a] in source.iter().map(&rgba) {
                    pixels.extend_from_slice(&[r, g, b, a]);
                    opacity &= a;
                }
                continue;
            }
            for (sum, group) in sums.iter_mut().zip(source.chunks_exact(step)) {
                for pixel in group {
                    let ([r, g, b, a], [rs, gs, bs, alphas]) = (rgba(pixel), &mut *sum);
                    let weight = u32::from(a);
                    *rs += u32::from(r) * weight;
                    *gs += u32::from(g) * weight;
                    *bs += u32::from(b) * weight;
                    *alphas += weight;
                }
            }
        }
        if step > 1 {
            for sum in &sums {
                let [r, g, b, a] = mean.of(*sum);
                pixels.extend_from_slice(&[r, g, b, a]);
                opacity &= a;
            }
        }
    }
    Reduced { pixels, is_opaque: opacity == OPAQUE }
}

/// Divides the sums of squares. Most pixels are opaque, and for them it multiplies instead.
struct Mean {
    pixels: u32,
    /// All of a square's opacity.
    full: u32,
    /// `2^40 / full`, rounded up.
    reciprocal: u64,
}

impl Mean {
    fn new(step: u32) -> Self {
        let pixels = step * step;
        let full = 255 * pixels;
        Self { pixels, full, reciprocal: (1 << 40) / u64::from(full.max(1)) + 1 }
    }

    /// Colours weigh by how opaque they are.
    fn of(&self, [r, g, b, a]: [u32; 4]) -> [u8; 4] {
        if a == self.full {
            let divide = |sum: u32| byte(((u64::from(sum) + u64::from(self.full / 2)) * self.reciprocal) >> 40);
            [divide(r), divide(g), divide(b), OPAQUE]
        } else if a == 0 {
            [0; 4]
        } else {
            let divide = |sum: u32| byte((u64::from(sum) + u64::from(a / 2)) / u64::from(a));
            // Whatever is not wholly opaque does not become so by rounding.
            let alpha = byte(u64::from((a + self.pixels / 2) / self.pixels)).clamp(1, OPAQUE - 1);
            [divide(r), divide(g), divide(b), alpha]
        }
    }
}

fn byte(value: u64) -> u8 {
    u8::try_from(value).unwrap_or(u8::MAX)
}

fn index(value: u32) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(size: (u32, u32), wanted: (u32, u32), method: Method) -> (u32, u32, u32, u32, u32, u32) {
        let variant = Variant { width: wanted.0, height: wanted.1, method, animated: false };
        let Plan { left, top, width, height, out_width, out_height } = Plan::of(size, &variant, false);
        (left, top, width, height, out_width, out_height)
    }

    #[test]
    fn what_is_scaled_keeps_its_shape_and_does_not_grow() {
        let scaled = |size, wanted| {
            let (left, top, width, height, out_width, out_height) = plan(size, wanted, Method::Scale);
            assert_eq!((left, top, width, height), (0, 0, size.0, size.1));
            (out_width, out_height)
        };
        assert_eq!(scaled((4000, 3000), (800, 600)), (800, 600));
        assert_eq!(scaled((3000, 4000), (800, 600)), (450, 600));
        assert_eq!(scaled((4000, 1000), (320, 240)), (320, 80));
        assert_eq!(scaled((50_000, 50), (320, 240)), (320, 1));
        assert_eq!(scaled((50, 50_000), (320, 240)), (1, 240));
        assert_eq!(scaled((100, 50), (320, 240)), (100, 50));
        assert_eq!(scaled((1, 1), (32, 32)), (1, 1));
    }

    #[test]
    fn what_is_cropped_keeps_its_middle() {
        let cropped = |size, wanted| plan(size, wanted, Method::Crop);
        assert_eq!(cropped((400, 300), (96, 96)), (50, 0, 300, 300, 96, 96));
        assert_eq!(cropped((300, 400), (96, 96)), (0, 50, 300, 300, 96, 96));
        assert_eq!(cropped((50, 400), (96, 96)), (0, 152, 50, 96, 50, 96));
        assert_eq!(cropped((20, 10), (96, 96)), (0, 0, 20, 10, 20, 10));
        assert_eq!(cropped((50_000, 100), (96, 96)), (24_950, 0, 100, 100, 96, 96));
    }

    #[test]
    fn a_smaller_size_has_twice_as_many_pixels_as_are_wanted() {
        let scale = |size, wanted| {
            let variant = Variant { width: wanted, height: wanted, method: Method::Scale, animated: false };
            Plan::of(size, &variant, false).scale()
        };
        let wide = [399, 400, 799, 800, 1599, 1600, 50_000].map(|width| scale((width, width / 2), 100));
        assert_eq!(wide, [1, 2, 2, 4, 4, 8, 8]);
        // As long as there are two of them in a row that becomes one.
        assert_eq!([3, 4, 16].map(|height| scale((50_000, height), 100)), [1, 2, 8]);
    }

    #[test]
    fn a_mean_of_opaque_pixels_is_exact() {
        for step in [2, 3, 7, 128] {
            let mean = Mean::new(step);
            for value in 0..=255_u8 {
                let sum = u32::from(value) * 255 * step * step;
                assert_eq!(mean.of([sum, sum, sum, 255 * step * step]), [value, value, value, 255]);
            }
        }
        assert_eq!(Mean::new(2).of([255 * 255, 0, 0, 255]), [255, 0, 0, 64]);
        assert_eq!(Mean::new(2).of([0, 0, 0, 4 * 255 - 1]), [0, 0, 0, 254]);
    }

    #[test]
    fn samples_of_any_size_are_read() {
        let plan = Plan { left: 0, top: 0, width: 1, height: 1, out_width: 1, out_height: 1 };
        let read = |bytes: Vec<u8>, color| {
            reduce_any(&Decoded { bytes, width: 1, color }, &plan).map(|reduced| (reduced.pixels, reduced.is_opaque))
        };
        let wide = |samples: &[u16]| samples.iter().flat_map(|sample| sample.to_ne_bytes()).collect::<Vec<u8>>();
        let real = |samples: &[f32]| samples.iter().flat_map(|sample| sample.to_ne_bytes()).collect::<Vec<u8>>();
        assert_eq!(read(vec![7], ColorType::L8), Ok((vec![7, 7, 7, 255], true)));
        assert_eq!(read(vec![7, 8], ColorType::La8), Ok((vec![7, 7, 7, 8], false)));
        assert_eq!(read(wide(&[0x1234]), ColorType::L16), Ok((vec![0x12, 0x12, 0x12, 255], true)));
        let rgba = wide(&[0x1234, 0x5678, 0x9abc, 0xdef0]);
        assert_eq!(read(rgba, ColorType::Rgba16), Ok((vec![0x12, 0x56, 0x9a, 0xde], false)));
        let rgba = real(&[-1.0, 0.5, 2.0, f32::NAN]);
        assert_eq!(read(rgba, ColorType::Rgba32F), Ok((vec![0, 128, 255, 0], false)));
    }
}
