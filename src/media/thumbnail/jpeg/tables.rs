//! What stands in a JPEG before its pixels, as far as that is needed to decode them.
//!
//! <https://www.w3.org/Graphics/JPEG/itu-t81.pdf>, B.2

use super::code::Code;

/// Of the segment in which Adobe's programs say what the components are.
const ADOBE: &[u8] = b"Adobe";
/// Of a picture whose components are Y, Cb and Cr.
const ADOBE_YCBCR: u8 = 1;
/// Components of pictures that have no other sign of being red, green and blue.
const RGB: [u8; 3] = *b"RGB";
/// In a group of blocks of all components.
const MAX_BLOCKS: usize = 10;

/// Of one scan, which has all of the picture.
pub(super) struct Tables<'a> {
    pub(super) width: u16,
    pub(super) height: u16,
    /// Y, Cb and Cr, or Y alone.
    pub(super) components: Vec<Component>,
    /// In groups of blocks; 0 for none.
    pub(super) restart_interval: usize,
    quantizations: [Option<[u8; 64]>; 4],
    dc_codes: [Option<Box<Code>>; 4],
    ac_codes: [Option<Box<Code>>; 4],
    pub(super) pixels: &'a [u8],
}

#[derive(Clone, Copy)]
pub(super) struct Component {
    id: u8,
    /// In blocks of each group.
    pub(super) columns: usize,
    pub(super) rows: usize,
    quantization: usize,
    dc_code: usize,
    ac_code: usize,
}

impl<'a> Tables<'a> {
    /// None of pictures that are not of the most usual kind: eight bits, no more than one scan, Huffman codes, grey or
    /// Y, Cb and Cr. So too of those that are broken.
    pub(super) fn read(file: &'a [u8]) -> Option<Self> {
        let mut tables = Self {
            width: 0,
            height: 0,
            components: Vec::new(),
            restart_interval: 0,
            quantizations: Default::default(),
            dc_codes: Default::default(),
            ac_codes: Default::default(),
            pixels: &[],
        };
        let mut rest = file.strip_prefix(&[0xff, 0xd8])?;
        loop {
            let (marker, segment, behind) = segment(rest)?;
            rest = behind;
            match marker {
                0xc0 | 0xc1 => tables.read_frame(segment)?,
                0xc4 => tables.read_codes(segment)?,
                0xdb => tables.read_quantizations(segment)?,
                0xdd => tables.restart_interval = u16::from_be_bytes(*segment.first_chunk()?).into(),
                0xee if !is_usual_of_adobe(segment) => return None,
                // Comments, and what applications say.
                0xe0..=0xef | 0xfe => {}
                0xda => {
                    tables.read_scan(segment)?;
                    tables.pixels = behind;
                    return Some(tables);
                }
                _ => return None,
            }
        }
    }
}

impl Tables<'_> {
    /// The size of the picture and of its components.
    fn read_frame(&mut self, segment: &[u8]) -> Option<()> {
        let [8, h1, h0, w1, w0, count, listed @ ..] = segment else { return None };
        let (listed, []) = listed.as_chunks::<3>() else { return None };
        let is_known = matches!(listed.len(), 1 | 3) && listed.len() == usize::from(*count);
        if !is_known || !self.components.is_empty() {
            return None;
        }
        (self.width, self.height) = (u16::from_be_bytes([*w1, *w0]), u16::from_be_bytes([*h1, *h0]));
        for [id, sampling, quantization] in listed {
            // Of one component alone each block is a group.
            let sampling = if *count == 1 { 0x11 } else { *sampling };
            let (columns, rows) = (usize::from(sampling / 16), usize::from(sampling % 16));
            let quantization = usize::from(*quantization);
            self.components.push(Component { id: *id, columns, rows, quantization, dc_code: 0, ac_code: 0 });
        }
        let (columns, rows) = self.group();
        // Once, twice or four times as many as another has.
        let is_even = |most: usize, own: usize| most.is_power_of_two() && own.is_power_of_two() && own <= most;
        let is_whole = |component: &Component| is_even(columns, component.columns) && is_even(rows, component.rows);
        let blocks: usize = self.components.iter().map(|component| component.columns * component.rows).sum();
        let is_rgb = self.components.iter().map(|component| component.id).eq(RGB);
        let is_usual = self.components.iter().all(is_whole) && blocks <= MAX_BLOCKS && !is_rgb;
        (is_usual && self.width > 0 && self.height > 0).then_some(())
    }

    /// In pixels.
    pub(super) fn size(&self) -> (u32, u32) {
        (self.width.into(), self.height.into())
    }

    /// How many groups are beside each other.
    pub(super) fn groups(&self) -> usize {
        usize::from(self.width).div_ceil(8 * self.group().0)
    }

    /// How many blocks of the largest component are in a group, beside and below each other.
    pub(super) fn group(&self) -> (usize, usize) {
        let columns = self.components.iter().map(|component| component.columns).max();
        let rows = self.components.iter().map(|component| component.rows).max();
        (columns.unwrap_or(1), rows.unwrap_or(1))
    }

    fn read_codes(&mut self, mut segment: &[u8]) -> Option<()> {
        while let [place, rest @ ..] = segment {
            let (counts, rest) = rest.split_first_chunk()?;
            let (symbols, behind) = rest.split_at_checked(counts.iter().map(|count| usize::from(*count)).sum())?;
            let codes = match place / 16 {
                0 => &mut self.dc_codes,
                1 => &mut self.ac_codes,
                _ => return None,
            };
            *codes.get_mut(usize::from(place % 16))? = Some(Box::new(Code::new(counts, symbols)?));
            segment = behind;
        }
        Some(())
    }

    fn read_quantizations(&mut self, mut segment: &[u8]) -> Option<()> {
        while let [place, rest @ ..] = segment {
            let (steps, behind) = rest.split_first_chunk()?;
            // Where they have two bytes each, the place is more than there are.
            *self.quantizations.get_mut(usize::from(*place))? = Some(*steps);
            segment = behind;
        }
        Some(())
    }

    /// Which code is whose. All components have to be in it, with all of their coefficients.
    fn read_scan(&mut self, segment: &[u8]) -> Option<()> {
        let (count, rest) = segment.split_first()?;
        let (listed, rest) = rest.as_chunks::<2>();
        let [listed @ .., [0, 63]] = listed else { return None };
        if rest != [0] || listed.len() != usize::from(*count) || listed.len() != self.components.len() {
            return None;
        }
        for (component, [id, codes]) in self.components.iter_mut().zip(listed) {
            if *id != component.id {
                return None;
            }
            (component.dc_code, component.ac_code) = (usize::from(codes / 16), usize::from(codes % 16));
        }
        (!listed.is_empty()).then_some(())
    }

    pub(super) fn quantization(&self, component: &Component) -> Option<&[u8; 64]> {
        self.quantizations.get(component.quantization)?.as_ref()
    }

    /// Of the mean of a block, and of its other coefficients.
    pub(super) fn codes(&self, component: &Component) -> Option<(&Code, &Code)> {
        Some((self.dc_codes.get(component.dc_code)?.as_deref()?, self.ac_codes.get(component.ac_code)?.as_deref()?))
    }
}

/// Whether it says nothing else than what is taken for granted.
fn is_usual_of_adobe(segment: &[u8]) -> bool {
    !segment.starts_with(ADOBE) || segment.get(11) == Some(&ADOBE_YCBCR)
}

/// The marker of the next segment, what is in it, and what is behind it.
fn segment(mut bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let [0xff, rest @ ..] = bytes else { return None };
    bytes = rest;
    // Any number of these may stand before a marker.
    while let [0xff, rest @ ..] = bytes {
        bytes = rest;
    }
    let (marker, rest) = bytes.split_first()?;
    let length = usize::from(u16::from_be_bytes(*rest.first_chunk()?));
    let (segment, behind) = rest.split_at_checked(length)?;
    Some((*marker, segment.get(2..)?, behind))
}
