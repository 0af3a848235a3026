//! One's own addresses outside of Matrix: on the account, and at identity servers.
//!
//! On the account an address is a way to log in and to reset the password, so adding one takes the password; published
//! at an identity server it lets others find the user, and takes only proof to that server.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#adding-account-administrative-contact-information>

use http::Method;
use ruma::{
    OwnedClientSecret, OwnedSessionId,
    api::{
        IncomingRequest, Metadata,
        client::account::{
            ThirdPartyIdRemovalStatus, add_3pid::v3 as add_3pid, bind_3pid::v3 as bind_3pid,
            delete_3pid::v3 as delete_3pid, get_3pids::v3 as get_3pids, unbind_3pid::v3 as unbind_3pid,
        },
        error::{DeserializationError, ErrorKind},
    },
};
use serde::Deserialize;
use serde_json::json;

use crate::{
    api::{
        error::ApiResult,
        extract::Call,
        interactive::Interactive,
        json::{AsJson, Json},
        route::Endpoints,
    },
    app::App,
    error::Error,
    people::threepid::{Credentials, Operation, unproved},
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints
        .endpoint::<AsJson<get_3pids::Request>, _, _>(list)
        .endpoint::<AddContact, _, _>(add_contact)
        .endpoint::<Interactive<add_3pid::Request>, _, _>(add)
        .endpoint::<bind_3pid::Request, _, _>(bind)
        .endpoint::<unbind_3pid::Request, _, _>(unbind)
        .endpoint::<delete_3pid::Request, _, _>(delete)
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3account3pid>
///
/// Ruma leaves out an empty list, in which clients look for its length.
async fn list(app: App, call: Call<AsJson<get_3pids::Request>>) -> ApiResult<Json> {
    let threepids = app.threepids.list(&call.caller.user_id).await?;
    let threepids = threepids.iter().map(|threepid| {
        json!({
            "medium": threepid.medium,
            "address": threepid.address,
            "validated_at": threepid.validated_ts,
            "added_at": threepid.added_ts,
        })
    });
    Ok(Json::from(json!({ "threepids": threepids.collect::<Vec<_>>() })))
}

/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3account3pidadd>
async fn add(app: App, call: Call<Interactive<add_3pid::Request>>) -> ApiResult<add_3pid::Response> {
    let add_3pid::Request { sid, client_secret, .. } = &call.request.request;
    let user_id = &call.caller.user_id;
    // The answer may have been lost.
    if app.threepids.has_added(user_id, sid, client_secret).await? {
        return Ok(add_3pid::Response::new());
    }
    // Before the password is asked for: nobody shall type it for nothing.
    let proof = app.threepids.find_proof(Operation::AddThreepid, sid, client_secret).await?.ok_or_else(unproved)?;
    call.request.confirm_password(&app, Operation::AddThreepid.as_str(), &call.caller, call.address).await?;
    match app.threepids.add((user_id, &call.caller.device_id), &proof, call.address).await {
        // The same request came twice at once.
        Err(_) if app.threepids.has_added(user_id, sid, client_secret).await? => {}
        added => added?,
    }
    Ok(add_3pid::Response::new())
}

/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3account3pidbind>
async fn bind(app: App, call: Call<bind_3pid::Request>) -> ApiResult<bind_3pid::Response> {
    let bind_3pid::Request { client_secret, identity_server_info: info, sid, .. } = &call.request;
    let credentials =
        Credentials { id_server: &info.id_server, id_access_token: &info.id_access_token, sid, client_secret };
    app.threepids.bind(&call.caller.user_id, credentials).await?;
    Ok(bind_3pid::Response::new())
}

/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3account3pid>
///
/// By its specification it does what `/3pid/bind` does, under an error code of its own. It adds nothing to the account:
/// for that, the password is asked.
async fn add_contact(app: App, call: Call<AddContact>) -> ApiResult<bind_3pid::Response> {
    let ThreePidCredentials { client_secret, id_server, id_access_token, sid } = &call.request.three_pid_creds;
    let credentials = Credentials { id_server, id_access_token, sid, client_secret };
    app.threepids.bind(&call.caller.user_id, credentials).await.map_err(|error| match error {
        Error::Relayed { status: 400..=499, message, .. } => Error::refused(ErrorKind::ThreepidAuthFailed, message),
        error => error,
    })?;
    Ok(bind_3pid::Response::new())
}

/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3account3pidunbind>
async fn unbind(app: App, call: Call<unbind_3pid::Request>) -> ApiResult<unbind_3pid::Response> {
    let unbind_3pid::Request { id_server, medium, address, .. } = &call.request;
    let all = app.threepids.unbind(&call.caller.user_id, medium, address, id_server.as_deref()).await?;
    Ok(unbind_3pid::Response::new(unbind_result(all)))
}

/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3account3piddelete>
async fn delete(app: App, call: Call<delete_3pid::Request>) -> ApiResult<delete_3pid::Response> {
    let delete_3pid::Request { id_server, medium, address, .. } = &call.request;
    let owner = (&*call.caller.user_id, &*call.caller.device_id);
    let all = app.threepids.remove(owner, (medium, address), id_server.as_deref(), call.address).await?;
    Ok(delete_3pid::Response::new(unbind_result(all)))
}

/// Whether every identity server has forgotten what it was to forget.
pub(super) fn unbind_result(all: bool) -> ThirdPartyIdRemovalStatus {
    if all { ThirdPartyIdRemovalStatus::Success } else { ThirdPartyIdRemovalStatus::NoSupport }
}

/// `POST /account/3pid`, which ruma does not know any more.
#[derive(Deserialize)]
pub(crate) struct AddContact {
    three_pid_creds: ThreePidCredentials,
}

#[derive(Deserialize)]
struct ThreePidCredentials {
    client_secret: OwnedClientSecret,
    id_server: String,
    id_access_token: String,
    sid: OwnedSessionId,
}

impl Metadata for AddContact {
    type Authentication = <get_3pids::Request as Metadata>::Authentication;
    type PathBuilder = <get_3pids::Request as Metadata>::PathBuilder;

    const METHOD: Method = Method::POST;
    const RATE_LIMITED: bool = true;
    const PATH_BUILDER: Self::PathBuilder = get_3pids::Request::PATH_BUILDER;
}

impl IncomingRequest for AddContact {
    type EndpointError = <bind_3pid::Request as IncomingRequest>::EndpointError;
    type OutgoingResponse = bind_3pid::Response;

    fn try_from_http_request_inner(request: http::Request<&[u8]>, _: &[&str]) -> Result<Self, DeserializationError> {
        Ok(serde_json::from_slice(request.body())?)
    }
}
