//! Names of nodes.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A node in the cluster: a name that it gave itself when it started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(Arc<str>);

impl NodeId {
    /// Random characters, without spaces.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for NodeId {
    fn from(id: String) -> Self {
        Self(id.into())
    }
}
