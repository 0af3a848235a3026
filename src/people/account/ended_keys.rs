//! Keys that end with their device or account: others have to hear of it, in the transaction in which they end.
//!
//! The command line writes no log. It leaves word with the errand by which a node looks the account up again.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#tracking-the-device-list-for-a-user>

use ruma::{OwnedDeviceId, UserId};
use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    event::fact::{DeviceListChange, Fact},
};

/// The devices that had keys, and none for the user's cross-signing keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct EndedKeys(pub(super) Vec<Option<OwnedDeviceId>>);

impl EndedKeys {
    /// From the body of an errand, which older ones lack.
    pub(super) fn of_errand(body: Option<&str>) -> Result<Self> {
        body.map_or_else(|| Ok(Self::default()), |body| serde_json::from_str(body).map_err(Error::broken))
    }

    /// For an errand. None where there is nothing to tell.
    pub(super) fn to_errand(&self) -> Result<Option<String>> {
        if self.0.is_empty() {
            return Ok(None);
        }
        serde_json::to_string(self).map(Some).map_err(Error::broken)
    }

    /// By which everybody hears of it.
    pub(super) fn into_facts(self, user_id: &UserId) -> impl Iterator<Item = Fact> {
        let change = move |device_id| DeviceListChange { user_id: user_id.to_owned(), device_id, seen_by: None };
        self.0.into_iter().map(move |device_id| Fact::DeviceList(change(device_id)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_ended_is_told_by_an_errand() {
        let ended = EndedKeys(vec![Some("PHONE".into()), None]);
        let body = ended.to_errand().unwrap();
        assert_eq!(body.as_deref(), Some(r#"["PHONE",null]"#));
        assert_eq!(EndedKeys::of_errand(body.as_deref()).unwrap(), ended);
        assert_eq!(EndedKeys::default().to_errand().unwrap(), None);
        assert_eq!(EndedKeys::of_errand(None).unwrap(), EndedKeys::default());
    }
}
