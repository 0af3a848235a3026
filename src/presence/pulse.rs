//! Who is connected to any node: so that a client whose requests go now to one node and now to another is not
//! taken for gone by those that it has left.

use redis::Pipeline;
use ruma::OwnedUserId;

use super::{LOOK, OFFLINE};
use crate::{fact::NodeId, hub::Board};

/// Users are written up this many at a time.
const CHUNK: usize = 500;

/// Says on the board that these users are connected to this node.
pub(super) async fn show(board: &Board, here: &NodeId, users: &[OwnedUserId]) {
    let expiry = (OFFLINE + LOOK).as_millis();
    for chunk in users.chunks(CHUNK) {
        let mut commands = Pipeline::new();
        for user_id in chunk {
            let key = board.key(&format!("present:{user_id}"));
            commands.cmd("SET").arg(key).arg(here.as_str()).arg("PX").arg(expiry.to_string()).ignore();
        }
        if board.ask::<()>(&commands).await.is_none() {
            return;
        }
    }
}

/// Whether another node than this was the last to say that a user is connected. None if nobody can tell.
pub(super) async fn is_elsewhere(board: &Board, here: &NodeId, user_id: &OwnedUserId) -> Option<bool> {
    let mut commands = Pipeline::new();
    commands.cmd("GET").arg(board.key(&format!("present:{user_id}")));
    let (node,): (Option<String>,) = board.ask(&commands).await?;
    Some(node.is_some_and(|node| node != here.as_str()))
}
