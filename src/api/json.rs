//! Answers in JSON of our own making, where ruma's types leave out what clients look for or say `null` for
//! what is not there.

use ruma::api::{
    BytesBody, IncomingRequest, OutgoingResponse,
    error::{DeserializationError, IntoHttpError},
};
use serde::Serialize;
use serde_json::Value;

use super::own::metadata_of;

/// Endpoint `R`, answered in [`Json`].
pub(crate) struct Written<R>(pub(crate) R);

/// Some JSON, written out.
pub(crate) struct Json(Vec<u8>);

impl Json {
    pub(crate) fn of(value: &impl Serialize) -> Result<Self, serde_json::Error> {
        serde_json::to_vec(value).map(Self)
    }
}

impl From<Value> for Json {
    fn from(value: Value) -> Self {
        Self(value.to_string().into_bytes())
    }
}

metadata_of!(for R: Written<R>);

impl<R: IncomingRequest> IncomingRequest for Written<R> {
    type EndpointError = R::EndpointError;
    type OutgoingResponse = Json;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        R::try_from_http_request_inner(request, path_args).map(Self)
    }
}

impl OutgoingResponse for Json {
    type Body = BytesBody;

    fn try_into_http_response_inner(self) -> Result<http::Response<BytesBody>, IntoHttpError> {
        let response = http::Response::builder().header(http::header::CONTENT_TYPE, "application/json");
        Ok(response.body(BytesBody(self.0))?)
    }
}
