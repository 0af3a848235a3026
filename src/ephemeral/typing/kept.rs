//! Whoever goes on typing says so again every few seconds. Where there is a Redis that is kept there, until it
//! expires, so that it costs the log nothing: only beginnings and ends are news.

use std::time::Duration;

use redis::Pipeline;
use ruma::{MilliSecondsSinceUnixEpoch, RoomId, UInt, UserId};

use crate::{edge::hub::SharedValues, event::fact::Typing};

/// Writes into Redis until when somebody types, which expires after `longest`. False without Redis.
pub(super) async fn keep(
    shared_values: &SharedValues,
    room_id: &RoomId,
    user_id: &UserId,
    until: MilliSecondsSinceUnixEpoch,
    longest: Duration,
) -> bool {
    let mut commands = Pipeline::new();
    let (key, expiry) = (key(shared_values, room_id, user_id), longest.as_millis().to_string());
    commands.cmd("SET").arg(key).arg(u64::from(until.get())).arg("PX").arg(expiry).ignore();
    shared_values.ask::<()>(&commands).await.is_some()
}

/// Removes what was written of somebody.
pub(super) async fn end(shared_values: &SharedValues, room_id: &RoomId, user_id: &UserId) {
    let mut commands = Pipeline::new();
    commands.cmd("DEL").arg(key(shared_values, room_id, user_id)).ignore();
    // What stays there expires by itself.
    let _: Option<()> = shared_values.ask(&commands).await;
}

/// Until when these people type, as far as Redis has it.
pub(super) async fn read(shared_values: &SharedValues, typists: &[Typing]) -> Vec<Option<MilliSecondsSinceUnixEpoch>> {
    if typists.is_empty() || !shared_values.is_there() {
        return vec![None; typists.len()];
    }
    let mut commands = Pipeline::new();
    commands.cmd("MGET");
    for typing in typists {
        commands.arg(key(shared_values, &typing.room_id, &typing.user_id));
    }
    let answer: Option<(Vec<Option<u64>>,)> = shared_values.ask(&commands).await;
    let announced = answer.map_or_else(|| vec![None; typists.len()], |(announced,)| announced);
    announced.into_iter().map(|until| Some(MilliSecondsSinceUnixEpoch(UInt::try_from(until?).ok()?))).collect()
}

/// One key for each user in each room.
fn key(shared_values: &SharedValues, room_id: &RoomId, user_id: &UserId) -> String {
    shared_values.key(&format!("typing:{room_id}:{user_id}"))
}
