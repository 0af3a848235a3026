//! What a WebP file is made of, before it is decoded: the decoder believes what each part says of its size, even where the
//! whole is said to be smaller or the file has no such part.
//!
//! <https://developers.google.com/speed/webp/docs/riff_container>

use std::io::{BufRead, Seek, SeekFrom};

use super::bounds::NoThumbnail;

/// Of the name and the length of a part.
const PART: u64 = 8;
/// What stands before the parts of a frame: where it goes, its size and how long it is shown.
const FRAME: u64 = 16;

/// What a file says of its picture.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) width: u32,
    pub(super) height: u32,
    /// 0 where it is no animation.
    pub(super) frames: u32,
}

/// One part of a file.
struct Part {
    name: [u8; 4],
    /// Where its contents are.
    begin: u64,
    end: u64,
    /// The first bytes of its contents, with zeros behind them where there are fewer.
    head: [u8; 10],
}

/// Reads all heads of a file of so many bytes.
pub(super) fn read(file: &mut (impl BufRead + Seek), length: u64) -> Result<Header, NoThumbnail> {
    let mut canvas = None;
    let mut frames = 0;
    let mut place = 12;
    while let Some(part) = part_at(file, place, length)? {
        place = next(&part);
        if &part.name == b"VP8X" {
            let [_, _, _, _, w0, w1, w2, h0, h1, h2] = part.head;
            let side = |bytes: [u8; 3]| 1 + u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0]);
            canvas.get_or_insert((side([w0, w1, w2]), side([h0, h1, h2])));
        } else if &part.name == b"ANMF" {
            frames += 1;
            // At most a picture and its transparency; the decoder does not look at more.
            let mut inner = part.begin + FRAME;
            for _ in 0..2 {
                let Some(part) = part_at(file, inner, part.end)? else { break };
                check(&mut canvas, &part)?;
                inner = next(&part);
            }
        } else {
            check(&mut canvas, &part)?;
        }
    }
    let (width, height) = canvas.ok_or_else(|| NoThumbnail::broken("it has no size"))?;
    Ok(Header { width, height, frames })
}

/// Nothing is larger than the whole, and the first picture is the whole where nothing else says what is.
fn check(canvas: &mut Option<(u32, u32)>, part: &Part) -> Result<(), NoThumbnail> {
    let Some(size) = size(part) else { return Ok(()) };
    let (width, height) = *canvas.get_or_insert(size);
    if size.0 > width || size.1 > height { Err(NoThumbnail::broken("a part is larger than the whole")) } else { Ok(()) }
}

/// Of the picture that a part holds. The decoder does not always look at a part's name, so this does not either.
fn size(part: &Part) -> Option<(u32, u32)> {
    match (&part.name, part.head) {
        (b"VP8L", [0x2f, b0, b1, b2, b3, ..]) => {
            let bits = u32::from_le_bytes([b0, b1, b2, b3]);
            Some((1 + (bits & 0x3fff), 1 + ((bits >> 14) & 0x3fff)))
        }
        (_, [_, _, _, 0x9d, 0x01, 0x2a, w0, w1, h0, h1]) => {
            let side = |bytes| u32::from(u16::from_le_bytes(bytes) & 0x3fff);
            Some((side([w0, w1]), side([h0, h1])))
        }
        _ => None,
    }
}

/// The part that begins at a place. None at the end, which may come before the last part has a head.
fn part_at(file: &mut (impl BufRead + Seek), place: u64, end: u64) -> Result<Option<Part>, NoThumbnail> {
    if place.saturating_add(PART) > end {
        return Ok(None);
    }
    let here = file.stream_position()?;
    match i64::try_from(place).ok().zip(i64::try_from(here).ok()) {
        // Keeps what has been read ahead.
        Some((place, here)) => file.seek_relative(place - here)?,
        None => drop(file.seek(SeekFrom::Start(place))?),
    }
    let mut bytes = [0; 8];
    file.read_exact(&mut bytes)?;
    let [n0, n1, n2, n3, l0, l1, l2, l3] = bytes;
    let (begin, length) = (place + PART, u64::from(u32::from_le_bytes([l0, l1, l2, l3])));
    if begin + length > end {
        return Err(NoThumbnail::broken("it ends before its last part"));
    }
    let mut head = [0; 10];
    let known = usize::try_from(length).unwrap_or(usize::MAX).min(head.len());
    if let Some(known) = head.get_mut(..known) {
        file.read_exact(known)?;
    }
    Ok(Some(Part { name: [n0, n1, n2, n3], begin, end: begin + length, head }))
}

/// Where the next part begins: at an even place.
fn next(part: &Part) -> u64 {
    part.end + (part.end - part.begin) % 2
}
