//! What writes take for granted of accounts, held against what the database says of them.
//!
//! Whoever changes a name or ends an account commits under the log's lock, as a batch does. So what is read under it is
//! so when the batch is committed: a membership event that comes before such a change is found by whoever carries the
//! change into rooms, and one that comes after it is judged by the account as it is now.

use std::collections::{HashMap, HashSet};

use ruma::{OwnedUserId, UserId};
use serde_json::Value;

use crate::{
    db::{DbResult, Tx},
    event::fact::{ExpectedAccount, Fact, OutsideState, Write},
    store,
};

/// The accounts that the writes of a batch take something for granted of.
#[derive(Default)]
pub(super) struct ExpectedAccounts {
    deactivated: HashSet<OwnedUserId>,
    /// Names and pictures. Who has none is not in it.
    profiles: HashMap<OwnedUserId, HashMap<String, Value>>,
}

/// Why a write can't stand as it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unmet {
    /// Whose account was ended.
    Deactivated(OwnedUserId),
    /// The profile is another than the event says.
    Renamed,
}

impl ExpectedAccounts {
    /// Asks in one statement, and not at all where nothing is taken for granted. Under the log's lock.
    pub(super) async fn read(tx: &mut Tx, writes: &[Write]) -> DbResult<Self> {
        let users: HashSet<&UserId> = writes.iter().flat_map(users).collect();
        let mut accounts = Self::default();
        if users.is_empty() {
            return Ok(accounts);
        }
        let users: Vec<&UserId> = users.into_iter().collect();
        for (user_id, field) in store::account::list_standings(tx, &users).await? {
            match field {
                Some((field, value)) => drop(accounts.profiles.entry(user_id).or_default().insert(field, value)),
                None => drop(accounts.deactivated.insert(user_id)),
            }
        }
        Ok(accounts)
    }

    /// Whether everything that a write takes for granted is so.
    pub(super) fn check(&self, write: &Write) -> Result<(), Unmet> {
        if let Some(user_id) = users(write).find(|user_id| self.deactivated.contains(*user_id)) {
            return Err(Unmet::Deactivated(user_id.to_owned()));
        }
        if expected(write).all(|account| self.says(account)) { Ok(()) } else { Err(Unmet::Renamed) }
    }

    fn says(&self, ExpectedAccount { user_id, copied }: &ExpectedAccount) -> bool {
        let profile = self.profiles.get(user_id);
        let text = |field: &str| profile.and_then(|profile| profile.get(field)).and_then(Value::as_str);
        copied.iter().all(|(field, value)| text(field) == value.as_deref())
    }
}

/// Everybody who would be in a room, invited or knocking by a write.
fn users(write: &Write) -> impl Iterator<Item = &UserId> {
    expected(write).map(|account| &*account.user_id).chain(outside(write))
}

fn expected(write: &Write) -> impl Iterator<Item = &ExpectedAccount> {
    write.events.iter().filter_map(|event| event.expects.as_ref())
}

/// Who is invited from outside, or knocks there.
fn outside(write: &Write) -> impl Iterator<Item = &UserId> {
    write.facts.iter().filter_map(|fact| match fact {
        Fact::OutsideMembership(new) if new.membership.state != OutsideState::Ended => Some(&*new.membership.user_id),
        _ => None,
    })
}
