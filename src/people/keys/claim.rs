//! Somebody claims keys, to open a session with each of some devices.
//!
//! Each one-time key is handed out once, whoever asks and on whichever node: it is marked in the transaction in which the
//! device hears of it. Where a device has none left, its fallback key is handed out, which others may have too.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysclaim>

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use ruma::{OneTimeKeyAlgorithm, OwnedDeviceId, OwnedUserId};
use serde::Serialize;
use serde_json::{Map, Value, value::RawValue};
use tokio::sync::oneshot;

use super::{
    Keys,
    queue::{Issued, WaitingClaim},
    upload::key_count_changed,
};
use crate::{
    db::Tx,
    error::{Error, Result},
    event::fact::Fact,
    store::one_time_key::{self, Wanted},
};

/// Of how many devices keys are claimed in one transaction.
const TOGETHER: usize = 500;

/// An answer, written as the specification has it.
#[derive(Serialize)]
pub(crate) struct ClaimedKeys {
    failures: Map<String, Value>,
    one_time_keys: BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, BTreeMap<String, Box<RawValue>>>>,
}

impl Keys {
    /// A key of each of these devices, of an algorithm.
    ///
    /// Devices that are not known, or have no such key, are left out. Servers of remote users are among the failures.
    pub(crate) async fn claim(
        &self,
        asked: &BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, OneTimeKeyAlgorithm>>,
    ) -> Result<ClaimedKeys> {
        let mut answer = ClaimedKeys { failures: self.failures(asked.keys()), one_time_keys: BTreeMap::new() };
        let mut wanted = Vec::new();
        for (user_id, devices) in asked.iter().filter(|(user_id, _)| self.is_local(user_id)) {
            for (device_id, algorithm) in devices {
                let (device_id, algorithm) = (device_id.clone(), algorithm.as_str().to_owned());
                // Neither is ever called so, and `PostgreSQL` takes no such text.
                if !device_id.as_str().contains('\0') && !algorithm.contains('\0') {
                    wanted.push(Wanted { user_id: user_id.clone(), device_id, algorithm });
                }
            }
        }
        for wanted in wanted.chunks(TOGETHER) {
            for (wanted, key) in self.issue(wanted.to_vec()).await? {
                let id = format!("{}:{}", wanted.algorithm, key.key_id);
                let key = RawValue::from_string(key.json).map_err(Error::broken)?;
                let devices = answer.one_time_keys.entry(wanted.user_id).or_default();
                devices.entry(wanted.device_id).or_default().insert(id, key);
            }
        }
        Ok(answer)
    }

    /// Claims together with whoever claims at the same moment. It is seen through also where the request is given up.
    async fn issue(&self, wanted: Vec<Wanted>) -> Result<Issued> {
        let (answer, issued) = oneshot::channel();
        self.0.claims.push(WaitingClaim { wanted, answer });
        let keys = self.clone();
        self.0.tasks.spawn("claiming keys", async move {
            let (_turn, claims) = keys.0.claims.take_turn().await;
            if !claims.is_empty() {
                keys.issue_together(claims).await;
            }
        });
        issued.await.unwrap_or_else(|_gone| Err(Error::Unavailable("keys could not be claimed".to_owned())))
    }

    async fn issue_together(&self, claims: Vec<WaitingClaim>) {
        let wanted = claims.iter().map(|claim| claim.wanted.as_slice()).collect::<Vec<_>>();
        let issued = self.issue_all(&wanted).await;
        let answers: Vec<Result<Issued>> = match issued {
            Ok(issued) => issued.into_iter().map(Ok).collect(),
            Err(error) => claims.iter().map(|_| Err(again(&error))).collect(),
        };
        for (claim, answer) in claims.into_iter().zip(answers) {
            if claim.answer.send(answer).is_err() {
                tracing::debug!("nobody waits any more for keys that were claimed");
            }
        }
    }

    /// One transaction for several claims, which may want the same.
    async fn issue_all(&self, claims: &[&[Wanted]]) -> Result<Vec<Issued>> {
        let mut tx = self.0.db.begin().await?;
        let mut issued = vec![Issued::new(); claims.len()];
        let left = issue_one_time_keys(&mut tx, claims, &mut issued).await?;
        let mut changed: BTreeSet<(OwnedUserId, OwnedDeviceId)> = issued
            .iter()
            .flat_map(BTreeMap::keys)
            .map(|wanted| (wanted.user_id.clone(), wanted.device_id.clone()))
            .collect();
        changed.extend(issue_fallback_keys(&mut tx, &left, &mut issued).await?);
        let facts: Vec<Fact> =
            changed.iter().map(|(user_id, device_id)| key_count_changed(user_id, device_id)).collect();
        // Fallback keys that were used before are no news.
        if !facts.is_empty() {
            self.0.log.commit(tx, facts).await?;
        }
        Ok(issued)
    }
}

/// Gives each claim keys of its own, in rounds in which no key is wanted twice. Returns what there was none of, by claim.
async fn issue_one_time_keys(tx: &mut Tx, claims: &[&[Wanted]], issued: &mut [Issued]) -> Result<Vec<(usize, Wanted)>> {
    let mut left = Vec::new();
    let all = claims.iter().enumerate();
    let mut waiting: Vec<(usize, Wanted)> =
        all.flat_map(|(index, wanted)| wanted.iter().map(move |wanted| (index, wanted.clone()))).collect();
    let mut used_up: BTreeSet<Wanted> = BTreeSet::new();
    while !waiting.is_empty() {
        let mut round: BTreeMap<Wanted, usize> = BTreeMap::new();
        let mut later = Vec::new();
        for (index, wanted) in waiting {
            if used_up.contains(&wanted) {
                left.push((index, wanted));
                continue;
            }
            match round.entry(wanted) {
                Entry::Occupied(taken) => later.push((index, taken.key().clone())),
                Entry::Vacant(free) => drop(free.insert(index)),
            }
        }
        if !round.is_empty() {
            let wanted: Vec<Wanted> = round.keys().cloned().collect();
            let mut found = one_time_key::claim(tx, &wanted).await?;
            for (wanted, index) in round {
                if let (Some(key), Some(issued)) = (found.remove(&wanted), issued.get_mut(index)) {
                    issued.insert(wanted, key);
                } else {
                    used_up.insert(wanted.clone());
                    left.push((index, wanted));
                }
            }
        }
        waiting = later;
    }
    Ok(left)
}

/// Gives fallback keys to those for whom nothing was left, and returns the devices whose keys had not been used.
async fn issue_fallback_keys(
    tx: &mut Tx,
    left: &[(usize, Wanted)],
    issued: &mut [Issued],
) -> Result<Vec<(OwnedUserId, OwnedDeviceId)>> {
    let wanted: BTreeSet<Wanted> = left.iter().map(|(_, wanted)| wanted.clone()).collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let wanted: Vec<Wanted> = wanted.into_iter().collect();
    let found = one_time_key::list_fallback(tx, &wanted).await?;
    for (index, wanted) in left {
        if let (Some(fallback), Some(issued)) = (found.get(wanted), issued.get_mut(*index)) {
            issued.insert(wanted.clone(), fallback.key.clone());
        }
    }
    let unused = found.iter().filter(|(_, fallback)| !fallback.used);
    let unused: Vec<(&Wanted, &str)> =
        unused.map(|(wanted, fallback)| (wanted, fallback.key.key_id.as_str())).collect();
    if unused.is_empty() { Ok(Vec::new()) } else { Ok(one_time_key::use_fallback(tx, &unused).await?) }
}

/// An error for each of those whom it has befallen together.
fn again(error: &Error) -> Error {
    match error {
        Error::Db(e) if e.is_unavailable() => Error::Unavailable(e.to_string()),
        Error::Unavailable(message) => Error::Unavailable(message.clone()),
        other => Error::broken(other),
    }
}
