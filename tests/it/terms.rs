//! What somebody has to accept, to show and to choose when they register.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#terms-of-service-at-registration>,
//! <https://spec.matrix.org/v1.19/client-server-api/#token-authenticated-registration> and
//! <https://spec.matrix.org/v1.19/client-server-api/#notes-on-password-management>

use std::collections::BTreeMap;

use hearth::config::{RegistrationMode, TermsPolicy, Translation};
use serde_json::{Value, json};

use crate::{
    on_both,
    world::{Reply, World},
};

const REGISTER: &str = "/_matrix/client/v3/register";

fn policy(id: &str, version: &str, languages: &[&str]) -> TermsPolicy {
    let translation = |language: &&str| {
        let name = format!("{id} in {language}");
        ((*language).to_owned(), Translation { name, url: format!("https://example.org/{id}-{version}-{language}/") })
    };
    let translations: BTreeMap<_, _> = languages.iter().map(translation).collect();
    TermsPolicy { id: id.to_owned(), version: version.to_owned(), translations }
}

/// A try to register, with the stage of `auth` and a session.
async fn register(world: &World, name: &str, auth: Value) -> Reply {
    let body = json!({ "username": name, "password": format!("password of {name}"), "auth": auth });
    world.call("POST", REGISTER, None, Some(body)).await
}

async fn ask(world: &World) -> Value {
    let asked = world.call("POST", REGISTER, None, Some(json!({}))).await;
    assert_eq!(asked.status, 401, "{}", asked.body);
    asked.body
}

on_both! {
    async fn whoever_registers_accepts_the_terms_and_which_version_is_kept(world, config => {
        config.registration.terms =
            vec![policy("terms_of_service", "1.2", &["en", "fr"]), policy("privacy_policy", "3", &["en"])];
    }) {
        let asked = ask(&world).await;
        assert_eq!(asked["flows"], json!([{ "stages": ["m.login.terms"] }]));
        assert_eq!(
            asked["params"],
            json!({ "m.login.terms": { "policies": {
                "terms_of_service": {
                    "version": "1.2",
                    "en": { "name": "terms_of_service in en", "url": "https://example.org/terms_of_service-1.2-en/" },
                    "fr": { "name": "terms_of_service in fr", "url": "https://example.org/terms_of_service-1.2-fr/" },
                },
                "privacy_policy": {
                    "version": "3",
                    "en": { "name": "privacy_policy in en", "url": "https://example.org/privacy_policy-3-en/" },
                },
            } } })
        );
        let session = &asked["session"];
        // Nobody has accepted what they were not shown, and nothing else will do.
        let unseen = register(&world, "alice", json!({ "type": "m.login.terms" })).await;
        unseen.refused(401, "M_FORBIDDEN");
        assert!(unseen.body["params"]["m.login.terms"].is_object(), "{}", unseen.body);
        for dummy in [json!({ "type": "m.login.dummy", "session": session }), json!({ "type": "m.login.dummy" })] {
            register(&world, "alice", dummy).await.refused(401, "M_FORBIDDEN");
        }
        let asked_again = register(&world, "alice", json!({ "session": session })).await;
        assert_eq!((asked_again.status, asked_again.body.get("completed")), (401, None), "{}", asked_again.body);

        let alice = register(&world, "alice", json!({ "type": "m.login.terms", "session": session })).await.ok();
        assert_eq!(alice["user_id"], "@alice:localhost");
        let again = register(&world, "bob", json!({ "type": "m.login.terms", "session": session })).await;
        again.refused(401, "M_UNKNOWN");
        let world = world.restarted().await;
        let shown = world.administration().await.show_account("alice").await.unwrap();
        let accepted = serde_json::to_value(&shown.accepted_terms).unwrap();
        assert_eq!(accepted, json!({ "privacy_policy": "3", "terms_of_service": "1.2" }));
    }

    async fn terms_that_have_changed_are_shown_before_they_are_accepted(world, config => {
        config.registration.terms = vec![policy("terms_of_service", "1", &["en"])];
    }) {
        let asked = ask(&world).await;
        let mut world = world;
        world.config.registration.terms = vec![policy("terms_of_service", "2", &["en"])];
        let world = world.restarted().await;
        let auth = json!({ "type": "m.login.terms", "session": asked["session"] });
        register(&world, "alice", auth).await.refused(403, "M_FORBIDDEN");
        let asked = ask(&world).await;
        register(&world, "alice", json!({ "type": "m.login.terms", "session": asked["session"] })).await.ok();
        let shown = world.administration().await.show_account("alice").await.unwrap();
        assert_eq!(shown.accepted_terms["terms_of_service"], "2");
    }

    async fn a_token_comes_before_the_terms_and_is_used_once_somebody_has_registered(world, config => {
        config.registration.mode = RegistrationMode::Token;
        config.registration.terms = vec![policy("terms_of_service", "1", &["en"])];
    }) {
        let token = world.administration().await.create_registration_token(Some(1), None).await.unwrap();
        let valid = |token: &str| {
            let path = format!("/_matrix/client/v1/register/m.login.registration_token/validity?token={token}");
            let world = &world;
            async move { world.call("GET", &path, None, None).await.ok() }
        };
        let token_stage = |session: &Value| {
            json!({ "type": "m.login.registration_token", "token": token, "session": session })
        };
        let (first, second) = (ask(&world).await, ask(&world).await);
        assert_eq!(first["flows"], json!([{ "stages": ["m.login.registration_token", "m.login.terms"] }]));
        let early = register(&world, "alice", json!({ "type": "m.login.terms", "session": first["session"] })).await;
        early.refused(401, "M_FORBIDDEN");
        for (name, asked) in [("alice", &first), ("bob", &second)] {
            let halfway = register(&world, name, token_stage(&asked["session"])).await;
            assert_eq!((halfway.status, &halfway.body["completed"]), (401, &json!(["m.login.registration_token"])));
        }
        // Nobody has registered with it yet.
        assert_eq!(valid(&token).await, json!({ "valid": true }));
        register(&world, "alice", json!({ "type": "m.login.terms", "session": first["session"] })).await.ok();
        assert_eq!(valid(&token).await, json!({ "valid": false }));
        let late = register(&world, "bob", json!({ "type": "m.login.terms", "session": second["session"] })).await;
        late.refused(403, "M_FORBIDDEN");
        for never in ["guess", "%00", "a%20b", &"x".repeat(65)] {
            assert_eq!(valid(never).await, json!({ "valid": false }));
        }
    }

    async fn a_new_password_is_long_enough_or_the_answer_says_how_long(world) {
        let weak = |reply: Reply| {
            reply.refused(400, "M_WEAK_PASSWORD");
            assert!(reply.body["error"].as_str().unwrap().contains("at least 8"), "{}", reply.body);
        };
        for password in ["", "short", "1234567"] {
            let body = json!({ "username": "alice", "password": password, "auth": { "type": "m.login.dummy" } });
            weak(world.call("POST", REGISTER, None, Some(body)).await);
        }
        let alice = world.user("alice").await;
        let change = "/_matrix/client/v3/account/password";
        let auth = alice.password();
        weak(alice.post(change, json!({ "new_password": "1234567", "auth": auth })).await);
        alice.post(change, json!({ "new_password": "12345678", "auth": auth })).await.ok();
        assert!(world.administration().await.create_user("bob", "short", false).await.is_err());
    }
}
