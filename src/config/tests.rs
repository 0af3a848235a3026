//! The configuration from outside: what a file and the environment lead to, and that the example file
//! tells the truth about every key.

mod media;

use std::{collections::BTreeMap, fs, path::Path};

use toml::{Table, Value};

use super::{key::ConfigKey, *};

const EXAMPLE: &str = include_str!("../../config.example.toml");

fn load(file: &str, variables: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hearth.toml");
    fs::write(&path, file).unwrap();
    let variables = variables.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    Config::load(Some(&path), variables).map_err(|error| {
        let prefix = format!("{}/", folder.path().display());
        let problem = |problem: &Problem| problem.to_string().replace(&prefix, "");
        error.problems.iter().map(problem).collect()
    })
}

/// Path and value of every key in a table.
fn flatten(section: &str, table: &Table, into: &mut BTreeMap<String, Value>) {
    for (name, value) in table {
        let path = if section.is_empty() { name.clone() } else { format!("{section}.{name}") };
        match value {
            Value::Table(table) => flatten(&path, table, into),
            value => drop(into.insert(path, value.clone())),
        }
    }
}

fn flattened(table: &Table) -> BTreeMap<String, Value> {
    let mut flat = BTreeMap::new();
    flatten("", table, &mut flat);
    flat
}

/// The example with its keys switched on: `#key = value` is a key, `# text` is a comment.
fn example_with_all_keys() -> String {
    let switch_on = |line: &'static str| match line.strip_prefix('#') {
        Some(setting) if !setting.is_empty() && !setting.starts_with(' ') => setting,
        _ => line,
    };
    EXAMPLE.lines().map(switch_on).collect::<Vec<_>>().join("\n")
}

#[test]
fn nothing_given_is_a_working_configuration() {
    let config = Config::load(None, std::iter::empty()).unwrap();
    assert_eq!(config.server_name, "localhost");
    assert_eq!(config.listen, ["127.0.0.1:8008".parse::<ListenEntry>().unwrap()]);
    assert_eq!(config.registration.mode, RegistrationMode::Closed);
    assert_eq!(config.database_url().to_string(), "sqlite:./hearth-data/hearth.sqlite3");
    assert_eq!(config.warnings(), [""; 0]);
}

#[test]
fn the_example_as_it_stands_changes_nothing() {
    let config = load(EXAMPLE, &[]).unwrap();
    let default = Config::default();
    assert_eq!(config.to_masked_toml().unwrap(), default.to_masked_toml().unwrap());
}

#[test]
fn the_example_shows_every_key_and_no_other() {
    let shown = flattened(&example_with_all_keys().parse().unwrap());
    let known: Vec<_> = ConfigKey::all().map(|key| key.path).collect();
    for path in &known {
        assert!(shown.contains_key(*path), "config.example.toml does not show `{path}`");
    }
    for path in shown.keys() {
        assert!(known.contains(&path.as_str()), "config.example.toml shows `{path}`, which is no key");
    }
}

#[test]
fn the_example_shows_the_defaults_of_the_code() {
    let shown = flattened(&example_with_all_keys().parse().unwrap());
    let defaults = flattened(&Table::try_from(Config::default()).unwrap());
    let mut comment = String::new();
    let mut section = String::new();
    for line in EXAMPLE.lines() {
        if let Some(text) = line.strip_prefix("# ") {
            comment.push_str(text);
            comment.push(' ');
        } else if let Some((name, _)) = line.strip_prefix('#').and_then(|line| line.split_once(" = ")) {
            let path = format!("{section}{name}");
            match defaults.get(&path) {
                Some(default) => assert_eq!(&shown[&path], default, "the default of `{path}`"),
                None => assert!(
                    comment.contains("Default: none"),
                    "`{path}` has no default, and its comment does not say so"
                ),
            }
            comment.clear();
        } else if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = format!("{name}.");
            comment.clear();
        }
    }
}

#[test]
fn every_value_of_the_example_is_valid() {
    load(&example_with_all_keys(), &[]).unwrap();
}

#[test]
fn what_the_documentation_shows_can_be_used() {
    let documentation = [
        include_str!("../../docs/internet.md"),
        include_str!("../../docs/media.md"),
        include_str!("../../docs/operating.md"),
        include_str!("../../docs/scaling.md"),
    ];
    for text in documentation {
        let files: Vec<_> = text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
        assert!(!files.is_empty());
        for file in files {
            load(file, &[]).unwrap();
        }
    }
    let packaged = include_str!("../../debian/hearth.toml").replace("#server_name", "server_name");
    let config = load(&packaged, &[]).unwrap();
    assert_eq!((config.server_name.as_str(), config.data_dir.as_path()), ("example.org", Path::new("/var/lib/hearth")));
}

#[test]
fn the_list_of_keys_and_the_structs_are_the_same_keys() {
    fn paths(section: &str, value: &serde_json::Value, into: &mut Vec<String>) {
        let Some(object) = value.as_object() else { return into.push(section.to_owned()) };
        for (name, value) in object {
            let path = if section.is_empty() { name.clone() } else { format!("{section}.{name}") };
            paths(&path, value, into);
        }
    }
    let mut fields = Vec::new();
    paths("", &serde_json::to_value(Config::default()).unwrap(), &mut fields);
    let mut keys: Vec<_> = ConfigKey::all().map(|key| key.path.to_owned()).collect();
    fields.sort();
    keys.sort();
    assert_eq!(fields, keys);
}

#[test]
fn the_environment_wins_over_the_file() {
    let config = load(
        "server_name = 'file.example.org'\n[database]\nmax_connections = 3",
        &[
            ("HEARTH_SERVER_NAME", "env.example.org"),
            ("HEARTH_DATABASE__URL", "postgres://me:hunter2@db/hearth"),
            ("HEARTH_LISTEN", "127.0.0.1:1, unix:/tmp/a.sock"),
            ("HEARTH_TRUSTED_PROXIES", r#"["10.0.0.0/8", "::1"]"#),
            ("HEARTH_RATE_LIMITS__LOGIN__PER_SECOND", "3"),
            ("HEARTH_PRESENCE__ENABLED", "false"),
            ("HEARTH_WELL_KNOWN__SUPPORT__CONTACTS", "[{ role = 'm.role.admin', email_address = 'a@b' }]"),
            ("PATH", "/bin"),
        ],
    )
    .unwrap();
    assert_eq!(config.server_name, "env.example.org");
    assert_eq!(config.database.max_connections, 3);
    assert_eq!(config.database_url().to_string(), "postgres://me:[secret]@db/hearth");
    assert_eq!(config.listen.len(), 2);
    assert_eq!(config.trusted_proxies.len(), 2);
    assert_eq!(config.rate_limits.login, RateLimitConfig { per_second: 3.0, burst: 10 });
    assert!(!config.presence.enabled);
    assert_eq!(config.well_known.support.contacts.len(), 1);
}

#[test]
fn documents_to_accept_are_in_some_language_and_somewhere() {
    let config = load(
        "[[registration.terms]]\nid = 'terms'\nversion = '1.2'\n\
         en = { name = 'Terms', url = 'https://example.org/terms/en/' }\n\
         de = { name = 'Bedingungen', url = 'https://example.org/terms/de/' }",
        &[],
    )
    .unwrap();
    let [terms] = &*config.registration.terms else { panic!("{:?}", config.registration.terms) };
    assert_eq!((terms.id.as_str(), terms.version.as_str(), terms.translations.len()), ("terms", "1.2", 2));
    assert_eq!(terms.translations["de"].url, "https://example.org/terms/de/");
    let text = "en = { name = 'T', url = 'https://example.org' }";
    let from_variable = format!("[{{ id = 'terms', version = '1', {text} }}]");
    assert_eq!(load("", &[("HEARTH_REGISTRATION__TERMS", &from_variable)]).unwrap().registration.terms.len(), 1);
    for wrong in [
        "{ id = 'terms', version = '1' }".to_owned(),
        format!("{{ id = 'terms', {text} }}"),
        format!("{{ id = 'terms', version = '1', {text} }}, {{ id = 'terms', version = '2', {text} }}"),
        "{ id = 'terms', version = '1', en = { name = 'T', url = 'ftp://example.org' } }".to_owned(),
        "{ id = 'terms', version = '1', en = { name = '', url = 'https://example.org' } }".to_owned(),
        "{ id = 'terms', version = '1', en = 'https://example.org' }".to_owned(),
    ] {
        assert_eq!(load(&format!("registration.terms = [{wrong}]"), &[]).unwrap_err().len(), 1, "{wrong}");
    }
}

#[test]
fn the_user_who_speaks_for_the_server_has_a_name_that_users_can_have() {
    let config = load("server_name = 'example.org'\nserver_notices.localpart = 'notices'", &[]).unwrap();
    assert_eq!(config.notices_sender().unwrap(), "@notices:example.org");
    assert_eq!(load("", &[]).unwrap().notices_sender(), None);
    for wrong in ["", "@notices", "Notices", "a:b", &"x".repeat(250)] {
        assert_eq!(load(&format!("server_notices.localpart = '{wrong}'"), &[]).unwrap_err().len(), 1, "{wrong}");
    }
    assert_eq!(load("server_notices.avatar_url = 'https://example.org/a.png'", &[]).unwrap_err().len(), 1);
}

#[test]
fn an_empty_variable_restores_the_default() {
    let config = load("server_name = 'file.example.org'", &[("HEARTH_SERVER_NAME", "")]).unwrap();
    assert_eq!(config.server_name, "localhost");
}

#[test]
fn every_key_has_a_variable() {
    let shown = flattened(&example_with_all_keys().parse().unwrap());
    let variables = ConfigKey::all().map(|key| {
        let text = match &shown[key.path] {
            Value::String(text) => text.clone(),
            value => value.to_string(),
        };
        (ConfigKey::variable(key.path), text)
    });
    let config = Config::load(None, variables).unwrap();
    let from_file = load(&example_with_all_keys(), &[]).unwrap();
    assert_eq!(config.to_masked_toml().unwrap(), from_file.to_masked_toml().unwrap());
}

#[test]
fn the_file_may_be_named_by_a_variable() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.toml");
    fs::write(&path, "server_name = 'a.example.org'").unwrap();
    let variable = ("HEARTH_CONFIG".to_owned(), path.display().to_string());
    let config = Config::load(None, std::iter::once(variable)).unwrap();
    assert_eq!(config.server_name, "a.example.org");
}

#[test]
fn an_unknown_key_is_told_with_what_was_meant() {
    for (file, problem) in [
        ("servername = 'a'", "1: unknown key `servername`; did you mean `server_name`?"),
        ("[databse]\nurl = 'x'", "2: unknown key `databse.url`; did you mean `database.url`?"),
        ("max_connections = 3", "1: unknown key `max_connections`; did you mean `database.max_connections`?"),
        (
            "# why\n\n[rate_limits.logins]\nburst = 3",
            "4: unknown key `rate_limits.logins.burst`; did you mean `rate_limits.login.burst`?",
        ),
        ("[redsi]", "1: unknown key `redsi`; did you mean `redis`?"),
        ("xyzzy = 3", "1: unknown key `xyzzy`; every key is described in config.example.toml"),
        ("[foo]\nenabled = true", "2: unknown key `foo.enabled`; every key is described in config.example.toml"),
        ("url = 'x'", "1: unknown key `url`; did you mean `database.url` or `redis.url`?"),
        (
            "[presence]\nenabled = false\nserver_name = 'a'",
            "3: unknown key `presence.server_name`: `server_name` is in no section; put it above the first line in \
             square brackets",
        ),
        (
            "[well_known.support]\npage = 'https://a'\nlisten = ['127.0.0.1:1']",
            "3: unknown key `well_known.support.listen`: `listen` is in no section; put it above the first line in \
             square brackets",
        ),
        (
            "database = 'x'",
            "1: `database` is a section, not a key; its keys are `database.url`, `database.max_connections`",
        ),
    ] {
        assert_eq!(load(file, &[]).unwrap_err(), [format!("hearth.toml:{problem}")]);
    }
    assert_eq!(
        load(
            "",
            &[("HEARTH_DATABASE_URL", "x"), ("HEARTH_DATABASE", "x"), ("HEARTH_XYZZY", "x"), ("HEARTH_LOGS", "x")]
        )
        .unwrap_err(),
        [
            "environment variable HEARTH_DATABASE: names a section; its variables are \
             HEARTH_DATABASE__URL, HEARTH_DATABASE__MAX_CONNECTIONS",
            "environment variable HEARTH_DATABASE_URL: sets no known key; did you mean \
             HEARTH_DATABASE__URL (`database.url`)?",
            "environment variable HEARTH_LOGS: sets no known key; every key is described in config.example.toml",
            "environment variable HEARTH_XYZZY: sets no known key; every key is described in config.example.toml",
        ]
    );
}

#[test]
fn what_kubernetes_says_of_services_is_no_setting() {
    let config = load(
        "",
        &[
            ("HEARTH_PORT", "tcp://10.0.0.11:8008"),
            ("HEARTH_SERVICE_HOST", "10.0.0.11"),
            ("HEARTH_SERVICE_PORT_HTTP", "8008"),
            ("HEARTH_PORT_8008_TCP_ADDR", "10.0.0.11"),
            ("HEARTH_SERVER_NAME", "example.org"),
        ],
    );
    assert_eq!(config.unwrap().server_name, "example.org");
    assert_eq!(
        load("", &[("HEARTH_PORT", "8008")]).unwrap_err(),
        ["environment variable HEARTH_PORT: sets no known key; did you mean HEARTH_LISTEN (`listen`)?"]
    );
}

#[test]
fn yes_and_no_have_many_words_in_the_environment() {
    let enabled = |text: &str| load("", &[("HEARTH_PRESENCE__ENABLED", text)]).map(|config| config.presence.enabled);
    for text in ["true", "True", "TRUE", "yes", "on", "1", " true "] {
        assert!(enabled(text).unwrap(), "{text}");
    }
    for text in ["false", "False", "no", "No", "off", "0"] {
        assert!(!enabled(text).unwrap(), "{text}");
    }
    for text in ["maybe", "2", "nope", "truetrue"] {
        let problem =
            "environment variable HEARTH_PRESENCE__ENABLED: `presence.enabled` must be true or false; this is ";
        assert_eq!(enabled(text).unwrap_err(), [format!("{problem}the text \"{text}\"")]);
    }
}

#[test]
fn two_listeners_on_one_address_are_refused() {
    for file in [
        "listen = ['127.0.0.1:8008', '127.0.0.1:8008']",
        "listen = ['127.0.0.1:8008']\nmetrics.listen = '127.0.0.1:8008'",
        "listen = ['0.0.0.0:8008', '127.0.0.1:8008']",
        "listen = ['unix:/run/a.sock']\nmetrics.listen = 'unix:/run/a.sock'",
    ] {
        let problems = load(file, &[]).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains("two listeners"), "{problems:?}");
    }
    load("listen = ['127.0.0.1:0', '127.0.0.1:0']\nmetrics.listen = '127.0.0.1:0'", &[]).unwrap();
}

#[test]
fn redis_without_nodes_to_speak_to_is_warned_of() {
    let redis = "[redis]\nurl = 'redis://127.0.0.1:6379'";
    assert_eq!(load(redis, &[]).unwrap().warnings().len(), 1);
    let media = "media.stores = [{ name = 's3', bucket = 'media' }]";
    let postgres = format!("database.url = 'postgres://me@db/hearth'\n{media}\n{redis}");
    assert_eq!(load(&postgres, &[]).unwrap().warnings(), [""; 0]);
}

#[test]
fn the_configuration_is_shown_with_where_each_value_comes_from() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hearth.toml");
    let file = "server_name = 'file.example.org'\n\n[database]\nurl = 'postgres://me:hunter2@db/h'\n\
                max_connections = 3\n[[registration.terms]]\nid = 'terms'\nversion = '1'\n\
                en = { name = 'Terms', url = 'https://example.org' }\n[log]\nlevel = 'debug'";
    fs::write(&path, file).unwrap();
    let variables = [("HEARTH_DATABASE__MAX_CONNECTIONS", "4"), ("HEARTH_LOG__LEVEL", "")];
    let variables = variables.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    let (config, origins) = Config::load_with_origins(Some(&path), variables).unwrap();
    let shown = config.to_explained_toml(&origins).unwrap();
    let here = path.display();
    for line in [
        format!("server_name = \"file.example.org\"  # {here}:1"),
        "data_dir = \"./hearth-data\"  # default".to_owned(),
        format!("url = \"postgres://me:[secret]@db/h\"  # {here}:4"),
        "max_connections = 4  # environment variable HEARTH_DATABASE__MAX_CONNECTIONS".to_owned(),
        "level = \"info\"  # environment variable HEARTH_LOG__LEVEL".to_owned(),
    ] {
        assert!(shown.lines().any(|found| found == line), "{line}\n{shown}");
    }
    assert!(shown.lines().any(|line| line.starts_with("terms = [") && line.ends_with(&format!("{here}:6"))), "{shown}");
    let (as_shown, as_it_is) = (shown.parse().unwrap(), config.to_masked_toml().unwrap().parse().unwrap());
    assert_eq!(flattened(&as_shown), flattened(&as_it_is));
}

#[test]
fn every_key_is_shown() {
    let (config, origins) =
        Config::load_with_origins(None, std::iter::once(("HEARTH_TURN__SHARED_SECRET".to_owned(), "x".repeat(16))))
            .unwrap();
    let shown = config.to_explained_toml(&origins).unwrap();
    let (as_shown, as_it_is) = (shown.parse().unwrap(), config.to_masked_toml().unwrap().parse().unwrap());
    assert_eq!(flattened(&as_shown), flattened(&as_it_is));
    assert!(
        shown.contains("shared_secret = \"[secret]\"  # environment variable HEARTH_TURN__SHARED_SECRET"),
        "{shown}"
    );
}

#[test]
fn a_wrong_value_is_told_with_what_was_expected() {
    for (file, problem) in [
        (
            "server_name = 'Example.org'",
            "`server_name` must be a server name such as \"example.org\"; write it in small letters, `example.org`",
        ),
        (
            "listen = 'all'",
            "`listen` must be a list of addresses such as \"127.0.0.1:8008\", \"[::1]:8008\", \
             \"tls:0.0.0.0:8448\" or \"unix:/run/hearth.sock\"; this is the text \"all\"",
        ),
        (
            "database.max_connections = 0",
            "`database.max_connections` must be a whole number from 1 to 1000; the number 0 is not \
             (too small)",
        ),
        (
            "database.url = 'mysql://me:hunter2@db/x'",
            "`database.url` must be a URL such as \"sqlite:PATH\" or \
             \"postgres://user:password@host/database\"; `mysql:` is not among them",
        ),
        (
            "registration.mode = 'opn'",
            "`registration.mode` must be \"open\", \"token\" or \"closed\"; the text \"opn\" is not",
        ),
        ("presence.enabled = 'yes'", "`presence.enabled` must be true or false; this is the text \"yes\""),
        (
            "log.level = 'inof'",
            "`log.level` must be a filter such as \"info\" or \"info,hearth::room=debug\"; `inof` is not \
             a level; these are: off, error, warn, info, debug, trace",
        ),
        (
            "rooms.default_version = '5'",
            "`rooms.default_version` must be a room version from \"6\" to \"12\"; rooms of version `5` \
             cannot be created here",
        ),
        (
            "registration.terms = [{ id = 'a b', version = '1', en = { name = 'A', url = 'https://example.org' } }]",
            "`registration.terms` must be a list of documents such as { id = \"privacy_policy\", version = \"1.0\", \
             en = { name = \"Privacy policy\", url = \"https://example.org/privacy\" } }; `a b` and its `version` are \
             made of the characters A-Z, a-z, 0-9 and -._~",
        ),
        (
            "rtc.transports = [{ type = 'livekit' }]",
            "`rtc.transports` must be a list of transports such as \
             { type = \"livekit\", livekit_service_url = \"https://rtc.example.org\" }; one of the type `livekit` \
             needs a `livekit_service_url`",
        ),
        (
            "well_known.policy_server.ed25519 = 'AAAA'",
            "`well_known.policy_server.ed25519` must be a public key in base64, 43 characters without padding; the \
             text \"AAAA\" is not (it holds 3 bytes, an ed25519 key has 32)",
        ),
        (
            "listen = []",
            "`listen` is empty, so nobody could reach the server: give at least one address, such as \
             `127.0.0.1:8008`",
        ),
    ] {
        let problems = load(file, &[]).unwrap_err();
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].trim_start_matches("hearth.toml:1: "), problem);
    }
}

#[test]
fn all_problems_are_told_at_once_and_no_secret_with_them() {
    let problems = load(
        "server_name = 'not a name'\nlisten = ['x']\n[registration]\nshared_secret = 12345\nmod = 'open'",
        &[("HEARTH_TIMEOUTS__SHUTDOWN_SECONDS", "soon"), ("HEARTH_REDIS__URL", "hunter2")],
    )
    .unwrap_err();
    assert_eq!(problems.len(), 6, "{problems:#?}");
    let all = problems.join("\n");
    assert!(!all.contains("12345") && !all.contains("hunter2"), "{all}");
}

#[test]
fn a_file_that_is_no_toml_is_told_with_its_line_but_not_its_text() {
    let problems = load("server_name = 'a'\n[registration]\nshared_secret = hunter2", &[]).unwrap_err();
    assert!(problems[0].starts_with("hearth.toml:3: is not valid TOML: "), "{problems:?}");
    assert!(!problems[0].contains("hunter2"), "{problems:?}");

    let missing = Config::load(Some(Path::new("/nowhere/hearth.toml")), std::iter::empty());
    let problems = missing.unwrap_err().to_string();
    assert!(problems.contains("/nowhere/hearth.toml: cannot be read: no such file"), "{problems}");
}

#[test]
fn a_server_federates_if_its_name_is_a_real_one_or_somebody_says_so() {
    let federates = |file: &str| load(file, &[]).unwrap().federation.enabled;
    assert!(!federates(""));
    assert!(federates("server_name = 'example.org'"));
    assert!(!federates("server_name = '192.0.2.1:8448'"));
    assert!(!federates("server_name = 'example.org'\nfederation.enabled = false"));
    assert!(federates("federation.enabled = true"));
    let restored =
        load("server_name = 'example.org'\nfederation.enabled = false", &[("HEARTH_FEDERATION__ENABLED", "")]);
    assert!(restored.unwrap().federation.enabled);
}

#[test]
fn a_server_that_no_other_one_reaches_is_warned_of() {
    let warnings = |file: &str| load(&format!("server_name = 'example.org'\n{file}"), &[]).unwrap().warnings();
    assert_eq!(warnings(""), [""; 0]);
    assert_eq!(warnings("listen = ['127.0.0.1:8008 client', '127.0.0.1:8448 federation']"), [""; 0]);
    assert_eq!(warnings("listen = ['127.0.0.1:8008 client']").len(), 1);
    assert_eq!(warnings("listen = ['127.0.0.1:8008 client']\nfederation.enabled = false"), [""; 0]);
    assert_eq!(warnings("well_known.server = 'matrix.example.org:443'\nfederation.enabled = false").len(), 1);
}

#[test]
fn a_tls_address_needs_a_certificate() {
    let problems = load("listen = ['tls:127.0.0.1:8448']", &[]).unwrap_err();
    assert!(problems[0].contains("`tls.certificate`"), "{problems:?}");
    let problems = load("tls.key = 'a.pem'", &[]).unwrap_err();
    assert!(problems[0].contains("come together"), "{problems:?}");
}

#[test]
fn transports_and_keys_are_kept_as_they_are_given() {
    const LIVEKIT: &str = "{ type = 'livekit', livekit_service_url = 'https://rtc.example.org', since = 3 }";
    const KEY: &str = "6yhHGKhCiXTSEN2ksjV7kX_N6rBQZ3Xb-M7LlC6NS-s";
    let file = format!("rtc.transports = [{LIVEKIT}]\nwell_known.policy_server.ed25519 = '{KEY}'");
    let config = load(&file, &[]).unwrap();
    let shown: Table = config.to_masked_toml().unwrap().parse().unwrap();
    let livekit: Table = format!("transport = {LIVEKIT}").parse().unwrap();
    assert_eq!(shown["rtc"]["transports"], Value::Array(vec![livekit["transport"].clone()]));
    let key = shown["well_known"]["policy_server"]["ed25519"].as_str().unwrap();
    assert_eq!(key, KEY.replace('_', "/").replace('-', "+"), "the specification's own alphabet");
}

#[test]
fn calls_without_delayed_events_are_warned_of() {
    let transports = "rtc.transports = [{ type = 'livekit', livekit_service_url = 'https://rtc.example.org' }]";
    assert_eq!(load(transports, &[]).unwrap().warnings(), [""; 0]);
    let config = load(&format!("{transports}\ndelayed_events.max_scheduled = 0"), &[]).unwrap();
    assert_eq!(config.warnings().len(), 1);
}

#[test]
fn a_secret_that_could_be_guessed_is_refused() {
    for (key, more) in [("registration", ""), ("turn", "uris = ['turn:turn.example.org']\n")] {
        let with = |secret: &str| load(&format!("[{key}]\n{more}shared_secret = '{secret}'"), &[]);
        let problems = with("hunter2hunter2!").unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        let told = &problems[0];
        for part in [&format!("`{key}.shared_secret`"), "16 characters", "openssl rand"] {
            assert!(told.contains(part), "{told}");
        }
        assert!(!told.contains("hunter2"), "{told}");
        with("0123456789abcdef").unwrap();
        // Characters, not bytes.
        with("ääääääää").unwrap_err();
    }
    load("[registration]\nshared_secret = 'complement'\nallow_short_shared_secret = true", &[]).unwrap();
}

#[test]
fn clients_are_given_a_url_that_they_can_use() {
    for (url, told) in [
        ("matrix.example.org", "no scheme"),
        ("https://example.org/#/login", "no `?` and no `#`"),
        ("https://me:hunter2@example.org", "leave them out"),
    ] {
        let problems = load(&format!("well_known.client_base_url = '{url}'"), &[]).unwrap_err();
        assert!(problems[0].contains(told) && problems[0].contains("well_known.client_base_url"), "{problems:?}");
        assert!(!problems[0].contains("hunter2"), "{problems:?}");
    }
    load("well_known.client_base_url = 'https://matrix.example.org/hearth/'", &[]).unwrap();
}

#[test]
fn the_effective_configuration_shows_no_secret() {
    let config = load(
        "[registration]\nmode = 'open'\nshared_secret = 'hunter2hunter2hunter2'\n[redis]\nurl = 'redis://:hunter2@r'\n\
         [database]\nurl = 'postgres://me:hunter2@db/h'\n[federation]\nenabled = true",
        &[],
    )
    .unwrap();
    let shown = format!("{}{config:?}", config.to_masked_toml().unwrap());
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(shown.contains("postgres://me:[secret]@db/h"), "{shown}");
    assert_eq!(config.warnings().len(), 2, "{:?}", config.warnings());
}
