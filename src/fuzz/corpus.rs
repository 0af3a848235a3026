//! A request to each endpoint as it should be. `{…}` stands for something that the scene knows.

use serde_json::Value;

use crate::api::{endpoints, route::ListedEndpoint};

/// Endpoint, query, body.
type Example = (&'static str, &'static str, &'static str);

const AUTH: &str =
    r#"{"type":"m.login.password","identifier":{"type":"m.id.user","user":"{user_id}"},"password":"password"}"#;
const EMAIL: &str =
    r#"{"client_secret":"d0nt-T3ll","email":"anna@example.org","send_attempt":1,"next_link":"https://example.org/"}"#;
const PHONE: &str = r#"{"client_secret":"d0nt-T3ll","country":"GB","phone_number":"07700900001","send_attempt":1}"#;
const BINDING: &str = r#"{"id_server":"example.org","id_access_token":"secret","sid":"x","client_secret":"d0nt-T3ll","medium":"email","address":"anna@example.org"}"#;
const ABOUT: &str = r#"{"user_id":"{user_id}","reason":"because"}"#;
const FILTER: &str = r#"{"event_fields":["type","content.body"],"event_format":"client","presence":{"types":["m.presence"]},"room":{"rooms":["{room_id}"],"timeline":{"limit":5,"types":["m.*"],"senders":["{user_id}"],"contains_url":false,"rel_types":["m.thread"],"related_by_rel_types":["m.annotation"]},"state":{"lazy_load_members":true},"include_leave":true}}"#;
const LAZY: &str = "filter=%7B%22lazy_load_members%22%3Atrue%7D";
const CREATE: &str = r#"{"name":"A room","topic":"What lasts","preset":"public_chat","visibility":"public","room_version":"11","invite":["{user_id}"],"is_direct":true,"room_alias_name":"{name}","creation_content":{"type":"m.space","m.federate":false},"power_level_content_override":{"users":{"{own_id}":100},"events":{"m.room.name":50}},"initial_state":[{"type":"m.room.join_rules","state_key":"","content":{"join_rule":"restricted","allow":[{"type":"m.room_membership","room_id":"{room_id}"}]}}]}"#;
const MESSAGE: &str = r#"{"msgtype":"m.text","body":"hello world","format":"org.matrix.custom.html","m.mentions":{"user_ids":["{user_id}"],"room":true},"m.relates_to":{"rel_type":"{rel_type}","event_id":"{event_id}","key":"x","is_falling_back":true,"m.in_reply_to":{"event_id":"{event_id}"}},"m.new_content":{"msgtype":"m.text","body":"bye"}}"#;
const STATE: &str = r#"{"membership":"invite","users":{"{own_id}":100,"{user_id}":50},"users_default":0,"events":{"m.room.name":50},"notifications":{"room":50},"state_default":50,"ban":50,"join_rule":"knock_restricted","allow":[{"type":"m.room_membership","room_id":"{room_id}"}],"history_visibility":"joined","guest_access":"can_join","name":"N","topic":"T","alias":"{room_alias}","alt_aliases":["{room_alias}"],"via":["localhost"],"order":"a","suggested":true,"url":"mxc://localhost/a","pinned":["{event_id}"],"replacement_room":"{room_id}","body":"b","deny":["*"],"allow_ip_literals":false}"#;
const SEARCH: &str = r#"{"search_categories":{"room_events":{"search_term":"hello w","keys":["content.body","content.name"],"filter":{"rooms":["{room_id}"],"limit":5,"senders":["{user_id}"]},"order_by":"recent","event_context":{"before_limit":2,"after_limit":2,"include_profile":true},"include_state":true,"groupings":{"group_by":[{"key":"room_id"},{"key":"sender"}]}}}}"#;
const KEYS: &str = r#"{"device_keys":{"user_id":"{own_id}","device_id":"{device_id}","algorithms":["m.olm.v1.curve25519-aes-sha2"],"keys":{"curve25519:{device_id}":"3C5BFWi2Y8MaVvjM8M22DBmh24PmgR0nPvJOIArzgyI","ed25519:{device_id}":"lEuiRJBit0IG6nUf5pUzWTUEsRVVe/HJkoKuEww9ULI"},"signatures":{"{own_id}":{"ed25519:{device_id}":"dSO80A01XiigH3uBiDVx/EjzaoycHcjq9lfQX0uWsqxl2giMIiSPR8a4d291W1ihKJL/a+myXS367WT6NAIcBA"}}},"one_time_keys":{"curve25519:AAAA":"3C5BFWi2Y8MaVvjM8M22DBmh24PmgR0nPvJOIArzgyI"},"fallback_keys":{"signed_curve25519:AAAB":{"key":"3C5BFWi2Y8MaVvjM8M22DBmh24PmgR0nPvJOIArzgyI","fallback":true,"signatures":{}}}}"#;
const CROSS_SIGNING: &str = r#"{"master_key":{"user_id":"{own_id}","usage":["master"],"keys":{"ed25519:lEuiRJBit0IG6nUf5pUzWTUEsRVVe/HJkoKuEww9ULI":"lEuiRJBit0IG6nUf5pUzWTUEsRVVe/HJkoKuEww9ULI"}},"auth":{auth}}"#;
const SIGNATURES: &str = r#"{"{own_id}":{"{device_id}":{"user_id":"{own_id}","device_id":"{device_id}","algorithms":[],"keys":{},"signatures":{"{own_id}":{"ed25519:A":"dSO8"}}}}}"#;
const BACKUP: &str = r#"{"algorithm":"m.megolm_backup.v1.curve25519-aes-sha2","auth_data":{"public_key":"abcdefg","signatures":{"{own_id}":{"ed25519:D":"aaaa"}}},"version":"1"}"#;
const KEY: &str = r#"{"first_message_index":1,"forwarded_count":0,"is_verified":false,"session_data":{"ephemeral":"a","ciphertext":"b","mac":"c"}}"#;
const DEHYDRATED: &str = r#"{"device_id":"d3hydrat3d","device_data":{"algorithm":"org.matrix.msc3814.v2","device_pickle":"a","nonce":"b"},"initial_device_display_name":"Dehydrated device","device_keys":{"user_id":"{own_id}","device_id":"d3hydrat3d","dehydrated":true,"algorithms":["m.olm.v1.curve25519-aes-sha2"],"keys":{"curve25519:d3hydrat3d":"aaaa","ed25519:d3hydrat3d":"aaaa"},"signatures":{"{own_id}":{"ed25519:d3hydrat3d":"aaaa"}}},"one_time_keys":{"signed_curve25519:AAAAHQ":{"key":"aaaa","signatures":{"{own_id}":{"ed25519:d3hydrat3d":"aaaa"}}}},"fallback_keys":{}}"#;
const PAGES: &str = "from={token}&to={token}&dir=b&limit=5&recurse=true";

const SENT: &str = r#"{"type":"m.room.member","room_id":"{room_id}","sender":"@a:there","state_key":"@a:there","content":{"membership":"join","join_authorised_via_users_server":"{user_id}"},"origin_server_ts":1,"depth":2,"prev_events":["{event_id}"],"auth_events":["{event_id}"],"hashes":{"sha256":"aaaa"},"signatures":{"there":{"ed25519:a":"aaaa"}}}"#;

const EXAMPLES: &[Example] = &[
    ("GET /register/m.login.registration_token/validity", "token=abc", ""),
    ("GET /register/available", "username={name}", ""),
    (
        "POST /register",
        "kind=user",
        r#"{"username":"{name}","password":"password","device_id":"D","initial_device_display_name":"Phone","refresh_token":true,"auth":{"type":"m.login.dummy","session":"{session}"}}"#,
    ),
    ("POST /account/3pid/email/requestToken", "", EMAIL),
    ("POST /account/3pid/msisdn/requestToken", "", PHONE),
    ("POST /account/password/email/requestToken", "", EMAIL),
    ("POST /account/password/msisdn/requestToken", "", PHONE),
    ("POST /register/email/requestToken", "", EMAIL),
    ("POST /register/msisdn/requestToken", "", PHONE),
    ("GET /publicRooms", "limit=5&since={token}&server=localhost", ""),
    (
        "POST /publicRooms",
        "server=localhost",
        r#"{"limit":5,"since":"{token}","filter":{"generic_search_term":"room","room_types":["m.space",null]}}"#,
    ),
    (
        "POST /login",
        "",
        r#"{"type":"m.login.password","identifier":{"type":"m.id.user","user":"{user_id}"},"password":"password","device_id":"{device_id}","initial_device_display_name":"Phone","refresh_token":true}"#,
    ),
    ("POST /refresh", "", r#"{"refresh_token":"{refresh_token}"}"#),
    ("GET /room_summary/{room_id_or_alias}", "via=localhost", ""),
    ("POST /account/password", "", r#"{"new_password":"password","logout_devices":false,"auth":{auth}}"#),
    ("POST /org.matrix.msc4140/delayed_events/{delay_id}/{action}", "", "{}"),
    ("POST /_matrix/media/v1/create", "", "{}"),
    ("POST /_matrix/media/v3/upload", "filename=a.txt", r#"{"a":"file"}"#),
    ("PUT /_matrix/media/v3/upload/{server_name}/{media_id}", "filename=a.txt", r#"{"a":"file"}"#),
    ("GET /media/thumbnail/{server_name}/{media_id}", "width=32&height=32&method=crop&animated=true&timeout_ms=0", ""),
    ("GET /media/download/{server_name}/{media_id}", "timeout_ms=0&allow_redirect=true", ""),
    ("GET /media/download/{server_name}/{media_id}/{filename}", "timeout_ms=0", ""),
    ("GET /media/preview_url", "url=http%3A%2F%2Flocalhost%2F&ts=7", ""),
    ("GET /_matrix/media/v3/download/{server_name}/{media_id}", "allow_remote=false&timeout_ms=0", ""),
    ("GET /_matrix/media/v3/thumbnail/{server_name}/{media_id}", "width=32&height=32&allow_redirect=true", ""),
    ("GET /rooms/{room_id}/context/{event_id}", LAZY, ""),
    (
        "PUT /_matrix/federation/v1/send/{transaction_id}",
        "",
        r#"{"origin":"elsewhere","origin_server_ts":1,"pdus":[{"room_id":"!a:b"}],"edus":[{"edu_type":"m.typing"}]}"#,
    ),
    ("PUT /devices/{device_id}", "", r#"{"display_name":"Phone"}"#),
    ("GET /rooms/{room_id}/members", "at={token}&membership=join&not_membership=leave", ""),
    (
        "POST /rooms/{room_id}/join",
        "",
        r#"{"reason":"because","third_party_signed":{"sender":"{user_id}","mxid":"{own_id}","token":"t","signatures":{"example.org":{"ed25519:0":"aaaa"}}}}"#,
    ),
    ("POST /join/{room_id_or_alias}", "via=localhost", r#"{"reason":"because"}"#),
    ("POST /rooms/{room_id}/leave", "", r#"{"reason":"because"}"#),
    (
        "GET /rooms/{room_id}/messages",
        "from={token}&to={token}&dir=b&limit=5&filter=%7B%22types%22%3A%5B%22m.*%22%5D%7D",
        "",
    ),
    ("PUT /rooms/{room_id}/send/{event_type}/{txn_id}", "ts=7", MESSAGE),
    ("GET /events", "from={token}&timeout=0&room_id={room_id}", ""),
    ("GET /initialSync", "limit=5", ""),
    ("GET /rooms/{room_id}/initialSync", "limit=5", ""),
    (
        "PUT /profile/{user_id}/{field}",
        "propagate_to=all",
        r#"{"displayname":"Anna","avatar_url":"mxc://localhost/a","{field}":{"a":[1]}}"#,
    ),
    ("GET /rooms/{room_id}/state/{event_type}/{state_key}", "format=event", ""),
    ("PUT /rooms/{room_id}/state/{event_type}/{state_key}", "", STATE),
    (
        "GET /sync",
        "filter={filter_id}&since={token}&full_state=false&set_presence=online&timeout=0&use_state_after=true",
        "",
    ),
    ("POST /account/3pid/add", "", r#"{"client_secret":"d0nt-T3ll","sid":"x","auth":{auth}}"#),
    ("POST /account/3pid/bind", "", BINDING),
    (
        "POST /account/3pid",
        "",
        r#"{"three_pid_creds":{"client_secret":"d0nt-T3ll","id_server":"example.org","id_access_token":"s","sid":"x"},"bind":true}"#,
    ),
    ("POST /account/deactivate", "", r#"{"auth":{auth},"id_server":"example.org","erase":true}"#),
    ("POST /account/3pid/delete", "", BINDING),
    ("POST /account/3pid/unbind", "", BINDING),
    ("POST /user/{user_id}/openid/request_token", "", "{}"),
    ("PUT /directory/room/{room_alias}", "", r#"{"room_id":"{room_id}"}"#),
    (
        "PUT /user/{user_id}/account_data/{event_type}",
        "",
        r#"{"ignored_users":{"{user_id}":{}},"{user_id}":["{room_id}"],"rooms":["{room_id}"],"default_action":"block","tags":{"u.a":{"order":0.5}}}"#,
    ),
    (
        "PUT /user/{user_id}/rooms/{room_id}/account_data/{event_type}",
        "",
        r#"{"event_id":"{event_id}","unread":true,"tags":{"u.a":{"order":0.5}}}"#,
    ),
    ("GET /org.matrix.msc4140/delayed_events", "status=scheduled&delay_id={delay_id}&from={token}", ""),
    (
        "PUT /org.matrix.msc4140/rooms/{room_id}/delayed_event/{event_type}/{txn_id}",
        "",
        r#"{"delay":100000,"state_key":"","content":{"body":"later"}}"#,
    ),
    ("POST /org.matrix.msc4140/delayed_events/{delay_id}", "", r#"{"action":"restart"}"#),
    ("DELETE /devices/{device_id}", "", r#"{"auth":{auth}}"#),
    ("POST /delete_devices", "", r#"{"devices":["{device_id}"],"auth":{auth}}"#),
    ("PUT /directory/list/room/{room_id}", "", r#"{"visibility":"public"}"#),
    ("POST /user/{user_id}/filter", "", FILTER),
    ("POST /keys/upload", "", KEYS),
    ("POST /keys/query", "", r#"{"device_keys":{"{user_id}":[],"{own_id}":["{device_id}"]},"timeout":1000}"#),
    ("POST /keys/claim", "", r#"{"one_time_keys":{"{user_id}":{"{device_id}":"signed_curve25519"}},"timeout":1000}"#),
    ("POST /keys/device_signing/upload", "", CROSS_SIGNING),
    ("POST /keys/signatures/upload", "", SIGNATURES),
    ("POST /room_keys/version", "", BACKUP),
    ("PUT /room_keys/version/{version}", "", BACKUP),
    ("PUT /room_keys/keys", "version=1", r#"{"rooms":{"{room_id}":{"sessions":{"session":{key}}}}}"#),
    ("PUT /room_keys/keys/{room_id}", "version=1", r#"{"sessions":{"session":{key}}}"#),
    ("PUT /room_keys/keys/{room_id}/{session_id}", "version=1", KEY),
    ("GET /room_keys/keys", "version=1", ""),
    ("GET /room_keys/keys/{room_id}", "version=1", ""),
    ("GET /room_keys/keys/{room_id}/{session_id}", "version=1", ""),
    ("DELETE /room_keys/keys", "version=1", ""),
    ("DELETE /room_keys/keys/{room_id}", "version=1", ""),
    ("DELETE /room_keys/keys/{room_id}/{session_id}", "version=1", ""),
    ("PUT /org.matrix.msc3814.v1/dehydrated_device", "", DEHYDRATED),
    ("GET /org.matrix.msc3814.v1/dehydrated_device/{device_id}/events", "from={token}&limit=5", ""),
    ("POST /org.matrix.msc3814.v1/dehydrated_device/{device_id}/events", "", r#"{"next_batch":"{token}"}"#),
    ("POST /knock/{room_id_or_alias}", "via=localhost", r#"{"reason":"because"}"#),
    ("POST /rooms/{room_id}/ban", "", ABOUT),
    ("POST /rooms/{room_id}/forget", "", "{}"),
    ("GET /mutual_rooms", "user_id={user_id}&from={token}", ""),
    (
        "POST /rooms/{room_id}/invite",
        "",
        r#"{"user_id":"{user_id}","reason":"because","id_server":"example.org","id_access_token":"s","medium":"email","address":"anna@example.org"}"#,
    ),
    ("POST /rooms/{room_id}/kick", "", ABOUT),
    ("POST /rooms/{room_id}/unban", "", ABOUT),
    ("PUT /presence/{user_id}/status", "", r#"{"presence":"unavailable","status_msg":"Away"}"#),
    (
        "POST /rooms/{room_id}/read_markers",
        "",
        r#"{"m.fully_read":"{event_id}","m.read":"{event_id}","m.read.private":"{event_id}"}"#,
    ),
    ("POST /rooms/{room_id}/receipt/{receipt_type}/{event_id}", "", r#"{"thread_id":"main"}"#),
    ("PUT /rooms/{room_id}/redact/{event_id}/{txn_id}", "", r#"{"reason":"because"}"#),
    ("GET /rooms/{room_id}/relations/{event_id}", PAGES, ""),
    ("GET /rooms/{room_id}/relations/{event_id}/{rel_type}", PAGES, ""),
    ("GET /rooms/{room_id}/relations/{event_id}/{rel_type}/{event_type}", PAGES, ""),
    ("POST /users/{user_id}/report", "", r#"{"reason":"because"}"#),
    ("POST /createRoom", "", CREATE),
    ("GET /rooms/{room_id}/timestamp_to_event", "ts=1800000000000&dir=f", ""),
    ("POST /rooms/{room_id}/report/{event_id}", "", r#"{"reason":"because","score":-100}"#),
    ("POST /rooms/{room_id}/report", "", r#"{"reason":"because"}"#),
    ("POST /rooms/{room_id}/upgrade", "", r#"{"new_version":"12","additional_creators":["{user_id}"]}"#),
    ("POST /search", "next_batch={token}", SEARCH),
    ("POST /login/get_token", "", r#"{"auth":{auth}}"#),
    ("POST /logout", "", "{}"),
    ("POST /logout/all", "", "{}"),
    ("GET /rooms/{room_id}/hierarchy", "from={token}&limit=5&max_depth=3&suggested_only=false", ""),
    ("PUT /user/{user_id}/rooms/{room_id}/tags/{tag}", "", r#"{"order":0.25,"x":[1]}"#),
    ("GET /thirdparty/location/{protocol}", "fields=a", ""),
    ("GET /thirdparty/location", "alias={room_alias}", ""),
    ("GET /thirdparty/user/{protocol}", "fields=a", ""),
    ("GET /thirdparty/user", "userid={user_id}", ""),
    ("GET /rooms/{room_id}/threads", "from={token}&include=participated&limit=5", ""),
    (
        "PUT /sendToDevice/{event_type}/{txn_id}",
        "",
        r#"{"messages":{"{user_id}":{"*":{"a":1},"{device_id}":{"b":[2]}},"{own_id}":{"*":{}},"@a:example.org":{"D":{}}}}"#,
    ),
    ("PUT /rooms/{room_id}/typing/{user_id}", "", r#"{"typing":true,"timeout":30000}"#),
    ("POST /user_directory/search", "", r#"{"search_term":"anna b","limit":5}"#),
    ("PUT /admin/lock/{user_id}", "", r#"{"locked":false}"#),
    ("PUT /admin/suspend/{user_id}", "", r#"{"suspended":false}"#),
    ("POST /appservice/{appservice_id}/ping", "", r#"{"transaction_id":"t"}"#),
    ("PUT /directory/list/appservice/{network_id}/{room_id}", "", r#"{"visibility":"public"}"#),
    (
        "POST /_synapse/admin/v1/register",
        "",
        r#"{"nonce":"{nonce}","username":"{name}","password":"password","admin":false,"user_type":null,"mac":"00112233445566778899aabbccddeeff00112233"}"#,
    ),
    (
        "POST /_synapse/admin/v1/send_server_notice",
        "",
        r#"{"user_id":"{user_id}","type":"m.room.message","content":{"msgtype":"m.text","body":"Notice"}}"#,
    ),
    (
        "PUT /_synapse/admin/v1/send_server_notice/{txn_id}",
        "",
        r#"{"user_id":"{user_id}","content":{"msgtype":"m.text","body":"Notice"}}"#,
    ),
    ("GET /_matrix/federation/v1/openid/userinfo", "access_token={token}", ""),
    ("GET /_matrix/key/v2/query/{server_name}", "minimum_valid_until_ts=1234567890", ""),
    (
        "POST /_matrix/key/v2/query",
        "",
        r#"{"server_keys":{"localhost":{"ed25519:a":{"minimum_valid_until_ts":1234567890}}}}"#,
    ),
    (
        "POST /_matrix/federation/v1/get_missing_events/{room_id}",
        "",
        r#"{"limit":5,"min_depth":1,"earliest_events":["{event_id}"],"latest_events":["{event_id}"]}"#,
    ),
    ("GET /_matrix/federation/v1/backfill/{room_id}", "limit=5&v={event_id}", ""),
    ("GET /_matrix/federation/v1/state/{room_id}", "event_id={event_id}", ""),
    ("GET /_matrix/federation/v1/state_ids/{room_id}", "event_id={event_id}", ""),
    ("GET /_matrix/federation/v1/timestamp_to_event/{room_id}", "ts=1&dir=f", ""),
    ("GET /_matrix/federation/v1/publicRooms", "limit=5&since={token}", ""),
    (
        "POST /_matrix/federation/v1/publicRooms",
        "",
        r#"{"limit":5,"since":"{token}","filter":{"generic_search_term":"room","room_types":["m.space",null]}}"#,
    ),
    ("GET /_matrix/federation/v1/query/directory", "room_alias={room_alias}", ""),
    ("GET /_matrix/federation/v1/query/profile", "user_id={user_id}&field=displayname", ""),
    ("GET /_matrix/federation/v1/hierarchy/{room_id}", "suggested_only=true", ""),
    ("GET /_matrix/federation/v1/make_join/{room_id}/{user_id}", "ver=11&ver=12", ""),
    ("GET /_matrix/federation/v1/make_knock/{room_id}/{user_id}", "ver=11&ver=12", ""),
    ("PUT /_matrix/federation/v1/send_join/{room_id}/{event_id}", "", SENT),
    ("PUT /_matrix/federation/v2/send_join/{room_id}/{event_id}", "omit_members=true", SENT),
    ("PUT /_matrix/federation/v1/send_leave/{room_id}/{event_id}", "", SENT),
    ("PUT /_matrix/federation/v2/send_leave/{room_id}/{event_id}", "", SENT),
    ("PUT /_matrix/federation/v1/send_knock/{room_id}/{event_id}", "", SENT),
    ("PUT /_matrix/federation/v1/invite/{room_id}/{event_id}", "", SENT),
    (
        "PUT /_matrix/federation/v2/invite/{room_id}/{event_id}",
        "",
        r#"{"room_version":"11","event":{"type":"m.room.member","room_id":"{room_id}","sender":"@a:there","state_key":"{user_id}","content":{"membership":"invite"},"origin_server_ts":1,"depth":2,"prev_events":["{event_id}"],"auth_events":["{event_id}"],"hashes":{"sha256":"aaaa"},"signatures":{"there":{"ed25519:a":"aaaa"}}},"invite_room_state":[{"type":"m.room.name","sender":"@a:there","state_key":"","content":{"name":"N"}}]}"#,
    ),
    (
        "PUT /_matrix/federation/v1/exchange_third_party_invite/{room_id}",
        "",
        r#"{"type":"m.room.member","room_id":"{room_id}","sender":"{user_id}","state_key":"@a:there","content":{"membership":"invite","third_party_invite":{"display_name":"a","signed":{"mxid":"@a:there","token":"t","signatures":{"example.org":{"ed25519:0":"aaaa"}}}}}}"#,
    ),
    (
        "PUT /_matrix/federation/v1/3pid/onbind",
        "",
        r#"{"medium":"email","address":"anna@example.org","mxid":"{user_id}","invites":[{"medium":"email","address":"anna@example.org","mxid":"{user_id}","room_id":"{room_id}","sender":"{user_id}","signed":{"mxid":"{user_id}","token":"t","signatures":{"example.org":{"ed25519:0":"aaaa"}}}}]}"#,
    ),
    ("GET /hearth/validate/email/submitToken", "token=t&client_secret=d0nt-T3ll&sid=x", ""),
    ("POST /hearth/validate/email/submitToken", "", r#"{"token":"t","client_secret":"d0nt-T3ll","sid":"x"}"#),
];

/// An endpoint with what is to be sent there.
pub(super) struct Template {
    pub(super) endpoint: ListedEndpoint,
    /// Names and values.
    pub(super) query: Vec<(&'static str, &'static str)>,
    pub(super) body: Option<Value>,
}

/// One for each endpoint of the server.
pub(super) fn templates() -> Vec<Template> {
    let endpoints = endpoints();
    endpoints.list().iter().map(Template::of).collect()
}

impl Template {
    fn of(endpoint: &ListedEndpoint) -> Self {
        let (query, body) = find(endpoint).map_or(("", ""), |(_, query, body)| (*query, *body));
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let body = body.replace("{auth}", AUTH).replace("{key}", KEY);
        let body = (!body.is_empty()).then(|| serde_json::from_str(&body).unwrap_or_else(|e| panic!("{e}: {body}")));
        Self { endpoint: endpoint.clone(), query: pairs.collect(), body }
    }

    pub(super) fn name(&self) -> String {
        self.endpoint.names().pop().unwrap()
    }
}

fn find(endpoint: &ListedEndpoint) -> Option<&'static Example> {
    let names = endpoint.names();
    EXAMPLES.iter().find(|(name, ..)| names.iter().any(|known| known == name))
}

#[test]
fn every_endpoint_that_takes_a_body_has_an_example_and_no_example_is_of_nothing() {
    let endpoints = endpoints();
    let takes_a_body = |endpoint: &&ListedEndpoint| matches!(endpoint.method.as_str(), "POST" | "PUT");
    let lacking = endpoints.list().iter().filter(takes_a_body).filter(|endpoint| find(endpoint).is_none());
    let lacking: Vec<String> = lacking.flat_map(ListedEndpoint::names).collect();
    let known: Vec<String> = endpoints.list().iter().flat_map(ListedEndpoint::names).collect();
    let stray: Vec<_> = EXAMPLES.iter().filter(|(name, ..)| !known.iter().any(|known| known == name)).collect();
    assert!(lacking.is_empty() && stray.is_empty(), "without an example: {lacking:#?}\nof no endpoint: {stray:#?}");
}
