//! Decodes a JPEG at a half, a quarter or an eighth of its size, for what becomes small anyway: with a part of the work and
//! of the memory that all of it would take.
//!
//! It knows the most usual kind alone. Of what is of another kind, or not as it should be, it makes nothing, and leaves it
//! to the decoder that knows them all.

#[cfg(test)]
mod tests;

use super::{
    super::bounds::{Deadline, NoThumbnail},
    bits::Bits,
    code::Code,
    dct::{self, Block, Places},
    tables::{Component, Tables},
};

/// Cb and Cr of what has no colour.
const GREY: u8 = 128;
/// As many zeros as stand before a coefficient at most. If it is zero as well, more may follow.
const MOST_ZEROS: u8 = 15;

/// A picture at a smaller size than its own.
pub(in crate::media::thumbnail) struct Scaled {
    /// Y, Cb and Cr of each pixel.
    pub(in crate::media::thumbnail) pixels: Vec<u8>,
    /// In pixels.
    pub(in crate::media::thumbnail) width: u32,
    /// How many pixels of the whole picture have become one, on each side.
    pub(in crate::media::thumbnail) scale: u8,
}

/// At a `scale` of 2, 4 or 8. `size`: that of the whole picture, by which it is known what decoding costs. None where the
/// other decoder has to do it.
pub(in crate::media::thumbnail) fn decode(
    file: &[u8],
    size: (u32, u32),
    scale: u8,
    deadline: Deadline,
) -> Result<Option<Scaled>, NoThumbnail> {
    let tables = Tables::read(file).filter(|tables| tables.size() == size);
    let Some(mut scan) = tables.and_then(|tables| Scan::begin(tables, scale)) else { return Ok(None) };
    while !scan.is_done() {
        deadline.check()?;
        if scan.decode_row().is_none() {
            return Ok(None);
        }
    }
    let Scan { pixels, width, .. } = scan;
    Ok(u32::try_from(width).ok().map(|width| Scaled { pixels, width, scale }))
}

/// Red, green and blue of Y, Cb and Cr.
///
/// <https://www.w3.org/Graphics/JPEG/jfif3.pdf>
#[inline]
pub(in crate::media::thumbnail) fn rgb([y, cb, cr]: [u8; 3]) -> [u8; 3] {
    let centred = |sample: u8| f32::from(sample) - f32::from(GREY);
    let (y, cb, cr) = (f32::from(y), centred(cb), centred(cr));
    [dct::byte(y + 1.402 * cr), dct::byte(y - 0.344_14 * cb - 0.714_14 * cr), dct::byte(y + 1.772 * cb)]
}

/// A picture on its way, from above.
struct Scan<'a> {
    tables: Tables<'a>,
    bits: Bits<'a>,
    layers: Vec<Layer>,
    /// Of a block, in pixels.
    side: u8,
    /// How many groups of blocks there are before the next restart, and which one that is.
    until_restart: usize,
    restart: u8,
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

/// One component of a row of groups.
struct Layer {
    component: Component,
    places: Places,
    /// The mean of the block before, as the file has it.
    mean: i32,
    samples: Vec<u8>,
    /// How many of these are in a row.
    row: usize,
}

impl<'a> Scan<'a> {
    fn begin(tables: Tables<'a>, scale: u8) -> Option<Self> {
        let side = 8_u8.checked_div(scale)?;
        let groups = tables.groups();
        let mut layers = Vec::new();
        for component in &tables.components {
            let places = dct::places(tables.quantization(component)?, side);
            let row = groups * component.columns * usize::from(side);
            let samples = vec![0; row * component.rows * usize::from(side)];
            layers.push(Layer { component: *component, places, mean: 0, samples, row });
        }
        let [width, height] = [tables.width, tables.height].map(|side| usize::from(side).div_ceil(scale.into()));
        let (bits, pixels) = (Bits::new(tables.pixels), Vec::with_capacity(3 * width * height));
        let until_restart = tables.restart_interval;
        Some(Self { tables, bits, layers, side, until_restart, restart: 0, width, height, pixels })
    }

    fn is_done(&self) -> bool {
        self.pixels.len() >= 3 * self.width * self.height
    }

    /// A row of groups. None where it is not as it should be.
    fn decode_row(&mut self) -> Option<()> {
        for group in 0..self.tables.groups() {
            self.restart_if_due()?;
            for layer in &mut self.layers {
                let codes = self.tables.codes(&layer.component)?;
                layer.decode(group, self.side, codes, &mut self.bits)?;
            }
        }
        if self.bits.is_overdrawn() { None } else { self.lay_out() }
    }

    fn restart_if_due(&mut self) -> Option<()> {
        if self.tables.restart_interval == 0 {
            return Some(());
        }
        if self.until_restart == 0 {
            self.bits.restart(self.restart)?;
            self.restart = (self.restart + 1) % 8;
            self.until_restart = self.tables.restart_interval;
            for layer in &mut self.layers {
                layer.mean = 0;
            }
        }
        self.until_restart -= 1;
        Some(())
    }

    /// Appends the pixels of a row of groups, without what only fills the last blocks.
    fn lay_out(&mut self) -> Option<()> {
        let (columns, rows) = self.tables.group();
        let row = 3 * self.width;
        for line in 0..rows * usize::from(self.side) {
            if self.is_done() {
                break;
            }
            let mut lines = [(&[GREY][..], u32::BITS - 1); 3];
            for (place, layer) in lines.iter_mut().zip(&self.layers) {
                let line = line * layer.component.rows / rows;
                let samples = layer.samples.get(line * layer.row..)?;
                *place = (samples, (columns / layer.component.columns).trailing_zeros());
            }
            let begin = self.pixels.len();
            self.pixels.resize(begin + row, 0);
            let (pixels, _) = self.pixels.get_mut(begin..)?.as_chunks_mut();
            lay_out_line(pixels, lines)?;
        }
        Some(())
    }
}

impl Layer {
    /// The blocks of one group.
    fn decode(&mut self, group: usize, side: u8, codes: (&Code, &Code), bits: &mut Bits<'_>) -> Option<()> {
        let length = usize::from(side);
        for row in 0..self.component.rows {
            for column in 0..self.component.columns {
                let mut block = dct::EMPTY;
                read_block(bits, codes, &self.places, &mut self.mean, &mut block)?;
                let first = row * length * self.row + (group * self.component.columns + column) * length;
                dct::write(&block, side, self.samples.get_mut(first..)?, self.row)?;
            }
        }
        Some(())
    }
}

/// Reads what a smaller size needs of the coefficients of a block. `mean`: that of the block before, and then its own.
#[inline]
fn read_block(
    bits: &mut Bits<'_>,
    (dc, ac): (&Code, &Code),
    places: &Places,
    mean: &mut i32,
    block: &mut Block,
) -> Option<()> {
    let (0, difference) = dc.next(bits)? else { return None };
    *mean = mean.wrapping_add(difference);
    dct::put(block, *places.first()?, *mean)?;
    let mut index = 1;
    while index < places.len() {
        let (zeros, number) = ac.next(bits)?;
        if number != 0 {
            index += usize::from(zeros);
            dct::put(block, *places.get(index)?, number)?;
            index += 1;
        } else if zeros == MOST_ZEROS {
            index += 1 + usize::from(zeros);
        } else {
            // All others are zero.
            return (zeros == 0).then_some(());
        }
    }
    Some(())
}

/// A row of pixels. Each sample of a component is for `1 << shift` pixels.
fn lay_out_line(
    pixels: &mut [[u8; 3]],
    [(ys, y_shift), (cbs, cb_shift), (crs, cr_shift)]: [(&[u8], u32); 3],
) -> Option<()> {
    for (x, pixel) in pixels.iter_mut().enumerate() {
        *pixel = [*ys.get(x >> y_shift)?, *cbs.get(x >> cb_shift)?, *crs.get(x >> cr_shift)?];
    }
    Some(())
}
