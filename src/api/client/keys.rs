//! Public keys for end-to-end encryption: of devices, and those by which users vouch for them.
//!
//! Ruma leaves out of its answers what is empty; clients get every field. Keys are answered as they were uploaded, which
//! their signatures are of.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#end-to-end-encryption>

use std::mem;

use ruma::{
    UserId,
    api::client::keys::{
        claim_keys::v3 as claim_keys, get_keys::v3 as get_keys, upload_keys::v3 as upload_keys,
        upload_signatures::v3 as upload_signatures, upload_signing_keys::v3 as upload_signing_keys,
    },
};
use serde_json::json;

use super::parts::{self, Parts};
use crate::{
    api::{
        endpoint::RawAnswer,
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
/// What is too much for one part is read while the client reads the answer.
async fn query(app: App, call: Call<Download<get_keys::Request>>) -> ApiResult<RawAnswer> {
    let query = app.keys.query(&call.caller.user_id, &call.request.0.device_keys);
    parts::answer(KeyAnswer { app, caller: Caller::User(call.caller), query, text: Vec::new() }).await
}

struct KeyAnswer {
    app: App,
    caller: Caller,
    query: KeyQuery,
    /// The part that was written last.
    text: Vec<u8>,
}

impl Parts for KeyAnswer {
    const WHAT: &'static str = "an answer with keys";

    async fn write(&mut self) -> Result<bool> {
        let (text, is_last) = self.query.part().await?;
        // Whoever reads slowly may be logged out meanwhile.
        self.app.accounts.check_still_logged_in(&self.caller).await?;
        self.text = text;
        Ok(is_last)
    }

    fn take(&mut self) -> Vec<u8> {
        mem::take(&mut self.text)
    }

    fn end(self) -> Vec<u8> {
        self.text
    }

    fn user_id(&self) -> &UserId {
        self.caller.user_id()
    }
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

    use axum::body::Bytes;
    use futures_util::StreamExt as _;
    use serde_json::Value;

    use super::*;
    use crate::{
        api::endpoint::AnswerBody,
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
