//! The documents that somebody accepts when they register: terms of service, a privacy policy. Each has a version.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#terms-of-service-at-registration>

use std::{collections::BTreeMap, sync::Arc};

use ruma::api::client::uiaa::{LoginTermsParams, PolicyDefinition, PolicyTranslation};

use super::{TermsPolicy, Translation};

/// What has to be accepted; nothing where it is empty. Cheap to clone. By identifier, so that clients get them in one
/// order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Terms(Arc<BTreeMap<String, PolicyDefinition>>);

impl Terms {
    /// The policies have been checked: identifiers are unique, each has a language.
    pub(crate) fn of(policies: &[TermsPolicy]) -> Self {
        let translated = |(language, text): (&String, &Translation)| {
            (language.clone(), PolicyTranslation::new(text.name.clone(), text.url.clone()))
        };
        let policy = |policy: &TermsPolicy| {
            let translations = policy.translations.iter().map(translated).collect();
            (policy.id.clone(), PolicyDefinition::new(policy.version.clone(), translations))
        };
        Self(Arc::new(policies.iter().map(policy).collect()))
    }

    /// Whether registration has no stage for them.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The identifier of each document, and its version.
    pub(crate) fn versions(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(id, policy)| (id.as_str(), policy.version.as_str()))
    }

    /// What clients read of them: names and links, by language.
    pub(crate) fn params(&self) -> LoginTermsParams {
        LoginTermsParams::new(BTreeMap::clone(&self.0))
    }
}
