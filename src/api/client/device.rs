//! Devices.
//!
//! Deleting devices takes the password again, since whoever finds an unlocked phone could log everybody else out with
//! it.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#device-management>

use ruma::{
    DeviceId,
    api::client::device::{delete_device, delete_devices, get_device, get_devices, update_device},
};
use serde::Serialize;
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
    people::device::{Device, DeviceSelection},
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints
        .endpoint::<AsJson<get_devices::v3::Request>, _, _>(list)
        .endpoint::<AsJson<get_device::v3::Request>, _, _>(get)
        .endpoint::<update_device::v3::Request, _, _>(update)
        .endpoint::<Interactive<delete_device::v3::Request>, _, _>(delete)
        .endpoint::<Interactive<delete_devices::v3::Request>, _, _>(delete_many)
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3devices>
async fn list(app: App, call: Call<AsJson<get_devices::v3::Request>>) -> ApiResult<Json> {
    let devices = app.devices.list(call.caller.user_id()).await?;
    Ok(Json::from(json!({ "devices": devices.iter().map(shown).collect::<Vec<_>>() })))
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3devicesdeviceid>
async fn get(app: App, call: Call<AsJson<get_device::v3::Request>>) -> ApiResult<Json> {
    let device = app.devices.get(call.caller.user_id(), &call.request.0.device_id).await?;
    Ok(Json::from(json!(shown(&device))))
}

/// <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3devicesdeviceid>
async fn update(app: App, call: Call<update_device::v3::Request>) -> ApiResult<update_device::v3::Response> {
    let update_device::v3::Request { device_id, display_name, .. } = call.request;
    match display_name {
        Some(display_name) => app.devices.rename(call.caller.user_id(), &device_id, &display_name).await?,
        // No name: nothing changes, but a device that is not there is still `M_NOT_FOUND`.
        None => app.devices.get(call.caller.user_id(), &device_id).await.map(drop)?,
    }
    Ok(update_device::v3::Response::new())
}

/// <https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3devicesdeviceid>
async fn delete(
    app: App,
    call: Call<Interactive<delete_device::v3::Request>>,
) -> ApiResult<delete_device::v3::Response> {
    call.request.confirm_password(&app, "delete_device", &call.caller, call.address).await?;
    let device_id = &call.request.request.device_id;
    app.accounts.delete_devices(&call.caller.user_id, DeviceSelection::These(&[device_id.as_str()])).await?;
    Ok(delete_device::v3::Response::new())
}

/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3delete_devices>
async fn delete_many(
    app: App,
    call: Call<Interactive<delete_devices::v3::Request>>,
) -> ApiResult<delete_devices::v3::Response> {
    call.request.confirm_password(&app, "delete_devices", &call.caller, call.address).await?;
    let device_ids: Vec<&str> = call.request.request.devices.iter().map(|device_id| device_id.as_str()).collect();
    app.accounts.delete_devices(&call.caller.user_id, DeviceSelection::These(&device_ids)).await?;
    Ok(delete_devices::v3::Response::new())
}

/// What is not known is `null`, as other servers have it: matrix-nio takes a device for broken where a key is absent,
/// as the specification wants it.
#[derive(Serialize)]
struct DeviceResponse<'a> {
    device_id: &'a DeviceId,
    display_name: Option<&'a str>,
    last_seen_ip: Option<&'a str>,
    last_seen_ts: Option<i64>,
}

fn shown(device: &Device) -> DeviceResponse<'_> {
    DeviceResponse {
        device_id: &device.id,
        display_name: device.display_name.as_deref(),
        last_seen_ip: device.last_seen_ip.as_deref(),
        last_seen_ts: device.last_seen_ts,
    }
}
