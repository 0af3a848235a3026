//! What a page comes down to.

use std::collections::BTreeMap;

/// The longest address that is kept, in bytes.
pub(super) const MAX_ADDRESS: usize = 2_048;

/// A page in short. Addresses are as it has written them, for [`base`](Self::base) or its own to be added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PageSummary {
    /// By their names in Open Graph, such as `og:title`, without those of pictures, sounds and films. None is empty, and
    /// there are no controls in them.
    pub(crate) properties: BTreeMap<String, String>,
    /// Of what shows the page best.
    pub(crate) picture: Option<String>,
    /// Of what says the same in JSON.
    pub(crate) oembed: Option<String>,
    pub(crate) base: Option<String>,
}
