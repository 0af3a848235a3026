//! What operators see of a server: its front page, its metrics, its log, and what they are told of a configuration.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use hearth::config::{RateLimitConfig, RegistrationMode};
use serde_json::{Value, json};

use crate::{
    on_both,
    world::{Engine, World, at, escape, http_client},
};

on_both! {
    async fn a_browser_finds_a_page(world, config => {
        config.server_name = "example.org".try_into().unwrap();
        config.registration.mode = RegistrationMode::Closed;
    }) {
        let page = world.call("GET", "/", None, None).await;
        assert_eq!(page.status, 200);
        assert_eq!(page.headers["content-type"], "text/html; charset=utf-8");
        let policy = page.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; style-src 'sha256-") && !policy.contains("unsafe"), "{policy}");
        let Value::String(text) = page.body else { panic!("{}", page.body) };
        for part in ["<h1>example.org</h1>", env!("CARGO_PKG_VERSION"), "It is ready.", "@alice:example.org"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        // The proxy before the nodes of a cluster does not say how it was called itself.
        let mut urls = world.nodes.iter().map(|node| &node.url);
        assert!(urls.any(|url| text.contains(&format!("<code>{url}</code>"))), "what to type into a client: {text}");
        assert!(!text.contains("<script"), "{text}");
        world.call("POST", "/", None, Some(json!({}))).await.refused(405, "M_UNRECOGNIZED");
    }

    async fn a_server_that_is_not_ready_says_so_on_its_page(world) {
        for node in &world.nodes {
            node.app.tasks.shutdown().leave();
        }
        let page = world.call("GET", "/", None, None).await;
        assert_eq!(page.status, 503);
        assert!(page.body.as_str().unwrap().contains("It is not ready: stopping."), "{}", page.body);
    }

    async fn the_page_names_what_the_operator_wants_typed(world, config => {
        config.well_known.client_base_url = Some("https://matrix.example.org".to_owned().try_into().unwrap());
    }) {
        let page = world.call("GET", "/", None, None).await;
        let Value::String(text) = page.body else { panic!("{}", page.body) };
        assert!(text.contains("<code>https://matrix.example.org</code>"), "{text}");
    }

    async fn browsers_need_not_ask_twice_whether_they_may_ask(world) {
        let reply = reqwest::Client::new()
            .request(reqwest::Method::OPTIONS, format!("{}/_matrix/client/v3/sync", world.url))
            .header("origin", "https://app.example.org")
            .header("access-control-request-method", "GET")
            .send()
            .await
            .unwrap();
        assert_eq!(reply.status(), 200);
        assert_eq!(reply.headers()["access-control-allow-origin"], "*");
        assert_eq!(reply.headers()["access-control-max-age"], "86400");
    }

    /// What is the same for everybody may be kept by whoever carries it; what is somebody's own may not.
    async fn nobody_on_the_way_keeps_what_is_somebodys_own(world, config => {
        config.well_known.client_base_url = Some("https://matrix.example.org".to_owned().try_into().unwrap());
    }) {
        let alice = world.user("alice").await;
        let room = alice.create_room(json!({})).await;
        let token = Some(alice.token.as_str());
        let openid = format!("/_matrix/client/v3/user/{}/openid/request_token", escape(&alice.user_id));
        let openid = alice.post(&openid, json!({})).await.ok()["access_token"].as_str().unwrap().to_owned();
        let userinfo = format!("/_matrix/federation/v1/openid/userinfo?access_token={openid}");
        let login = json!({ "type": "m.login.password", "identifier": { "type": "m.id.user", "user": "alice" }, "password": "password of alice" });
        let state = at(&room, "/state");
        for (method, path, token, body, status, is_own) in [
            ("GET", "/_matrix/client/versions", None, None, 200, false),
            ("GET", "/.well-known/matrix/client", None, None, 200, false),
            ("GET", "/_matrix/client/v3/login", None, None, 200, false),
            ("GET", "/_matrix/client/v3/publicRooms", None, None, 200, false),
            ("GET", "/_matrix/client/versions", token, None, 200, true),
            ("GET", "/_matrix/client/v3/account/whoami", token, None, 200, true),
            ("GET", "/_matrix/client/v3/sync", token, None, 200, true),
            ("GET", state.as_str(), token, None, 200, true),
            ("GET", userinfo.as_str(), None, None, 200, true),
            ("POST", "/_matrix/client/v3/login", None, Some(login), 200, true),
            ("POST", "/_matrix/client/v3/register", None, Some(json!({})), 401, true),
            ("GET", "/_matrix/client/v3/account/whoami", None, None, 401, true),
            ("GET", "/_matrix/client/v3/nothing", None, None, 404, true),
            ("PUT", "/_matrix/client/versions", None, None, 405, true),
            ("GET", "/", None, None, 200, true),
        ] {
            let reply = world.call(method, path, token, body).await;
            assert_eq!(reply.status, status, "{method} {path}: {}", reply.body);
            assert_eq!(reply.headers["x-content-type-options"], "nosniff", "{method} {path}");
            let kept = reply.headers.get("cache-control").map(|value| value.to_str().unwrap());
            assert_eq!(kept, is_own.then_some("no-store"), "{method} {path}");
            // Clients in browsers read JSON; pages are read by people alone.
            let shared = reply.headers.get("access-control-allow-origin").is_some();
            assert_eq!(shared, path != "/", "{method} {path}");
        }
    }

    async fn failed_logins_and_limits_are_counted(world, config => {
        config.rate_limits.enabled = true;
        config.rate_limits.registration = RateLimitConfig { per_second: 100.0, burst: 100 };
        config.rate_limits.login = RateLimitConfig { per_second: 0.000_02, burst: 3 };
    }) {
        world.user("alice").await;
        for (user, status) in [("alice", 403), ("nobody", 403), ("alice", 403), ("alice", 429)] {
            let body = json!({ "type": "m.login.password", "identifier": { "type": "m.id.user", "user": user },
                "password": "wrong" });
            assert_eq!(world.call("POST", "/_matrix/client/v3/login", None, Some(body)).await.status, status);
        }
        let counted = |name: &str| -> u64 {
            world.metrics().lines().filter_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok()).sum()
        };
        assert_eq!(counted(r#"hearth_failed_logins_total{reason="wrong_password"}"#), 2);
        assert_eq!(counted(r#"hearth_failed_logins_total{reason="no_such_user"}"#), 1);
        assert_eq!(counted(r#"hearth_rate_limited_requests_total{limit="login"}"#), 1);
    }

    async fn a_wrong_old_password_is_one_mistake_and_two_guesses(world, config => {
        config.rate_limits.enabled = true;
        config.rate_limits.registration = RateLimitConfig { per_second: 100.0, burst: 100 };
        config.rate_limits.login = RateLimitConfig { per_second: 0.000_02, burst: 3 };
    }) {
        let alice = world.user("alice").await;
        let change = async |old: &str| {
            let identifier = json!({ "type": "m.id.user", "user": alice.user_id });
            let auth = json!({ "type": "m.login.password", "identifier": identifier, "password": old });
            alice.post("/_matrix/client/v3/account/password", json!({ "auth": auth, "new_password": "some guess" })).await
        };
        let failed = || -> u64 {
            let name = r#"hearth_failed_logins_total{reason="not_confirmed"}"#;
            world.metrics().lines().filter_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok()).sum()
        };
        assert_eq!(change("wrong").await.status, 401);
        assert_eq!(failed(), 1);
        assert_eq!(change("some guess").await.status, 401, "which is no other guess");
        assert_eq!(failed(), 2);
        change("wrong").await.refused(429, "M_LIMIT_EXCEEDED");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_is_documented() {
    let world = World::on(Engine::Sqlite, |config| {
        config.rate_limits.enabled = true;
        config.rate_limits.login = RateLimitConfig { per_second: 0.000_02, burst: 1 };
    });
    let world = world.await.unwrap();
    let body = || Some(json!({ "type": "m.login.token", "token": "none" }));
    world.call("POST", "/_matrix/client/v3/login", None, body()).await.refused(403, "M_FORBIDDEN");
    world.call("POST", "/_matrix/client/v3/login", None, body()).await.refused(429, "M_LIMIT_EXCEEDED");

    let metrics = world.metrics();
    let shown: BTreeSet<String> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .map(|(name, kind)| match kind {
            "counter" => format!("{name}_total"),
            "info" => format!("{name}_info"),
            _ => name.to_owned(),
        })
        .collect();
    let documentation = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operating.md")).unwrap();
    let documented: BTreeSet<String> = documentation
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once(['`', '{']))
        .map(|(name, _)| name.to_owned())
        .filter(|name| name.starts_with("hearth_") || name.starts_with("process_"))
        .collect();
    assert_eq!(shown, documented);
    for (name, unit) in [("duration", "_seconds"), ("size", "_bytes"), ("free", "_bytes"), ("memory", "_bytes")] {
        let without: Vec<_> = shown.iter().filter(|shown| shown.contains(name) && !shown.ends_with(unit)).collect();
        assert!(without.is_empty(), "{without:?}");
    }
}

/// A server in a process of its own, whose log can be read. Gone at the latest with the test.
struct Process {
    child: Child,
    url: String,
    log: BufReader<std::process::ChildStderr>,
    folder: tempfile::TempDir,
}

impl Process {
    fn start(variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_hearth"))
            .env_clear()
            .env("HEARTH_DATA_DIR", folder.path())
            .env("HEARTH_LISTEN", "127.0.0.1:0")
            .env("HEARTH_LOG__FORMAT", "json")
            .envs(variables.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut url = None;
        while url.is_none() {
            let mut line = String::new();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "it has ended by itself");
            let line: Value = serde_json::from_str(&line).unwrap_or_default();
            url = line["message"].as_str().and_then(|text| text.strip_prefix("listening on ")).map(ToOwned::to_owned);
        }
        Self { child, url: url.unwrap(), log, folder }
    }

    /// What the log says from its beginning to its end.
    fn stop(mut self) -> Vec<Value> {
        let told = Command::new("kill").args(["-s", "TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(told.success());
        let log = io::read_to_string(&mut self.log).unwrap();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).collect();
        assert!(self.child.wait().unwrap().success());
        self.folder.path().metadata().unwrap();
        lines
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // After an ordinary end there is nobody to be ended any more.
        self.child.kill().unwrap_or_default();
        self.child.wait().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_says_who_failed_to_log_in_and_nothing_secret() {
    let server = Process::start(&[
        ("HEARTH_REGISTRATION__MODE", "open"),
        ("HEARTH_RATE_LIMITS__ENABLED", "no"),
        ("HEARTH_TRUSTED_PROXIES", "127.0.0.1"),
        ("HEARTH_LOG__LEVEL", "info,hearth::http=debug"),
    ]);
    let http = http_client(Duration::from_mins(1));
    let post = async |path: &str, body: Value| {
        let request = http.post(format!("{}/_matrix/client/v3/{path}", server.url));
        let reply = request.header("x-forwarded-for", "192.0.2.7").json(&body).send().await.unwrap();
        (reply.status().as_u16(), reply.json::<Value>().await.unwrap())
    };
    let (_, alice) =
        post("register", json!({ "username": "alice", "password": "OLD-SECRET", "auth": { "type": "m.login.dummy" } }))
            .await;
    let names = [
        "alice",
        "@Alice:localhost",
        "nobody",
        "correct-horse-secret",
        "My Other SECRET",
        "SECRET",
        "x\n{\"level\":\"INFO\",\"message\":\"forged\"}",
        &"l".repeat(300),
    ];
    for name in names {
        let identifier = json!({ "type": "m.id.user", "user": name });
        let body = json!({ "type": "m.login.password", "identifier": identifier, "password": "NEW-SECRET" });
        assert_eq!(post("login", body).await.0, 403, "{name}");
    }
    assert_eq!(post("login", json!({ "type": "m.login.token", "token": "SECRET" })).await.0, 403);
    let token = alice["access_token"].as_str().unwrap();
    let identifier = json!({ "type": "m.id.user", "user": "alice" });
    let auth = json!({ "type": "m.login.password", "identifier": identifier, "password": "NEW-SECRET" });
    let asked = http.post(format!("{}/_matrix/client/v3/delete_devices", server.url)).bearer_auth(token);
    let asked = asked.header("x-forwarded-for", "192.0.2.7").json(&json!({ "devices": [], "auth": auth }));
    assert_eq!(asked.send().await.unwrap().status(), 401);
    let whoami = http.get(format!("{}/_matrix/client/v3/account/whoami", server.url));
    let whoami = whoami.bearer_auth(token).send().await.unwrap();
    assert_eq!(whoami.status(), 200);

    let log = server.stop();
    let all = log.iter().map(ToString::to_string).collect::<String>();
    assert!(
        !all.contains("SECRET") && !all.contains("horse") && !all.contains("forged") && !all.contains("llll"),
        "{all}"
    );
    let failed: Vec<_> = log.iter().filter(|line| line["message"] == "a login failed").collect();
    let users: Vec<_> = failed.iter().map(|line| (line["user"].as_str(), line["reason"].as_str().unwrap())).collect();
    assert_eq!(
        users,
        [
            (Some("@alice:localhost"), "wrong_password"),
            (Some("@alice:localhost"), "wrong_password"),
            (None, "no_such_user"),
            (None, "no_such_user"),
            (None, "no_such_user"),
            (None, "no_such_user"),
            (None, "no_such_user"),
            (None, "no_such_user"),
            (None, "invalid_token"),
        ]
    );
    let told = |line: &&Value| line["address"] == "192.0.2.7" && line["target"] == "hearth::login";
    assert!(failed.iter().all(told), "{all}");
    let asked = log.iter().find(|line| line["reason"] == "not_confirmed").unwrap();
    assert!(told(&asked) && asked["user"] == "@alice:localhost", "{asked}");
    let asked = log.iter().find(|line| line["span"]["route"] == "/_matrix/client/v3/account/whoami").unwrap();
    assert_eq!((&asked["user"], &asked["address"]), (&json!("@alice:localhost"), &json!("127.0.0.1")));
}

/// What `hearth check-config` says of a file.
fn check(folder: &Path, file: &str) -> Output {
    let path = folder.join("hearth.toml");
    fs::write(&path, file).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_hearth"));
    command.env_clear().env("HEARTH_PORT", "tcp://10.0.0.11:8008").env("HEARTH_PRESENCE__ENABLED", "False");
    command.args(["check-config", "--config"]).arg(&path).output().unwrap()
}

#[test]
fn a_configuration_that_works_is_shown_and_ends_well() {
    let folder = tempfile::tempdir().unwrap();
    let output = check(folder.path(), "server_name = 'example.org'\n\n[log]\nlevel = 'warn'");
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{shown}");
    let place = folder.path().join("hearth.toml");
    for line in [
        format!("server_name = \"example.org\"  # {}:1", place.display()),
        format!("level = \"warn\"  # {}:4", place.display()),
        "enabled = false  # environment variable HEARTH_PRESENCE__ENABLED".to_owned(),
        "format = \"human\"  # default".to_owned(),
    ] {
        assert!(shown.lines().any(|found| found == line), "{line}\n{shown}");
    }
    assert_eq!(shown.lines().last(), Some("# OK"), "{shown}");
    assert!(!folder.path().join("hearth-data").exists(), "nothing is made");
}

#[test]
fn certificate_and_key_are_tried_together() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = |name: &str| {
        let made = rcgen::generate_simple_self_signed(vec!["example.org".to_owned()]).unwrap();
        fs::write(folder.path().join(format!("{name}.pem")), made.cert.pem()).unwrap();
        fs::write(folder.path().join(format!("{name}.key")), made.signing_key.serialize_pem()).unwrap();
    };
    certificate("one");
    certificate("other");
    fs::write(folder.path().join("none.pem"), "no certificate").unwrap();
    let check = |certificate: &str, key: &str| {
        let at = |name: &str| folder.path().join(name).display().to_string();
        let file = format!(
            "listen = ['tls:127.0.0.1:8448']\ntls = {{ certificate = '{}', key = '{}' }}",
            at(certificate),
            at(key)
        );
        let output = check(folder.path(), &file);
        let (out, error) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert_eq!(output.status.success(), out.ends_with("\n# OK\n"), "{out}");
        (output.status.code(), error)
    };
    assert_eq!(check("one.pem", "one.key"), (Some(0), String::new()));
    for (certificate, key, told) in [
        ("one.pem", "other.key", "cannot be used together"),
        ("missing.pem", "one.key", "missing.pem"),
        ("one.pem", "missing.key", "missing.key"),
        ("none.pem", "one.key", "holds no PEM certificate"),
        ("one.key", "one.pem", "one.key"),
    ] {
        let (code, error) = check(certificate, key);
        assert_eq!(code, Some(1), "{certificate} {key}");
        assert!(error.contains(told), "{told}: {error}");
    }
}
