//! What an answer costs beyond what any answer does, because its client has been away for long.
//!
//! Who has come and gone since is remembered for a while only. Whoever comes with an older token has it read, which may
//! be all members of many rooms: it is done a page at a time, one answer of a user at once, and owed as `read`.

/// How many memberships are read for one unit of `read`.
const MEMBERSHIPS: u64 = 100;

/// What was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Effort {
    memberships: u64,
}

impl Effort {
    /// So many memberships were read, or rows like them.
    pub(super) fn add_memberships(&mut self, count: usize) {
        self.memberships = self.memberships.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
    }

    /// A statement was made that reads no memberships, or few.
    pub(super) fn add_statement(&mut self) {
        self.memberships = self.memberships.saturating_add(MEMBERSHIPS);
    }

    /// More was done for the same answer.
    pub(crate) fn add(&mut self, more: Self) {
        self.memberships = self.memberships.saturating_add(more.memberships);
    }

    /// In units of `read`.
    pub(crate) fn cost(self) -> u32 {
        u32::try_from(self.memberships / MEMBERSHIPS).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_memberships_cost_as_much_as_a_statement() {
        let mut effort = Effort::default();
        effort.add_memberships(99);
        assert_eq!(effort.cost(), 0, "what any answer reads is not counted twice");
        effort.add_memberships(1);
        effort.add_statement();
        assert_eq!(effort.cost(), 2);
        let mut both = effort;
        both.add(effort);
        assert_eq!(both.cost(), 4);
        both.add_memberships(usize::MAX);
        assert_eq!(both.cost(), u32::MAX);
    }
}
