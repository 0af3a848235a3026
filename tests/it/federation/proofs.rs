//! Who proves who they are, and how.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#request-authentication>

use hearth::event::SigningKey;
use ruma::{ServerName, api::federation::authentication::XMatrix, serde::Base64, signatures::PublicKeyMap};
use serde_json::{Value, json};

use super::scripted::{Asked, Say, Scripted, federation};
use crate::{
    with_scripted,
    world::{Engine, World},
};

const TO: &str = "one.test";

/// A header by its parts.
fn header(origin: &str, destination: Option<&str>, key: &str, signature: &str) -> String {
    let destination = destination.map(|name| format!(r#"destination="{name}","#)).unwrap_or_default();
    format!(r#"X-Matrix origin="{origin}",{destination}key="{key}",sig="{signature}""#)
}

/// Checks what another server has signed with its keys.
fn is_proved(asked: &Asked, keys: &Value, by: &str, to: &Scripted) -> bool {
    let mut request = axum::http::Request::builder()
        .method(&*asked.method)
        .uri(format!("https://{}{}", to.name(), asked.uri))
        .header("authorization", &asked.authorization)
        .body(Vec::new())
        .unwrap();
    if !asked.body.is_null() {
        *request.body_mut() = asked.body.to_string().into_bytes();
    }
    let Ok(proof) = XMatrix::extract_from_http_headers(request.headers()) else { return false };
    let keys = keys["verify_keys"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(id, key)| (id.clone(), Base64::parse(key["key"].as_str().unwrap()).unwrap()));
    let keys = PublicKeyMap::from([(by.to_owned(), keys.collect())]);
    let to = <&ServerName>::try_from(to.name()).unwrap();
    proof.origin.as_str() == by && proof.verify_http_request(&request, to, &keys).is_ok()
}

with_scripted! {
    async fn a_request_is_taken_from_whom_it_proves(one, far) {
        let alice = one.user("alice").await;
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        far.join(TO, &room, &far.user("mallory")).await;
        let (name, body) = (far.name(), far.transaction_of(&[], &[]));
        let sign = |uri: &str, content: &Value| far.sign_request(far.key(), TO, "PUT", uri, Some(content));
        let send = async |uri: String, proofs: Vec<String>, body: Option<String>| far.ask_with(TO, "PUT", &uri, &proofs, body).await;

        // Both forms, with and without quotes, several headers, and headers of others beside.
        let one_uri = format!("/_matrix/federation/v1/send/proof{}", far.number());
        let signature = sign(&one_uri, &body);
        let good = header(name, Some(TO), "ed25519:new", &signature);
        for proofs in [
            vec![good.clone()],
            vec![header(name, None, "ed25519:new", &signature)],
            vec![format!("X-Matrix origin={name},destination={TO},key=ed25519:new,sig={signature}")],
            vec![format!(r#"x-matrix key="ed25519:new" , sig="{signature}", origin="{name}""#)],
            vec!["Bearer syt_something".to_owned(), good.clone()],
            vec![header(name, Some(TO), "ed25519:unheard_of", &signature), good.clone()],
            vec![good.clone(), good.clone()],
        ] {
            send(one_uri.clone(), proofs, Some(body.to_string())).await.ok();
        }

        let other_key = SigningKey::from_pkcs8(&SigningKey::generate().unwrap(), "ed25519:new").unwrap();
        let by_another = far.sign_request(&other_key, TO, "PUT", &one_uri, Some(&body));
        let with_old = far.sign_request(far.old_key(), TO, "PUT", &one_uri, Some(&body));
        let to_another = far.sign_request(far.key(), "two.test", "PUT", &one_uri, Some(&body));
        let of_another_body = sign(&one_uri, &json!({ "pdus": [] }));
        let of_another_uri = sign("/_matrix/federation/v1/send/elsewhere", &body);
        let of_another_method = far.sign_request(far.key(), TO, "POST", &one_uri, Some(&body));
        let of_no_body = far.sign_request(far.key(), TO, "PUT", &one_uri, None);
        for (what, proofs) in [
            ("no header", vec![]),
            ("another scheme", vec!["Bearer syt_something".to_owned()]),
            ("nothing in it", vec!["X-Matrix ".to_owned()]),
            ("no signature", vec![format!(r#"X-Matrix origin="{name}",key="ed25519:new""#)]),
            ("an empty signature", vec![header(name, Some(TO), "ed25519:new", "")]),
            ("for another server", vec![header(name, Some("two.test"), "ed25519:new", &to_another)]),
            ("signed for another server", vec![header(name, None, "ed25519:new", &to_another)]),
            ("another destination than was signed", vec![header(name, Some("two.test"), "ed25519:new", &signature)]),
            ("the wrong key", vec![header(name, Some(TO), "ed25519:new", &by_another)]),
            ("a key of before", vec![header(name, Some(TO), "ed25519:old", &with_old)]),
            ("a key that is not there", vec![header(name, Some(TO), "ed25519:unheard_of", &signature)]),
            ("a key of another kind", vec![header(name, Some(TO), "rsa:1", &signature)]),
            ("another body", vec![header(name, Some(TO), "ed25519:new", &of_another_body)]),
            ("another path", vec![header(name, Some(TO), "ed25519:new", &of_another_uri)]),
            ("another method", vec![header(name, Some(TO), "ed25519:new", &of_another_method)]),
            ("without the body", vec![header(name, Some(TO), "ed25519:new", &of_no_body)]),
            ("this server's own name", vec![header(TO, Some(TO), "ed25519:new", &signature)]),
            ("a server that is not there", vec![header("nobody.test", Some(TO), "ed25519:new", &signature)]),
            ("several servers", vec![good.clone(), header("near.test", Some(TO), "ed25519:new", &signature)]),
            ("too many", vec![good.clone(); 9]),
        ] {
            let refused = send(one_uri.clone(), proofs, Some(body.to_string())).await;
            assert_eq!((refused.status, &refused.body["errcode"]), (401, &json!("M_UNAUTHORIZED")), "{what}: {refused:?}");
        }
        // A body that was signed and is missing, and one that is not JSON.
        send(one_uri.clone(), vec![good.clone()], None).await.refused(401, "M_UNAUTHORIZED");
        let refused = send(one_uri, vec![good], Some("no JSON".to_owned())).await;
        assert!([400, 401].contains(&refused.status), "{refused:?}");

        // Without a body.
        let get = "/_matrix/federation/v1/query/profile?user_id=%40alice%3Aone.test";
        far.get(TO, get).await.ok();
        let elsewhere = far.proof(TO, "GET", "/_matrix/federation/v1/query/profile?user_id=%40bob%3Aone.test", None);
        far.ask_with(TO, "GET", get, &[elsewhere], None).await.refused(401, "M_UNAUTHORIZED");
        let decoded = far.proof(TO, "GET", "/_matrix/federation/v1/query/profile?user_id=@alice:one.test", None);
        far.ask_with(TO, "GET", get, &[decoded], None).await.refused(401, "M_UNAUTHORIZED");
    }

    async fn what_this_server_asks_is_signed(one, far) {
        let alice = one.user("alice").await;
        let room = far.create_room("11", json!({ "join_rule": "public" }));
        alice.join_via(&room.id, "far.test").await.ok();
        alice.say(&room.id, "signed").await;
        far.until_asked("send", |asked| asked.body.to_string().contains("signed")).await;
        let keys = far.ask_with(TO, "GET", "/_matrix/key/v2/server", &[], None).await.ok();
        for name in ["make_join", "send_join", "send"] {
            let asked = far.take_asked(name);
            assert!(!asked.is_empty(), "{name} was not asked");
            for asked in asked {
                assert!(is_proved(&asked, &keys, TO, &far), "{asked:?}");
            }
        }
        for asked in far.take_asked("key/server") {
            assert_eq!(asked.authorization, "", "it needs no proof");
        }
    }

    /// Key validity: a notary that disagrees.
    async fn a_notary_speaks_for_who_is_away_and_is_not_believed_blindly(one, far) {
        // Of the notary it knows that it is one by its configuration alone.
        let internet = far.internet().clone();
        let world = World::on(Engine::Sqlite, |config| {
            internet.configure("two.test", config);
            config.federation.trusted_key_servers = vec!["notary.test".try_into().unwrap()];
        });
        let Some(world) = world.await else { return };
        let port = |url: &String| url.rsplit(':').next().unwrap().trim_end_matches('/').parse().unwrap();
        internet.announce("two.test", world.tls_urls().iter().map(port).collect());
        let notary = far.neighbour("notary.test").await;
        far.says("key/server", Say::error(503, "M_UNKNOWN"));
        let profile = "/_matrix/federation/v1/query/profile?user_id=%40alice%3Atwo.test";
        let speaks = |documents: Vec<Value>| {
            notary.says("key/query", Say::ok(json!({ "server_keys": documents })));
        };
        let document = far.key_document();
        let forged = {
            let mut forged = document.clone();
            forged["verify_keys"]["ed25519:new"]["key"] = far.neighbour("forger.test").await.key_document()["verify_keys"]["ed25519:new"]["key"].clone();
            forged
        };
        for (what, documents) in [
            ("knows nothing", vec![]),
            ("does not sign", vec![document.clone()]),
            ("says what the server has not signed", vec![notary.signed(forged)]),
            ("speaks of others", vec![notary.signed(notary.key_document())]),
            ("makes no sense", vec![json!({}), json!(7)]),
        ] {
            speaks(documents);
            let refused = far.get("two.test", profile).await;
            assert_eq!(refused.status, 401, "the notary {what}: {refused:?}");
            // What was asked a moment ago is not asked again.
            world.clock.advance(std::time::Duration::from_mins(2));
        }
        speaks(vec![notary.signed(document)]);
        far.get("two.test", profile).await.refused(404, "M_NOT_FOUND");
        drop(one);
    }

    async fn this_server_is_a_notary_too(one, far) {
        let path = format!("/_matrix/key/v2/query/far.test?minimum_valid_until_ts={}", far.now());
        let found = far.ask_with(TO, "GET", &path, &[], None).await.ok();
        let document = &found["server_keys"][0];
        assert_eq!(document["verify_keys"], far.key_document()["verify_keys"]);
        let signers: Vec<&String> = document["signatures"].as_object().unwrap().keys().collect();
        assert_eq!(signers, ["far.test", TO]);
        // It has them now, and asks again only for those that are good for longer.
        far.take_asked("key/server");
        far.ask_with(TO, "GET", &path, &[], None).await.ok();
        assert!(far.take_asked("key/server").is_empty());
        let later = far.now() + 2 * 24 * 3_600_000;
        one.world.clock.advance(std::time::Duration::from_mins(5));
        let body = json!({ "server_keys": { "far.test": { "ed25519:new": { "minimum_valid_until_ts": later } }, "nobody.test": {} } });
        let found = far.ask_with(TO, "POST", "/_matrix/key/v2/query", &[], Some(body.to_string())).await.ok();
        assert_eq!(found["server_keys"].as_array().unwrap().len(), 1, "{found}");
        assert_eq!(far.take_asked("key/server").len(), 1);
        // What the other server says that is not its own is not passed on.
        let near = far.neighbour("near.test").await;
        let of_far = far.key_document();
        near.answers("key/server", move |_, _| Say::ok(of_far.clone()));
        let found = far.ask_with(TO, "GET", "/_matrix/key/v2/query/near.test", &[], None).await.ok();
        assert_eq!(found["server_keys"], json!([]));
    }
}

/// A server that does not federate has nothing to do with others, whoever they are, and says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_federation_is_off_every_endpoint_says_so() {
    let world = World::on(Engine::Sqlite, |_| ()).await.unwrap();
    let (room, event, user) = ("!room:localhost", "$event", "@alice:localhost");
    let paths = [
        ("GET", federation("v1/version", &[])),
        ("GET", "/_matrix/key/v2/server".to_owned()),
        ("GET", "/_matrix/key/v2/query/far.test".to_owned()),
        ("POST", "/_matrix/key/v2/query".to_owned()),
        ("GET", federation("v1/event", &[event])),
        ("GET", format!("{}?event_id={event}", federation("v1/state", &[room]))),
        ("GET", format!("{}?event_id={event}", federation("v1/state_ids", &[room]))),
        ("GET", federation("v1/event_auth", &[room, event])),
        ("GET", format!("{}?v={event}&limit=1", federation("v1/backfill", &[room]))),
        ("POST", federation("v1/get_missing_events", &[room])),
        ("GET", format!("{}?ts=1&dir=b", federation("v1/timestamp_to_event", &[room]))),
        ("GET", federation("v1/make_join", &[room, user])),
        ("GET", federation("v1/make_leave", &[room, user])),
        ("GET", federation("v1/make_knock", &[room, user])),
        ("PUT", federation("v1/send_join", &[room, event])),
        ("PUT", federation("v2/send_join", &[room, event])),
        ("PUT", federation("v1/send_leave", &[room, event])),
        ("PUT", federation("v2/send_leave", &[room, event])),
        ("PUT", federation("v1/send_knock", &[room, event])),
        ("PUT", federation("v1/invite", &[room, event])),
        ("PUT", federation("v2/invite", &[room, event])),
        ("PUT", federation("v1/exchange_third_party_invite", &[room])),
        ("PUT", federation("v1/send", &["1"])),
        ("GET", federation("v1/hierarchy", &[room])),
        ("GET", federation("v1/publicRooms", &[])),
        ("POST", federation("v1/publicRooms", &[])),
        ("GET", "/_matrix/federation/v1/query/profile?user_id=%40alice%3Alocalhost".to_owned()),
        ("GET", "/_matrix/federation/v1/query/directory?room_alias=%23a%3Alocalhost".to_owned()),
    ];
    for (method, path) in paths {
        let body = (method != "GET").then(|| json!({ "server_keys": {} }));
        let refused = world.call(method, &path, None, body).await;
        assert_eq!(
            (refused.status, &refused.body["errcode"]),
            (403, &json!("M_FORBIDDEN")),
            "{method} {path}: {refused:?}"
        );
    }
    // And its users reach nobody.
    let alice = world.user("alice").await;
    let refused = alice.join_via("!room:far.test", "far.test").await;
    assert!([403, 404].contains(&refused.status), "{refused:?}");
    let profile = alice.get("/_matrix/client/v3/profile/%40bob%3Afar.test").await;
    assert!([403, 404].contains(&profile.status), "{profile:?}");
}
