//! E-mail addresses: proving one, having it on an account, and what can be done with it.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#adding-account-administrative-contact-information>

use std::time::Duration;

use hearth::config::{RateLimitConfig, RegistrationMode, TermsPolicy, Translation};
use serde_json::{Value, json};

use crate::{
    identity_server::{IdentityServer, Mood},
    mail_server::{Mail, MailServer},
    on_both,
    world::{Client, Reply, World, http_client, password},
};

const ACCOUNT: &str = "/_matrix/client/v3/account";
const REGISTER: &str = "/_matrix/client/v3/register";
const LOGIN: &str = "/_matrix/client/v3/login";

/// A client that proves an address, by its secret.
struct Prover<'a> {
    world: &'a World,
    /// What of: `/account/3pid`, `/account/password` or `/register`.
    of: String,
    email: &'a str,
    secret: &'a str,
}

impl<'a> Prover<'a> {
    fn new(world: &'a World, of: &str, email: &'a str) -> Self {
        Self { world, of: of.to_owned(), email, secret: "d0nt.T3ll" }
    }

    fn to_add(world: &'a World, email: &'a str) -> Self {
        Self::new(world, "/_matrix/client/v3/account/3pid", email)
    }

    fn to_reset(world: &'a World, email: &'a str) -> Self {
        Self::new(world, "/_matrix/client/v3/account/password", email)
    }

    fn to_register(world: &'a World, email: &'a str) -> Self {
        Self::new(world, REGISTER, email)
    }

    async fn ask(&self, send_attempt: u32) -> Reply {
        self.ask_with(json!({ "send_attempt": send_attempt })).await
    }

    async fn ask_with(&self, more: Value) -> Reply {
        let mut body = json!({ "client_secret": self.secret, "email": self.email });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.world.call("POST", &format!("{}/email/requestToken", self.of), None, Some(body)).await
    }

    /// Asks for a mail, follows the link in it and presses the button. Tells what the client shows from now on.
    async fn prove(&self) -> Value {
        let sid = self.ask(1).await.ok()["sid"].clone();
        assert_eq!(press(self.world, &MailServer::of(self.world).take_one()).await.0, 200);
        self.credentials(&sid)
    }

    fn credentials(&self, sid: &Value) -> Value {
        json!({ "sid": sid, "client_secret": self.secret })
    }
}

/// The button on the page behind the link in a mail: its status, where it leads, and what it shows.
async fn press(world: &World, mail: &Mail) -> (u16, Option<String>, String) {
    let link = mail.link();
    let (path, query) = link.split_once('?').unwrap();
    let http = http_client(Duration::from_secs(30));
    let request = http.post(format!("{}{path}", world.url)).body(query.to_owned());
    let answer = request.header("content-type", "application/x-www-form-urlencoded").send().await.unwrap();
    assert!(answer.headers().get("access-control-allow-origin").is_none(), "{link}");
    let location = answer.headers().get("location").map(|value| value.to_str().unwrap().to_owned());
    (answer.status().as_u16(), location, answer.text().await.unwrap())
}

/// Proves an address and adds it to a user's account.
async fn add(world: &World, user: &Client, email: &str) {
    let credentials = Prover::to_add(world, email).prove().await;
    add_proved(user, credentials).await.ok();
}

/// Adds what was proved, with the user's password.
async fn add_proved(user: &Client, credentials: Value) -> Reply {
    with_auth(user, &format!("{ACCOUNT}/3pid/add"), credentials, user.password()).await
}

async fn with_auth(user: &Client, path: &str, mut body: Value, auth: Value) -> Reply {
    body["auth"] = auth;
    user.post(path, body).await
}

fn by_mail(credentials: &Value) -> Value {
    json!({ "type": "m.login.email.identity", "threepid_creds": credentials })
}

async fn addresses(user: &Client) -> Vec<String> {
    let reply = user.get(&format!("{ACCOUNT}/3pid")).await.ok();
    let threepids = reply["threepids"].as_array().unwrap();
    threepids.iter().map(|threepid| threepid["address"].as_str().unwrap().to_owned()).collect()
}

async fn login_by_address(world: &World, address: &str, password: &str) -> Reply {
    let identifier = json!({ "type": "m.id.thirdparty", "medium": "email", "address": address });
    let body = json!({ "type": "m.login.password", "identifier": identifier, "password": password });
    world.call("POST", LOGIN, None, Some(body)).await
}

async fn login(world: &World, name: &str, secret: &str) -> Reply {
    world.call("POST", LOGIN, None, Some(password(name, secret))).await
}

async fn reset(world: &World, new_password: &str, auth: Value) -> Reply {
    let body = json!({ "new_password": new_password, "auth": auth });
    world.call("POST", &format!("{ACCOUNT}/password"), None, Some(body)).await
}

on_both! {
    async fn an_address_is_added_to_an_account_by_whoever_reads_it(world, config => { MailServer::start(config); }) {
        let (alice, mails) = (world.user("alice").await, MailServer::of(&world));
        let prover = Prover::to_add(&world, "Alice@Example.org");
        let asked = prover.ask(1).await.ok();
        assert!(asked["submit_url"].as_str().unwrap().starts_with("https://localhost/_matrix/client/"), "{asked}");
        let mail = mails.take_one();
        assert_eq!(mail.to, "alice@example.org");
        assert!(mail.head.contains("Auto-Submitted: auto-generated") && mail.head.contains("<noreply@example.org>"), "{mail:?}");
        let credentials = prover.credentials(&asked["sid"]);
        add_proved(&alice, credentials.clone()).await.refused(403, "M_THREEPID_AUTH_FAILED");

        // Trap: mail servers follow links.
        let page = world.call("GET", &mail.link(), None, None).await;
        assert_eq!((page.status, page.headers["referrer-policy"].to_str().unwrap()), (200, "no-referrer"));
        assert!(page.body.as_str().unwrap().contains("alice@example.org"), "{}", page.body);
        add_proved(&alice, credentials.clone()).await.refused(403, "M_THREEPID_AUTH_FAILED");

        assert_eq!(press(&world, &mail).await.0, 200);
        assert_eq!(press(&world, &mail).await.0, 200);
        let path = format!("{ACCOUNT}/3pid/add");
        let unconfirmed = alice.post(&path, credentials.clone()).await;
        assert_eq!((unconfirmed.status, &unconfirmed.body["flows"]), (401, &json!([{ "stages": ["m.login.password"] }])));
        with_auth(&alice, &path, credentials.clone(), password("alice", "guess")).await.refused(401, "M_FORBIDDEN");
        assert_eq!(addresses(&alice).await, [""; 0]);
        assert_eq!(add_proved(&alice, credentials.clone()).await.ok(), json!({}));
        let threepids = alice.get(&format!("{ACCOUNT}/3pid")).await.ok();
        let now = u64::from(world.clock.now().get());
        assert_eq!(threepids, json!({ "threepids": [{
            "medium": "email", "address": "alice@example.org", "validated_at": now, "added_at": now,
        }] }));
        // Whoever did not hear that it is done hears it again.
        assert_eq!(add_proved(&alice, credentials).await.ok(), json!({}));
        assert_eq!(alice.get(&format!("{ACCOUNT}/3pid")).await.ok(), threepids);

        for address in ["alice@example.org", "ALICE@EXAMPLE.ORG"] {
            let logged_in = login_by_address(&world, address, "password of alice").await.ok();
            assert_eq!(logged_in["user_id"], alice.user_id.as_str());
        }
        let wrong = login_by_address(&world, "alice@example.org", "guess").await;
        wrong.refused(403, "M_FORBIDDEN");
        assert_eq!(login_by_address(&world, "nobody@example.org", "guess").await.body, wrong.body);
        let identifier = json!({ "type": "m.id.thirdparty", "medium": "email", "address": "alice@example.org" });
        let auth = json!({ "type": "m.login.password", "identifier": identifier, "password": "password of alice" });
        with_auth(&alice, "/_matrix/client/v1/login/get_token", json!({}), auth).await.ok();

        let path = format!("{ACCOUNT}/3pid/delete");
        let delete = json!({ "medium": "email", "address": "alice@EXAMPLE.org" });
        assert_eq!(alice.post(&path, delete.clone()).await.ok(), json!({ "id_server_unbind_result": "no-support" }));
        assert_eq!(addresses(&alice).await, [""; 0]);
        alice.post(&path, delete).await.refused(400, "M_THREEPID_NOT_FOUND");
        login_by_address(&world, "alice@example.org", "password of alice").await.refused(403, "M_FORBIDDEN");
    }

    async fn clients_may_send_the_token_themselves(world, config => { MailServer::start(config); }) {
        let (alice, mails) = (world.user("alice").await, MailServer::of(&world));
        let prover = Prover::to_add(&world, "alice@example.org");
        let asked = prover.ask(1).await.ok();
        let submit_url = asked["submit_url"].as_str().unwrap().strip_prefix("https://localhost").unwrap();
        let mut body = prover.credentials(&asked["sid"]);
        world.call("POST", submit_url, None, Some(body.clone())).await.refused(400, "M_BAD_JSON");
        world.call_raw("POST", submit_url, None, "{").await.refused(400, "M_NOT_JSON");
        body["token"] = json!(mails.take_one().token());
        for (field, other) in [("sid", "other"), ("client_secret", "other")] {
            let mut body = body.clone();
            body[field] = json!(other);
            world.call("POST", submit_url, None, Some(body)).await.refused(400, "M_NO_VALID_SESSION");
        }
        for _ in 0..2 {
            let answer = world.call("POST", submit_url, None, Some(body.clone())).await;
            assert_eq!(answer.ok(), json!({ "success": true }));
        }
        add_proved(&alice, prover.credentials(&asked["sid"])).await.ok();
        let large = format!("{{\"sid\":\"{}\"}}", "x".repeat(20_000));
        world.call_raw("POST", submit_url, None, &large).await.refused(413, "M_TOO_LARGE");
    }

    async fn a_forgotten_password_is_reset_by_mail(world, config => { MailServer::start(config); }) {
        let alice = world.user("alice").await;
        add(&world, &alice, "alice@example.org").await;
        let (whoami, mails) = (format!("{ACCOUNT}/whoami"), MailServer::of(&world));
        let asked = world.call("POST", &format!("{ACCOUNT}/password"), None, Some(json!({ "new_password": "new password" }))).await;
        assert_eq!((asked.status, &asked.body["flows"]), (401, &json!([{ "stages": ["m.login.email.identity"] }])));
        let session = &asked.body["session"];

        let prover = Prover::to_reset(&world, "alice@example.org");
        let sid = prover.ask(1).await.ok()["sid"].clone();
        let credentials = prover.credentials(&sid);
        let mut auth = by_mail(&credentials);
        auth["session"] = session.clone();
        reset(&world, "new password", auth.clone()).await.refused(401, "M_THREEPID_AUTH_FAILED");
        let mail = mails.take_one();
        assert!(mail.text.contains(&alice.user_id), "{}", mail.text);
        assert_eq!(press(&world, &mail).await.0, 200);
        reset(&world, "", auth.clone()).await.refused(400, "M_WEAK_PASSWORD");
        // The session was opened for one password.
        reset(&world, "another password", auth.clone()).await.refused(403, "M_FORBIDDEN");
        reset(&world, "new password", auth).await.ok();
        alice.get(&whoami).await.refused(401, "M_UNKNOWN_TOKEN");
        login(&world, "alice", "password of alice").await.refused(403, "M_FORBIDDEN");
        let token = login(&world, "alice", "new password").await.ok()["access_token"].as_str().unwrap().to_owned();
        reset(&world, "newer password", by_mail(&credentials)).await.refused(401, "M_THREEPID_AUTH_FAILED");

        let again = Prover { secret: "again", ..Prover::to_reset(&world, "alice@example.org") }.prove().await;
        let body = json!({ "new_password": "newest password", "logout_devices": false, "auth": by_mail(&again) });
        world.call("POST", &format!("{ACCOUNT}/password"), None, Some(body)).await.ok();
        world.call("GET", &whoami, Some(&token), None).await.ok();
        login(&world, "alice", "newest password").await.ok();
    }

    async fn the_owner_of_an_account_hears_by_mail_what_is_done_to_it(world, config => { MailServer::start(config); }) {
        let (alice, mails) = (world.user("alice").await, MailServer::of(&world));
        add(&world, &alice, "alice@example.org").await;
        add(&world, &alice, "second@example.org").await;
        let report = mails.take_reports(1).await.remove(0);
        assert!(report.to == "alice@example.org" && report.text.contains("address was added"), "{report:?}");

        let path = format!("{ACCOUNT}/password");
        let change = async |new: &str, shown: &str| {
            let body = json!({ "new_password": new, "logout_devices": false });
            with_auth(&alice, &path, body, password("alice", shown)).await
        };
        change("first password", "a guess at it").await.refused(401, "M_FORBIDDEN");
        change("first password", "password of alice").await.ok();
        for (report, to) in mails.take_reports(2).await.iter().zip(["alice@example.org", "second@example.org"]) {
            assert_eq!(report.to, to);
            for told in ["password was changed", "2026-01-01 00:0", "127.0.0.1", "On the device: ", "@alice:localhost"] {
                assert!(report.text.contains(told), "{told}: {}", report.text);
            }
            assert!(!report.text.contains("first") && report.find_link().is_none(), "{}", report.text);
        }
        let proof = Prover::to_reset(&world, "alice@example.org").prove().await;
        reset(&world, "second password", by_mail(&proof)).await.ok();
        let report = mails.take_reports(2).await.remove(0);
        assert!(report.text.contains("password was reset") && !report.text.contains("On the device"), "{report:?}");
        world.administration().await.reset_password("alice", "third password", false).await.unwrap();
        let report = mails.take_reports(2).await.remove(0);
        assert!(report.text.contains("operators") && !report.text.contains("127.0.0.1"), "{report:?}");

        // Who takes the account over and removes the addresses is reported to those.
        let thief = world.call("POST", LOGIN, None, Some(password("alice", "third password"))).await.ok();
        let thief = thief["access_token"].as_str();
        let body = json!({ "new_password": "fourth password", "auth": password("alice", "third password") });
        let gate = mails.close().await;
        world.call("POST", &path, thief, Some(body)).await.ok();
        for address in ["alice@example.org", "second@example.org"] {
            let body = json!({ "medium": "email", "address": address });
            world.call("POST", &format!("{ACCOUNT}/3pid/delete"), thief, Some(body)).await.ok();
        }
        drop(gate);
        let reports = mails.take_reports(5).await;
        let about = |to: &str, what: &str| reports.iter().filter(|mail| mail.to == to && mail.text.contains(what)).count();
        assert_eq!((about("alice@example.org", "was removed"), about("second@example.org", "was removed")), (1, 2));
        assert_eq!((about("alice@example.org", "was changed"), about("second@example.org", "was changed")), (1, 1));
    }

    /// The change does not wait for it, and it is not forgotten.
    async fn a_mail_server_that_is_away_holds_up_no_password(world, config => { MailServer::start(config); }) {
        let (alice, mails) = (world.user("alice").await, MailServer::of(&world));
        add(&world, &alice, "alice@example.org").await;
        mails.refuse(Some("451 Come back later"));
        let body = json!({ "new_password": "new password", "logout_devices": false });
        with_auth(&alice, &format!("{ACCOUNT}/password"), body, alice.password()).await.ok();
        login(&world, "alice", "new password").await.ok();
        mails.refused().await;
        mails.refuse(None);
        assert!(mails.take_reports(1).await.remove(0).text.contains("was changed"));
    }

    /// Trap: whoever read the mailbox for a minute gets no further when the owner has set a new password.
    async fn a_new_password_ends_what_was_confirmed_before(world, config => { MailServer::start(config); }) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        add(&world, &alice, "alice@example.org").await;
        add(&world, &alice, "second@example.org").await;
        add(&world, &bob, "bob@example.org").await;
        let prove = async |email: &str, secret: &str| {
            by_mail(&Prover { secret, ..Prover::to_reset(&world, email) }.prove().await)
        };
        let thief = prove("alice@example.org", "thief").await;
        let elsewhere = prove("second@example.org", "thief").await;
        let waiting = Prover { secret: "waiting", ..Prover::to_reset(&world, "alice@example.org") };
        waiting.ask(1).await.ok();
        let unread = MailServer::of(&world).take_one();
        let theirs = prove("bob@example.org", "bob").await;
        let owner = prove("alice@example.org", "owner").await;
        let body = json!({ "new_password": "new password", "logout_devices": false, "auth": owner });
        world.call("POST", &format!("{ACCOUNT}/password"), None, Some(body)).await.ok();
        for proof in [thief, elsewhere] {
            reset(&world, "stolen password", proof).await.refused(401, "M_THREEPID_AUTH_FAILED");
        }
        assert_eq!(press(&world, &unread).await.0, 400);

        let thief = prove("alice@example.org", "thief").await;
        let change = json!({ "new_password": "newer password", "logout_devices": false });
        with_auth(&alice, &format!("{ACCOUNT}/password"), change, password("alice", "new password")).await.ok();
        reset(&world, "stolen password", thief).await.refused(401, "M_THREEPID_AUTH_FAILED");
        login(&world, "alice", "newer password").await.ok();
        // What others have confirmed is theirs.
        reset(&world, "bob's new one", theirs).await.ok();
    }

    /// Each of them looks at its own session first, and then ends the other's.
    async fn of_two_resets_at_once_one_sets_the_password(world, config => { MailServer::start(config); }) {
        let alice = world.user("alice").await;
        add(&world, &alice, "alice@example.org").await;
        let mut proofs = Vec::new();
        for secret in ["a", "b", "c"] {
            let prover = Prover { secret, ..Prover::to_reset(&world, "alice@example.org") };
            proofs.push(by_mail(&prover.prove().await));
        }
        let resets = proofs.into_iter().map(|proof| reset(&world, "new password", proof));
        let (set, refused): (Vec<_>, Vec<_>) =
            futures_util::future::join_all(resets).await.into_iter().partition(|reply| reply.status == 200);
        assert_eq!((set.len(), refused.len()), (1, 2), "{refused:?}");
        for late in refused {
            assert_eq!(late.body["errcode"], "M_THREEPID_AUTH_FAILED", "{}", late.body);
        }
        login(&world, "alice", "new password").await.ok();
    }

    /// Whoever has forgotten the password is answered as whoever knows it.
    async fn the_mails_of_a_locked_account_let_nobody_in(world, config => { MailServer::start(config); }) {
        let alice = world.user("alice").await;
        add(&world, &alice, "alice@example.org").await;
        let (operator, address) = (world.administration().await, "alice@example.org");
        let proof = Prover::to_reset(&world, address).prove().await;
        operator.set_locked("alice", true).await.unwrap();
        login_by_address(&world, address, "password of alice").await.refused(401, "M_USER_LOCKED");
        let locked = reset(&world, "new password", by_mail(&proof)).await;
        locked.refused(401, "M_USER_LOCKED");
        operator.set_locked("alice", false).await.unwrap();
        login_by_address(&world, address, "new password").await.refused(403, "M_FORBIDDEN");
        // Nothing was done with what was proved.
        operator.set_suspended("alice", true).await.unwrap();
        reset(&world, "new password", by_mail(&proof)).await.ok();
        login_by_address(&world, address, "new password").await.ok();
    }

    /// Trap: account takeover (GHSA-v2x6-m99h-vqxx).
    async fn account_takeover_by_a_proof_of_something_else(world, config => { MailServer::start(config); }) {
        let (alice, mallory) = (world.user("alice").await, world.user("mallory").await);
        add(&world, &alice, "alice@example.org").await;
        add(&world, &mallory, "mallory@example.org").await;
        let mails = MailServer::of(&world);

        // What was proved for one thing is good for that alone, and nothing is proved for an address that has an owner.
        let added = Prover { secret: "a", ..Prover::to_add(&world, "other@example.org") }.prove().await;
        let registered = Prover { secret: "b", ..Prover::to_register(&world, "third@example.org") }.prove().await;
        let own = Prover { secret: "c", ..Prover::to_reset(&world, "mallory@example.org") }.prove().await;
        for proof in [&added, &registered] {
            reset(&world, "stolen password", by_mail(proof)).await.refused(401, "M_THREEPID_AUTH_FAILED");
        }
        for proof in [&registered, &own] {
            add_proved(&mallory, proof.clone()).await.refused(403, "M_THREEPID_AUTH_FAILED");
        }
        for of in [Prover::to_add(&world, "ALICE@example.org"), Prover::to_register(&world, "alice@example.org")] {
            let sid = of.ask(1).await.ok()["sid"].clone();
            let mail = mails.take_one();
            assert_eq!((mail.to.as_str(), mail.find_link()), ("alice@example.org", None));
            add_proved(&mallory, of.credentials(&sid)).await.refused(403, "M_THREEPID_AUTH_FAILED");
        }

        // Somebody else's session, without their secret or before they have followed the link.
        let victim = Prover { secret: "theirs", ..Prover::to_reset(&world, "alice@example.org") };
        let sid = victim.ask(1).await.ok()["sid"].clone();
        let mail = mails.take_one();
        reset(&world, "stolen password", by_mail(&victim.credentials(&sid))).await.refused(401, "M_THREEPID_AUTH_FAILED");
        assert_eq!(press(&world, &mail).await.0, 200);
        let guessed = json!({ "sid": sid, "client_secret": "mine" });
        reset(&world, "stolen password", by_mail(&guessed)).await.refused(401, "M_THREEPID_AUTH_FAILED");

        // One's own proof resets one's own password, whoever is named beside it.
        let mut auth = by_mail(&own);
        auth["identifier"] = json!({ "type": "m.id.user", "user": "alice" });
        auth["user"] = json!("@alice:localhost");
        reset(&world, "mallory's own", auth).await.ok();
        login(&world, "mallory", "mallory's own").await.ok();
        login(&world, "alice", "password of alice").await.ok();

        // Nobody removes what is another's, and with its address an account loses this way in.
        let mut mallory = mallory;
        let logged_in = login(&world, "mallory", "mallory's own").await.ok();
        logged_in["access_token"].as_str().unwrap().clone_into(&mut mallory.token);
        let theirs = json!({ "medium": "email", "address": "alice@example.org" });
        mallory.post(&format!("{ACCOUNT}/3pid/delete"), theirs.clone()).await.refused(400, "M_THREEPID_NOT_FOUND");
        assert_eq!(addresses(&alice).await, ["alice@example.org"]);
        alice.post(&format!("{ACCOUNT}/3pid/delete"), theirs).await.ok();
        let late = reset(&world, "stolen password", by_mail(&victim.credentials(&sid))).await;
        late.refused(400, "M_THREEPID_NOT_FOUND");
        login(&world, "alice", "password of alice").await.ok();
    }

    async fn what_a_proof_was_used_for_is_answered_again(world, config => { MailServer::start(config); }) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let added = Prover { secret: "a", ..Prover::to_add(&world, "alice@example.org") }.prove().await;
        for _ in 0..2 {
            add_proved(&alice, added.clone()).await.ok();
        }
        add_proved(&bob, added.clone()).await.refused(403, "M_THREEPID_AUTH_FAILED");
        let guessed = json!({ "sid": added["sid"], "client_secret": "b" });
        add_proved(&alice, guessed).await.refused(403, "M_THREEPID_AUTH_FAILED");

        let own = Prover { secret: "c", ..Prover::to_reset(&world, "alice@example.org") }.prove().await;
        for _ in 0..2 {
            reset(&world, "another password", by_mail(&own)).await.ok();
        }
        reset(&world, "a third password", by_mail(&own)).await.refused(401, "M_THREEPID_AUTH_FAILED");
        let logged_in = login(&world, "alice", "another password").await.ok();
        let mut alice = alice;
        logged_in["access_token"].as_str().unwrap().clone_into(&mut alice.token);

        // The address is no longer theirs, so nothing was done that would be so now; and then it is proved anew.
        let address = json!({ "medium": "email", "address": "alice@example.org" });
        alice.post(&format!("{ACCOUNT}/3pid/delete"), address).await.ok();
        let auth = password("alice", "another password");
        let add = format!("{ACCOUNT}/3pid/add");
        with_auth(&alice, &add, added, auth.clone()).await.refused(403, "M_THREEPID_AUTH_FAILED");
        let anew = Prover { secret: "a", ..Prover::to_add(&world, "alice@example.org") }.prove().await;
        with_auth(&alice, &add, anew, auth).await.ok();
    }

    async fn of_two_who_prove_an_address_one_gets_it(world, config => { MailServer::start(config); }) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let first = Prover { secret: "a", ..Prover::to_add(&world, "shared@example.org") }.prove().await;
        let second = Prover { secret: "b", ..Prover::to_add(&world, "shared@example.org") }.prove().await;
        let (one, other) = tokio::join!(add_proved(&alice, first), add_proved(&bob, second));
        let (won, lost) = if one.status == 200 { (one, other) } else { (other, one) };
        won.ok();
        lost.refused(400, "M_THREEPID_IN_USE");
        assert_eq!(addresses(&alice).await.len() + addresses(&bob).await.len(), 1);
    }

    /// The answers are alike; what there is to know is in the mail.
    async fn nobody_learns_who_has_an_account(world, config => { MailServer::start(config); }) {
        let alice = world.user("alice").await;
        add(&world, &alice, "alice@example.org").await;
        let mails = MailServer::of(&world);
        let shape = |reply: &Value| reply.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        for of in [Prover::to_add, Prover::to_register, Prover::to_reset] {
            let (taken, free) = (of(&world, "alice@example.org"), of(&world, "nobody@example.org"));
            let (taken, to_owner) = (taken.ask(1).await.ok(), mails.take_one());
            let (free, to_nobody) = (free.ask(1).await.ok(), mails.take_one());
            assert_eq!(shape(&taken), shape(&free));
            assert_ne!(to_owner.find_link().is_some(), to_nobody.find_link().is_some());
            let told = [&to_owner, &to_nobody].into_iter().find(|mail| mail.find_link().is_none()).unwrap();
            assert!(!told.text.contains("http") && told.text.contains("localhost"), "{}", told.text);
        }
    }

    /// Whoever tries passwords is made to wait by the address that they typed, not by whose it is.
    async fn nobody_learns_from_waiting_who_has_an_account(world, config => {
        MailServer::start(config);
        config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
        config.rate_limits.enabled = true;
        config.rate_limits.login = RateLimitConfig { per_second: 0.001, burst: 3 };
    }) {
        let alice = world.user("alice").await;
        add(&world, &alice, "alice@example.org").await;
        let http = http_client(Duration::from_secs(30));
        let mut hosts = 1..255;
        // Each time from elsewhere.
        let mut status = async |identifier: Value| {
            let body = json!({ "type": "m.login.password", "identifier": identifier, "password": "guess" });
            let request = http.post(format!("{}{LOGIN}", world.url)).body(body.to_string());
            let from = format!("192.0.2.{}", hosts.next().unwrap());
            request.header("x-forwarded-for", from).send().await.unwrap().status().as_u16()
        };
        let email = |address: &str| json!({ "type": "m.id.thirdparty", "medium": "email", "address": address });
        // Strangers everywhere together have four times as much as one of them.
        for _ in 0..4 {
            for name in ["alice", "Alice", "@Alice:localhost"] {
                assert_eq!(status(json!({ "type": "m.id.user", "user": name })).await, 403, "{name}");
            }
        }
        assert_eq!(status(json!({ "type": "m.id.user", "user": "alice" })).await, 429);
        for address in ["alice@example.org", "nobody@example.org"] {
            for _ in 0..4 {
                for spelling in [address, &address.to_ascii_uppercase(), address] {
                    assert_eq!(status(email(spelling)).await, 403, "{spelling}");
                }
            }
            assert_eq!(status(email(address)).await, 429, "{address}");
        }
        assert_eq!(status(email("no address")).await, 403);
    }

    async fn an_attempt_is_mailed_once(world, config => { MailServer::start(config); }) {
        let mails = MailServer::of(&world);
        let prover = Prover::to_add(&world, "alice@example.org");
        let first = prover.ask(1).await.ok();
        let old = mails.take_one();
        assert_eq!(prover.ask(1).await.ok(), first);
        assert_eq!(prover.ask(0).await.ok(), first);
        assert!(mails.take().is_empty());
        assert_eq!(prover.ask(2).await.ok(), first);
        let new = mails.take_one();
        let (status, _, page) = press(&world, &old).await;
        assert!(status == 400 && page.contains("newer mail"), "{status} {page}");
        assert_eq!(press(&world, &new).await.0, 200);
        let other = Prover { secret: "other", ..Prover::to_add(&world, "alice@example.org") };
        assert_ne!(other.ask(1).await.ok()["sid"], first["sid"]);
        assert_eq!(mails.take().len(), 1);
    }

    /// Nothing is acknowledged that was not sent.
    async fn a_mail_that_is_not_taken_is_told(world, config => { MailServer::start(config); }) {
        let mails = MailServer::of(&world);
        let prover = Prover::to_add(&world, "alice@example.org");
        mails.refuse(Some("451 Not now, alice@example.org"));
        prover.ask(1).await.refused(503, "M_UNKNOWN");
        mails.refuse(Some("550 No such user"));
        prover.ask(1).await.refused(400, "M_INVALID_PARAM");
        mails.refuse(None);
        prover.ask(1).await.ok();
        assert_eq!(mails.take().len(), 1);

        let prover = Prover { secret: "slow", ..prover };
        let gate = mails.close().await;
        let (first, second) = tokio::join!(prover.ask(1), async {
            mails.brought().await;
            let second = prover.ask(1).await;
            drop(gate);
            second
        });
        first.ok();
        second.refused(429, "M_LIMIT_EXCEEDED");
        prover.ask(1).await.ok();
        assert_eq!(mails.take().len(), 1);
    }

    async fn a_token_is_tried_a_few_times_and_for_a_day(world, config => { MailServer::start(config); }) {
        let (alice, mails) = (world.user("alice").await, MailServer::of(&world));
        let prover = Prover::to_add(&world, "alice@example.org");
        let asked = prover.ask(1).await.ok();
        let submit_url = asked["submit_url"].as_str().unwrap().strip_prefix("https://localhost").unwrap();
        let submit = async |token: &str| {
            let mut body = prover.credentials(&asked["sid"]);
            body["token"] = json!(token);
            world.call("POST", submit_url, None, Some(body)).await
        };
        for _ in 0..10 {
            submit("guess").await.refused(400, "M_TOKEN_INCORRECT");
        }
        submit(&mails.take_one().token()).await.refused(400, "M_SESSION_EXPIRED");
        prover.ask(2).await.ok();
        let mail = mails.take_one();
        world.clock.advance(Duration::from_hours(24));
        submit(&mail.token()).await.refused(400, "M_SESSION_EXPIRED");
        assert_eq!(world.call("GET", &mail.link(), None, None).await.status, 400);

        let renewed = prover.ask(1).await.ok();
        assert_ne!(renewed["sid"], asked["sid"]);
        assert_eq!(press(&world, &mails.take_one()).await.0, 200);
        world.clock.advance(Duration::from_hours(24));
        add_proved(&alice, prover.credentials(&renewed["sid"])).await.refused(403, "M_THREEPID_AUTH_FAILED");
    }

    async fn a_mailbox_is_not_flooded(world, config => { MailServer::start(config); }) {
        let mails = MailServer::of(&world);
        let secrets: Vec<String> = (0..11).map(|number| format!("secret{number}")).collect();
        let ask = async |secret: &str, email: &str| {
            Prover { secret, ..Prover::to_reset(&world, email) }.ask(1).await
        };
        for secret in &secrets[..10] {
            ask(secret, "alice@example.org").await.ok();
        }
        let limited = ask(&secrets[10], "Alice@example.org").await;
        limited.refused(429, "M_LIMIT_EXCEEDED");
        assert_eq!(limited.body["retry_after_ms"], json!(3_600_000));
        ask(&secrets[10], "bob@example.org").await.ok();
        assert_eq!(mails.take().len(), 11);
        world.clock.advance(Duration::from_hours(1));
        ask(&secrets[10], "alice@example.org").await.ok();
    }

    async fn a_mailbox_is_not_flooded_by_many_at_once(world, config => { MailServer::start(config); }) {
        let secrets: Vec<String> = (0..15).map(|number| format!("secret{number}")).collect();
        let asked = secrets.iter().map(async |secret| {
            Prover { secret, ..Prover::to_reset(&world, "alice@example.org") }.ask(1).await
        });
        let (sent, limited): (Vec<_>, Vec<_>) =
            futures_util::future::join_all(asked).await.into_iter().partition(|reply| reply.status == 200);
        assert_eq!((sent.len(), MailServer::of(&world).take().len()), (10, 10));
        for reply in limited {
            reply.refused(429, "M_LIMIT_EXCEEDED");
        }
    }

    /// Who mistyped an address, or whose mail server was down, has not been sent anything.
    async fn what_was_not_taken_fills_no_mailbox(world, config => { MailServer::start(config); }) {
        let mails = MailServer::of(&world);
        mails.refuse(Some("550 No such user"));
        let secrets: Vec<String> = (0..12).map(|number| format!("secret{number}")).collect();
        for secret in &secrets {
            let prover = Prover { secret, ..Prover::to_add(&world, "alice@example.org") };
            prover.ask(1).await.refused(400, "M_INVALID_PARAM");
        }
        mails.refuse(None);
        // Those that were taken count as before.
        for (number, secret) in secrets.iter().enumerate() {
            let reply = Prover { secret, ..Prover::to_add(&world, "alice@example.org") }.ask(1).await;
            assert_eq!(reply.status, if number < 10 { 200 } else { 429 }, "{}", reply.body);
        }
        assert_eq!(mails.take().len(), 10);
    }

    async fn an_account_needs_an_address_where_the_operator_says_so(world, config => {
        MailServer::start(config);
        config.registration.require_email = true;
    }) {
        let asked = world.call("POST", REGISTER, None, Some(json!({}))).await;
        assert_eq!((asked.status, &asked.body["flows"]), (401, &json!([{ "stages": ["m.login.email.identity"] }])));
        let register = async |name: &str, auth: Value| {
            let body = json!({ "username": name, "password": format!("password of {name}"), "auth": auth });
            world.call("POST", REGISTER, None, Some(body)).await
        };
        register("alice", json!({ "type": "m.login.dummy" })).await.refused(401, "M_FORBIDDEN");
        let prover = Prover::to_register(&world, "alice@example.org");
        let sid = prover.ask(1).await.ok()["sid"].clone();
        let mut auth = by_mail(&prover.credentials(&sid));
        auth["session"] = asked.body["session"].clone();
        register("alice", auth.clone()).await.refused(401, "M_THREEPID_AUTH_FAILED");
        assert_eq!(press(&world, &MailServer::of(&world).take_one()).await.0, 200);
        let alice = register("alice", auth).await.ok();
        let token = alice["access_token"].as_str();
        let threepids = world.call("GET", &format!("{ACCOUNT}/3pid"), token, None).await.ok();
        assert_eq!(threepids["threepids"][0]["address"], "alice@example.org");
        register("bob", by_mail(&prover.credentials(&sid))).await.refused(401, "M_THREEPID_AUTH_FAILED");
        login_by_address(&world, "alice@example.org", "password of alice").await.ok();
    }

    /// A guest becomes a user with all that was shown on the way, or stays a guest.
    async fn guests_need_an_address_to_become_users(world, config => {
        MailServer::start(config);
        config.registration.guests = true;
        config.registration.mode = RegistrationMode::Token;
        config.registration.require_email = true;
        let translation = Translation { name: "Terms".to_owned(), url: "https://example.org/terms".to_owned() };
        config.registration.terms = vec![TermsPolicy {
            id: "terms".to_owned(),
            version: "1".to_owned(),
            translations: [("en".to_owned(), translation)].into(),
        }];
    }) {
        let operator = world.administration().await;
        let token = operator.create_registration_token(Some(2), None).await.unwrap();
        let (first, second) = (world.guest().await, world.guest().await);
        let register = async |guest: &Client, auth: Value| {
            let name = guest.name();
            let body = json!({
                "username": name, "password": "secret of a guest", "guest_access_token": guest.token, "auth": auth,
            });
            world.call("POST", REGISTER, None, Some(body)).await
        };
        let stages = ["m.login.registration_token", "m.login.terms", "m.login.email.identity"];
        let mut proved = Vec::new();
        for (guest, secret) in [(&first, "a"), (&second, "b")] {
            let asked = register(guest, json!({})).await;
            assert_eq!((asked.status, &asked.body["flows"]), (401, &json!([{ "stages": stages }])));
            let session = &asked.body["session"];
            for (done, auth) in [
                (1, json!({ "type": stages[0], "token": token, "session": session })),
                (2, json!({ "type": stages[1], "session": session })),
            ] {
                let halfway = register(guest, auth).await;
                assert_eq!((halfway.status, &halfway.body["completed"]), (401, &json!(stages[..done])));
            }
            let prover = Prover { secret, ..Prover::to_register(&world, "shared@example.org") };
            let mut auth = by_mail(&prover.prove().await);
            auth["session"] = session.clone();
            proved.push((guest, auth));
        }

        let (guest, auth) = proved.remove(0);
        register(guest, auth).await.ok();
        assert_eq!(addresses(guest).await, ["shared@example.org"]);
        login_by_address(&world, "shared@example.org", "secret of a guest").await.ok();
        assert_eq!(operator.show_account(guest.name()).await.unwrap().accepted_terms["terms"], "1");

        let (guest, auth) = proved.remove(0);
        register(guest, auth).await.refused(400, "M_THREEPID_IN_USE");
        assert_eq!(guest.get(&format!("{ACCOUNT}/whoami")).await.ok()["is_guest"], true);
        assert!(operator.show_account(guest.name()).await.unwrap().accepted_terms.is_empty());
        let valid = format!("/_matrix/client/v1/register/m.login.registration_token/validity?token={token}");
        assert_eq!(world.call("GET", &valid, None, None).await.ok(), json!({ "valid": true }));
    }

    async fn whoever_confirmed_is_sent_on_only_where_the_operator_allows_it(world, config => {
        MailServer::start(config);
        config.mail.next_link_hosts = vec!["app.example.org".to_owned(), "localhost:8080".to_owned()];
    }) {
        let mails = MailServer::of(&world);
        for (number, (next_link, sent_on)) in [
            ("https://app.example.org/#/go?a=b", true),
            ("http://localhost:8080/", true),
            ("https://evil.example.org/", false),
            ("https://app.example.org:444/", false),
            ("https://me@app.example.org/", false),
            ("javascript:alert(1)//app.example.org", false),
            ("nonsense", false),
        ].into_iter().enumerate() {
            let secret = format!("secret{number}");
            let email = format!("alice{number}@example.org");
            let prover = Prover { secret: &secret, ..Prover::to_add(&world, &email) };
            prover.ask_with(json!({ "send_attempt": 1, "next_link": next_link })).await.ok();
            let mail = mails.take_one();
            // The form leads here and, by its answer, there; no page of another origin reads any of it.
            let page = world.call("GET", &mail.link(), None, None).await;
            let policy = page.headers["content-security-policy"].to_str().unwrap();
            let targets = policy.split("form-action ").nth(1).unwrap().split(';').next().unwrap();
            let origin = next_link.split('/').take(3).collect::<Vec<_>>().join("/");
            assert_eq!(targets, if sent_on { format!("'self' {origin}") } else { "'self'".to_owned() });
            assert!(page.headers.get("access-control-allow-origin").is_none());
            let (status, location, _) = press(&world, &mail).await;
            let expected = if sent_on { (303, Some(next_link)) } else { (200, None) };
            assert_eq!((status, location.as_deref()), expected, "{next_link}");
        }
    }

    async fn without_a_mail_server_nobody_is_mailed(world) {
        let alice = world.user("alice").await;
        Prover::to_add(&world, "a@example.org").ask(1).await.refused(400, "M_THREEPID_MEDIUM_NOT_SUPPORTED");
        Prover::to_register(&world, "a@example.org").ask(1).await.refused(403, "M_THREEPID_DENIED");
        Prover::to_reset(&world, "a@example.org").ask(1).await.refused(403, "M_THREEPID_DENIED");
        let number = json!({ "client_secret": "s", "country": "GB", "phone_number": "07700900001", "send_attempt": 1 });
        for (of, status, errcode) in [
            ("account/3pid", 400, "M_THREEPID_MEDIUM_NOT_SUPPORTED"),
            ("account/password", 403, "M_THREEPID_DENIED"),
            ("register", 403, "M_THREEPID_DENIED"),
        ] {
            let path = format!("/_matrix/client/v3/{of}/msisdn/requestToken");
            world.call("POST", &path, None, Some(number.clone())).await.refused(status, errcode);
            world.call("POST", &path, None, Some(json!({}))).await.refused(400, "M_MISSING_PARAM");
        }
        let body = json!({ "new_password": "new password" });
        world.call("POST", &format!("{ACCOUNT}/password"), None, Some(body)).await.refused(401, "M_MISSING_TOKEN");
        let capabilities = alice.get("/_matrix/client/v3/capabilities").await.ok();
        assert_eq!(capabilities["capabilities"]["m.3pid_changes"], json!({ "enabled": false }));
    }

    async fn what_is_no_address_is_refused(world, config => { MailServer::start(config); }) {
        let alice = world.user("alice").await;
        for email in ["", "alice", "alice@", "a b@example.org", "a@b\r\nBcc: c@d", "\u{e9}@example.org", &"a".repeat(300)] {
            Prover::to_add(&world, email).ask(1).await.refused(400, "M_INVALID_PARAM");
        }
        let prover = Prover::to_add(&world, "alice@example.org");
        prover.ask_with(json!({ "send_attempt": -1 })).await.refused(400, "M_BAD_JSON");
        prover.ask_with(json!({})).await.refused(400, "M_MISSING_PARAM");
        prover.ask_with(json!({ "send_attempt": 1, "client_secret": "\u{e9}" })).await.refused(400, "M_INVALID_PARAM");
        prover.ask_with(json!({ "send_attempt": 1, "client_secret": "x".repeat(256) })).await.refused(400, "M_BAD_JSON");
        prover.ask_with(json!({ "send_attempt": 1, "client_secret": "" })).await.refused(400, "M_BAD_JSON");
        assert!(MailServer::of(&world).take().is_empty());

        let add = format!("{ACCOUNT}/3pid/add");
        let unknown = json!({ "sid": "unknown", "client_secret": "s" });
        alice.post(&add, unknown.clone()).await.refused(403, "M_THREEPID_AUTH_FAILED");
        alice.post(&add, json!({ "sid": "unknown" })).await.refused(400, "M_MISSING_PARAM");
        for path in ["add", "bind", "unbind", "delete"] {
            let path = format!("{ACCOUNT}/3pid/{path}");
            world.call("POST", &path, None, Some(unknown.clone())).await.refused(401, "M_MISSING_TOKEN");
            world.call("POST", &path, Some("nobodys"), Some(unknown.clone())).await.refused(401, "M_UNKNOWN_TOKEN");
        }
        world.call("GET", &format!("{ACCOUNT}/3pid"), None, None).await.refused(401, "M_MISSING_TOKEN");
        let page = "/_matrix/client/unstable/hearth/validate/email/submitToken";
        for query in ["", "?sid=a", "?sid=a&client_secret=b&token=c", "?sid=%00&client_secret=b&token=c"] {
            let page = world.call("GET", &format!("{page}{query}"), None, None).await;
            assert_eq!(page.status, 400, "{query}: {}", page.body);
        }
        let fax = json!({ "medium": "fax", "address": "1" });
        alice.post(&format!("{ACCOUNT}/3pid/delete"), fax).await.refused(400, "M_INVALID_PARAM");
        let capabilities = alice.get("/_matrix/client/v3/capabilities").await.ok();
        assert_eq!(capabilities["capabilities"]["m.3pid_changes"], json!({ "enabled": true }));
    }

    async fn a_deactivated_account_has_no_address(world, config => {
        MailServer::start(config);
        IdentityServer::start(config);
    }) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let identity = IdentityServer::of(&world);
        add(&world, &alice, "shared@example.org").await;
        alice.post(&format!("{ACCOUNT}/3pid/bind"), binding(&identity, "alice")).await.ok();
        let path = format!("{ACCOUNT}/deactivate");
        let gone = with_auth(&alice, &path, json!({}), alice.password()).await.ok();
        assert_eq!(gone, json!({ "id_server_unbind_result": "success" }));
        assert_eq!(identity.find("alice@example.org"), None);
        login_by_address(&world, "shared@example.org", "password of alice").await.refused(403, "M_FORBIDDEN");
        add(&world, &bob, "shared@example.org").await;

        bob.post(&format!("{ACCOUNT}/3pid/bind"), binding(&identity, "bob")).await.ok();
        identity.is(Mood::Says(500, "broken"));
        let gone = with_auth(&bob, &path, json!({}), bob.password()).await.ok();
        assert_eq!(gone, json!({ "id_server_unbind_result": "no-support" }));
    }

    async fn an_address_is_published_and_withdrawn(world, config => { IdentityServer::start(config); }) {
        let (alice, identity) = (world.user("alice").await, IdentityServer::of(&world));
        assert_eq!(alice.post(&format!("{ACCOUNT}/3pid/bind"), binding(&identity, "alice")).await.ok(), json!({}));
        assert_eq!(identity.find("alice@example.org").as_deref(), Some(&*alice.user_id));
        let asked = &identity.take_asked()[0];
        assert_eq!((&*asked.authorization, &asked.body["mxid"]), ("Bearer secret", &json!(alice.user_id)));
        // Publishing an address does not add it to the account.
        assert_eq!(addresses(&alice).await, [""; 0]);

        let address = json!({ "medium": "email", "address": "alice@example.org" });
        let unbind = async |user: &Client, body: &Value| user.post(&format!("{ACCOUNT}/3pid/unbind"), body.clone()).await;
        assert_eq!(unbind(&alice, &address).await.ok(), json!({ "id_server_unbind_result": "success" }));
        assert_eq!(identity.find("alice@example.org"), None);
        let asked = &identity.take_asked()[0];
        assert_eq!(asked.path, "/_matrix/identity/v2/3pid/unbind");
        assert!(asked.authorization.contains("sig=\""), "{}", asked.authorization);
        assert_eq!(unbind(&alice, &address).await.ok(), json!({ "id_server_unbind_result": "no-support" }));
        assert!(identity.take_asked().is_empty());

        let credentials = json!({ "three_pid_creds": binding(&identity, "alice") });
        alice.post(&format!("{ACCOUNT}/3pid"), credentials.clone()).await.ok();
        assert_eq!(identity.find("alice@example.org").as_deref(), Some(&*alice.user_id));
        let named = json!({ "medium": "email", "address": "alice@example.org", "id_server": identity.name() });
        let deleted = alice.post(&format!("{ACCOUNT}/3pid/delete"), named).await.ok();
        assert_eq!(deleted, json!({ "id_server_unbind_result": "success" }));
        assert_eq!(identity.find("alice@example.org"), None);

        identity.is(Mood::Says(400, r#"{"errcode":"M_SESSION_NOT_VALIDATED","error":"Not yet"}"#));
        let refused = alice.post(&format!("{ACCOUNT}/3pid/bind"), binding(&identity, "alice")).await;
        refused.refused(400, "M_SESSION_NOT_VALIDATED");
        assert_eq!(refused.body["error"], "Not yet");
        alice.post(&format!("{ACCOUNT}/3pid"), credentials).await.refused(403, "M_THREEPID_AUTH_FAILED");
        alice.post(&format!("{ACCOUNT}/3pid"), json!({})).await.refused(400, "M_MISSING_PARAM");
        world.call("POST", &format!("{ACCOUNT}/3pid"), None, Some(json!({}))).await.refused(401, "M_MISSING_TOKEN");
    }

    /// Nobody withdraws what another has published, and a server that knows no withdrawing says so.
    async fn what_others_published_stays(world, config => { IdentityServer::start(config); }) {
        let (alice, mallory) = (world.user("alice").await, world.user("mallory").await);
        let identity = IdentityServer::of(&world);
        alice.post(&format!("{ACCOUNT}/3pid/bind"), binding(&identity, "alice")).await.ok();
        let named = json!({ "medium": "email", "address": "alice@example.org", "id_server": identity.name() });
        mallory.post(&format!("{ACCOUNT}/3pid/unbind"), named.clone()).await.refused(403, "M_FORBIDDEN");
        mallory.post(&format!("{ACCOUNT}/3pid/delete"), named.clone()).await.refused(400, "M_THREEPID_NOT_FOUND");
        assert_eq!(identity.find("alice@example.org").as_deref(), Some(&*alice.user_id));
        identity.is(Mood::Says(404, "<html>"));
        let unbound = alice.post(&format!("{ACCOUNT}/3pid/unbind"), named).await.ok();
        assert_eq!(unbound, json!({ "id_server_unbind_result": "no-support" }));
    }

    /// Trap: every other fetch. An identity server is somebody else's.
    async fn an_identity_server_of_bad_intent(world, config => { IdentityServer::start(config); }) {
        let (alice, identity) = (world.user("alice").await, IdentityServer::of(&world));
        let bind = async |body: Value| alice.post(&format!("{ACCOUNT}/3pid/bind"), body).await;
        for name in ["elsewhere.example.org", "127.0.0.1:1", "localhost", "", &format!("http://{}", identity.name())] {
            let mut body = binding(&identity, "alice");
            body["id_server"] = json!(name);
            bind(body).await.refused(400, "M_SERVER_NOT_TRUSTED");
            let named = json!({ "medium": "email", "address": "alice@example.org", "id_server": name });
            alice.post(&format!("{ACCOUNT}/3pid/unbind"), named).await.refused(400, "M_SERVER_NOT_TRUSTED");
        }
        for token in ["", "a b", "a\nb"] {
            let mut body = binding(&identity, "alice");
            body["id_access_token"] = json!(token);
            bind(body).await.refused(400, "M_INVALID_PARAM");
        }
        assert!(identity.take_asked().is_empty());

        for (mood, status, errcode) in [
            (Mood::Redirects, 502, "M_UNKNOWN"),
            (Mood::Babbles, 502, "M_UNKNOWN"),
            (Mood::Says(200, "not json"), 502, "M_UNKNOWN"),
            (Mood::Says(200, "{}"), 502, "M_UNKNOWN"),
            (Mood::Says(500, r#"{"errcode":"M_FORBIDDEN","error":"x"}"#), 502, "M_UNKNOWN"),
            (Mood::Says(403, "<html>"), 502, "M_UNKNOWN"),
            // A client would end its session here.
            (Mood::Says(401, r#"{"errcode":"M_UNKNOWN_TOKEN","error":"x"}"#), 401, "M_UNAUTHORIZED"),
            (Mood::Says(403, r#"{"errcode":"M_TERMS_NOT_SIGNED","error":"Sign them"}"#), 403, "M_TERMS_NOT_SIGNED"),
        ] {
            identity.is(mood);
            bind(binding(&identity, "alice")).await.refused(status, errcode);
        }
        // Each time one request, wherever it was to lead.
        assert_eq!(identity.take_asked().len(), 8);
        let unpublished = json!({ "medium": "email", "address": "alice@example.org" });
        let unbound = alice.post(&format!("{ACCOUNT}/3pid/unbind"), unpublished).await.ok();
        assert_eq!(unbound, json!({ "id_server_unbind_result": "no-support" }));
    }
}

/// What a client sends to publish the address that it has proved to an identity server.
fn binding(identity: &IdentityServer, sid: &str) -> Value {
    json!({ "id_server": identity.name(), "id_access_token": "secret", "sid": sid, "client_secret": "s" })
}
