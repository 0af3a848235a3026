//! What has to be known of keys, and what is.

use std::{collections::BTreeMap, sync::Arc};

use ruma::{OwnedServerName, OwnedServerSigningKeyId};

use super::known::KnownKeys;

/// A signature that is to be checked: one of these keys of a server must have been good at a time.
#[derive(Clone, Debug)]
pub(super) struct Need {
    pub(super) server: OwnedServerName,
    pub(super) key_ids: Vec<OwnedServerSigningKeyId>,
    /// In milliseconds since the Unix epoch.
    pub(super) at: i64,
}

/// What is known of the keys of some servers.
#[derive(Debug, Default)]
pub(super) struct Knowledge {
    pub(super) keys: BTreeMap<OwnedServerName, Arc<KnownKeys>>,
    /// Why some of them may have other keys than these.
    pub(super) failures: BTreeMap<OwnedServerName, String>,
}

impl Knowledge {
    pub(super) fn satisfies(&self, need: &Need) -> bool {
        let keys = self.keys.get(&need.server);
        keys.is_some_and(|keys| need.key_ids.iter().any(|key_id| keys.find(key_id.as_str(), need.at).is_some()))
    }
}
