//! Dehydrated devices, which take messages for a user who is logged in nowhere.
//!
//! The proposal is not accepted yet. This is its shape of 2026, in which messages are asked for by GET and paged as
//! everything else is. Element X and other clients still send a POST and go on until a page is empty, so that is there too.
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/3814>

use std::collections::BTreeMap;

use ruma::{
    OwnedDeviceId, OwnedOneTimeKeyId,
    api::{auth_scheme::AccessToken, client::keys::upload_keys::v3::Request as KeyUpload},
    encryption::{DeviceKeys, OneTimeKey},
    serde::Raw,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};

use super::token;
use crate::{
    api::{
        error::ApiResult,
        extract::Call,
        json::Json,
        own::{own_request, read_path, read_query},
        route::Endpoints,
    },
    app::App,
    error::{Error, Result},
    ground::position::Position,
    people::{
        account::User,
        dehydrated_device::{DehydratedDevice, MAX_EVENTS, NewDehydratedDevice, WaitingMessage},
    },
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints
        .endpoint::<Put, _, _>(put)
        .endpoint::<Get, _, _>(get)
        .endpoint::<Delete, _, _>(delete)
        .endpoint::<Events, _, _>(events)
        .endpoint::<EventsOfOld, _, _>(events_of_old)
}

/// A device with its keys, public and private ones.
#[derive(Deserialize)]
struct Uploaded {
    device_id: OwnedDeviceId,
    device_data: Box<RawValue>,
    initial_device_display_name: Option<String>,
    device_keys: Raw<DeviceKeys>,
    #[serde(default)]
    one_time_keys: BTreeMap<OwnedOneTimeKeyId, Raw<OneTimeKey>>,
    #[serde(default)]
    fallback_keys: BTreeMap<OwnedOneTimeKeyId, Raw<OneTimeKey>>,
}

/// What clients have to find in what is stored, and everything else that they have put there.
#[derive(Deserialize)]
struct DeviceData {
    #[serde(rename = "algorithm")]
    _algorithm: String,
    #[serde(flatten)]
    _others: BTreeMap<String, Value>,
}

#[derive(Serialize)]
struct StoredDevice<'a> {
    device_id: OwnedDeviceId,
    device_data: &'a RawValue,
}

/// Where to go on, and how much to read at most.
#[derive(Deserialize)]
struct PageQuery {
    from: Option<String>,
    limit: Option<u32>,
}

#[derive(Deserialize)]
struct PageBody {
    next_batch: Option<String>,
}

/// A piece of an inbox, oldest first.
#[derive(Serialize)]
struct EventsPage<'a> {
    events: Vec<ToDeviceEvent<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_batch: Option<String>,
}

#[derive(Serialize)]
struct ToDeviceEvent<'a> {
    sender: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    content: &'a RawValue,
}

impl<'a> From<&'a WaitingMessage> for ToDeviceEvent<'a> {
    fn from(message: &'a WaitingMessage) -> Self {
        Self { sender: message.sender.as_str(), kind: &message.kind, content: &message.content }
    }
}

own_request!(
    Put { uploaded: Uploaded }: PUT AccessToken history {
        unstable => "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device",
    } -> Json,
    |request, _path| Ok(Self { uploaded: serde_json::from_slice(request.body())? })
);

own_request!(
    Get {}: GET AccessToken history {
        unstable => "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device",
    } -> Json,
    |_request, _path| Ok(Self {})
);

own_request!(
    Delete {}: DELETE AccessToken history {
        unstable => "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device",
    } -> Json,
    |_request, _path| Ok(Self {})
);

own_request!(
    Events { device_id: OwnedDeviceId, query: PageQuery }: GET AccessToken history {
        unstable => "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device/{device_id}/events",
    } -> Json,
    |request, path| {
        let (device_id,) = read_path(path)?;
        Ok(Self { device_id, query: read_query(&request)? })
    }
);

own_request!(
    EventsOfOld { device_id: OwnedDeviceId, query: PageQuery, body: PageBody }: POST AccessToken history {
        unstable => "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device/{device_id}/events",
    } -> Json,
    |request, path| {
        let (device_id,) = read_path(path)?;
        Ok(Self { device_id, query: read_query(&request)?, body: serde_json::from_slice(request.body())? })
    }
);

/// Takes the place of the dehydrated device that the user had.
async fn put(app: App, call: Call<Put>) -> ApiResult<Json> {
    let Uploaded { device_id, device_data, initial_device_display_name, device_keys, one_time_keys, fallback_keys } =
        call.request.uploaded;
    if let Err(error) = serde_json::from_str::<DeviceData>(device_data.get()) {
        return Err(Error::bad_json(format!("device_data can't be kept: {error}")).into());
    }
    let mut keys = KeyUpload::new();
    (keys.device_keys, keys.one_time_keys, keys.fallback_keys) = (Some(device_keys), one_time_keys, fallback_keys);
    let device = DehydratedDevice { id: device_id.clone(), data: device_data.get().to_owned() };
    let new = NewDehydratedDevice { device, display_name: initial_device_display_name, keys };
    app.dehydrated_devices.put(&call.caller, new).await?;
    Ok(Json::from(json!({ "device_id": device_id })))
}

/// Clients learn from `M_NOT_FOUND` that the server knows such devices, and that there is none.
async fn get(app: App, call: Call<Get>) -> ApiResult<Json> {
    let DehydratedDevice { id, data } = app.dehydrated_devices.get(&call.caller.user_id).await?;
    let device_data: &RawValue = serde_json::from_str(&data).map_err(Error::broken)?;
    Ok(Json::of(&StoredDevice { device_id: id, device_data }).map_err(Error::broken)?)
}

async fn delete(app: App, call: Call<Delete>) -> ApiResult<Json> {
    let device = app.dehydrated_devices.delete(&call.caller).await?;
    Ok(Json::from(json!({ "device_id": device.id })))
}

/// The last page has no `next_batch`.
async fn events(app: App, call: Call<Events>) -> ApiResult<Json> {
    let Events { device_id, query: PageQuery { from, limit } } = call.request;
    page(&app, &call.caller, device_id, (from.as_deref(), limit), LastPage::Ends).await
}

/// As clients ask since before 2026: every page has a `next_batch`, and after the last one there is an empty one.
async fn events_of_old(app: App, call: Call<EventsOfOld>) -> ApiResult<Json> {
    let EventsOfOld { device_id, query: PageQuery { limit, .. }, body: PageBody { next_batch } } = call.request;
    page(&app, &call.caller, device_id, (next_batch.as_deref(), limit), LastPage::GoesOn).await
}

/// Whether the last page says where to go on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LastPage {
    Ends,
    GoesOn,
}

async fn page(
    app: &App,
    caller: &User,
    device_id: OwnedDeviceId,
    (from, limit): (Option<&str>, Option<u32>),
    last_page: LastPage,
) -> ApiResult<Json> {
    let after = token::listening_point(app, from).await?.unwrap_or(Position::START);
    let limit = limit.map_or(MAX_EVENTS, |limit| usize::try_from(limit).unwrap_or(MAX_EVENTS));
    let page = app.dehydrated_devices.events(&caller.user_id, &device_id, after, limit).await?;
    let goes_on = page.is_full || last_page == LastPage::GoesOn;
    let next_batch = if goes_on { Some(next(app, &page.messages, after).await?) } else { None };
    let page = EventsPage { events: page.messages.iter().map(ToDeviceEvent::from).collect(), next_batch };
    Ok(Json::of(&page).map_err(Error::broken)?)
}

/// The place of the last message, or the same as before.
async fn next(app: &App, messages: &[WaitingMessage], before: Position) -> Result<String> {
    let position = messages.last().map_or(before, |message| message.position);
    Ok(app.log.token(position).await?.to_string())
}
