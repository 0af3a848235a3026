//! Public keys for end-to-end encryption: of devices, and those by which users vouch for them.
//!
//! Ruma leaves out of its answers what is empty; clients get every field. Keys are answered as they were uploaded, which
//! their signatures are of.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#end-to-end-encryption>

use std::{future::ready, io};

use axum::body::Bytes;
use futures_util::{StreamExt as _, stream};
use ruma::api::client::keys::{
    claim_keys::v3 as claim_keys, get_keys::v3 as get_keys, upload_keys::v3 as upload_keys,
    upload_signatures::v3 as upload_signatures, upload_signing_keys::v3 as upload_signing_keys,
};
use serde_json::json;

use crate::{
    api::{
        endpoint::{AnswerBody, RawAnswer},
        error::ApiResult,
        extract::Call,
        interactive::Interactive,
        json::{AsJson, Json},
        own::Download,
        route::Endpoints,
    },
    app::App,
    error::{Error, Result},
    people::{
        account::Caller,
        keys::{Confirmation, KeyQuery, NewCrossSigning, Outcome},
    },
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints
        .endpoint::<AsJson<upload_keys::Request>, _, _>(upload)
        .endpoint::<Download<get_keys::Request>, _, _>(query)
        .endpoint::<AsJson<claim_keys::Request>, _, _>(claim)
        .endpoint::<Interactive<upload_signing_keys::Request>, _, _>(upload_cross_signing)
        .endpoint::<AsJson<upload_signatures::Request>, _, _>(upload_signatures)
}

/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysupload>
async fn upload(app: App, call: Call<AsJson<upload_keys::Request>>) -> ApiResult<Json> {
    let counts = app.keys.upload(&call.caller, &call.request.0).await?;
    Ok(Json::from(json!({ "one_time_key_counts": counts.one_time })))
}

/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysquery>
///
/// What is too much for one part is read while the client reads the answer. Where that fails half-way, it is broken off.
async fn query(app: App, call: Call<Download<get_keys::Request>>) -> ApiResult<RawAnswer> {
    let mut query = app.keys.query(&call.caller.user_id, &call.request.0.device_keys);
    let (first, is_last) = Box::pin(query.part()).await?;
    if is_last {
        return Ok(RawAnswer::json(AnswerBody::Whole(first.into())));
    }
    let first = stream::once(ready(Ok(Bytes::from(first))));
    let rest = stream::try_unfold(Some((app, Caller::User(call.caller), query)), |rest| async move {
        let Some((app, caller, mut query)) = rest else { return Ok(None) };
        match Box::pin(query_on(&app, &caller, &mut query)).await {
            Ok((part, is_last)) => Ok(Some((Bytes::from(part), (!is_last).then_some((app, caller, query))))),
            Err(error) => {
                let user_id = caller.user_id();
                tracing::warn!(%error, %user_id, "an answer with keys was broken off: the client has to ask again");
                Err(io::Error::other("the rest can't be read"))
            }
        }
    });
    Ok(RawAnswer::json(AnswerBody::Parts(first.chain(rest).boxed())))
}

/// Whoever reads slowly may be logged out meanwhile.
async fn query_on(app: &App, caller: &Caller, query: &mut KeyQuery) -> Result<(Vec<u8>, bool)> {
    let part = query.part().await?;
    app.accounts.check_still_logged_in(caller).await?;
    Ok(part)
}

/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysclaim>
async fn claim(app: App, call: Call<AsJson<claim_keys::Request>>) -> ApiResult<Json> {
    let keys = app.keys.claim(&call.request.0.one_time_keys).await?;
    Ok(Json::of(&keys).map_err(Error::broken)?)
}

/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysdevice_signingupload>
///
/// What can't be stored is refused before anybody is asked for a password. That is asked for only where something would
/// be replaced.
async fn upload_cross_signing(
    app: App,
    call: Call<Interactive<upload_signing_keys::Request>>,
) -> ApiResult<upload_signing_keys::Response> {
    let user = &call.caller;
    let keys = NewCrossSigning::read(&user.user_id, &call.request.request)?;
    if app.keys.upload_cross_signing(user, &keys, Confirmation::Missing).await? == Outcome::Unconfirmed {
        call.request.confirm_password(&app, "upload_cross_signing", user, call.address).await?;
        app.keys.upload_cross_signing(user, &keys, Confirmation::Given).await?;
    }
    Ok(upload_signing_keys::Response::new())
}

/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keyssignaturesupload>
async fn upload_signatures(app: App, call: Call<AsJson<upload_signatures::Request>>) -> ApiResult<Json> {
    let failures = app.keys.upload_signatures(&call.caller, &call.request.0.signed_keys).await?;
    Ok(Json::from(json!({ "failures": failures })))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::Value;

    use super::*;
    use crate::{
        people::account::{NewSession, User, tests::HERE},
        store::{device::DeviceSelection, device_key},
        testing::World,
    };

    /// Somebody with many devices that have large keys.
    async fn alice(world: &World, devices: usize) -> User {
        let accounts = &world.app.accounts;
        let user_id = accounts.create_user("alice", "correct horse", false).await.unwrap();
        let json = json!({ "more": "x".repeat(15 * 1024) }).to_string();
        let mut tx = world.app.db.begin().await.unwrap();
        for n in 0..devices {
            let device_id = format!("DEVICE{n}");
            device_key::upsert(&mut tx, &user_id, device_id.as_str().into(), &json, "a signature").await.unwrap();
        }
        tx.commit().await.unwrap();
        let new = NewSession { device_id: None, display_name: None, refreshable: false, address: HERE };
        let session = accounts.login_with_password("alice", "correct horse", new).await.unwrap();
        accounts.caller(&session.access_token, HERE).await.unwrap().into_user().unwrap()
    }

    async fn answer(world: &World, caller: User) -> AnswerBody {
        let mut request = get_keys::Request::new();
        request.device_keys = BTreeMap::from([(caller.user_id.clone(), Vec::new())]);
        let call = Call { request: Download(request), caller, address: HERE };
        query(world.app.clone(), call).await.unwrap().0.into_body()
    }

    #[tokio::test]
    async fn a_large_answer_is_made_while_it_is_read() {
        let world = World::new().await;
        let user = alice(&world, 600).await;
        let AnswerBody::Parts(parts) = answer(&world, user.clone()).await else { panic!("that is too much at once") };
        let text = parts.map(Result::unwrap).collect::<Vec<Bytes>>().await.concat();
        let keys: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(keys["device_keys"][user.user_id.as_str()].as_object().unwrap().len(), 600);

        let AnswerBody::Parts(mut parts) = answer(&world, user.clone()).await else {
            panic!("it is as much as before")
        };
        assert!(parts.next().await.unwrap().is_ok());
        world.app.accounts.delete_devices(&user.user_id, DeviceSelection::All).await.unwrap();
        assert!(parts.next().await.unwrap().is_err(), "whoever reads was logged out");
        drop(parts);
        world.close().await;
    }

    #[tokio::test]
    async fn a_small_answer_is_there_at_once() {
        let world = World::new().await;
        let user = alice(&world, 2).await;
        assert!(matches!(answer(&world, user).await, AnswerBody::Whole(_)));
        world.close().await;
    }
}
