//! `dehydrated_devices`: of each user one device that takes messages while they are logged in nowhere. It is a row of
//! `devices` too, so that its keys, its inbox and its name are those of a device like any other.

use ruma::{DeviceId, OwnedDeviceId, UserId};

use crate::db::{Conn, DbResult, args, statements};

statements! {
    UPSERT_DEHYDRATED_DEVICE = "INSERT INTO dehydrated_devices (user_id, device_id, device_data) VALUES ($1, $2, $3)
        ON CONFLICT (user_id) DO UPDATE SET device_id = excluded.device_id, device_data = excluded.device_data";
    FIND_DEHYDRATED_DEVICE = "SELECT device_id, device_data FROM dehydrated_devices WHERE user_id = $1";
    DELETE_ORPHANED_DEHYDRATED_DEVICE = "DELETE FROM dehydrated_devices WHERE user_id = $1
        AND device_id NOT IN (SELECT device_id FROM devices WHERE user_id = $1)";
    WAKE_DEHYDRATED_DEVICE = "DELETE FROM dehydrated_devices WHERE user_id = $1 AND device_id = $2";
}

/// A device that is stored with its private keys, which the user's clients have encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DehydratedDevice {
    pub(crate) id: OwnedDeviceId,
    /// A JSON object, as the client has written it.
    pub(crate) data: String,
}

/// Puts a device in place of the one that the user had.
pub(crate) async fn upsert(conn: &mut Conn, user_id: &UserId, device: &DehydratedDevice) -> DbResult<()> {
    let DehydratedDevice { id, data } = device;
    conn.execute(&UPSERT_DEHYDRATED_DEVICE, args![user_id, id, data]).await.map(drop)
}

/// A user's dehydrated device.
pub(crate) async fn find(conn: &mut Conn, user_id: &UserId) -> DbResult<Option<DehydratedDevice>> {
    let row = conn.find(&FIND_DEHYDRATED_DEVICE, args![user_id]).await?;
    row.map(|row| Ok(DehydratedDevice { id: row.get(0)?, data: row.get(1)? })).transpose()
}

/// Forgets the one whose device was deleted.
pub(crate) async fn delete_orphan(conn: &mut Conn, user_id: &UserId) -> DbResult<()> {
    conn.execute(&DELETE_ORPHANED_DEHYDRATED_DEVICE, args![user_id]).await.map(drop)
}

/// Somebody logs in on this device: if it was dehydrated, it is so no more.
pub(crate) async fn wake(conn: &mut Conn, user_id: &UserId, device_id: &DeviceId) -> DbResult<()> {
    conn.execute(&WAKE_DEHYDRATED_DEVICE, args![user_id, device_id]).await.map(drop)
}
