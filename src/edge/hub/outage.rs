//! What is logged of an outage: once that it has begun, and once that it is over, however often it is tried meanwhile.
//! An operator who reads one line knows as much as one who reads a thousand.

use parking_lot::Mutex;

/// The ways on which something is reached, each of which may fail by itself.
pub(super) struct Outage<const WAYS: usize>(Mutex<[bool; WAYS]>);

impl<const WAYS: usize> Outage<WAYS> {
    pub(super) fn none() -> Self {
        Self(Mutex::new([false; WAYS]))
    }

    /// Notes that nothing is reached on a way, and returns whether that is to be said. True only if every way worked
    /// until now.
    pub(super) fn begins(&self, way: usize) -> bool {
        let mut out = self.0.lock();
        let is_new = !out.contains(&true);
        set(&mut *out, way, true);
        is_new
    }

    /// Notes that something is reached on a way, and returns whether it is to be said that all is well again. True only
    /// if this was the last way that did not work.
    pub(super) fn ends(&self, way: usize) -> bool {
        let mut out = self.0.lock();
        let was_out = out.contains(&true);
        set(&mut *out, way, false);
        was_out && !out.contains(&true)
    }
}

/// A way that does not exist is ignored rather than a panic.
fn set(out: &mut [bool], way: usize, is_out: bool) {
    if let Some(out) = out.get_mut(way) {
        *out = is_out;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_said_once_and_so_is_its_end() {
        let outage = Outage::<2>::none();
        assert!(!outage.ends(0), "there was none");
        assert_eq!([outage.begins(0), outage.begins(1), outage.begins(0)], [true, false, false]);
        assert!(!outage.ends(1), "the other way is still shut");
        assert_eq!([outage.ends(0), outage.ends(0), outage.ends(1)], [true, false, false]);
        assert!(outage.begins(1), "this is another one");
    }
}
