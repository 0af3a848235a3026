//! Messages that no device gets because its inbox is full, counted and logged.
//!
//! Whoever sends to such a device may do so often: each message counts, but the log has one line a minute.

use prometheus_client::metrics::counter::Counter;
use ruma::{DeviceId, UserId};

use super::strike::RecentLines;

/// How many messages were left out, and when the log last had a line of it.
#[derive(Default)]
pub(super) struct FullInboxes {
    pub(super) left_out: Counter,
    logged: RecentLines<()>,
}

impl FullInboxes {
    pub(super) fn leave_out(&self, user_id: &UserId, device_id: &DeviceId) {
        self.left_out.inc();
        if self.logged.is_news(()) {
            tracing::warn!(
                %user_id,
                %device_id,
                "left out a message to a device: as much waits for it as `quotas.to_device_megabytes` allows (at most \
                 one such line a minute)"
            );
        } else {
            tracing::debug!(%user_id, %device_id, "left out a message to a device whose inbox is full");
        }
    }
}

#[cfg(test)]
mod tests {
    use ruma::{device_id, user_id};

    use super::*;

    #[test]
    fn each_message_counts_and_the_first_is_news() {
        let inboxes = FullInboxes::default();
        assert!(inboxes.logged.is_news(()));
        assert!(!inboxes.logged.is_news(()));
        for _ in 0..2 {
            inboxes.leave_out(user_id!("@bob:here"), device_id!("D"));
        }
        assert_eq!(inboxes.left_out.get(), 2);
    }
}
