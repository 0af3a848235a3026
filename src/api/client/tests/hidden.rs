//! A room that is none of the caller's business is answered for as if it were not there, on every path.
//!
//! Otherwise whoever guesses or overhears a room's identifier learns whether this server has it.

use super::*;
use crate::api::route::ListedEndpoint;

/// Endpoints that refuse neither: they are about what the caller keeps, or say no more than what everybody may know.
const ANSWERED: [&str; 7] = [
    "DELETE /org.matrix.msc3391/user/{user_id}/rooms/{room_id}/account_data/{event_type}",
    "DELETE /user/{user_id}/rooms/{room_id}/tags/{tag}",
    "GET /user/{user_id}/rooms/{room_id}/account_data/{event_type}",
    "GET /user/{user_id}/rooms/{room_id}/tags",
    "POST /rooms/{room_id}/report",
    "PUT /user/{user_id}/rooms/{room_id}/account_data/{event_type}",
    "PUT /user/{user_id}/rooms/{room_id}/tags/{tag}",
];

/// What an endpoint is sent, so that nothing but the room can be wrong with it.
fn body(path: &str) -> Value {
    let last = path.rsplit('/').next().unwrap_or_default();
    match last {
        "invite" | "kick" | "ban" | "unban" => json!({ "user_id": "@carol:example.org" }),
        "upgrade" => json!({ "new_version": "11" }),
        "read_markers" => json!({ "m.fully_read": "$event" }),
        "{user_id}" => json!({ "typing": true, "timeout": 1_000 }),
        _ if path.contains("/room_keys/keys/{room_id}/") => json!({
            "first_message_index": 0, "forwarded_count": 0, "is_verified": false, "session_data": { "a": "b" }
        }),
        _ if path.contains("/room_keys/") => json!({ "sessions": {} }),
        _ if path.contains("delayed_event/") => json!({ "delay_ms": 1_000, "content": { "body": "a" } }),
        _ if path.contains("/directory/list/room/") => json!({ "visibility": "public" }),
        _ if path.contains("/report") => json!({ "reason": "spam", "score": -50 }),
        _ if path.contains("/tags/") => json!({ "order": 0.5 }),
        _ if path.contains("/state/") => json!({ "topic": "a" }),
        _ => json!({ "body": "a", "msgtype": "m.text" }),
    }
}

fn query(path: &str) -> &'static str {
    match path.rsplit('/').next().unwrap_or_default() {
        "messages" => "?dir=b",
        "timestamp_to_event" => "?dir=f&ts=1",
        _ if path.contains("/room_keys/") => "?version=1",
        _ => "",
    }
}

/// A path with everything filled in.
fn filled(path: &str, room_id: &str, event_id: &str) -> String {
    let mut filled = String::new();
    for segment in path.split('/').skip(1) {
        let value = match segment {
            "{room_id}" | "{room_id_or_alias}" => room_id,
            "{event_id}" => event_id,
            "{event_type}" if path.contains("/state/") => "m.room.topic",
            "{event_type}" => "m.room.message",
            "{receipt_type}" => "m.read",
            "{rel_type}" => "m.thread",
            "{user_id}" => "@bob:example.org",
            "{tag}" => "u.work",
            "{state_key}" => "a",
            other => other.trim_start_matches('{').trim_end_matches('}'),
        };
        filled.push('/');
        filled.push_str(&value.replace('!', "%21").replace('$', "%24").replace('@', "%40"));
    }
    filled
}

/// Every endpoint that takes a room, by the newest of its paths.
fn of_rooms() -> Vec<(ListedEndpoint, String)> {
    let endpoints = endpoints();
    let takes_room = |path: &&String| path.contains("{room_id");
    let listed = endpoints.list().iter().filter_map(|endpoint| {
        let path = endpoint.paths.iter().rfind(takes_room)?;
        Some((endpoint.clone(), path.clone()))
    });
    listed.collect()
}

async fn answer(
    server: &Server,
    (endpoint, path): &(ListedEndpoint, String),
    token: &str,
    room: (&str, &str),
) -> Answer {
    let target = filled(path, room.0, room.1) + query(path);
    server.send(endpoint.method.clone(), &target, Some(token), body(path).to_string()).await
}

/// A room of somebody's with an event in it: their identifiers.
async fn room(server: &Server, token: &str, version: &str, rules: &Value) -> (String, String) {
    let initial = json!([{ "type": "m.room.join_rules", "content": rules }]);
    let create = json!({ "room_version": version, "name": "Secret", "initial_state": initial });
    let created = server.post("/_matrix/client/v3/createRoom", Some(token), create).await;
    let room_id = created.ok()["room_id"].as_str().unwrap().to_owned();
    let say = filled("/_matrix/client/v3/rooms/{room_id}/send/m.room.message/1", &room_id, "");
    let said = server.put(&say, token, json!({ "body": "secret", "msgtype": "m.text" })).await;
    let event_id = said.ok()["event_id"].as_str().unwrap().to_owned();
    (room_id, event_id)
}

#[tokio::test]
async fn a_hidden_room_answers_as_one_that_is_not_there() {
    for database in testing::databases().await {
        let server = Server::start(&database, RegistrationMode::Open, false).await;
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let (club, _) = room(&server, &alice, "11", &json!({ "join_rule": "invite" })).await;
        let members = json!([{ "type": "m.room_membership", "room_id": club }]);
        let restricted = json!({ "join_rule": "restricted", "allow": members });
        let endpoints = of_rooms();
        assert!(endpoints.len() > 40, "{}", endpoints.len());
        let mut faults = Vec::new();
        for (version, rules, absent) in [
            ("11", json!({ "join_rule": "invite" }), "!absentabsentabsent:example.org"),
            ("12", json!({ "join_rule": "invite" }), "!absentabsentabsentabsentabsentabsentabsenta"),
            ("12", restricted, "!absentabsentabsentabsentabsentabsentabsentb"),
        ] {
            let (hidden, event_id) = room(&server, &alice, version, &rules).await;
            for endpoint in &endpoints {
                let said = async |room_id: &str| {
                    let answer = answer(&server, endpoint, &bob, (room_id, &event_id)).await;
                    format!("{} {}", answer.status, answer.body.to_string().replace(room_id, "ROOM"))
                };
                let (there, gone) = (said(&hidden).await, said(absent).await);
                let name = endpoint.0.names().pop().unwrap_or_default();
                if there != gone {
                    faults.push(format!("{name}:\n    {there}\n    {gone}"));
                } else if there.starts_with("200") && !ANSWERED.contains(&name.as_str()) {
                    faults.push(format!("{name}: is answered: {there}"));
                } else if ["JSON", "PARAM", "UNRECOGNIZED"].iter().any(|code| there.contains(code)) {
                    faults.push(format!("{name}: something else is wrong: {there}"));
                }
            }
        }
        assert!(faults.is_empty(), "{}", faults.join("\n"));
        server.stop().await;
        database.close().await;
    }
}
