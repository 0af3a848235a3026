//! Inviting people of whom only an e-mail address is known.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#third-party-invites>

use hearth::event::SigningKey;
use serde_json::{Value, json};

use crate::{
    identity_server::{IdentityServer, Mood},
    on_both,
    world::{Client, Reply, at, escape},
};

fn invitation(identity: &IdentityServer, address: &str) -> Value {
    json!({ "id_server": identity.name(), "id_access_token": "secret", "medium": "email", "address": address })
}

async fn invite(user: &Client, room: &str, identity: &IdentityServer, address: &str) -> Reply {
    user.post(&at(room, "/invite"), invitation(identity, address)).await
}

async fn accept(user: &Client, room: &str, signed: Value) -> Reply {
    user.post(&at(room, "/join"), json!({ "third_party_signed": signed })).await
}

/// The invitations that wait in a room.
async fn offers(user: &Client, room: &str) -> Vec<Value> {
    let state = user.get(&at(room, "/state")).await.ok();
    let is_offer = |event: &&Value| event["type"] == "m.room.third_party_invite";
    state.as_array().unwrap().iter().filter(is_offer).cloned().collect()
}

async fn membership(user: &Client, room: &str, of: &str) -> Value {
    user.get(&at(room, &format!("/state/m.room.member/{}", escape(of)))).await.body
}

on_both! {
    async fn whoever_is_known_by_an_address_is_invited(world, config => { IdentityServer::start(config); }) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let identity = IdentityServer::of(&world);
        identity.knows("bob@example.org", &bob.user_id);
        let room = alice.create_room(json!({ "name": "The pub" })).await;
        invite(&alice, &room, &identity, "Bob@Example.org").await.ok();
        assert_eq!(membership(&alice, &room, &bob.user_id).await["membership"], "invite");
        assert_eq!(offers(&alice, &room).await, [Value::Null; 0]);
        bob.join(&room).await.ok();
        // The address itself is told to nobody.
        let asked = identity.take_asked();
        assert_eq!(asked.len(), 2, "{asked:?}");
        assert!(!asked.iter().any(|asked| asked.body.to_string().contains("bob@")), "{asked:?}");
        invite(&alice, &room, &identity, "bob@example.org").await.refused(403, "M_FORBIDDEN");
    }

    async fn an_invitation_waits_for_whoever_proves_the_address(world, config => { IdentityServer::start(config); }) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let identity = IdentityServer::of(&world);
        for version in ["6", "12"] {
            let room = alice.create_room(json!({ "name": "The pub", "room_version": version })).await;
            identity.take_asked();
            invite(&alice, &room, &identity, "bob@example.org").await.ok();
            let stored = identity.take_asked().pop().unwrap();
            assert_eq!(stored.path, "/_matrix/identity/v2/store-invite");
            assert_eq!(stored.body["room_id"], room.as_str());
            assert_eq!(stored.body["sender"], alice.user_id.as_str());
            assert_eq!((&stored.body["room_name"], &stored.body["room_join_rules"]), (&json!("The pub"), &json!("invite")));
            let offer = offers(&alice, &room).await.remove(0);
            let token = offer["state_key"].as_str().unwrap();
            assert_eq!(offer["content"]["display_name"], "b...@e...");
            assert_eq!(offer["content"]["public_keys"][0]["public_key"], offer["content"]["public_key"]);
            assert!(!offer.to_string().contains("bob@example.org"), "{offer}");

            bob.join(&room).await.refused(403, "M_FORBIDDEN");
            let signed = identity.sign(token, &alice.user_id, &bob.user_id);
            accept(&bob, &room, signed.clone()).await.ok();
            let member = membership(&bob, &room, &bob.user_id).await;
            assert_eq!(member["membership"], "join");
            // Who is in the room already is not invited again.
            accept(&bob, &room, signed).await.ok();
            assert_eq!(membership(&bob, &room, &bob.user_id).await, member);
        }
    }

    /// Trap: third-party invites: signature, token and revocation.
    async fn an_invitation_is_redeemed_with_the_right_signature_only(world, config => { IdentityServer::start(config); }) {
        let (alice, bob, eve) = (world.user("alice").await, world.user("bob").await, world.user("eve").await);
        let identity = IdentityServer::of(&world);
        let room = alice.create_room(json!({})).await;
        invite(&alice, &room, &identity, "bob@example.org").await.ok();
        let offer = offers(&alice, &room).await.remove(0);
        let token = offer["state_key"].as_str().unwrap();
        let good = identity.sign(token, &alice.user_id, &bob.user_id);

        accept(&eve, &room, good.clone()).await.refused(403, "M_FORBIDDEN");
        let mut renamed = good.clone();
        renamed["mxid"] = json!(eve.user_id);
        accept(&eve, &room, renamed).await.refused(403, "M_FORBIDDEN");
        let own = SigningKey::from_pkcs8(&SigningKey::generate().unwrap(), "ed25519:0").unwrap();
        let forged = identity.sign_with(&own, token, &alice.user_id, &eve.user_id);
        accept(&eve, &room, forged).await.refused(403, "M_FORBIDDEN");
        let elsewhere = identity.sign("another", &alice.user_id, &bob.user_id);
        accept(&bob, &room, elsewhere).await.refused(403, "M_FORBIDDEN");
        let mut unsigned = good.clone();
        unsigned["signatures"] = json!({});
        accept(&bob, &room, unsigned).await.refused(403, "M_FORBIDDEN");
        accept(&bob, &room, json!({ "mxid": bob.user_id })).await.refused(400, "M_MISSING_PARAM");
        accept(&bob, "!unknown:localhost", good.clone()).await.refused(403, "M_FORBIDDEN");

        identity.is(Mood::Revoked);
        accept(&bob, &room, good.clone()).await.refused(403, "M_FORBIDDEN");
        identity.is(Mood::Says(500, "broken"));
        accept(&bob, &room, good.clone()).await.refused(502, "M_UNKNOWN");
        identity.is(Mood::Well);
        alice.post(&at(&room, "/ban"), json!({ "user_id": bob.user_id })).await.ok();
        accept(&bob, &room, good.clone()).await.refused(403, "M_FORBIDDEN");
        alice.post(&at(&room, "/unban"), json!({ "user_id": bob.user_id })).await.ok();
        accept(&bob, &room, good.clone()).await.ok();

        // Taken back: what is left of it has no keys.
        bob.leave(&room).await.ok();
        alice.put(&at(&room, &format!("/state/m.room.third_party_invite/{token}")), json!({})).await.ok();
        accept(&bob, &room, good).await.refused(403, "M_FORBIDDEN");
    }

    /// Trap: third-party invites: whoever was kicked comes back with the same signature.
    async fn a_signature_serves_once(world, config => { IdentityServer::start(config); }) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let identity = IdentityServer::of(&world);
        let again = async |room: &str, how: &str| match how {
            "leave" => bob.leave(room).await.ok(),
            how => alice.post(&at(room, how), json!({ "user_id": bob.user_id })).await.ok(),
        };
        for how in ["leave", "/kick"] {
            let room = alice.create_room(json!({})).await;
            let offered = async || {
                invite(&alice, &room, &identity, "bob@example.org").await.ok();
                let offers = offers(&alice, &room).await;
                let tokens = offers.iter().map(|offer| offer["state_key"].as_str().unwrap());
                let newest = tokens.max_by_key(|token| token.trim_start_matches("token").parse::<u64>().unwrap());
                identity.sign(newest.unwrap(), &alice.user_id, &bob.user_id)
            };
            let signed = offered().await;
            accept(&bob, &room, signed.clone()).await.ok();
            // The answer was lost.
            accept(&bob, &room, signed.clone()).await.ok();
            again(&room, how).await;
            accept(&bob, &room, signed.clone()).await.refused(403, "M_FORBIDDEN");
            assert_eq!(membership(&alice, &room, &bob.user_id).await["membership"], "leave");
            // It is not undone by another invitation, nor by what came of that.
            alice.invite(&room, &bob.user_id).await.ok();
            bob.join(&room).await.ok();
            again(&room, how).await;
            accept(&bob, &room, signed).await.refused(403, "M_FORBIDDEN");
            let signed = offered().await;
            accept(&bob, &room, signed).await.ok();
        }
    }

    async fn an_offer_dies_with_the_power_of_who_made_it(world, config => { IdentityServer::start(config); }) {
        let (alice, bob, carol) = (world.user("alice").await, world.user("bob").await, world.user("carol").await);
        let identity = IdentityServer::of(&world);
        let levels = |invite: u64| json!({ "invite": invite, "users": { (&*alice.user_id): 100 } });
        let room = alice.create_room(json!({ "room_version": "11", "invite": [carol.user_id] })).await;
        carol.join(&room).await.ok();
        invite(&carol, &room, &identity, "bob@example.org").await.ok();
        let offer = offers(&alice, &room).await.remove(0);
        let signed = identity.sign(offer["state_key"].as_str().unwrap(), &carol.user_id, &bob.user_id);

        alice.put(&at(&room, "/state/m.room.power_levels"), levels(50)).await.ok();
        accept(&bob, &room, signed.clone()).await.refused(403, "M_FORBIDDEN");
        alice.put(&at(&room, "/state/m.room.power_levels"), levels(0)).await.ok();
        carol.leave(&room).await.ok();
        accept(&bob, &room, signed.clone()).await.refused(403, "M_FORBIDDEN");
        assert!(membership(&alice, &room, &bob.user_id).await.get("membership").is_none());
        alice.invite(&room, &carol.user_id).await.ok();
        carol.join(&room).await.ok();
        accept(&bob, &room, signed).await.ok();
    }

    /// Another server would vouch for a key that has been revoked, and hear of everybody who joins.
    async fn an_identity_server_vouches_for_its_keys_itself(world, config => { IdentityServer::start(config); }) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let identity = IdentityServer::of(&world);
        let room = alice.create_room(json!({})).await;
        let own = format!("http://{}", identity.name());
        for url in [
            "https://elsewhere.example/_matrix/identity/v2/pubkey/isvalid".to_owned(),
            format!("{own}.example/_matrix/identity/v2/pubkey/isvalid"),
            format!("https://{}/_matrix/identity/v2/pubkey/isvalid", identity.name()),
            format!("{own}/_matrix/identity/v2/pubkey/isvalid?public_key=another&"),
            own.clone(),
        ] {
            identity.is(Mood::VouchesAt(url.clone()));
            invite(&alice, &room, &identity, "bob@example.org").await.refused(502, "M_UNKNOWN");
            assert_eq!(offers(&alice, &room).await, [Value::Null; 0], "{url}");
            // As a member writes it who is no identity server.
            identity.is(Mood::Well);
            let key = identity.public_key();
            let offer = json!({ "display_name": "b...", "public_key": key, "key_validity_url": url });
            let stranger = alice.create_room(json!({})).await;
            alice.put(&at(&stranger, "/state/m.room.third_party_invite/token"), offer).await.ok();
            let signed = identity.sign("token", &alice.user_id, &bob.user_id);
            identity.take_asked();
            accept(&bob, &stranger, signed).await.refused(400, "M_SERVER_NOT_TRUSTED");
            assert!(identity.take_asked().is_empty(), "nobody is asked: {url}");
        }
    }

    /// Nobody has letters written in the name of a room that they can't invite to.
    async fn only_who_may_invite_has_anybody_asked(world, config => { IdentityServer::start(config); }) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let identity = IdentityServer::of(&world);
        let levels = json!({ "invite": 50 });
        let room = alice.create_room(json!({ "preset": "public_chat", "power_level_content_override": levels })).await;
        invite(&bob, &room, &identity, "eve@example.org").await.refused(403, "M_FORBIDDEN");
        bob.join(&room).await.ok();
        invite(&bob, &room, &identity, "eve@example.org").await.refused(403, "M_FORBIDDEN");
        invite(&bob, "!unknown:localhost", &identity, "eve@example.org").await.refused(403, "M_FORBIDDEN");
        invite(&alice, &room, &identity, "eve").await.refused(400, "M_INVALID_PARAM");
        let mut elsewhere = invitation(&identity, "eve@example.org");
        elsewhere["id_server"] = json!("id.example.org");
        alice.post(&at(&room, "/invite"), elsewhere).await.refused(400, "M_SERVER_NOT_TRUSTED");
        let body = Some(invitation(&identity, "eve@example.org"));
        world.call("POST", &at(&room, "/invite"), None, body).await.refused(401, "M_MISSING_TOKEN");
        assert!(identity.take_asked().is_empty());
        // Whom the server names is not always somebody.
        identity.knows("eve@example.org", "nobody at all");
        invite(&alice, &room, &identity, "eve@example.org").await.refused(502, "M_UNKNOWN");
        identity.knows("eve@example.org", "@eve:elsewhere.example");
        invite(&alice, &room, &identity, "eve@example.org").await.refused(403, "M_FORBIDDEN");
    }

    async fn a_room_is_made_with_invitations_or_not_at_all(world, config => { IdentityServer::start(config); }) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let identity = IdentityServer::of(&world);
        identity.knows("bob@example.org", &bob.user_id);
        let invites = json!([invitation(&identity, "bob@example.org"), invitation(&identity, "eve@example.org")]);
        let room = alice.create_room(json!({ "name": "The pub", "invite_3pid": invites })).await;
        assert_eq!(membership(&alice, &room, &bob.user_id).await["membership"], "invite");
        let mut asked = identity.take_asked();
        let paths: Vec<_> = asked.iter().map(|asked| asked.path.rsplit('/').next().unwrap()).collect();
        assert_eq!(paths, ["hash_details", "lookup", "store-invite"]);
        assert_eq!(asked[1].body["addresses"].as_array().unwrap().len(), 2);
        let stored = asked.pop().unwrap();
        assert_eq!((&stored.body["room_id"], &stored.body["room_name"]), (&json!(room), &json!("The pub")));
        let offer = offers(&alice, &room).await.remove(0);
        let eve = world.user("eve").await;
        let signed = identity.sign(offer["state_key"].as_str().unwrap(), &alice.user_id, &eve.user_id);
        accept(&eve, &room, signed).await.ok();

        let rooms = alice.get("/_matrix/client/v3/joined_rooms").await.ok();
        let create = async |invites: Value| {
            let body = json!({ "room_alias_name": "pub", "invite_3pid": invites });
            alice.post("/_matrix/client/v3/createRoom", body).await
        };
        let many = vec![invitation(&identity, "eve@example.org"); 11];
        create(json!(many)).await.refused(400, "M_INVALID_PARAM");
        identity.is(Mood::Says(400, r#"{"errcode":"M_UNRECOGNIZED","error":"Only e-mail"}"#));
        create(json!([invitation(&identity, "eve@example.org")])).await.refused(400, "M_UNRECOGNIZED");
        assert_eq!(alice.get("/_matrix/client/v3/joined_rooms").await.ok(), rooms);
        identity.is(Mood::Well);
        create(json!([])).await.ok();
    }

    /// Letters are not taken back: none is written for a room that is refused.
    async fn nobody_is_written_to_for_a_room_that_can_not_be(world, config => { IdentityServer::start(config); }) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let identity = IdentityServer::of(&world);
        identity.knows("bob@example.org", &bob.user_id);
        let create = async |mut body: Value, address: &str| {
            body["invite_3pid"] = json!([invitation(&identity, address)]);
            alice.post("/_matrix/client/v3/createRoom", body).await
        };
        alice.create_room(json!({ "room_alias_name": "pub" })).await;
        let taken = create(json!({ "room_alias_name": "pub" }), "eve@example.org").await;
        taken.refused(400, "M_ROOM_IN_USE");
        let powerless = json!({ "room_version": "11", "power_level_content_override": { "invite": 101 } });
        create(powerless.clone(), "eve@example.org").await.refused(400, "M_INVALID_ROOM_STATE");
        create(powerless.clone(), "bob@example.org").await.refused(400, "M_INVALID_ROOM_STATE");
        let asked = identity.take_asked();
        assert!(asked.iter().all(|asked| !asked.path.ends_with("/store-invite")), "{asked:?}");
        // Without anybody to invite there is nothing against it.
        alice.create_room(powerless).await;
    }

    async fn nobody_is_written_to_for_a_room_too_many(world, config => {
        IdentityServer::start(config);
        config.quotas.rooms_per_day = 2;
        config.quotas.aliases = 1;
    }) {
        let alice = world.user("alice").await;
        let identity = IdentityServer::of(&world);
        let create = async |mut body: Value| {
            body["invite_3pid"] = json!([invitation(&identity, "eve@example.org")]);
            alice.post("/_matrix/client/v3/createRoom", body).await
        };
        let letters =
            || identity.take_asked().iter().filter(|asked| asked.path.ends_with("/store-invite")).count();
        alice.create_room(json!({ "room_alias_name": "pub" })).await;
        create(json!({ "room_alias_name": "cellar" })).await.refused(403, "M_USER_LIMIT_EXCEEDED");
        assert_eq!(letters(), 0, "an alias too many");
        create(json!({})).await.ok();
        assert_eq!(letters(), 1);
        create(json!({})).await.refused(403, "M_USER_LIMIT_EXCEEDED");
        assert_eq!(letters(), 0, "a room too many");
    }
}
