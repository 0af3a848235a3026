//! A Huffman code of a JPEG: bits become how many coefficients are zero, and the one behind them.
//!
//! <https://www.w3.org/Graphics/JPEG/itu-t81.pdf>, C, F.2.2.1 and F.2.2.3

use super::bits::Bits;

/// So many bits are looked up at once: most codes together with the number that they announce.
const QUICK: u32 = 10;
/// Of the longest code, in bits.
const LONGEST: u32 = 16;

pub(super) struct Code {
    quick: [Quick; 1 << QUICK],
    /// For each length from one bit on.
    lengths: [Length; 16],
    /// In the order of their codes.
    symbols: [u8; 256],
}

/// What some bits begin with.
#[derive(Clone, Copy, Default)]
struct Quick {
    /// In bits, with the number. 0 where that is too long to be looked up.
    length: u8,
    zeros: u8,
    number: i16,
}

/// All codes of one length.
#[derive(Clone, Copy, Default)]
struct Length {
    /// Below it are the codes of this length and of those before, followed by zeros up to [`LONGEST`].
    end: u32,
    /// Of the first of them, likewise, and of its symbol.
    begin: u32,
    index: usize,
}

impl Code {
    /// `counts`: how many symbols have a code of each length, from one bit on. None where it is no code.
    pub(super) fn new(counts: &[u8; 16], symbols: &[u8]) -> Option<Self> {
        let empty = ([Quick::default(); 1 << QUICK], [Length::default(); 16], [0; 256]);
        let mut code = Self { quick: empty.0, lengths: empty.1, symbols: empty.2 };
        code.symbols.get_mut(..symbols.len())?.copy_from_slice(symbols);
        let (mut begin, mut index) = (0, 0);
        for ((length, count), codes) in (1..=LONGEST).zip(counts).zip(&mut code.lengths) {
            let end = begin + (u32::from(*count) << (LONGEST - length));
            *codes = Length { end, begin, index };
            begin = end;
            index += usize::from(*count);
        }
        if begin > 1 << LONGEST || index != symbols.len() {
            return None;
        }
        for bits in 0..1 << QUICK {
            let quick = code.look_up(bits).unwrap_or_default();
            *code.quick.get_mut(bits as usize)? = quick;
        }
        Some(code)
    }

    /// What [`QUICK`] bits begin with. None where more of them would have to be known.
    fn look_up(&self, bits: u32) -> Option<Quick> {
        let (symbol, length) = self.find(bits << (LONGEST - QUICK))?;
        let size = u32::from(symbol % 16);
        let rest = QUICK.checked_sub(length + size)?;
        let number = i16::try_from(signed((bits >> rest) & ((1 << size) - 1), size)).ok()?;
        Some(Quick { length: u8::try_from(length + size).ok()?, zeros: symbol / 16, number })
    }

    /// How many zeros there are, and the number behind them: 0 only where the code has said nothing of a number. None where
    /// there is no such code.
    #[inline]
    pub(super) fn next(&self, bits: &mut Bits<'_>) -> Option<(u8, i32)> {
        bits.fill();
        let quick = self.quick.get(bits.peek(QUICK) as usize)?;
        if quick.length > 0 {
            bits.skip(quick.length.into());
            return Some((quick.zeros, quick.number.into()));
        }
        self.next_long(bits)
    }

    fn next_long(&self, bits: &mut Bits<'_>) -> Option<(u8, i32)> {
        let (symbol, length) = self.find(bits.peek(LONGEST))?;
        bits.skip(length);
        let (zeros, size) = (symbol / 16, u32::from(symbol % 16));
        if size == 0 {
            return Some((zeros, 0));
        }
        let number = bits.peek(size);
        bits.skip(size);
        Some((zeros, signed(number, size)))
    }

    /// The symbol with whose code [`LONGEST`] bits begin, and the length of that.
    fn find(&self, bits: u32) -> Option<(u8, u32)> {
        let (length, codes) = (1..).zip(&self.lengths).find(|(_, codes)| bits < codes.end)?;
        let index = codes.index + ((bits - codes.begin) >> (LONGEST - length)) as usize;
        Some((*self.symbols.get(index)?, length))
    }
}

/// A number of so many bits: without a one on top it is negative.
#[inline]
fn signed(bits: u32, size: u32) -> i32 {
    let number = bits.cast_signed();
    if size > 0 && bits >> (size - 1) == 0 { number + 1 - (1 << size) } else { number }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Codes 0, 10, 110, 1110 and one of sixteen bits.
    fn code() -> Code {
        let mut counts = [0; 16];
        counts[..4].fill(1);
        counts[15] = 1;
        Code::new(&counts, &[0x00, 0x02, 0xf0, 0x3f, 0x51]).unwrap()
    }

    #[test]
    fn a_code_says_how_many_zeros_and_what_number() {
        let read = |bytes: &[u8]| code().next(&mut Bits::new(bytes));
        assert_eq!(read(&[0b0000_0000]), Some((0, 0)));
        assert_eq!(read(&[0b1011_0000]), Some((0, 3)));
        assert_eq!(read(&[0b1010_0000]), Some((0, 2)));
        assert_eq!(read(&[0b1001_0000]), Some((0, -2)));
        assert_eq!(read(&[0b1000_0000]), Some((0, -3)));
        assert_eq!(read(&[0b1100_0000]), Some((15, 0)));
        // Fifteen bits behind its code, which are not looked up at once.
        assert_eq!(read(&[0b1110_1000, 0, 0b0010_0000]), Some((3, 0x4001)));
        assert_eq!(read(&[0b1110_0000, 0, 0]), Some((3, -0x7fff)));
        assert_eq!(read(&[0b1111_0000, 0, 0b1000_0000]), Some((5, 1)));
        assert_eq!(read(&[0b1111_0000, 1]), None);
    }

    #[test]
    fn what_is_no_code_is_refused() {
        let counts = |length: usize, count| {
            let mut counts = [0; 16];
            counts[length - 1] = count;
            counts
        };
        assert!(Code::new(&counts(1, 2), &[1, 2]).is_some());
        assert!(Code::new(&counts(1, 3), &[1, 2, 3]).is_none());
        assert!(Code::new(&counts(1, 2), &[1]).is_none());
        assert!(Code::new(&counts(16, 255), &[0; 255]).is_some());
        assert!(Code::new(&[255; 16], &[0; 16 * 255]).is_none());
    }
}
