//! Requests that need user-interactive authentication: any endpoint's request with the `auth` beside it.
//!
//! `auth` is read here rather than by ruma, because clients send more than the specification has: an empty
//! object to ask for the flows, and the name in the `user` of old.
//!
//! Where a password confirms something, what exactly was asked for (path and body without `auth`) is part of what it
//! confirms: a session that was completed for one device can't be used to delete another. So is the device that asks.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#user-interactive-api-in-the-rest-api>

use std::{collections::BTreeMap, net::IpAddr};

use ruma::{
    api::{
        IncomingRequest,
        client::uiaa::{AuthData, AuthType},
        error::DeserializationError,
    },
    serde::JsonObject,
};
use serde_json::{Value, json};

use super::{
    error::{ApiError, ApiResult},
    own::metadata_of,
};
use crate::{
    app::App,
    people::{
        account::{Caller, User},
        uia::{Demand, Flow, Passed, Verdict},
    },
};

/// Endpoint `R` behind user-interactive authentication.
///
/// `R` is read from the body without `auth`, so its fields are judged before anybody is asked for a password.
pub(crate) struct Interactive<R> {
    pub(crate) request: R,
    pub(crate) auth: Option<AuthData>,
    /// Path and body as they were sent, without `auth`. There may be a password in it.
    params: String,
}

metadata_of!(for R: Interactive<R>);

impl<R: IncomingRequest> IncomingRequest for Interactive<R> {
    type EndpointError = R::EndpointError;
    type OutgoingResponse = R::OutgoingResponse;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        let (parts, body) = request.into_parts();
        let mut body: JsonObject = serde_json::from_slice(body)?;
        // Taken out first: `auth` differs with each stage, and what is left is what a password confirms.
        let auth = body.remove("auth").map(read_auth).transpose()?.flatten();
        let params = json!([path_args, body]).to_string();
        let body = serde_json::to_vec(&body)?;
        let request = R::try_from_http_request_inner(http::Request::from_parts(parts, &body), path_args)?;
        Ok(Self { request, auth, params })
    }
}

/// None for an empty `auth`, with which clients ask what the flows are.
fn read_auth(mut auth: Value) -> serde_json::Result<Option<AuthData>> {
    if let Value::Object(auth) = &mut auth {
        if !auth.contains_key("type") && !auth.contains_key("session") {
            return Ok(None);
        }
        if auth.get("type").is_some_and(|kind| kind == "m.login.password")
            && !auth.contains_key("identifier")
            && let Some(user) = auth.remove("user")
        {
            auth.insert("identifier".to_owned(), json!({ "type": "m.id.user", "user": user }));
        }
    }
    serde_json::from_value(auth)
}

impl<R> Interactive<R> {
    /// The session that the client goes on with.
    pub(crate) fn session_id(&self) -> Option<&str> {
        self.auth.as_ref()?.session()
    }

    /// Lets a user of this server go on who gives their password again.
    ///
    /// Each password that is shown counts as a guess of the device; asking for the flows alone does not.
    /// `operation` keeps a session that was begun at one endpoint from being completed at another.
    pub(crate) async fn confirm_password(
        &self,
        app: &App,
        operation: &'static str,
        user: &User,
        address: IpAddr,
    ) -> ApiResult<()> {
        if let Some(AuthData::Password(_)) = self.auth {
            app.rate_limits.check_confirmation(&user.user_id, &user.device_id).await?;
        }
        let (user_id, flows) = (Some(&*user.user_id), [vec![AuthType::Password]]);
        // What was begun on one device is confirmed there.
        let params = json!([user.device_id, self.params]).to_string();
        let demand = Demand { user_id, params: &params, ..Demand::new(operation, &flows, address) };
        self.authenticate(app, demand).await?;
        // A password waits for its turn, and is compared with the hash from before that: whoever has been logged out or
        // locked meanwhile confirms nothing any more.
        app.catch_up().await?;
        Ok(Box::pin(app.accounts.check_still_logged_in(&Caller::User(user.clone()))).await?)
    }

    /// Lets somebody go on who has completed one of the flows, whatever they ask for this time: clients register after
    /// they have asked for the flows with an empty body. Only the documents to accept stay those that they were shown
    /// at the beginning. `request` is kept for those who say only once what they want.
    pub(crate) async fn complete(
        &self,
        app: &App,
        operation: &'static str,
        flows: &[Flow],
        request: &str,
        address: IpAddr,
    ) -> ApiResult<Passed> {
        let terms = flows.iter().flatten().any(|stage| *stage == AuthType::Terms);
        let shown: BTreeMap<_, _> = app.terms.versions().filter(|_| terms).collect();
        let params = if shown.is_empty() { String::new() } else { json!(shown).to_string() };
        let demand = Demand { params: &params, request: Some(request), ..Demand::new(operation, flows, address) };
        self.authenticate(app, demand).await
    }

    /// Lets somebody go on who is not logged in, has completed one of the flows and asks for this and nothing else.
    pub(crate) async fn complete_for_this(
        &self,
        app: &App,
        operation: &'static str,
        flows: &[Flow],
        address: IpAddr,
    ) -> ApiResult<Passed> {
        self.authenticate(app, Demand { params: &self.params, ..Demand::new(operation, flows, address) }).await
    }

    /// Whoever has more to do gets 401 with the flows and what is completed, by which clients go on.
    async fn authenticate(&self, app: &App, demand: Demand<'_>) -> ApiResult<Passed> {
        match app.uia.authenticate(&demand, self.auth.as_ref()).await? {
            Verdict::Passed(passed) => Ok(passed),
            Verdict::Continue(info) => Err(ApiError::Interactive(info)),
        }
    }
}

#[cfg(test)]
mod tests {
    use ruma::api::client::uiaa::UserIdentifier;

    use super::*;

    #[test]
    fn what_clients_send_as_auth() {
        for nothing in [json!(null), json!({}), json!({ "password": "x" })] {
            assert!(read_auth(nothing).unwrap().is_none());
        }
        for user in [json!({ "user": "alice" }), json!({ "identifier": { "type": "m.id.user", "user": "alice" } })] {
            let mut auth = json!({ "type": "m.login.password", "password": "x", "session": "s" });
            auth.as_object_mut().unwrap().extend(user.as_object().unwrap().clone());
            let Some(AuthData::Password(password)) = read_auth(auth).unwrap() else { panic!() };
            assert!(matches!(password.identifier, UserIdentifier::Matrix(name) if name.user == "alice"));
            assert_eq!(password.session.as_deref(), Some("s"));
        }
        assert!(read_auth(json!({ "type": "m.login.password" })).is_err());
        assert!(read_auth(json!("alice")).is_err());
    }
}
