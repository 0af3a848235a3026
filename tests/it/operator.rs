//! What operators can break, and what they are told then: rights of files, names of servers, commands on the wrong
//! database, and everything for which a server does not start.

use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt as _};

use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _, PgConnection, Row as _, SqliteConnection};

use crate::{
    program::{Installation, Said, json_lines, mode, refusing_postgres},
    world::{http_client, new_postgres_database},
};

/// An installation on each engine that is at hand.
async fn installations() -> Vec<Installation> {
    let mut all = vec![Installation::new()];
    match new_postgres_database().await {
        Some(url) => {
            let mut installation = Installation::new();
            installation.set("DATABASE__URL", &url);
            all.push(installation);
        }
        None => eprintln!("PostgreSQL skipped: ./test starts one"),
    }
    all
}

/// Some commands, among them all that look only.
const COMMANDS: &[&[&str]] = &[
    &["admin", "list-users"],
    &["admin", "create-user", "alice", "--admin"],
    &["admin", "show-account", "alice"],
    &["admin", "create-registration-token"],
    &["admin", "list-registration-tokens"],
    &["admin", "list-reports"],
    &["admin", "rotate-signing-key"],
    &["admin", "deactivate-account", "alice", "--yes"],
    &["admin", "list-media"],
    &["admin", "list-destinations"],
    &["admin", "federation-check"],
    &["admin", "quarantine-media", "mxc://localhost/abc"],
    &["admin", "sweep-media"],
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_make_no_database() {
    let here = Installation::new();
    for command in COMMANDS {
        let told = here.run(command).refused();
        let file = here.data().join("hearth.sqlite3").display().to_string();
        assert!(told.contains(&file) && told.contains("--config"), "{told}");
        assert!(!here.data().exists());
    }
    here.run(&["check-config", "--database"]).done();
    assert!(!here.data().exists());

    let Some(url) = new_postgres_database().await else { return };
    let mut here = Installation::new();
    here.set("DATABASE__URL", &url);
    for command in COMMANDS {
        let told = here.run(command).refused();
        assert!(told.contains("no Hearth in this database") && told.contains("--config"), "{told}");
    }
    assert!(!here.data().exists());
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(connection.fetch_one(tables).await.unwrap().get::<i64, _>(0), 0);
    connection.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_beside_a_server() {
    for here in installations().await {
        let server = here.start();
        let made = here.run(&["admin", "create-user", "alice", "--admin"]);
        assert!(made.err.starts_with("Database: ") && made.err.contains("localhost"), "{}", made.err);
        let made = made.done();
        assert!(made.contains("administrator @alice:localhost") && made.contains("Password: "), "{made}");
        let made = here.run_with(&["admin", "create-user", "bob", "--password-stdin"], "ilovebananas\nmore\n");
        assert!(!made.err.contains("ilovebananas") && !made.out.contains("ilovebananas"));
        made.done();

        let users = here.run(&["admin", "list-users"]).done();
        let lines: Vec<&str> = users.lines().collect();
        assert!(
            lines[0].contains("USER") && lines[1].contains("admin") && lines[1].ends_with("@alice:localhost"),
            "{users}"
        );
        let users = here.run(&["admin", "list-users", "--json"]).done();
        let users: Vec<Value> = users.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((&users[1]["user_id"], &users[1]["admin"]), (&json!("@bob:localhost"), &json!(false)));
        assert_eq!(here.run(&["admin", "list-users", "--guests"]).done(), "");

        let reset = here.run_with(&["admin", "reset-password", "bob", "--password-stdin"], "ilovecherries").done();
        assert!(reset.contains("@bob:localhost has a new password"), "{reset}");
        let http = http_client(std::time::Duration::from_mins(1));
        let login = async |password: &str| {
            let identifier = json!({ "type": "m.id.user", "user": "bob" });
            let body = json!({ "type": "m.login.password", "identifier": identifier, "password": password });
            let login = http.post(format!("{}/_matrix/client/v3/login", server.url));
            login.body(body.to_string()).send().await.unwrap().status().as_u16()
        };
        assert_eq!((login("ilovebananas").await, login("ilovecherries").await), (403, 200));
        let asked = here.run(&["admin", "reset-password", "bob", "--ask"]).refused();
        assert!(asked.contains("no terminal") && asked.contains("--password-stdin"), "{asked}");
        let empty = here.run_with(&["admin", "reset-password", "bob", "--password-stdin"], "\n").refused();
        assert!(empty.contains("empty"), "{empty}");

        assert!(here.run(&["admin", "make-admin", "bob"]).done().contains("is an administrator now"));
        assert!(here.run(&["admin", "unmake-admin", "bob"]).done().contains("no administrator any more"));
        let sessions = here.run(&["admin", "list-sessions", "bob", "--json"]).done();
        assert_eq!(sessions.lines().count(), 1, "{sessions}");
        assert!(here.run(&["admin", "end-sessions", "bob"]).done().contains("Ended one session of @bob:localhost"));

        let token = here.run(&["admin", "create-registration-token", "--uses", "5"]).done();
        let tokens = here.run(&["admin", "list-registration-tokens"]).done();
        assert!(tokens.contains(token.trim()) && tokens.contains("0 of 5"), "{tokens}");
        here.run(&["admin", "revoke-registration-token", token.trim()]).done();
        let gone = here.run(&["admin", "revoke-registration-token", token.trim()]).refused();
        assert!(gone.contains("list-registration-tokens"), "{gone}");

        // Where nobody can be asked whether it is meant, nothing is done.
        let meant = here.run(&["admin", "deactivate-account", "bob"]).refused();
        assert!(meant.contains("@bob:localhost") && meant.contains("--yes"), "{meant}");
        assert_eq!(login("ilovecherries").await, 200);
        let ended = here.run(&["admin", "deactivate-account", "bob", "--yes"]).done();
        assert!(ended.contains("is deactivated") && ended.contains("left all their rooms"), "{ended}");
        assert_eq!(login("ilovecherries").await, 403);

        let check = here.run(&["admin", "federation-check"]);
        assert_eq!(check.code, Some(1));
        assert!(
            check.out.starts_with("BAD   localhost is not asked") && check.out.contains("\n      -> "),
            "{}",
            check.out
        );
        assert!(check.err.contains("one thing is marked BAD"), "{}", check.err);

        let nobody = here.run(&["admin", "lock-account", "carol"]).refused();
        assert!(nobody.contains("no user carol on localhost") && nobody.contains("list-users"), "{nobody}");
        assert_eq!(here.run(&["admin", "lock-account"]).code, Some(2));
        let log = server.stop();
        assert!(!log.contains("ilovec"), "{log}");
    }
}

#[test]
fn a_command_that_is_broken_off_leaves_the_terminal_as_it_was() {
    let here = Installation::new();
    let server = here.start();
    let Some(mut terminal) =
        here.terminal("trap : INT; \"$HEARTH\" admin create-user carol --ask; echo code $?; stty -a")
    else {
        eprintln!("skipped: there is no `script` of util-linux to make a terminal");
        return;
    };
    terminal.read_until("Password: ");
    terminal.type_in("ilovebananas");
    terminal.type_in("\x03");
    let shown = terminal.end();
    assert!(shown.contains("code 1") && shown.contains("broken off"), "{shown}");
    assert!(shown.split_whitespace().any(|mode| mode == "echo"), "{shown}");
    assert!(!shown.contains("ilovebananas"), "{shown}");
    assert!(!here.run(&["admin", "list-users", "--all"]).done().contains("carol"));

    let mut terminal = here.terminal("\"$HEARTH\" admin create-user carol --ask").unwrap();
    terminal.read_until("Password: ");
    terminal.type_in("ilovebananas\nilovebananas\n");
    let shown = terminal.end();
    assert!(shown.contains("Made the user @carol:localhost") && !shown.contains("ilovebananas"), "{shown}");
    let mut terminal = here.terminal("\"$HEARTH\" admin deactivate-account carol --erase").unwrap();
    terminal.read_until("if that is meant: ");
    terminal.type_in("@carol:localhost\n");
    let shown = terminal.end();
    assert!(shown.contains("hidden from whoever joins a room later"), "{shown}");
    assert!(shown.contains("is deactivated and erased") && shown.contains("left all their rooms"), "{shown}");
    server.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_says_what_runs_and_that_it_has_stopped() {
    for here in installations().await {
        let log = here.start().stop();
        let lines = json_lines(&log);
        let first = &lines[0];
        assert_eq!(
            (&first["version"], &first["server_name"]),
            (&json!(env!("CARGO_PKG_VERSION")), &json!("localhost"))
        );
        assert!(first["configuration"].as_str().unwrap().contains("HEARTH_DATA_DIR"), "{first}");
        assert!(first["database"].as_str().unwrap().contains(':'), "{first}");
        let welcome = lines.iter().find(|line| line["message"].as_str().unwrap().starts_with("welcome")).unwrap();
        assert!(welcome["first"].as_str().unwrap().contains("admin create-user"), "{welcome}");
        assert_eq!(lines.last().unwrap()["message"], "stopped");
    }
    let mut here = Installation::new();
    here.set("LOG__FORMAT", "human");
    let log = here.start().stop();
    assert!(log.lines().next().unwrap().contains("server_name=localhost"), "{log}");
    assert!(log.contains("\nWelcome to Hearth.") && log.trim_end().ends_with("stopped"), "{log}");
}

#[test]
fn nobody_else_reads_the_data_unless_the_operator_lets_them() {
    let mut here = Installation::new();
    let socket = here.dir.path().join("hearth.sock");
    here.set("LISTEN", &format!("127.0.0.1:0,unix:{}", socket.display()));
    let server = here.start();
    let files = ["hearth.sqlite3", "hearth.sqlite3-wal", "hearth.sqlite3-shm"].map(|name| here.data().join(name));
    assert_eq!(mode(&here.data()), 0o700);
    assert_eq!(files.each_ref().map(|file| mode(file)), [0o600; 3]);
    // Beside the database are the server's own: who has it, how far it was written, and the folders of media.
    for entry in fs::read_dir(here.data()).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), if path.is_dir() { 0o700 } else { 0o600 }, "{}", path.display());
    }
    assert_eq!(mode(&socket), 0o660, "a reverse proxy is let in by its group");
    let log = server.stop();
    assert!(!log.contains("chmod"), "{log}");

    let set = |path: &std::path::Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    set(&here.data(), 0o755);
    set(&files[0], 0o644);
    let lines = json_lines(&here.start().stop());
    let warnings: Vec<&str> =
        lines.iter().filter(|line| line["level"] == "WARN").map(|line| line["message"].as_str().unwrap()).collect();
    let mend = format!("chmod 700 '{}' && chmod 600 '{}'", here.data().display(), files[0].display());
    assert!(warnings.len() == 1 && warnings[0].contains(&mend), "{warnings:?}");
    let checked = here.run(&["check-config", "--database"]);
    assert!(checked.err.contains(&mend), "{}", checked.err);
    assert_eq!((mode(&here.data()), mode(&files[0])), (0o755, 0o644), "what the operator has set stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_keeps_its_name() {
    let refusals = |here: &Installation| {
        let mut all: Vec<&[&str]> = vec![&["serve"], &["check-config", "--database"]];
        all.extend(COMMANDS);
        all.into_iter().map(|command| here.run(command)).collect::<Vec<Said>>()
    };
    for mut here in installations().await {
        here.start().stop();
        here.set("SERVER_NAME", "example.org");
        for said in refusals(&here) {
            assert_eq!(said.code, Some(1), "{}", said.err);
            assert!(
                said.err.contains("belongs to the server `localhost`") && said.err.contains("server_name"),
                "{said:?}"
            );
        }
        here.set("SERVER_NAME", "Localhost");
        for said in refusals(&here) {
            assert_eq!(said.code, Some(1), "{}", said.err);
            assert!(said.err.contains("small letters, `localhost`"), "{}", said.err);
        }
        here.set("SERVER_NAME", "localhost");
        here.start().stop();
    }
}

/// What a start that fails has to say: each of these words, the first of them once.
struct Case {
    what: &'static str,
    here: Installation,
    words: Vec<String>,
}

impl Case {
    fn new(what: &'static str, settings: &[(&str, &str)], words: &[&str]) -> Self {
        let mut here = Installation::new();
        for (key, value) in settings {
            here.set(key, value);
        }
        Self { what, here, words: words.iter().map(|word| (*word).to_owned()).collect() }
    }

    fn check(&self) {
        let Self { what, here, words } = self;
        let said = here.run(&["serve"]);
        assert_eq!(said.code, Some(1), "{what}: {}", said.err);
        let lines = json_lines(&said.err);
        let errors: Vec<&Value> = lines.iter().filter(|line| line["level"] == "ERROR").collect();
        assert_eq!(errors.len(), 1, "{what}: {}", said.err);
        let message = errors[0]["message"].as_str().unwrap();
        for word in words {
            assert!(message.contains(word), "{what}: {message} lacks {word}");
        }
        assert_eq!(message.matches(&words[0]).count(), 1, "{what} is said twice: {message}");
        for noise in ["os error", "error returned", "code:", "hunter2"] {
            assert!(!said.err.contains(noise), "{what}: {}", said.err);
        }
        assert_eq!(lines.last().unwrap()["message"], "stopped", "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_keeps_a_server_from_starting_is_said_once_and_in_words() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let url = |address: &str| format!("postgres://hearth:hunter2@{address}/hearth");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("notes");
    fs::write(&file, "These are notes and no database, of which there are many.").unwrap();
    let (file, folder) = (file.display().to_string(), dir.path().display().to_string());
    let below = format!("{file}/data");
    let wrong_password = refusing_postgres("28P01", "password authentication failed for user \"hearth\"");
    let crowded = refusing_postgres("53300", "sorry, too many clients already");
    let full = refusing_postgres("53100", "could not extend file: No space left on device");
    let forbidden = refusing_postgres("42501", "permission denied for database \"hearth\"");
    let mut cases = vec![
        Case::new(
            "no server",
            &[("DATABASE__URL", &url("127.0.0.1:1"))],
            &["connection refused", "database.url", "127.0.0.1:1"],
        ),
        Case::new(
            "password",
            &[("DATABASE__URL", &url(&wrong_password))],
            &["password authentication failed", "user and password"],
        ),
        Case::new("connections", &[("DATABASE__URL", &url(&crowded))], &["too many clients", "max_connections"]),
        Case::new("their disk", &[("DATABASE__URL", &url(&full))], &["No space left on device", "Make room"]),
        Case::new(
            "no right",
            &[("DATABASE__URL", &url(&forbidden))],
            &["permission denied", "for user hearth", "GRANT"],
        ),
        Case::new("port", &[("LISTEN", &address)], &["is in use", &address]),
        Case::new(
            "certificate",
            &[("LISTEN", "tls:127.0.0.1:0"), ("TLS__CERTIFICATE", &folder), ("TLS__KEY", &file)],
            &["is a directory", "tls.certificate", &folder],
        ),
        Case::new("folder", &[("DATA_DIR", &below)], &["not a directory", "data_dir", &below]),
        Case::new("no database", &[("DATABASE__URL", &format!("sqlite:{file}"))], &["file is not a database", &file]),
        Case::new("database folder", &[("DATABASE__URL", &format!("sqlite:{folder}"))], &["is a directory", &folder]),
        Case::new("nowhere", &[("DATABASE__URL", &format!("sqlite:{folder}/no/a.db"))], &["no such file or directory"]),
    ];
    cases.extend(newer_database().await);
    cases.extend(closed_folder(&folder));
    cases.extend(postgres_cases().await);
    for case in cases {
        case.check();
    }
}

/// Two databases that a newer release has used.
async fn newer_database() -> Vec<Case> {
    const NEWER: &str = "INSERT INTO migrations (version, name) VALUES (7000, '7000_flying_cars')";
    let mut cases = Vec::new();
    for here in installations().await {
        here.start().stop();
        let shown: Value = json_lines(&here.start().stop()).swap_remove(0);
        let file = here.data().join("hearth.sqlite3");
        if file.exists() {
            let url = format!("sqlite:{}", file.display());
            let mut connection = SqliteConnection::connect(&url).await.unwrap();
            connection.execute(NEWER).await.unwrap();
            connection.close().await.unwrap();
        } else {
            let mut connection = PgConnection::connect(shown["database"].as_str().unwrap()).await.unwrap();
            connection.execute(NEWER).await.unwrap();
            connection.close().await.unwrap();
        }
        let words = vec!["7000_flying_cars".to_owned(), "newer Hearth".to_owned(), "backup".to_owned()];
        cases.push(Case { what: "newer", here, words });
    }
    cases
}

/// Nothing is closed to root.
fn closed_folder(folder: &str) -> Option<Case> {
    let closed = format!("{folder}/closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o500)).unwrap();
    if fs::write(format!("{closed}/try"), "").is_ok() {
        return None;
    }
    Some(Case::new("rights", &[("DATA_DIR", &closed)], &["permission denied", "must belong to", &closed]))
}

async fn postgres_cases() -> Vec<Case> {
    let Some(url) = new_postgres_database().await else { return Vec::new() };
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let user = format!("guest_{}", std::process::id());
    let statements = format!("CREATE ROLE {user} LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC");
    connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(statements))).await.unwrap();
    connection.close().await.unwrap();
    let of_guest = url.replace("postgres://postgres@", &format!("postgres://{user}@"));
    let of_nobody = url.replace("postgres://postgres@", "postgres://nobody_at_all@");
    let (head, tail) = url.split_once("/it_").unwrap();
    let nowhere = format!("{head}/no_database?{}", tail.split_once('?').unwrap().1);
    vec![
        Case::new(
            "schema",
            &[("DATABASE__URL", &of_guest)],
            &["permission denied", &format!("for user {user}"), "GRANT"],
        ),
        Case::new("role", &[("DATABASE__URL", &of_nobody)], &["does not exist", "nobody_at_all", "pg_hba.conf"]),
        Case::new("nowhere", &[("DATABASE__URL", &nowhere)], &["does not exist", "no_database", "createdb"]),
    ]
}
