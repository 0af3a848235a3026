//! Routes from ruma's metadata: every path that an endpoint has ever had, with its method.

use std::{borrow::Cow, future::Future};

use axum::{
    Router,
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
    routing::{MethodFilter, on},
};
use bytes::BytesMut;
use http::Method;
use ruma::api::{IncomingRequest, Metadata, OutgoingResponseExt as _, path_builder::PathBuilder as _};

use super::{
    auth::Authenticate,
    error::{ApiError, ApiResult},
    extract::Call,
};
use crate::{app::App, error::Error};

/// Enough for any event with room for white space; endpoints with larger or smaller bodies say so.
pub(crate) const BODY_LIMIT: usize = 256 * 1024;

/// Adds endpoints to a router, one call each.
pub(crate) trait Routes: Sized {
    /// Routes endpoint `R` to `handler` at every path that it has or had.
    fn endpoint<R, F, A>(self, handler: F) -> Self
    where
        R: IncomingRequest + Send + 'static,
        R::Authentication: Authenticate,
        F: Fn(App, Call<R>) -> A + Clone + Send + Sync + 'static,
        A: Future<Output = ApiResult<R::OutgoingResponse>> + Send + 'static,
    {
        self.endpoint_with_limit::<R, F, A>(BODY_LIMIT, handler)
    }

    /// The same with a body limit of its own, in bytes.
    fn endpoint_with_limit<R, F, A>(self, body_limit: usize, handler: F) -> Self
    where
        R: IncomingRequest + Send + 'static,
        R::Authentication: Authenticate,
        F: Fn(App, Call<R>) -> A + Clone + Send + Sync + 'static,
        A: Future<Output = ApiResult<R::OutgoingResponse>> + Send + 'static;
}

impl Routes for Router<App> {
    fn endpoint_with_limit<R, F, A>(mut self, body_limit: usize, handler: F) -> Self
    where
        R: IncomingRequest + Send + 'static,
        R::Authentication: Authenticate,
        F: Fn(App, Call<R>) -> A + Clone + Send + Sync + 'static,
        A: Future<Output = ApiResult<R::OutgoingResponse>> + Send + 'static,
    {
        for path in <R as Metadata>::PATH_BUILDER.all_paths().flat_map(spellings) {
            let handler = handler.clone();
            let answer = move |State(app): State<App>, request: http::Request<Body>| async move {
                // On the heap, so that a call that waits for long does not keep the room that reading it took.
                let answered = match Box::pin(Call::<R>::read(&app, request, body_limit)).await {
                    Ok(call) => handler(app, call).await,
                    Err(error) => Err(error),
                };
                answered.and_then(write).unwrap_or_else(IntoResponse::into_response)
            };
            self = self.route(&path, on(filter(&R::METHOD), answer));
        }
        self
    }
}

/// An empty state key may be left out, and the slash before it too.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidstateeventtypestatekey>
fn spellings(path: &'static str) -> Vec<Cow<'static, str>> {
    match path.strip_suffix("{state_key}") {
        Some(without) => vec![path.into(), without.into(), without.trim_end_matches('/').into()],
        None => vec![path.into()],
    }
}

fn write<R: ruma::api::OutgoingResponse>(answer: R) -> Result<Response, ApiError> {
    let response = answer.try_into_http_response::<BytesMut>().map_err(Error::broken)?;
    Ok(response.map(|body| Body::from(body.freeze())))
}

/// Matrix uses five methods. HEAD is answered wherever GET is.
fn filter(method: &Method) -> MethodFilter {
    match *method {
        Method::POST => MethodFilter::POST,
        Method::PUT => MethodFilter::PUT,
        Method::DELETE => MethodFilter::DELETE,
        Method::PATCH => MethodFilter::PATCH,
        _ => MethodFilter::GET,
    }
}
