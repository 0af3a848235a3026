//! Requests that may be meant for later: `/send` and `/state` with a delay in the query, as clients schedule delayed
//! events that were built on an earlier text of the proposal.
//!
//! The parameters are looked at before anything else is done with the request, and one that is not understood refuses
//! it.
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/4140>

use std::time::Duration;

use ruma::api::error::DeserializationError;

use super::{
    json::AsJson,
    own::{Extra, WithExtra},
};
use crate::error::{Error, Result};

/// A request that sends something, now or later as its query says.
pub(crate) type MaybeDelayed<R> = AsJson<WithExtra<R, Delay>>;

/// When something is to be sent.
#[derive(Clone, Copy)]
pub(crate) struct Delay(Result<Option<Duration>, &'static str>);

impl Delay {
    /// How much later than now, if later.
    pub(crate) fn get(self) -> Result<Option<Duration>> {
        self.0.map_err(Error::invalid_param)
    }
}

impl Extra for Delay {
    fn read(request: &http::Request<&[u8]>) -> Result<Self, DeserializationError> {
        Ok(Self(read_delay(request.uri().query().unwrap_or_default())))
    }
}

/// The names of all parameters of the proposal begin with this.
const PREFIX: &str = "org.matrix.msc4140.";

/// Whether a query asks for a delay, well or badly.
pub(super) fn asks_for_delay(query: &str) -> bool {
    query.contains(PREFIX)
}

/// Nothing that asks for a delay is overlooked: the event would be sent at once, and a call left while it is joined.
fn read_delay(query: &str) -> Result<Option<Duration>, &'static str> {
    let mut delay = None;
    // As they stand there: none that is understood has characters that need an escape.
    for (name, value) in query.split('&').map(|parameter| parameter.split_once('=').unwrap_or((parameter, ""))) {
        match name.strip_prefix(PREFIX) {
            Some("delay") => {
                let milliseconds = value.parse().or(Err("`org.matrix.msc4140.delay` is a number of milliseconds"))?;
                delay = Some(Duration::from_millis(milliseconds));
            }
            Some(_) => return Err("Of delayed events only `org.matrix.msc4140.delay` is understood here"),
            None => {}
        }
    }
    Ok(delay)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_asks_for_a_delay_gets_one_or_an_error() {
        assert_eq!(read_delay(""), Ok(None));
        assert_eq!(read_delay("ts=1&delay=5"), Ok(None));
        assert_eq!(read_delay("ts=1&org.matrix.msc4140.delay=5000"), Ok(Some(Duration::from_secs(5))));
        assert_eq!(read_delay("org.matrix.msc4140.delay=0"), Ok(Some(Duration::ZERO)));
        for query in ["delay", "delay=", "delay=-1", "delay=1.5", "delay=soon", "parent_delay_id=abc"] {
            assert!(read_delay(&format!("org.matrix.msc4140.{query}")).is_err(), "{query}");
        }
    }
}
