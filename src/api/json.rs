//! JSON of our own making, where ruma's types leave out what clients look for or say `null` for what is not there, and
//! requests and answers of endpoints that ruma does not know.

use ruma::api::{
    BytesBody, IncomingRequest, OutgoingResponse,
    error::{DeserializationError, ErrorKind, IntoHttpError},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::own::metadata_of;
use crate::error::{Error, Result};

/// Endpoint `R`, answered in [`Json`].
pub(crate) struct AsJson<R>(pub(crate) R);

/// Some JSON, written out.
pub(crate) struct Json(Vec<u8>);

impl Json {
    pub(crate) fn of(value: &impl Serialize) -> Result<Self, serde_json::Error> {
        serde_json::to_vec(value).map(Self)
    }

    /// JSON that is written out already.
    pub(crate) fn from_text(json: String) -> Self {
        Self(json.into_bytes())
    }
}

impl From<Value> for Json {
    fn from(value: Value) -> Self {
        Self(value.to_string().into_bytes())
    }
}

/// Reads a body that is no ruma request.
pub(crate) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    serde_json::from_slice(body).map_err(|e| {
        // Text that is not UTF-8 is no JSON either.
        let kind = if e.is_data() { ErrorKind::BadJson } else { ErrorKind::NotJson };
        Error::refused(kind, format!("The request body can't be read: {e}"))
    })
}

metadata_of!(for R: AsJson<R>);

impl<R: IncomingRequest> IncomingRequest for AsJson<R> {
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
