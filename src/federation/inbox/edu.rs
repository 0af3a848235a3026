//! What other servers send beside events: typing, receipts, presence, messages to devices, and news of devices and keys.
//!
//! None of it is read yet. It is counted, so that an operator sees that it comes.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#edus>

use ruma::{api::federation::transactions::edu::Edu, serde::Raw};

use crate::edge::metrics::Metrics;

/// Takes what came with a transaction that was not known before.
pub(super) fn receive(edus: &[Raw<Edu>], metrics: &Metrics) {
    for edu in edus {
        let kind: Option<String> = edu.get_field("edu_type").ok().flatten();
        metrics.edu_received(match kind.as_deref() {
            Some("m.device_list_update") => "m.device_list_update",
            Some("m.direct_to_device") => "m.direct_to_device",
            Some("m.presence") => "m.presence",
            Some("m.receipt") => "m.receipt",
            Some("m.signing_key_update") => "m.signing_key_update",
            Some("m.typing") => "m.typing",
            _ => "unknown",
        });
    }
}
