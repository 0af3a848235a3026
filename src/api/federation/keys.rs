//! What servers sign with: this one, and others, for whom it speaks as a notary.
//!
//! None of these requests is signed: who asks may have no other way to learn the keys by which a signature is checked.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#retrieving-server-keys>

use ruma::{
    MilliSecondsSinceUnixEpoch,
    api::{
        error::ErrorKind,
        federation::discovery::{
            get_remote_server_keys::v2 as get_remote_server_keys,
            get_remote_server_keys_batch::v2 as get_remote_server_keys_batch, get_server_keys::v2 as get_server_keys,
        },
    },
    serde::Raw,
};

use crate::{
    api::{auth::check_federates, error::ApiResult, extract::Call, route::Endpoints},
    app::App,
    error::Error,
    federation::server_keys::{AskedKeys, KeyQuery},
    people::rate_limit::Limit,
};

/// About how many servers one request may ask.
const MAX_SERVERS: usize = 1_000;

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint(own_keys).endpoint(keys_of_server).endpoint(keys_of_servers)
}

/// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixkeyv2server>
async fn own_keys(app: App, _: Call<get_server_keys::Request>) -> ApiResult<get_server_keys::Response> {
    check_federates(&app)?;
    Ok(get_server_keys::Response::new(Raw::from_json(app.server_keys.own_document()?)))
}

/// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixkeyv2queryservername>
async fn keys_of_server(
    app: App,
    call: Call<get_remote_server_keys::Request>,
) -> ApiResult<get_remote_server_keys::Response> {
    check_federates(&app)?;
    let asked = AskedKeys { until: Some(millis(call.request.minimum_valid_until_ts)), ..AskedKeys::default() };
    let query = KeyQuery::from([(call.request.server_name, asked)]);
    let documents = app.server_keys.query(&query).await?;
    Ok(get_remote_server_keys::Response::new(documents.into_iter().map(Raw::from_json).collect()))
}

/// <https://spec.matrix.org/v1.19/server-server-api/#post_matrixkeyv2query>
async fn keys_of_servers(
    app: App,
    call: Call<get_remote_server_keys_batch::Request>,
) -> ApiResult<get_remote_server_keys_batch::Response> {
    check_federates(&app)?;
    let asked = call.request.server_keys;
    if asked.len() > MAX_SERVERS {
        let message = format!("Ask for the keys of {MAX_SERVERS} servers at once, at most");
        return Err(Error::refused(ErrorKind::TooLarge, message).into());
    }
    let cost = u32::try_from(asked.len()).unwrap_or(u32::MAX);
    app.rate_limits.check_address(Limit::Lookup, cost, call.address).await?;
    let query: KeyQuery = asked
        .into_iter()
        .map(|(server, keys)| {
            let keys = keys.into_iter().map(|(id, criteria)| (id, criteria.minimum_valid_until_ts.map(millis)));
            (server, AskedKeys { keys: keys.collect(), until: None })
        })
        .collect();
    let documents = app.server_keys.query(&query).await?;
    Ok(get_remote_server_keys_batch::Response::new(documents.into_iter().map(Raw::from_json).collect()))
}

fn millis(ts: MilliSecondsSinceUnixEpoch) -> i64 {
    ts.get().into()
}
