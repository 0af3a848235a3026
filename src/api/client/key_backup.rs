//! Backups of encryption keys.
//!
//! What a client keeps here is its own: `auth_data` and `session_data` are answered with as they were sent.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#server-side-key-backups>

mod download;

use ruma::{
    OwnedRoomId, UInt,
    api::{
        client::backup::{
            RoomKeyBackup, add_backup_keys::v3 as add_backup_keys,
            add_backup_keys_for_room::v3 as add_backup_keys_for_room,
            add_backup_keys_for_session::v3 as add_backup_keys_for_session,
            create_backup_version::v3 as create_backup_version, delete_backup_keys::v3 as delete_backup_keys,
            delete_backup_keys_for_room::v3 as delete_backup_keys_for_room,
            delete_backup_keys_for_session::v3 as delete_backup_keys_for_session,
            delete_backup_version::v3 as delete_backup_version, get_backup_info::v3 as get_backup_info,
            get_backup_keys::v3 as get_backup_keys, get_backup_keys_for_room::v3 as get_backup_keys_for_room,
            get_backup_keys_for_session::v3 as get_backup_keys_for_session,
            get_latest_backup_info::v3 as get_latest_backup_info, update_backup_version::v3 as update_backup_version,
        },
        error::DeserializationError,
    },
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, value::RawValue};

use self::download::KeyDownload;
use crate::{
    api::{
        endpoint::RawAnswer,
        error::ApiResult,
        extract::Call,
        json::{AsJson, Json},
        own::Download,
        read::named,
        route::Endpoints,
    },
    app::App,
    error::{Error, Result},
    people::{
        account::User,
        key_backup::{Backup, Contents, KeyBackupData, KeySelection, SessionKey, Standing},
    },
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints
        .endpoint::<create_backup_version::Request, _, _>(create)
        .endpoint::<AsJson<get_latest_backup_info::Request>, _, _>(latest)
        .endpoint::<AsJson<get_backup_info::Request>, _, _>(version)
        .endpoint::<update_backup_version::Request, _, _>(update)
        .endpoint::<delete_backup_version::Request, _, _>(delete)
        .endpoint::<add_backup_keys::Request, _, _>(put_keys)
        .endpoint::<add_backup_keys_for_room::Request, _, _>(put_keys_of_room)
        .endpoint::<add_backup_keys_for_session::Request, _, _>(put_key)
        .endpoint::<Download<get_backup_keys::Request>, _, _>(keys)
        .endpoint::<Download<get_backup_keys_for_room::Request>, _, _>(keys_of_room)
        .endpoint::<AsJson<get_backup_keys_for_session::Request>, _, _>(key)
        .endpoint::<delete_backup_keys::Request, _, _>(delete_keys)
        .endpoint::<delete_backup_keys_for_room::Request, _, _>(delete_keys_of_room)
        .endpoint::<delete_backup_keys_for_session::Request, _, _>(delete_key)
}

/// What a client makes a backup with, or sends to have it changed.
#[derive(Deserialize)]
struct BackupSetup {
    algorithm: String,
    auth_data: Box<RawValue>,
    /// Of a backup that is there: as in the path, or left out.
    version: Option<String>,
}

/// A key as a client sends it.
#[derive(Deserialize)]
struct SentKey {
    first_message_index: UInt,
    forwarded_count: UInt,
    is_verified: bool,
    session_data: Box<RawValue>,
}

#[derive(Serialize)]
struct BackupInfo<'a> {
    algorithm: &'a str,
    auth_data: &'a RawValue,
    count: i64,
    etag: &'a str,
    version: String,
}

/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3room_keysversion>
async fn create(app: App, call: Call<create_backup_version::Request>) -> ApiResult<create_backup_version::Response> {
    let setup = read_setup(call.request.algorithm.json())?;
    let version = app.key_backups.create(&call.caller.user_id, &setup.algorithm, &setup.auth_data).await?;
    Ok(create_backup_version::Response::new(version.to_string()))
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3room_keysversion>
async fn latest(app: App, call: Call<AsJson<get_latest_backup_info::Request>>) -> ApiResult<Json> {
    let backup = app.key_backups.find_newest(&call.caller.user_id).await?;
    shown(&backup.ok_or_else(|| Error::not_found("You have no backup of keys"))?)
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3room_keysversionversion>
async fn version(app: App, call: Call<AsJson<get_backup_info::Request>>) -> ApiResult<Json> {
    shown(&app.key_backups.get(&call.caller.user_id, &call.request.0.version).await?)
}

/// <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3room_keysversionversion>
async fn update(app: App, call: Call<update_backup_version::Request>) -> ApiResult<update_backup_version::Response> {
    let update_backup_version::Request { version, algorithm, .. } = call.request;
    let setup = read_setup(algorithm.json())?;
    if setup.version.is_some_and(|named| named != version) {
        return Err(Error::invalid_param("The body names another version than the path").into());
    }
    app.key_backups.set_auth_data(&call.caller.user_id, &version, &setup.algorithm, &setup.auth_data).await?;
    Ok(update_backup_version::Response::new())
}

/// <https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3room_keysversionversion>
///
/// What was deleted before is deleted again without an error.
async fn delete(app: App, call: Call<delete_backup_version::Request>) -> ApiResult<delete_backup_version::Response> {
    app.key_backups.delete(&call.caller.user_id, &call.request.version).await?;
    Ok(delete_backup_version::Response::new())
}

/// <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3room_keyskeys>
async fn put_keys(app: App, call: Call<add_backup_keys::Request>) -> ApiResult<add_backup_keys::Response> {
    let add_backup_keys::Request { version, rooms, .. } = call.request;
    let mut keys = Vec::new();
    for (room_id, RoomKeyBackup { sessions, .. }) in rooms {
        for (session_id, key) in sessions {
            keys.push(read_key(room_id.clone(), session_id, key.json())?);
        }
    }
    let (etag, count) = put(&app, &call.caller, &version, &keys).await?;
    Ok(add_backup_keys::Response::new(etag, count))
}

/// <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3room_keyskeysroomid>
async fn put_keys_of_room(
    app: App,
    call: Call<add_backup_keys_for_room::Request>,
) -> ApiResult<add_backup_keys_for_room::Response> {
    let add_backup_keys_for_room::Request { version, room_id, sessions, .. } = call.request;
    let read = sessions.into_iter().map(|(session_id, key)| read_key(room_id.clone(), session_id, key.json()));
    let keys: Vec<SessionKey> = read.collect::<ApiResult<_>>()?;
    let (etag, count) = put(&app, &call.caller, &version, &keys).await?;
    Ok(add_backup_keys_for_room::Response::new(etag, count))
}

/// <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3room_keyskeysroomidsessionid>
async fn put_key(
    app: App,
    call: Call<add_backup_keys_for_session::Request>,
) -> ApiResult<add_backup_keys_for_session::Response> {
    let add_backup_keys_for_session::Request { version, room_id, session_id, session_data, .. } = call.request;
    let key = read_key(room_id, session_id, session_data.json())?;
    let (etag, count) = put(&app, &call.caller, &version, &[key]).await?;
    Ok(add_backup_keys_for_session::Response::new(etag, count))
}

async fn put(app: &App, caller: &User, version: &str, keys: &[SessionKey]) -> Result<(String, UInt)> {
    update_of(app.key_backups.put_keys(&caller.user_id, version, keys).await?)
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3room_keyskeys>
async fn keys(app: App, call: Call<Download<get_backup_keys::Request>>) -> ApiResult<RawAnswer> {
    let Call { request: Download(request), caller, .. } = call;
    KeyDownload::new(app, caller, request.version, None).answer().await
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3room_keyskeysroomid>
async fn keys_of_room(app: App, call: Call<Download<get_backup_keys_for_room::Request>>) -> ApiResult<RawAnswer> {
    let Call { request: Download(request), caller, .. } = call;
    KeyDownload::new(app, caller, request.version, Some(request.room_id)).answer().await
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3room_keyskeysroomidsessionid>
async fn key(app: App, call: Call<AsJson<get_backup_keys_for_session::Request>>) -> ApiResult<Json> {
    let Call { request: AsJson(request), caller, .. } = call;
    let session = (&*request.room_id, request.session_id.as_str());
    let key = app.key_backups.find_key(&caller.user_id, &request.version, session).await?;
    let key = key.ok_or_else(|| Error::not_found("The backup has no key for this session"))?;
    Ok(Json::of(&key).map_err(Error::broken)?)
}

/// <https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3room_keyskeys>
async fn delete_keys(app: App, call: Call<delete_backup_keys::Request>) -> ApiResult<delete_backup_keys::Response> {
    let which = KeySelection::All;
    let (etag, count) = delete_some(&app, &call.caller, &call.request.version, which).await?;
    Ok(delete_backup_keys::Response::new(etag, count))
}

/// <https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3room_keyskeysroomid>
async fn delete_keys_of_room(
    app: App,
    call: Call<delete_backup_keys_for_room::Request>,
) -> ApiResult<delete_backup_keys_for_room::Response> {
    let which = KeySelection::OfRoom(&call.request.room_id);
    let (etag, count) = delete_some(&app, &call.caller, &call.request.version, which).await?;
    Ok(delete_backup_keys_for_room::Response::new(etag, count))
}

/// <https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3room_keyskeysroomidsessionid>
///
/// A key that is not there is as good as deleted: only a missing backup is an error.
async fn delete_key(
    app: App,
    call: Call<delete_backup_keys_for_session::Request>,
) -> ApiResult<delete_backup_keys_for_session::Response> {
    let which = KeySelection::OfSession(&call.request.room_id, &call.request.session_id);
    let (etag, count) = delete_some(&app, &call.caller, &call.request.version, which).await?;
    Ok(delete_backup_keys_for_session::Response::new(etag, count))
}

async fn delete_some(app: &App, caller: &User, version: &str, which: KeySelection<'_>) -> Result<(String, UInt)> {
    update_of(app.key_backups.delete_keys(&caller.user_id, version, which).await?)
}

/// What every change of keys answers with.
fn update_of(contents: Contents) -> Result<(String, UInt)> {
    Ok((contents.etag, UInt::try_from(contents.sessions).map_err(Error::broken)?))
}

fn shown(backup: &Backup) -> ApiResult<Json> {
    let auth_data: &RawValue = serde_json::from_str(&backup.auth_data).map_err(Error::broken)?;
    let info = BackupInfo {
        algorithm: &backup.algorithm,
        auth_data,
        count: backup.contents.sessions,
        etag: &backup.contents.etag,
        version: backup.version.to_string(),
    };
    Ok(Json::of(&info).map_err(Error::broken)?)
}

fn read_setup(json: &RawValue) -> ApiResult<BackupSetup> {
    let setup: BackupSetup = read_object(json)?;
    check_kept("auth_data", &setup.auth_data)?;
    Ok(setup)
}

/// A key for a session. Fields that the specification does not name are left out of it.
fn read_key(room_id: OwnedRoomId, session_id: String, json: &RawValue) -> ApiResult<SessionKey> {
    let SentKey { first_message_index, forwarded_count, is_verified, session_data } = read_object(json)?;
    check_kept("session_data", &session_data)?;
    let standing = Standing {
        first_message_index: first_message_index.into(),
        forwarded_count: forwarded_count.into(),
        is_verified,
    };
    Ok(SessionKey { room_id, session_id, data: KeyBackupData { standing, session_data } })
}

/// Serde alone would read a list of the fields as well.
fn read_object<T: DeserializeOwned>(json: &RawValue) -> ApiResult<T> {
    if !is_object(json) {
        return Err(Error::bad_json("A backup, and a key in it, is a JSON object").into());
    }
    serde_json::from_str(json.get()).map_err(|error| named(&DeserializationError::Json(error)))
}

/// Refuses what could not be returned as it came: one key that can't be read would break the whole backup.
fn check_kept(name: &str, json: &RawValue) -> Result<()> {
    if !is_object(json) {
        return Err(Error::bad_json(format!("{name} is a JSON object")));
    }
    match serde_json::from_str::<Value>(json.get()) {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::bad_json(format!("{name} can't be kept: {error}"))),
    }
}

fn is_object(json: &RawValue) -> bool {
    json.get().trim_start().starts_with('{')
}
