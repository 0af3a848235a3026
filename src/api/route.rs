//! Routes from ruma's metadata: every path that an endpoint has ever had, with its method.
//!
//! Old paths stay: clients of years ago call `r0`, and all versions of an endpoint mean the same here.

use std::borrow::Cow;

use axum::{
    Router,
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
    routing::{MethodFilter, on},
};
use http::{Method, Version};
use ruma::api::path_builder::PathBuilder as _;

use super::{
    endpoint::{Answer as _, AnswerBody, Availability, Callers as _, Endpoint, Forwarding, Rules},
    error::{ApiResult, no_room},
    extract::Call,
    forward::{self, Routed},
};
use crate::{app::App, edge::serve::budget::Holder, error::Error};

/// The endpoints of the server. There is no other way to add one than by the type of its request, which has a policy.
///
/// A router does not say what is in it, so test builds keep a list beside it.
#[derive(Default)]
pub(crate) struct Endpoints {
    router: Router<App>,
    /// Those of them that other nodes forward to.
    forwarded: Router<App>,
    #[cfg(test)]
    listed: Vec<ListedEndpoint>,
}

impl Endpoints {
    /// Routes endpoint `R` to `handler` at every path that it has or had.
    pub(crate) fn endpoint<R, F, A>(mut self, handler: F) -> Self
    where
        R: Endpoint,
        F: Fn(App, Call<R>) -> A + Clone + Send + Sync + 'static,
        A: Future<Output = ApiResult<R::Answer>> + Send + 'static,
    {
        // Once for each endpoint: rules are the type's and never change.
        let rules = R::rules();
        let paths: Vec<_> = R::PATH_BUILDER.all_paths().flat_map(spellings).collect();
        #[cfg(test)]
        self.listed.push(ListedEndpoint::new::<R>(rules, &paths));
        for path in paths {
            let handler = handler.clone();
            let answer = move |State(app): State<App>, request: http::Request<Body>| async move {
                serve::<R, F, A>(app, request, rules, handler).await.unwrap_or_else(IntoResponse::into_response)
            };
            if rules.forwarding != Forwarding::Here {
                self.forwarded = self.forwarded.route(&path, on(filter(&R::METHOD), answer.clone()));
            }
            self.router = self.router.route(&path, on(filter(&R::METHOD), answer));
        }
        self
    }

    /// All of them, and those that other nodes forward to.
    pub(super) fn into_routers(self) -> (Router<App>, Router<App>) {
        (self.router, self.forwarded)
    }
}

/// What happens to every request, whichever endpoint it is for: availability, forwarding, reading, handler, answer.
async fn serve<R, F, A>(app: App, request: http::Request<Body>, rules: Rules, handler: F) -> ApiResult<Response>
where
    R: Endpoint,
    F: Fn(App, Call<R>) -> A,
    A: Future<Output = ApiResult<R::Answer>> + Send,
{
    // A node that the others may have forgotten may lack what they have written since: better no answer than an old
    // one.
    if rules.availability == Availability::Member && !app.nodes.is_alone() && !app.nodes.is_member() {
        let message = "This node has lost touch with the database: try again".to_owned();
        return Err(Error::Unavailable(message).into());
    }
    let version = request.version();
    // On the heap, so that a call that waits for long does not keep the room that reading it took.
    let read = Box::pin(async {
        let (mut parts, body) = request.into_parts();
        match forward::route(&app, &mut parts, body, &rules).await? {
            Routed::Answered(answer) => Ok(Err(answer)),
            Routed::Here(body) => Call::<R>::read(&app, parts, body, &rules).await.map(Ok),
        }
    });
    match read.await? {
        Ok(call) => {
            let reader = match R::Who::account(&call.caller) {
                Some((user_id, _)) => Holder::User(user_id.to_owned()),
                None => Holder::at(call.address),
            };
            let answer = handler(app.clone(), call).await?.write()?;
            // Not awaited in between: of answers that there is no room for, no more are in memory than are made at once.
            admit(&app, answer, version, reader)
        }
        Err(answer) => Ok(answer),
    }
}

/// Gives an answer the room that it takes until it is read.
fn admit(app: &App, answer: http::Response<AnswerBody>, version: Version, reader: Holder) -> ApiResult<Response> {
    let (parts, body) = answer.into_parts();
    let body = match body {
        AnswerBody::Whole(whole) => app.answers.admit(whole, version, reader).map_err(no_room)?,
        AnswerBody::Parts(parts) => app.answers.admit_parts(parts, version, reader),
        AnswerBody::Streamed(body) => body,
    };
    Ok(Response::from_parts(parts, body))
}

/// An empty state key may be left out, and the slash before it too.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidstateeventtypestatekey>
///
/// Axum matches no empty segment, so each spelling is a route of its own.
fn spellings(path: &'static str) -> Vec<Cow<'static, str>> {
    match path.strip_suffix("{state_key}") {
        Some(without) => vec![path.into(), without.into(), without.trim_end_matches('/').into()],
        None => vec![path.into()],
    }
}

/// Matrix uses five methods. HEAD is answered wherever GET is.
///
/// Axum wants a type of its own for them. Whatever is none of the others is GET: ruma's metadata has no more methods.
fn filter(method: &Method) -> MethodFilter {
    match *method {
        Method::POST => MethodFilter::POST,
        Method::PUT => MethodFilter::PUT,
        Method::DELETE => MethodFilter::DELETE,
        Method::PATCH => MethodFilter::PATCH,
        _ => MethodFilter::GET,
    }
}

/// An endpoint as tests see it that walk all of them.
#[cfg(test)]
#[derive(Clone, Debug)]
pub(crate) struct ListedEndpoint {
    pub(crate) method: Method,
    /// As they are routed, each in all its spellings.
    pub(crate) paths: Vec<String>,
    pub(crate) rules: Rules,
    /// The last part of the name of the type that says who may call it.
    pub(crate) who: &'static str,
    /// How ruma has its callers authenticate, as the last part of that type's name.
    pub(crate) scheme: &'static str,
}

#[cfg(test)]
impl ListedEndpoint {
    fn new<R: super::endpoint::Policy>(rules: Rules, paths: &[Cow<'_, str>]) -> Self {
        // `AnonymousOr<…::Users>` ends with that in which it differs from others.
        let last = |name: &'static str| name.rsplit("::").next().unwrap_or_default();
        let who = std::any::type_name::<R::Who>();
        Self {
            method: R::METHOD,
            paths: paths.iter().map(|path| path.clone().into_owned()).collect(),
            rules,
            who: last(who),
            scheme: last(std::any::type_name::<R::Authentication>()),
        }
    }

    /// By its method and one of its paths, without what is in front of all of them: for an endpoint's version may be
    /// another one for old clients.
    pub(crate) fn names(&self) -> Vec<String> {
        let name = |path: &String| match path.strip_prefix("/_matrix/client/").and_then(|path| path.split_once('/')) {
            Some((_version, rest)) => format!("{} /{rest}", self.method),
            None => format!("{} {path}", self.method),
        };
        self.paths.iter().map(name).collect()
    }
}

#[cfg(test)]
impl Endpoints {
    pub(crate) fn list(&self) -> &[ListedEndpoint] {
        &self.listed
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

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
        let endpoints = crate::api::endpoints();
        let of = |listed: &super::ListedEndpoint| -> Vec<String> {
            listed.paths.iter().map(|path| format!("{} {path}", listed.method)).collect()
        };
        let routes: BTreeSet<String> = endpoints.list().iter().flat_map(of).collect();
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
