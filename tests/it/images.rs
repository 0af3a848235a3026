//! The images set what Hearth knows, and one of them what the conformance suite asks for.

use std::{fs, path::Path};

use hearth::config::{Config, RegistrationMode, Secret};

/// The settings that a Dockerfile makes, and with them those that are made when a container starts.
fn settings(dockerfile: &str, at_the_start: &[(&str, &str)]) -> Config {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(dockerfile);
    let text = fs::read_to_string(path).unwrap();
    let made =
        text.split_whitespace().filter_map(|word| word.split_once('=')).filter(|(name, _)| name.starts_with("HEARTH_"));
    let all: Vec<_> =
        made.chain(at_the_start.iter().copied()).map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    assert!(all.len() > at_the_start.len(), "{dockerfile} makes no settings, or makes them in another way");
    Config::load(None, all.into_iter()).unwrap()
}

fn addresses(config: &Config) -> Vec<String> {
    config.listen.iter().map(ToString::to_string).collect()
}

#[test]
fn the_image_keeps_its_data_in_the_volume() {
    let config = settings("docker/Dockerfile", &[]);
    assert_eq!((config.data_dir.to_str(), addresses(&config)), (Some("/data"), vec!["0.0.0.0:8008".to_owned()]));
}

/// What one node stores, the others serve.
#[test]
fn the_nodes_of_the_cluster_have_one_bucket() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docker/compose.cluster.yaml");
    let text = fs::read_to_string(path).unwrap();
    let stores = text.lines().find_map(|line| line.trim().strip_prefix("HEARTH_MEDIA__STORES: '")?.strip_suffix('\''));
    let stores = ("HEARTH_MEDIA__STORES".to_owned(), stores.unwrap().to_owned());
    let config = Config::load(None, std::iter::once(stores)).unwrap();
    let [store] = &*config.media.stores else { panic!("{:?}", config.media.stores) };
    assert_eq!((store.bucket.as_deref(), store.region.as_deref()), (Some("hearth-media"), Some("garage")));
    assert!(text.contains("GARAGE_DEFAULT_BUCKET: hearth-media"));
    assert!(text.lines().any(|line| line == "  objects:"));
}

#[test]
fn the_image_for_the_conformance_suite_keeps_its_contract() {
    let at_the_start = [
        ("HEARTH_SERVER_NAME", "hs1"),
        ("HEARTH_TLS__CERTIFICATE", "/data/federation.crt"),
        ("HEARTH_TLS__KEY", "/data/federation.key"),
    ];
    let config = settings("complement/Dockerfile", &at_the_start);
    assert_eq!(addresses(&config), ["0.0.0.0:8008", "tls:0.0.0.0:8448"]);
    assert_eq!(config.registration.mode, RegistrationMode::Open);
    assert_eq!(config.registration.shared_secret.as_ref().map(Secret::expose), Some("complement"));
    assert_eq!((config.passwords.min_length, config.rate_limits.enabled), (6, false));
    assert_eq!(config.notices_sender().unwrap(), "@_server:hs1");
}
