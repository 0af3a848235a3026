//! Lists of other servers.

use super::{Line, minute, printable};
use crate::admin::federation_administration::{DestinationState, DestinationSummary};

impl Line for DestinationSummary {
    const HEAD: &'static str = "LAST SUCCESS      STATE        FAILURES  TRIED AGAIN       SERVER AND REASON";

    fn line(&self) -> String {
        let state = match self.state {
            DestinationState::Live => "live",
            DestinationState::CatchingUp => "catching up",
            DestinationState::BackingOff => "backing off",
        };
        let (success, retry) = (minute(self.last_success_ts), minute(self.retry_ts));
        // What is not true any more would only mislead.
        let reason = self.reason.as_deref().filter(|_| self.failures > 0).unwrap_or_default();
        let (failures, server) = (self.failures, &self.server);
        // Part of the reason is what the other server has written.
        printable(format!("{success:16}  {state:11}  {failures:8}  {retry:16}  {server}  {reason}").trim_end())
    }
}

#[cfg(test)]
mod tests {
    use ruma::server_name;

    use super::*;

    #[test]
    fn what_another_server_writes_does_not_command_the_terminal() {
        let summary = DestinationSummary {
            server: server_name!("away.example").to_owned(),
            state: DestinationState::BackingOff,
            last_success_ts: None,
            failures: 3,
            last_failure_ts: Some(0),
            reason: Some("M_UNKNOWN: \u{1b}[2J\nhere".to_owned()),
            retry_ts: Some(60_000),
        };
        let line = summary.line();
        assert!(!line.chars().any(char::is_control), "{line:?}");
        assert!(
            line.contains("backing off") && line.contains("3  1970-01-01 00:01  away.example  M_UNKNOWN"),
            "{line}"
        );
    }
}
