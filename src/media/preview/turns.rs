//! Who waits for how many pages at once: a page may take as long as its server likes, up to a bound, and nobody is to hold
//! up all others with slow ones.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use ruma::{OwnedUserId, UserId};

use crate::error::{Error, Result};

/// How many pages one user may wait for.
const PER_USER: usize = 4;

#[derive(Clone, Default)]
pub(super) struct Turns(Arc<Mutex<HashMap<OwnedUserId, usize>>>);

/// One user's waiting for a page.
pub(super) struct Turn {
    turns: Turns,
    user_id: OwnedUserId,
}

impl Turns {
    /// `M_LIMIT_EXCEEDED` for who waits for too many.
    pub(super) fn take(&self, user_id: &UserId) -> Result<Turn> {
        let mut turns = self.0.lock();
        let taken = turns.entry(user_id.to_owned()).or_default();
        if *taken >= PER_USER {
            return Err(Error::wait("This server looks at too many pages for you already", Duration::from_secs(2)));
        }
        *taken += 1;
        Ok(Turn { turns: self.clone(), user_id: user_id.to_owned() })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut turns = self.turns.0.lock();
        if let Some(taken) = turns.get_mut(&self.user_id) {
            *taken = taken.saturating_sub(1);
            if *taken == 0 {
                turns.remove(&self.user_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;

    #[test]
    fn one_user_waits_for_few_pages() {
        let turns = Turns::default();
        let taken: Vec<Turn> = (0..PER_USER).map(|_| turns.take(user_id!("@a:here")).unwrap()).collect();
        assert!(turns.take(user_id!("@a:here")).is_err());
        drop(turns.take(user_id!("@b:here")).unwrap());
        drop(taken);
        assert!(turns.0.lock().is_empty());
        turns.take(user_id!("@a:here")).unwrap();
    }
}
