//! Which devices are connected to any node: so that a client whose requests go now to one node and now to another is
//! not taken for gone by those that it has left.

use std::collections::HashSet;

use redis::Pipeline;
use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};

use super::timing::{LOOK, OFFLINE};
use crate::{edge::hub::SharedValues, event::fact::NodeId};

/// Devices are written up this many at a time.
const CHUNK: usize = 500;

fn key(shared_values: &SharedValues, user_id: &UserId, device_id: &DeviceId) -> String {
    shared_values.key(&format!("present:{user_id}/{device_id}"))
}

/// Writes into Redis that these devices are connected to this node. That expires a little after the next look would
/// have renewed it.
pub(super) async fn show(shared_values: &SharedValues, here: &NodeId, devices: &[(OwnedUserId, OwnedDeviceId)]) {
    let expiry = (OFFLINE + LOOK).as_millis();
    for chunk in devices.chunks(CHUNK) {
        let mut commands = Pipeline::new();
        for (user_id, device_id) in chunk {
            let key = key(shared_values, user_id, device_id);
            commands.cmd("SET").arg(key).arg(here.as_str()).arg("PX").arg(expiry.to_string()).ignore();
        }
        if shared_values.ask::<()>(&commands).await.is_none() {
            return;
        }
    }
}

/// Those of a user's devices of which another node than this was the last to say that they are connected to it. None of
/// them without Redis.
pub(super) async fn list_elsewhere(
    shared_values: &SharedValues,
    here: &NodeId,
    user_id: &UserId,
    devices: &[OwnedDeviceId],
) -> HashSet<OwnedDeviceId> {
    if devices.is_empty() {
        return HashSet::new();
    }
    let mut commands = Pipeline::new();
    commands.cmd("MGET").arg(devices.iter().map(|id| key(shared_values, user_id, id)).collect::<Vec<_>>());
    let (nodes,): (Vec<Option<String>>,) = shared_values.ask(&commands).await.unwrap_or_default();
    let seen = devices.iter().zip(nodes).filter(|(_, node)| node.as_ref().is_some_and(|node| node != here.as_str()));
    seen.map(|(id, _)| id.clone()).collect()
}
