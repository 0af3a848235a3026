//! Numbers by lot that a seed repeats: splitmix64, a few lines and quick in a debug build.

/// A sequence of its own for each case.
pub(crate) struct Dice(u64);

impl Dice {
    pub(super) fn of_case(seed: u64, target: &str, case: u64) -> Self {
        let mut dice = Self(seed);
        for part in target.bytes().map(u64::from).chain([case]) {
            dice.0 = dice.number() ^ part;
        }
        dice
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Less than `end`; 0 if that is 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end.max(1)).unwrap();
        usize::try_from(self.number() % end).unwrap()
    }

    /// Small mostly, and rarely as large as `end`.
    pub(crate) fn small(&mut self, end: usize) -> usize {
        let scale = self.below(end) + 1;
        let scale = self.below(scale) + 1;
        self.below(scale)
    }

    pub(crate) fn one_in(&mut self, cases: usize) -> bool {
        self.below(cases) == 0
    }

    pub(crate) fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }

    /// One of several values.
    pub(crate) fn of<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}
