//! Keys of end-to-end encryption: asked for by the thousand, and claimed one by one.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use hyper::Method;
use memchr::memmem;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::client::{Client, User};
use crate::keys::{Device, cross_sign};
use crate::latency::{millis, number};
use crate::message::micros;
use crate::meter::Meter;
use crate::report::Outcome;
use crate::stage::Stage;
use crate::tasks::Tasks;

const QUERY: &str = "/_matrix/client/v3/keys/query";
const CLAIM: &str = "/_matrix/client/v3/keys/claim";
/// Devices of each user that is asked for.
const DEVICES: usize = 3;
/// Clients that prepare users at once.
const HANDS: usize = 8;
const QUERY_LIMIT: usize = 10_000;

const CLAIMERS: usize = 64;
/// Devices whose keys are claimed, and the keys of each: as many as a server may have to keep.
const HOLDERS: usize = 64;
const KEYS: usize = 500;

/// `POST /keys/query` for everybody at once, by one client, question after question.
pub(super) async fn query(name: &'static str, stage: &mut Stage) -> Result<Outcome> {
    let users = users_with_keys(stage).await?;
    let readers = stage.users(1).await?;
    let mut client = stage.client(readers.first().context("somebody has to ask")?);
    let asked: Map<String, Value> = users.iter().map(|user_id| (user_id.clone(), Value::Array(Vec::new()))).collect();
    let body = Bytes::from(serde_json::to_vec(&BTreeMap::from([("device_keys", asked)]))?);

    let clock = stage.clock;
    let begun = clock.micros();
    let answer = client.call(&Method::POST, QUERY, body.clone()).await?;
    let first = clock.micros() - begun;
    let bytes = answer.len();
    check(&answer, users.len())?;

    let meter = Meter::start(&stage.options).await?;
    let end = clock.micros() + micros(Duration::from_secs(stage.options.seconds));
    let mut latencies = Vec::new();
    while latencies.is_empty() || (clock.micros() < end && latencies.len() < QUERY_LIMIT) {
        let begun = clock.micros();
        let answer = client.call(&Method::POST, QUERY, body.clone()).await?;
        latencies.push(clock.micros() - begun);
        // A plain search: building a value of megabytes would take longer than the server's work.
        let found = memmem::find_iter(&answer, r#""algorithms""#).count();
        if found != users.len() * DEVICES {
            bail!("{found} devices were found, not {}", users.len() * DEVICES);
        }
    }
    let cost = meter.stop()?;
    Ok(Outcome::new(name, "queries", latencies.len(), latencies, cost)
        .with("first_ms", millis(first))
        .with("users", number(u64::try_from(users.len())?))
        .with("bytes", number(u64::try_from(bytes)?)))
}

/// An answer holds the keys of all devices, each with the signatures of the device and of its user, and everybody's
/// cross-signing keys.
fn check(answer: &[u8], users: usize) -> Result<()> {
    #[derive(Deserialize)]
    struct Queried {
        #[serde(rename = "device_keys")]
        devices: BTreeMap<String, BTreeMap<String, Keys>>,
        #[serde(rename = "master_keys")]
        masters: Map<String, Value>,
        #[serde(rename = "self_signing_keys")]
        self_signing: Map<String, Value>,
    }
    #[derive(Deserialize)]
    struct Keys {
        signatures: BTreeMap<String, Map<String, Value>>,
    }
    let queried: Queried = serde_json::from_slice(answer).context("an answer holds no keys")?;
    let is_whole = |keys: &Keys| keys.signatures.values().map(Map::len).sum::<usize>() == 2;
    let devices = queried.devices.values().flat_map(BTreeMap::values).filter(|keys| is_whole(keys)).count();
    let found = (devices, queried.masters.len(), queried.self_signing.len());
    if found != (users * DEVICES, users, users) {
        bail!("of {users} users there are (signed devices, master keys, self-signing keys) {found:?}");
    }
    Ok(())
}

/// Registers users, logs each of them in until there are three devices, and has them upload all their keys.
async fn users_with_keys(stage: &mut Stage) -> Result<Vec<String>> {
    let users = stage.new_users(usize::try_from(stage.options.queried_users)?).await?;
    eprintln!("  logging {} users in and uploading their keys", users.len());
    let credentials = stage.credentials();
    let target = &stage.target;
    let prepared = Tasks::start((0..HANDS).map(|hand| {
        let mine: Vec<User> = users.iter().skip(hand).step_by(HANDS).cloned().collect();
        let (credentials, target) = (credentials.clone(), Arc::clone(target));
        async move {
            let mut login = Client::anonymous(&target);
            for user in mine {
                let mut client = Client::new(&target, &user);
                let mut devices = vec![Device::upload(&mut client, &user).await?];
                while devices.len() < DEVICES {
                    let device = credentials.log_in(&mut login, &user).await?;
                    devices.push(Device::upload(&mut Client::new(&target, &device), &device).await?);
                }
                cross_sign(&mut client, &devices).await?;
            }
            Ok(())
        }
    }));
    prepared.finish().await?;
    Ok(users.into_iter().map(|user| user.id).collect())
}

/// `POST /keys/claim` for one device after the other, until the time is over or all keys are gone. No key may be handed
/// out twice.
pub(super) async fn claim(name: &'static str, stage: &mut Stage) -> Result<Outcome> {
    let questions: Arc<[Bytes]> = holders(stage).await?.into();
    let claimers = stage.users(CLAIMERS).await?;
    let next = Arc::new(AtomicUsize::new(0));
    let connected = Tasks::start(claimers.iter().map(|claimer| {
        let mut client = stage.client(claimer);
        async move {
            client.connect().await?;
            Ok(client)
        }
    }));
    let clients = connected.finish().await?;

    let clock = stage.clock;
    let meter = Meter::start(&stage.options).await?;
    let end = clock.micros() + micros(Duration::from_secs(stage.options.seconds));
    let claiming = Tasks::start(clients.into_iter().map(|mut client| {
        let (questions, next) = (Arc::clone(&questions), Arc::clone(&next));
        async move {
            let mut claimed = Vec::new();
            loop {
                let begun = clock.micros();
                let nth = next.fetch_add(1, Ordering::Relaxed);
                if begun >= end || nth >= HOLDERS * KEYS {
                    return Ok(claimed);
                }
                let question = questions.get(nth % HOLDERS).context("nobody has keys")?;
                let answer = client.call(&Method::POST, CLAIM, question.clone()).await?;
                claimed.push((clock.micros() - begun, key_in(&answer)?));
            }
        }
    }));
    let claimed: Vec<(u64, u64)> = claiming.finish().await?.into_iter().flatten().collect();
    let cost = meter.stop()?;
    let (latencies, keys): (Vec<u64>, Vec<u64>) = claimed.into_iter().unzip();
    let distinct: HashSet<u64> = keys.iter().copied().collect();
    if distinct.len() != keys.len() {
        bail!("of {} keys {} were handed out before", keys.len(), keys.len() - distinct.len());
    }
    Ok(Outcome::new(name, "claims", latencies.len(), latencies, cost).with_disk())
}

/// Makes devices with as many one-time keys as they may have, and returns a claim of one key of each.
async fn holders(stage: &mut Stage) -> Result<Vec<Bytes>> {
    let users = stage.new_users(HOLDERS).await?;
    eprintln!("  uploading {} one-time keys", HOLDERS * KEYS);
    let uploading = Tasks::start(users.into_iter().map(|user| {
        let mut client = stage.client(&user);
        async move {
            let device = Device::upload(&mut client, &user).await?;
            device.add_one_time_keys(&mut client, KEYS).await?;
            let (user_id, device_id) = (&user.id, &user.device_id);
            let claim = format!(r#"{{"one_time_keys":{{"{user_id}":{{"{device_id}":"signed_curve25519"}}}}}}"#);
            Ok(Bytes::from(claim))
        }
    }));
    uploading.finish().await
}

/// The number of the one key in an answer.
fn key_in(answer: &[u8]) -> Result<u64> {
    const NAME: &[u8] = br#""signed_curve25519:"#;
    let mut found = memmem::find_iter(answer, NAME);
    let (Some(at), None) = (found.next(), found.next()) else {
        bail!("a claim was not answered with one key: {}", String::from_utf8_lossy(answer));
    };
    let name = answer.get(at + NAME.len()..).unwrap_or_default();
    let number = name.split(|byte| *byte == b'"').next().unwrap_or_default();
    std::str::from_utf8(number).ok().and_then(|number| number.parse().ok()).context("a key has an unknown name")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_brings_exactly_one_key() {
        assert_eq!(key_in(br#"{"one_time_keys":{"@a:b":{"D":{"signed_curve25519:42":{}}}}}"#).unwrap(), 42);
        assert!(key_in(br#"{"one_time_keys":{}}"#).is_err());
        assert!(key_in(br#"{"signed_curve25519:1":{},"signed_curve25519:2":{}}"#).is_err());
        assert!(key_in(br#"{"signed_curve25519:AAAA":{}}"#).is_err());
    }
}
