//! Whoever goes on typing says so again every few seconds. Where there is a Redis that is kept there, until it
//! expires, so that it costs the log nothing: only beginnings and ends are news.

use redis::Pipeline;
use ruma::{MilliSecondsSinceUnixEpoch, RoomId, UInt, UserId};

use super::LONGEST;
use crate::{fact::Typing, hub::Board};

/// Says on the board until when somebody types. False if there is no board to say it on.
pub(super) async fn keep(board: &Board, room_id: &RoomId, user_id: &UserId, until: MilliSecondsSinceUnixEpoch) -> bool {
    let mut commands = Pipeline::new();
    let (key, expiry) = (key(board, room_id, user_id), LONGEST.as_millis().to_string());
    commands.cmd("SET").arg(key).arg(u64::from(until.get())).arg("PX").arg(expiry).ignore();
    board.ask::<()>(&commands).await.is_some()
}

/// Takes down what was said of somebody.
pub(super) async fn end(board: &Board, room_id: &RoomId, user_id: &UserId) {
    let mut commands = Pipeline::new();
    commands.cmd("DEL").arg(key(board, room_id, user_id)).ignore();
    // What stays there expires by itself.
    let _: Option<()> = board.ask(&commands).await;
}

/// Until when these people type, as far as the board tells.
pub(super) async fn read(board: &Board, typists: &[Typing]) -> Vec<Option<MilliSecondsSinceUnixEpoch>> {
    if typists.is_empty() || !board.is_there() {
        return vec![None; typists.len()];
    }
    let mut commands = Pipeline::new();
    commands.cmd("MGET");
    for typing in typists {
        commands.arg(key(board, &typing.room_id, &typing.user_id));
    }
    let answer: Option<(Vec<Option<u64>>,)> = board.ask(&commands).await;
    let said = answer.map_or_else(|| vec![None; typists.len()], |(said,)| said);
    said.into_iter().map(|until| Some(MilliSecondsSinceUnixEpoch(UInt::try_from(until?).ok()?))).collect()
}

fn key(board: &Board, room_id: &RoomId, user_id: &UserId) -> String {
    board.key(&format!("typing:{room_id}:{user_id}"))
}
