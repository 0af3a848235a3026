//! The pixels of a JPEG as a row of bits.
//!
//! Within them a byte of ones is followed by a byte of zeros, so that anything else behind it is a marker. Nothing is read
//! beyond one: there zeros follow without end, and it is known how many of them were used.
//!
//! <https://www.w3.org/Graphics/JPEG/itu-t81.pdf>, B.1.1.5 and F.2.2.5

/// Whatever was read ahead has at least as many bits after [`Bits::fill`]: enough for a code and what it announces.
const LEAST: u32 = 32;

pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    /// Of the first byte that is not ahead.
    place: usize,
    /// The next bits, the first of them on top.
    ahead: u64,
    /// How many these are.
    count: u32,
    /// How many of these, and of those that were used, are no part of the file.
    missing: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, place: 0, ahead: 0, count: 0, missing: 0 }
    }

    #[inline]
    pub(super) fn fill(&mut self) {
        if self.count >= LEAST {
            return;
        }
        if let Some(rest) = self.bytes.get(self.place..)
            && let Some(next) = rest.first_chunk()
        {
            let next = u64::from_be_bytes(*next);
            if !has_byte_of_ones(next) {
                // What does not fit as a whole byte is read again, and is the same then.
                self.ahead |= next >> self.count;
                let bytes = (63 - self.count) / 8;
                self.count += 8 * bytes;
                self.place += bytes as usize;
                return;
            }
        }
        self.fill_bytewise();
    }

    #[cold]
    fn fill_bytewise(&mut self) {
        while self.count <= 56 {
            let (byte, length) = match self.bytes.get(self.place..) {
                Some([0xff, 0, ..]) => (0xff, 2),
                Some([byte, ..]) if *byte != 0xff => (*byte, 1),
                _ => {
                    self.missing += 8;
                    (0, 0)
                }
            };
            self.ahead |= u64::from(byte) << (56 - self.count);
            self.count += 8;
            self.place += length;
        }
    }

    /// The next bits, of which there may be 1 to 32.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "no more than 32 are left")]
    pub(super) fn peek(&self, count: u32) -> u32 {
        (self.ahead >> (64 - count)) as u32
    }

    #[inline]
    pub(super) fn skip(&mut self, count: u32) {
        self.ahead <<= count;
        self.count = self.count.wrapping_sub(count);
    }

    /// Whether more bits were used than there are.
    pub(super) fn is_overdrawn(&self) -> bool {
        self.count < self.missing
    }

    /// Goes on behind a marker that must come next: one of eight, which follow each other.
    pub(super) fn restart(&mut self, number: u8) -> Option<()> {
        self.fill_bytewise();
        // Less than a byte is left before the marker.
        self.count.checked_sub(self.missing).filter(|left| *left < 8)?;
        let mut rest = self.bytes.get(self.place..)?;
        while let [0xff, behind @ ..] = rest {
            rest = behind;
        }
        let (marker, behind) = rest.split_first()?;
        *self = Self::new(behind);
        (*marker == 0xd0 + number).then_some(())
    }
}

/// It may say so of others as well, where there is a byte of almost only ones.
#[inline]
fn has_byte_of_ones(bytes: u64) -> bool {
    const ONE_EACH: u64 = u64::MAX / 255;
    (!bytes).wrapping_sub(ONE_EACH) & bytes & (ONE_EACH << 7) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(bits: &mut Bits<'_>, count: u32) -> u32 {
        bits.fill();
        let taken = bits.peek(count);
        bits.skip(count);
        taken
    }

    #[test]
    fn bits_are_read_from_the_top() {
        let bytes: Vec<u8> = (0..100).collect();
        for count in [1, 3, 8, 13, 16] {
            let mut bits = Bits::new(&bytes);
            for index in 0..800 / count {
                let whole = (0..count).fold(0, |value, bit| {
                    let place = index * count + bit;
                    let byte = bytes[usize::try_from(place / 8).unwrap()];
                    value << 1 | u32::from(byte >> (7 - place % 8) & 1)
                });
                assert_eq!(take(&mut bits, count), whole, "{count} at {index}");
            }
            assert!(!bits.is_overdrawn());
        }
    }

    #[test]
    fn bytes_of_ones_are_read_wherever_they_are() {
        for place in 0..20 {
            let mut bytes = vec![0x55; 20];
            bytes[place] = 0xff;
            let mut stuffed = bytes.clone();
            stuffed.insert(place + 1, 0);
            let mut bits = Bits::new(&stuffed);
            assert_eq!(
                (0..20).map(|_| take(&mut bits, 8)).collect::<Vec<_>>(),
                bytes.iter().map(|byte| u32::from(*byte)).collect::<Vec<_>>()
            );
            assert!(!bits.is_overdrawn());
            take(&mut bits, 1);
            assert!(bits.is_overdrawn());
        }
    }

    #[test]
    fn behind_a_marker_there_are_zeros() {
        let mut bits = Bits::new(&[0xab, 0xff, 0xd9, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!((take(&mut bits, 8), bits.is_overdrawn()), (0xab, false));
        assert_eq!((take(&mut bits, 16), bits.is_overdrawn()), (0, true));
    }

    #[test]
    fn a_restart_goes_on_behind_its_marker() {
        let bytes = [0xab, 0xcd, 0xff, 0xff, 0xd3, 0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde];
        let mut bits = Bits::new(&bytes);
        assert_eq!(take(&mut bits, 11), 0xabcd >> 5);
        assert_eq!(bits.restart(3), Some(()));
        assert_eq!(take(&mut bits, 16), 0x1234);
        // Another marker, none at all, bits that nobody has read, and more than there are.
        for (used, number, bytes) in [(11, 4, &bytes[..]), (11, 3, &bytes[..2]), (8, 3, &bytes), (17, 3, &bytes)] {
            let mut bits = Bits::new(bytes);
            take(&mut bits, used);
            assert_eq!(bits.restart(number), None, "{used}");
        }
    }
}
