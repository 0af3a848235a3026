//! What aliases of other servers name.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1querydirectory>

use std::sync::Arc;

use futures_util::{FutureExt as _, future::BoxFuture};
use ruma::{OwnedRoomId, OwnedServerName, RoomAliasId};
use serde_json::Value;

use super::asked::{AskedServers, failed};
use crate::{edge::federation_client::RemoteError, error::Result, room::OtherAliases};

/// How many servers are named to somebody who looks for a way into a room. Whoever joins asks one after the other, so more
/// are of no use.
const MAX_SERVERS: usize = 50;

/// The aliases of other servers, for whoever only wants to know what they name.
pub(super) struct Aliases(pub(super) Arc<dyn AskedServers>);

impl OtherAliases for Aliases {
    fn find<'a>(&'a self, alias: &'a RoomAliasId) -> BoxFuture<'a, Result<OwnedRoomId>> {
        async move { Ok(ask(&*self.0, alias).await?.0) }.boxed()
    }
}

/// Asks the server of an alias. Its own name is among those that are returned: whoever knows the alias knows the room.
pub(super) async fn ask(
    servers: &dyn AskedServers,
    alias: &RoomAliasId,
) -> Result<(OwnedRoomId, Vec<OwnedServerName>)> {
    let server = alias.server_name();
    let answer = servers.alias(alias).await.map_err(|error| failed(&error, server))?;
    let no_room = || RemoteError::Malformed("it names no room".to_owned()).for_client(server);
    let room_id = answer.get("room_id").and_then(Value::as_str);
    let room_id = room_id.and_then(|room_id| OwnedRoomId::try_from(room_id).ok()).ok_or_else(no_room)?;
    let named = answer.get("servers").and_then(Value::as_array).into_iter().flatten();
    let named = named.filter_map(|name| OwnedServerName::try_from(name.as_str()?).ok());
    let mut names: Vec<OwnedServerName> = Vec::new();
    for name in named.take(MAX_SERVERS - 1).chain([server.to_owned()]) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok((room_id, names))
}
