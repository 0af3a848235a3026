//! Backups of encryption keys. As long as none can be made, there is none.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#server-side-key-backups>

use ruma::api::client::backup::{
    get_backup_info::v3 as get_backup_info, get_latest_backup_info::v3 as get_latest_backup_info,
};

use crate::{
    api::{error::ApiResult, extract::Call, route::Endpoints},
    app::App,
    error::Error,
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints
        .endpoint::<get_latest_backup_info::Request, _, _>(latest)
        .endpoint::<get_backup_info::Request, _, _>(version)
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3room_keysversion>
async fn latest(_: App, _: Call<get_latest_backup_info::Request>) -> ApiResult<get_latest_backup_info::Response> {
    Err(Error::not_found("You have no backup of keys").into())
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3room_keysversionversion>
async fn version(_: App, call: Call<get_backup_info::Request>) -> ApiResult<get_backup_info::Response> {
    Err(Error::not_found(format!("You have no backup of keys {}", call.request.version)).into())
}
