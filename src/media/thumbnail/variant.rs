//! Which thumbnails there are: a fixed list, so that whoever asks for many sizes fills no disk.
//!
//! It is the specification's, each size both ways, and beside that two squares, because cropped pictures are mostly
//! avatars, and one size for screens with small pixels: nothing smaller may be returned than was asked for.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#thumbnails>

use std::fmt;

/// How a picture becomes smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Method {
    /// To exactly this size, without what is too much at its sides.
    Crop,
    /// As a whole, so that it fits into this size.
    Scale,
}

/// One of the thumbnails that there may be of a picture. Sizes are in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Variant {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) method: Method,
    /// Moves where the picture does.
    pub(crate) animated: bool,
}

/// The specification's, smallest first, for who names no method.
const SPECIFIED: [(u32, u32, Method); 6] = [
    (32, 32, Method::Crop),
    (96, 96, Method::Crop),
    (320, 240, Method::Scale),
    (640, 480, Method::Scale),
    (800, 600, Method::Scale),
    (1600, 1200, Method::Scale),
];
/// Smallest first.
const SCALED: [(u32, u32); 6] = [(32, 32), (96, 96), (320, 240), (640, 480), (800, 600), (1600, 1200)];
/// Smallest first.
const CROPPED: [(u32, u32); 7] = [(32, 32), (96, 96), (320, 240), (320, 320), (640, 480), (640, 640), (800, 600)];

/// The smallest variant that is no smaller than what is wanted, and the largest where all are. Of cropped ones one of the
/// shape that is wanted, as far as there is one.
pub(crate) fn choose(width: u32, height: u32, method: Option<Method>, animated: bool) -> Variant {
    let covers = |(w, h): (u32, u32)| w >= width && h >= height;
    let (size, method) = match method {
        None => {
            let wanted = SPECIFIED.into_iter().find(|(w, h, _)| covers((*w, *h)));
            let (w, h, method) = wanted.unwrap_or((1600, 1200, Method::Scale));
            ((w, h), method)
        }
        Some(Method::Scale) => (SCALED.into_iter().find(|size| covers(*size)).unwrap_or((1600, 1200)), Method::Scale),
        Some(Method::Crop) => {
            let shape = |size: &(u32, u32)| difference(*size, (width, height));
            let covering = CROPPED.into_iter().filter(|size| covers(*size)).min_by_key(shape);
            // The last of equals: the largest.
            let largest = || CROPPED.into_iter().rev().min_by_key(shape);
            (covering.or_else(largest).unwrap_or((800, 600)), Method::Crop)
        }
    };
    Variant { width: size.0, height: size.1, method, animated }
}

/// Between two shapes: how often, in thousandths, one is as wide as the other at the same height.
fn difference((width, height): (u32, u32), (other_width, other_height): (u32, u32)) -> u64 {
    let one = u64::from(width) * u64::from(other_height.max(1));
    let other = u64::from(other_width.max(1)) * u64::from(height);
    one.max(other).saturating_mul(1000) / one.min(other).max(1)
}

impl Variant {
    /// As the database has it: `320x240-scale`, `320x240-scale-animated`.
    pub(crate) fn name(&self) -> String {
        self.to_string()
    }

    /// Only what [`choose`] may return has a name. Rows are found by it, so nothing but tests reads one.
    #[cfg(test)]
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let scaled = SCALED.into_iter().map(|size| (size, Method::Scale));
        let cropped = CROPPED.into_iter().map(|size| (size, Method::Crop));
        scaled
            .chain(cropped)
            .flat_map(|((width, height), method)| {
                [false, true].map(|animated| Self { width, height, method, animated })
            })
            .find(|variant| variant.name() == name)
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let method = match self.method {
            Method::Crop => "crop",
            Method::Scale => "scale",
        };
        let animated = if self.animated { "-animated" } else { "" };
        write!(f, "{}x{}-{method}{animated}", self.width, self.height)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(width: u32, height: u32, method: Option<Method>) -> String {
        choose(width, height, method, false).name()
    }

    #[test]
    fn a_thumbnail_is_no_smaller_than_what_is_wanted() {
        let scale = |width, height| chosen(width, height, Some(Method::Scale));
        assert_eq!(scale(1, 1), "32x32-scale");
        assert_eq!(scale(33, 1), "96x96-scale");
        assert_eq!(scale(320, 240), "320x240-scale");
        assert_eq!(scale(320, 241), "640x480-scale");
        assert_eq!(scale(800, 600), "800x600-scale");
        assert_eq!(scale(801, 600), "1600x1200-scale");
        assert_eq!(scale(u32::MAX, u32::MAX), "1600x1200-scale");
        assert_eq!(scale(0, 0), "32x32-scale");
    }

    #[test]
    fn who_names_no_method_gets_what_the_specification_lists() {
        let names: Vec<_> = [(32, 32), (96, 96), (320, 240), (640, 480), (800, 600), (4000, 4000)]
            .map(|(width, height)| chosen(width, height, None))
            .into();
        let expected =
            ["32x32-crop", "96x96-crop", "320x240-scale", "640x480-scale", "800x600-scale", "1600x1200-scale"];
        assert_eq!(names, expected);
    }

    #[test]
    fn what_is_cropped_has_the_shape_that_is_wanted() {
        let crop = |width, height| chosen(width, height, Some(Method::Crop));
        assert_eq!(crop(32, 32), "32x32-crop");
        assert_eq!(crop(40, 40), "96x96-crop");
        assert_eq!(crop(97, 97), "320x320-crop");
        assert_eq!(crop(512, 512), "640x640-crop");
        assert_eq!(crop(320, 240), "320x240-crop");
        assert_eq!(crop(640, 480), "640x480-crop");
        assert_eq!(crop(200, 100), "320x240-crop");
        assert_eq!(crop(1000, 1000), "640x640-crop");
        assert_eq!(crop(u32::MAX, 1), "800x600-crop");
        assert_eq!(crop(0, 0), "32x32-crop");
    }

    #[test]
    fn a_name_is_read_as_it_is_written_and_nothing_else_is_one() {
        for method in [None, Some(Method::Crop), Some(Method::Scale)] {
            for width in [1, 40, 100, 321, 641, 801, 4000] {
                for animated in [false, true] {
                    let variant = choose(width, width * 3 / 4, method, animated);
                    assert_eq!(Variant::parse(&variant.name()), Some(variant));
                }
            }
        }
        for name in ["", "320x240", "320x240-scale-", "33x33-crop", "1600x1200-crop", "320x240-scale-Animated"] {
            assert_eq!(Variant::parse(name), None, "{name}");
        }
    }
}
