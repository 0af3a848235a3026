//! The documents that somebody accepts when they register: terms of service, a privacy policy. Each has a version.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#terms-of-service-at-registration>

use std::{collections::BTreeMap, sync::Arc};

use ruma::api::client::uiaa::{LoginTermsParams, PolicyDefinition};

/// What has to be accepted; nothing where it is empty. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Terms(Arc<BTreeMap<String, PolicyDefinition>>);

impl Terms {
    /// By the identifiers of the documents.
    pub(crate) fn new(policies: BTreeMap<String, PolicyDefinition>) -> Self {
        Self(Arc::new(policies))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The identifier of each document, and its version.
    pub(crate) fn versions(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(id, policy)| (id.as_str(), policy.version.as_str()))
    }

    /// What clients are told of them.
    pub(crate) fn params(&self) -> LoginTermsParams {
        LoginTermsParams::new(BTreeMap::clone(&self.0))
    }
}
