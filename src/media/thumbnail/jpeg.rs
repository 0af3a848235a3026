//! The size of a JPEG picture, and how often it is gone over, without decoding it or having all of it in memory.
//!
//! A progressive picture comes in scans, each of which goes over all of it. Scans of a few bytes are how a small file
//! keeps a decoder busy.

mod bits;
mod code;
mod dct;
pub(super) mod scaled;
mod tables;

use std::io::{BufRead, Seek};

use super::bounds::NoThumbnail;

/// More than any program writes. Usual are ten.
const MAX_SCANS: u32 = 64;

/// What a file says of its picture.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) components: u8,
    /// All of it is in memory until the last scan, as coefficients: it is progressive, or a scan lacks some components.
    pub(super) comes_in_parts: bool,
    /// How many bytes stand before its pixels.
    pub(super) head: u64,
}

/// Reads a file from its beginning to its end.
pub(super) fn read(file: &mut (impl BufRead + Seek)) -> Result<Header, NoThumbnail> {
    if bytes::<2>(file)? != [0xff, 0xd8] {
        return Err(NoThumbnail::NotAPicture);
    }
    let (mut header, mut scans): (Option<Header>, u32) = (None, 0);
    while let Some(marker) = next_marker(file)? {
        match marker {
            // The end.
            0xd9 => break,
            // Nothing belongs to these.
            0x00 | 0x01 | 0xd0..=0xd8 | 0xff => {}
            0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => {
                let length = length(file)?;
                let [_, h1, h0, w1, w0, components] = bytes::<6>(file)?;
                file.seek_relative(length - 6)?;
                let (width, height) = (u16::from_be_bytes([w1, w0]).into(), u16::from_be_bytes([h1, h0]).into());
                let is_progressive = matches!(marker, 0xc2 | 0xc6 | 0xca | 0xce);
                let first = Header { width, height, components, comes_in_parts: is_progressive, head: u64::MAX };
                let header = header.get_or_insert(first);
                header.components = header.components.max(components);
                header.comes_in_parts |= is_progressive;
            }
            0xda => {
                scans += 1;
                if scans > MAX_SCANS {
                    return Err(NoThumbnail::broken("it has too many scans"));
                }
                let length = length(file)?;
                let [components] = bytes::<1>(file)?;
                file.seek_relative(length - 1)?;
                if let Some(header) = &mut header {
                    header.comes_in_parts |= components != header.components;
                    header.head = header.head.min(file.stream_position()?);
                }
            }
            _ => {
                let length = length(file)?;
                file.seek_relative(length)?;
            }
        }
    }
    header.ok_or_else(|| NoThumbnail::broken("it has no size"))
}

/// Skips pixels. None at the end of the file.
fn next_marker(file: &mut impl BufRead) -> Result<Option<u8>, NoThumbnail> {
    if file.skip_until(0xff)? == 0 {
        return Ok(None);
    }
    let mut marker = [0xff];
    // Any number of these may stand before a marker.
    while marker == [0xff] {
        if file.read(&mut marker)? == 0 {
            return Ok(None);
        }
    }
    let [marker] = marker;
    Ok(Some(marker))
}

/// Of what follows it.
fn length(file: &mut impl BufRead) -> Result<i64, NoThumbnail> {
    let length = u16::from_be_bytes(bytes(file)?);
    length.checked_sub(2).map(i64::from).ok_or_else(|| NoThumbnail::broken("a segment has no length"))
}

fn bytes<const N: usize>(file: &mut impl BufRead) -> Result<[u8; N], NoThumbnail> {
    let mut bytes = [0; N];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    const SIZE: &[u8] = &[0xff, 0xc2, 0, 11, 8, 0, 7, 0, 9, 1, 1, 0x11, 0];
    const SCAN: &[u8] = &[0xff, 0xda, 0, 4, 1, 2, 0x12, 0xff, 0x00, 0x34, 0xff, 0xd0, 0x56];

    fn of(parts: &[&[u8]]) -> Result<Header, NoThumbnail> {
        read(&mut Cursor::new(parts.concat()))
    }

    #[test]
    fn the_size_is_found_behind_anything() {
        let comment: &[u8] = &[0xff, 0xfe, 0, 6, 0xff, 0xc0, 0xff, 0xda];
        let header = of(&[&[0xff, 0xd8], comment, &[0xff], SIZE, SCAN, SCAN, &[0xff, 0xd9]]).unwrap();
        assert_eq!(header, Header { width: 9, height: 7, components: 1, comes_in_parts: true, head: 30 });
        assert_eq!(of(&[&[0xff, 0xd8], SIZE]), Ok(Header { head: u64::MAX, ..header }));
    }

    /// The decoder keeps all of a picture, too, that is not progressive but has a scan for each component.
    #[test]
    fn what_comes_in_parts_is_known() {
        let size: &[u8] = &[0xff, 0xc0, 0, 17, 8, 0, 7, 0, 9, 3, 1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0];
        let whole: &[u8] = &[0xff, 0xda, 0, 12, 3, 1, 0, 2, 0, 3, 0, 0, 63, 0, 0x12];
        let parts = |scans: &[u8]| of(&[&[0xff, 0xd8], size, scans]).unwrap().comes_in_parts;
        assert!(!parts(whole));
        assert!(parts(SCAN));
        assert!(parts(&SCAN.repeat(3)));
        assert_eq!(of(&[&[0xff, 0xd8], size, SCAN]).unwrap().components, 3);
    }

    #[test]
    fn what_goes_over_itself_too_often_is_refused() {
        let scans = SCAN.repeat(64);
        assert!(of(&[&[0xff, 0xd8], SIZE, &scans]).is_ok());
        assert!(matches!(of(&[&[0xff, 0xd8], SIZE, &scans, SCAN]), Err(NoThumbnail::Broken(_))));
    }

    #[test]
    fn what_breaks_off_is_broken() {
        let whole = [&[0xff, 0xd8][..], SIZE].concat();
        for end in 2..9 {
            assert!(matches!(of(&[whole.get(..end).unwrap()]), Err(NoThumbnail::Broken(_))), "{end}");
        }
        assert_eq!(of(&[b"no picture"]), Err(NoThumbnail::NotAPicture));
    }
}
