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
    restriction::OpenTo,
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
        let open_to = OpenTo::of::<R>();
        let paths: Vec<_> = <R as Metadata>::PATH_BUILDER.all_paths().flat_map(spellings).collect();
        #[cfg(test)]
        super::restriction::routed::note::<R>(&paths);
        for path in paths {
            let handler = handler.clone();
            let answer = move |State(app): State<App>, mut request: http::Request<Body>| async move {
                request.extensions_mut().insert(open_to);
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

/// Every route of the client-server API, for tests that walk all of them.
#[cfg(test)]
pub(super) fn list() -> Vec<(Method, String)> {
    use super::restriction::routed;
    routed::take();
    drop(super::client::routes(Router::new()));
    let of = |endpoint: routed::Endpoint| endpoint.paths.into_iter().map(move |path| (endpoint.method.clone(), path));
    routed::take().into_iter().flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// What came after r0, by its path in v3.
    const LATER: [&str; 12] = [
        "DELETE profile/{user_id}/{field}",
        "GET login/sso/redirect/{idp_id}",
        "GET room_keys/version/{version}",
        "POST keys/device_signing/upload",
        "POST keys/signatures/upload",
        "POST knock/{room_id_or_alias}",
        "POST refresh",
        "POST room_keys/version",
        "POST rooms/{room_id}/report",
        "POST users/{user_id}/report",
        "PUT room_keys/keys",
        "PUT room_keys/version/{version}",
    ];

    #[test]
    fn what_was_there_in_r0_still_is() {
        let routes: BTreeSet<String> = list().into_iter().map(|(method, path)| format!("{method} {path}")).collect();
        let mut missing = Vec::new();
        for line in &routes {
            let Some((method, rest)) = line.split_once(" /_matrix/client/v3/") else { continue };
            let was_there = !LATER.contains(&format!("{method} {rest}").as_str());
            if was_there && !routes.contains(&format!("{method} /_matrix/client/r0/{rest}")) {
                missing.push(line);
            }
        }
        assert!(missing.is_empty(), "not at r0: {missing:?}");
        for of_old in ["initialSync", "events", "events/{event_id}", "rooms/{room_id}/initialSync"] {
            assert!(routes.contains(&format!("GET /_matrix/client/r0/{of_old}")), "{of_old}");
        }
    }
}
