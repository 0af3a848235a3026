//! Pictures of whatever size, written by hand: no library makes those that are meant to do harm.

/// A black PNG of one bit a pixel. Unpacked it has more than a hundred times as many bytes.
pub(crate) fn png(width: u32, height: u32) -> Vec<u8> {
    png_with(width, height, &[])
}

/// As [`png`], with a text that is so many bytes long when it is unpacked.
pub(crate) fn png_with_text(width: u32, height: u32, text: u64) -> Vec<u8> {
    png_with(width, height, &chunk(*b"zTXt", &[b"Comment\0\0".as_slice(), &zeros(text)].concat()))
}

/// What a PNG says of itself, and nothing of what it shows.
pub(crate) fn png_without_pixels(width: u32, height: u32) -> Vec<u8> {
    [SIGNATURE, &header(width, height), &chunk(*b"IDAT", &zeros(1)), &chunk(*b"IEND", &[])].concat()
}

/// A GIF of this size with one pixel in it, so many times one after the other.
pub(crate) fn gif(width: u16, height: u16, frames: usize) -> Vec<u8> {
    let mut gif = b"GIF89a".to_vec();
    gif.extend(width.to_le_bytes());
    gif.extend(height.to_le_bytes());
    // Two colours, black and white.
    gif.extend([0x80, 0, 0, 0, 0, 0, 255, 255, 255]);
    for _ in 0..frames {
        gif.extend([0x21, 0xf9, 4, 0, 1, 0, 0, 0]);
        gif.extend([0x2c, 0, 0, 0, 0, 1, 0, 1, 0, 0, 2, 2, 0x44, 1, 0]);
    }
    gif.push(0x3b);
    gif
}

/// The head of a BMP, without the pixels that it announces.
pub(crate) fn bmp_without_pixels(width: i32, height: i32) -> Vec<u8> {
    let mut bmp = b"BM".to_vec();
    for number in [54_u32 + 100, 0, 54, 40] {
        bmp.extend(number.to_le_bytes());
    }
    bmp.extend(width.to_le_bytes());
    bmp.extend(height.to_le_bytes());
    bmp.extend([1, 0, 24, 0]);
    bmp.resize(54 + 100, 0);
    bmp
}

const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

fn png_with(width: u32, height: u32, chunks: &[u8]) -> Vec<u8> {
    let row = u64::from(width.div_ceil(8)) + 1;
    let pixels = chunk(*b"IDAT", &zeros(row * u64::from(height)));
    [SIGNATURE, &header(width, height), chunks, &pixels, &chunk(*b"IEND", &[])].concat()
}

/// Grey, of one bit.
fn header(width: u32, height: u32) -> Vec<u8> {
    chunk(*b"IHDR", &[&width.to_be_bytes()[..], &height.to_be_bytes(), &[1, 0, 0, 0, 0]].concat())
}

fn chunk(kind: [u8; 4], data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).unwrap().to_be_bytes();
    let named = [&kind, data].concat();
    let sum = crc(&named).to_be_bytes();
    [&length[..], &named, &sum].concat()
}

fn crc(bytes: &[u8]) -> u32 {
    let table: Vec<u32> = (0..256_u32)
        .map(|byte| (0..8).fold(byte, |sum, _| if sum & 1 == 1 { 0xedb8_8320 ^ (sum >> 1) } else { sum >> 1 }))
        .collect();
    let place = |sum: u32, byte: u8| usize::from(sum.to_le_bytes()[0] ^ byte);
    !bytes.iter().fold(!0, |sum, byte| table[place(sum, *byte)] ^ (sum >> 8))
}

/// So many zeros, packed as tightly as can be (RFC 1950 and RFC 1951): one, and then the same again, 258 at a time.
fn zeros(count: u64) -> Vec<u8> {
    let mut bits = Bits { bytes: vec![0x78, 0x9c], filled: 0 };
    // The last block, with the codes that need not be sent.
    bits.push(0b1, 1);
    bits.push(0b01, 2);
    let mut left = count;
    if left > 0 {
        bits.push_code(0b0011_0000, 8);
        left -= 1;
    }
    for _ in 0..left / 258 {
        bits.push_code(0b1100_0101, 8);
        bits.push_code(0, 5);
    }
    for _ in 0..left % 258 {
        bits.push_code(0b0011_0000, 8);
    }
    bits.push_code(0, 7);
    let sum = (u32::try_from(count % 65_521).unwrap() << 16) | 1;
    bits.bytes.extend(sum.to_be_bytes());
    bits.bytes
}

struct Bits {
    bytes: Vec<u8>,
    /// How many bits of the last byte are taken. 0 for all of them.
    filled: u32,
}

impl Bits {
    /// From the lowest bit on.
    fn push(&mut self, value: u32, count: u32) {
        for place in 0..count {
            if self.filled == 0 {
                self.bytes.push(0);
            }
            if (value >> place) & 1 == 1 {
                *self.bytes.last_mut().unwrap() |= 1 << self.filled;
            }
            self.filled = (self.filled + 1) % 8;
        }
    }

    /// Codes go from the highest bit on.
    fn push_code(&mut self, code: u32, count: u32) {
        self.push(code.reverse_bits() >> (32 - count), count);
    }
}
