//! Requests that may be meant for later: `/send` and `/state` with a delay in the query, as clients schedule delayed
//! events that were built on an earlier text of the proposal.
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/4140>

use std::time::Duration;

use ruma::api::{IncomingRequest, error::DeserializationError};

use super::{json::Json, own::metadata_of};
use crate::error::{Error, Result};

/// A request that sends something, now or later as its query says.
pub(crate) struct MaybeDelayed<R> {
    pub(crate) request: R,
    delay: Result<Option<Duration>, &'static str>,
}

impl<R> MaybeDelayed<R> {
    pub(crate) fn delay(&self) -> Result<Option<Duration>> {
        self.delay.map_err(Error::invalid_param)
    }
}

metadata_of!(for R: MaybeDelayed<R>);

impl<R: IncomingRequest> IncomingRequest for MaybeDelayed<R> {
    type EndpointError = R::EndpointError;
    type OutgoingResponse = Json;

    fn try_from_http_request_inner(request: http::Request<&[u8]>, path: &[&str]) -> Result<Self, DeserializationError> {
        let delay = read_delay(request.uri().query().unwrap_or_default());
        Ok(Self { request: R::try_from_http_request_inner(request, path)?, delay })
    }
}

/// Nothing that asks for a delay is overlooked: the event would be sent at once, and a call left while it is joined.
fn read_delay(query: &str) -> Result<Option<Duration>, &'static str> {
    let mut delay = None;
    // As they stand there: none that is understood has characters that need an escape.
    for (name, value) in query.split('&').map(|parameter| parameter.split_once('=').unwrap_or((parameter, ""))) {
        match name.strip_prefix("org.matrix.msc4140.") {
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
