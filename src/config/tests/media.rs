//! `[media]` and `[url_previews]`: stores with their secrets, keys, limits that need not be, and what contradicts itself.

use super::*;

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const S3: &str = "{ name = 's3', bucket = 'media', endpoint = 'https://s3.example.org', region = 'eu-central-1', \
                  prefix = 'a/b', access_key_id = 'hunter1', secret_access_key = 'hunter2' }";

/// What is wrong with one key of `[media]`. Nothing of it may be a secret.
fn refusal(setting: &str) -> String {
    let problems = load(&format!("[media]\n{setting}"), &[]).unwrap_err();
    assert_eq!(problems.len(), 1, "{setting}: {problems:?}");
    assert!(!problems[0].contains("hunter") && !problems[0].contains(KEY.split_at(8).0), "{problems:?}");
    problems[0].clone()
}

#[test]
fn stores_are_folders_and_buckets_with_secrets_that_nobody_sees() {
    let stores = format!("[{{ name = 'old', path = '/srv/media' }}, {S3}]");
    let file = format!("media.stores = {stores}\nmedia.store = 's3'\nmedia.master_keys = ['new:{KEY}', 'old:{KEY}']");
    let keys = format!("new:{KEY}, old:{KEY}");
    let variables = [
        ("HEARTH_MEDIA__STORES", stores.as_str()),
        ("HEARTH_MEDIA__STORE", "s3"),
        ("HEARTH_MEDIA__MASTER_KEYS", keys.as_str()),
    ];
    for config in [load(&file, &[]).unwrap(), load("", &variables).unwrap()] {
        let [old, s3] = &*config.media.stores else { panic!("{:?}", config.media.stores) };
        assert_eq!((old.path.as_deref(), old.bucket.as_deref()), (Some(Path::new("/srv/media")), None));
        assert_eq!(s3.secret_access_key.as_ref().unwrap().expose(), "hunter2");
        assert_eq!(config.media.master_keys[1].expose(), format!("old:{KEY}"));
        let explained = config.to_explained_toml(&ValueSources::default()).unwrap();
        let shown = format!("{explained}{}{config:?}", config.to_masked_toml().unwrap());
        assert!(!shown.contains("hunter") && !shown.contains(KEY), "{shown}");
        assert!(explained.contains("secret_access_key = \"[secret]\""), "{explained}");
        assert!(explained.contains("master_keys = [\"[secret]\", \"[secret]\"]"), "{explained}");
        assert_eq!(
            flattened(&explained.parse().unwrap()),
            flattened(&config.to_masked_toml().unwrap().parse().unwrap())
        );
    }
    let sections = "[[media.stores]]\nname = 'a'\npath = '/a'\n[[media.stores]]\nname = 'b'\npath = '/b'";
    assert_eq!(load(sections, &[]).unwrap().media.stores.len(), 2);
}

#[test]
fn a_store_that_could_not_work_is_told_without_its_secrets() {
    for (store, told) in [
        ("{ path = '/a' }", "missing field `name`"),
        ("{ name = 'a b', path = '/a' }", "`name` is made of"),
        ("{ name = 'a' }", "neither a `path`"),
        ("{ name = 'a', path = '/a', bucket = 'b' }", "can have only one"),
        ("{ name = 'a', path = '' }", "is empty"),
        ("{ name = 'a', path = '/a', region = 'x' }", "nothing but a `path`"),
        ("{ name = 'a', path = '/a', secret_access_key = 'hunter2' }", "nothing but a `path`"),
        ("{ name = 'a', bucket = 'b', secret_access_key = 'hunter2' }", "both or neither"),
        ("{ name = 'a', bucket = 'b', access_key_id = 'hunter2' }", "both or neither"),
        ("{ name = 'a', bucket = 'b', access_key_id = '', secret_access_key = 'hunter2' }", "it is empty"),
        ("{ name = 'a', bucket = 'b', secret_access_key = 12345 }", "`secret_access_key` of a store is a text"),
        ("{ name = 'a', bucket = 'b/c' }", "its name alone"),
        ("{ name = 'a', bucket = 'b', prefix = 'x/../y' }", "slashes in between"),
        ("{ name = 'a', bucket = 'b', endpoint = 's3.example.org' }", "it has no scheme"),
        ("{ name = 'a', bucket = 'b', endpoint = 'https://me:hunter2@s3' }", "no keys in it"),
        ("{ name = 'a', bukcet = 'b' }", "unknown field `bukcet`"),
        ("'hunter2'", "in braces"),
        ("{ name = 'a', path = '/a' }, { name = 'a', path = '/b' }", "two of the name `a`"),
    ] {
        let refusal = refusal(&format!("stores = [{store}]"));
        assert!(refusal.contains(told) && !refusal.contains("12345"), "{store}: {refusal}");
    }
    assert!(refusal("stores = 'hunter2'").contains("this is a text"));
    for text in ["[{ name = 'a', secret_access_key = 'hunter2'", "name=a;secret_access_key=hunter2"] {
        let problems = load("", &[("HEARTH_MEDIA__STORES", text)]).unwrap_err();
        assert!(problems.len() == 1 && !problems[0].contains("hunter2"), "{problems:?}");
    }
}

#[test]
fn a_store_has_a_place_to_itself() {
    let bucket = |name: &str, more: &str| format!("{{ name = '{name}', bucket = 'b'{more} }}");
    for (one, other) in [
        ("{ name = 'a', path = '/a' }".to_owned(), "{ name = 'b', path = '/a/b/' }".to_owned()),
        (bucket("a", ""), bucket("b", ", prefix = 'x'")),
        (bucket("a", ", prefix = 'x/y'"), bucket("b", ", prefix = '/x/'")),
    ] {
        assert!(refusal(&format!("stores = [{one}, {other}]")).contains("`a` and `b`"));
    }
    load(&format!("media.stores = [{}, {}]", bucket("a", ", prefix = 'x'"), bucket("b", ", prefix = 'xy'")), &[])
        .unwrap();
    load(&format!("media.stores = [{}, {}]", bucket("a", ", endpoint = 'https://one'"), bucket("b", "")), &[]).unwrap();
    let in_data =
        |path: &str| load(&format!("data_dir = '/srv/h'\nmedia.stores = [{{ name = 'a', path = '{path}' }}]"), &[]);
    for path in ["/srv/h", "/srv/h/", "/srv", "/"] {
        assert!(in_data(path).unwrap_err()[0].contains("`data_dir`"), "{path}");
    }
    in_data("/srv/h/media").unwrap();
    in_data("/srv/hearth").unwrap();
}

#[test]
fn a_master_key_has_a_name_and_32_bytes() {
    load(&format!("media.master_keys = ['a:{KEY}', 'b:{}']", KEY.trim_end_matches('=')), &[]).unwrap();
    for (keys, told) in [
        (format!("'{KEY}'"), "number 1 of them is no text with a name"),
        (format!("'{}:'", KEY.trim_end_matches('=')), "number 1 has 0 bytes"),
        (format!("'a:{KEY}', ':{KEY}'"), "the name of number 2"),
        ("'a:hunter2!'".to_owned(), "is no base64"),
        (format!("'a:{KEY}', 'a:{KEY}'"), "number 2 has the name of another one"),
        (format!("'a:{}'", KEY.split_at(4).1), "has 29 bytes instead of 32"),
        ("12345".to_owned(), "number 1 of them is no text"),
    ] {
        assert!(refusal(&format!("master_keys = [{keys}]")).contains(told), "{keys}");
    }
    assert!(refusal(&format!("master_keys = 'a:{KEY}'")).contains("this is a text"));
}

#[test]
fn limits_need_not_be() {
    let config = load("", &[]).unwrap();
    assert_eq!((config.media.user_megabytes, config.media.server_megabytes), (Some(10_240), None));
    assert_eq!((config.media.local_lifetime_days, config.media.remote_lifetime_days), (None, Some(30)));
    let file = "[media]\nuser_megabytes = 0\nserver_megabytes = 7\nlocal_lifetime_days = 90";
    let config = load(file, &[("HEARTH_MEDIA__REMOTE_LIFETIME_DAYS", "0")]).unwrap();
    assert_eq!((config.media.user_megabytes, config.media.server_megabytes), (None, Some(7)));
    assert_eq!((config.media.local_lifetime_days, config.media.remote_lifetime_days), (Some(90), None));
    assert!(config.to_masked_toml().unwrap().contains("user_megabytes = 0"));
    assert!(refusal("user_megabytes = -1").contains("too small"));
}

#[test]
fn media_are_open_until_a_day() {
    let config = load("media.open_until = '2026-11-28'", &[]).unwrap();
    assert_eq!(config.media.open_until, 1_795_824_000_000);
    assert!(config.to_masked_toml().unwrap().contains("open_until = \"2026-11-28\""));
    assert_eq!(load("", &[]).unwrap().media.open_until, 0);
    for wrong in ["'2026-11-31'", "'28.11.2026'", "'1970-01-01'", "2026-11-28", "''"] {
        assert!(refusal(&format!("open_until = {wrong}")).contains("a day such as"), "{wrong}");
    }
}

#[test]
fn what_contradicts_itself_is_refused() {
    for (settings, told) in [
        ("store = 's3'".to_owned(), "none of `media.stores`"),
        (format!("stores = [{S3}]\nstore = 'files'"), "none of `media.stores`"),
        ("redirect = 'cdn'".to_owned(), "needs `media.cdn_url`"),
        (format!("redirect = 'signed'\nmaster_keys = ['a:{KEY}']"), "has to be `off`"),
        ("scanner = { command = ['scan', '{}'], clamd = '127.0.0.1:3310' }".to_owned(), "are both set"),
    ] {
        assert!(refusal(&settings).contains(told), "{settings}");
    }
    load("media.store = 'files'", &[]).unwrap();
    load(&format!("[media]\nstores = [{S3}]\nredirect = 'cdn'\ncdn_url = 'https://cdn.example.org/'"), &[]).unwrap();
}

#[test]
fn what_is_probably_not_meant_is_warned_of() {
    let warnings = |settings: &str| load(&format!("[media]\n{settings}"), &[]).unwrap().warnings();
    for (settings, told) in [
        ("redirect = 'signed'", "none of `media.stores` is a bucket"),
        ("redirect = 'signed'\nstores = [{ name = 'a', bucket = 'b', endpoint = 'http://10.0.0.1:9000' }]", "http://"),
        ("cdn_url = 'https://cdn.example.org'", "nothing uses it"),
        ("max_upload_megabytes = 2000", "more than a user may upload"),
        ("[database]\nurl = 'postgres://me@db/h'\n[redis]\nurl = 'redis://r'", "go to a folder"),
    ] {
        let warnings = warnings(settings);
        assert!(warnings.len() == 1 && warnings[0].contains(told), "{settings}: {warnings:?}");
    }
    assert_eq!(warnings(&format!("stores = [{S3}]\nredirect = 'signed'")), [""; 0]);
}

#[test]
fn programs_get_a_file_and_hosts_are_hosts() {
    load("[media]\nvideo_thumbnailer = ['ffmpeg', '-i', 'file:{}']\nscanner.command = ['scan', '{}']", &[]).unwrap();
    load("[url_previews]\nallow = ['*.example.org', '[::1]']\ndeny = ['10.*']\nlanguages = ['de', 'pt-BR']", &[])
        .unwrap();
    for setting in [
        "video_thumbnailer = ['ffmpeg']",
        "video_thumbnailer = ['', '{}']",
        "scanner.command = ['{}']",
        "scanner.clamd = 'localhost'",
        "scanner.clamd = 'unix:clamd.ctl'",
        "blocked_servers = ['Example.org']",
        "blocked_servers = ['a/b']",
    ] {
        assert!(refusal(setting).contains("must be"), "{setting}");
    }
    for setting in [
        "allow = ['https://example.org']",
        "deny = ['']",
        "deny = ['bücher.example']",
        "user_agent = ''",
        "user_agent = \"a\\nb\"",
        "languages = []",
        "languages = ['en; q=1']",
        "allowed_addresses = ['wiki']",
    ] {
        assert_eq!(load(&format!("[url_previews]\n{setting}"), &[]).unwrap_err().len(), 1, "{setting}");
    }
}
