//! The answer to whoever asks for keys: whole where it is not much, else part by part, while the client reads it.
//!
//! Somebody may have hundreds of devices with large keys, and may be asked for with a thousand like them. So it is counted
//! what keys take before they are read, and no part is more than [`PART`]. A whole answer is of one state of the data. In
//! parts each is of its own: what changes meanwhile is in the log, and the client asks again.

use std::collections::{BTreeMap, BTreeSet};

use ruma::{OwnedDeviceId, OwnedUserId, UserId};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    Keys,
    query::{Asked, QueriedKeys, add_cross_signing, add_devices, add_listed},
};
use crate::{
    db::Tx,
    error::{Error, Result},
    store::device_key::{self, KeySizes},
};

/// How many users are looked at by one set of statements.
const TOGETHER: usize = 1_000;
/// How much is read at once, in bytes.
const PART: i64 = 4 * 1024 * 1024;
/// How many devices are read at once of a user who has more than [`PART`].
const DEVICES: usize = 200;

/// An answer that is being written.
pub(crate) struct KeyQuery {
    keys: Keys,
    reader: OwnedUserId,
    asked: Asked,
    /// Those of this server, in order.
    users: Vec<OwnedUserId>,
    failures: Map<String, Value>,
    /// None before anything is written.
    place: Option<Place>,
}

/// What an answer in parts consists of, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Section {
    Devices,
    Masters,
    SelfSigning,
    UserSigning,
}

/// How far an answer in parts is written.
#[derive(Debug)]
struct Place {
    section: Section,
    /// Of the users, the next one, and the first who is not in the section.
    next: usize,
    end: usize,
    /// How many users to look at: more where few were much.
    together: usize,
    /// The last device that was written of the next user, if some were.
    after: Option<OwnedDeviceId>,
    /// Whether the object that is open has anything in it.
    has_entries: bool,
}

impl Keys {
    /// The keys of these users, each with the devices that are asked for, or none for all of them.
    ///
    /// Whoever has no account is left out. Servers of remote users are among the failures.
    pub(crate) fn query(&self, reader: &UserId, asked: &BTreeMap<OwnedUserId, Vec<OwnedDeviceId>>) -> KeyQuery {
        let local = asked.iter().filter(|(user_id, _)| self.is_local(user_id));
        let asked_here: Asked = local
            .map(|(user_id, devices)| (user_id.clone(), devices.iter().cloned().collect::<BTreeSet<_>>()))
            .collect();
        KeyQuery {
            keys: self.clone(),
            reader: reader.to_owned(),
            users: asked_here.keys().cloned().collect(),
            asked: asked_here,
            failures: self.failures(asked.keys()),
            place: None,
        }
    }
}

impl KeyQuery {
    /// The next part of the answer's JSON, and whether it is the last. Not to be called after that.
    pub(crate) async fn part(&mut self) -> Result<(Vec<u8>, bool)> {
        let mut text = Vec::new();
        let mut place = match self.place.take() {
            Some(place) => place,
            None => {
                if let Some(whole) = self.find_whole().await? {
                    return Ok((whole, true));
                }
                text.extend(br#"{"failures":"#);
                serde_json::to_writer(&mut text, &self.failures).map_err(Error::broken)?;
                text.extend(br#","device_keys":{"#);
                self.begin(Section::Devices)
            }
        };
        loop {
            while place.next == place.end {
                let Some((section, name)) = place.section.following() else {
                    text.extend(b"}}");
                    return Ok((text, true));
                };
                text.extend(b"},");
                serde_json::to_writer(&mut text, name).map_err(Error::broken)?;
                text.extend(b":{");
                place = self.begin(section);
            }
            self.write_next(&mut place, &mut text).await?;
            // Of very many users there may be nothing to say.
            if !text.is_empty() {
                break;
            }
        }
        self.place = Some(place);
        Ok((text, false))
    }

    fn begin(&self, section: Section) -> Place {
        let (next, end) = match section {
            // Nobody sees those of others.
            Section::UserSigning => match self.users.binary_search(&self.reader) {
                Ok(own) => (own, own + 1),
                Err(_not_asked_for) => (0, 0),
            },
            _ => (0, self.users.len()),
        };
        Place { section, next, end, together: TOGETHER, after: None, has_entries: false }
    }

    /// All of the answer, if that is no more than a part.
    async fn find_whole(&self) -> Result<Option<Vec<u8>>> {
        if self.users.len() > TOGETHER {
            return Ok(None);
        }
        let users: Vec<&str> = self.users.iter().map(|user_id| user_id.as_str()).collect();
        let mut answer = QueriedKeys { failures: self.failures.clone(), ..QueriedKeys::default() };
        if !users.is_empty() {
            // One state of the data: a key and its signatures fit each other.
            let mut snapshot = self.keys.0.db.snapshot().await?;
            let sizes = device_key::list_sizes(&mut snapshot, &users).await?;
            if sizes.values().map(|size| size.devices + size.cross_signing).sum::<i64>() > PART {
                return Ok(None);
            }
            add_devices(&mut snapshot, &users, &self.asked, &mut answer).await?;
            add_cross_signing(&mut snapshot, &users, &self.reader, &mut answer).await?;
        }
        serde_json::to_vec(&answer).map(Some).map_err(Error::broken)
    }

    /// Writes what there is of the next users, as many as are not too much, or of the next devices of one.
    async fn write_next(&self, place: &mut Place, text: &mut Vec<u8>) -> Result<()> {
        let next = self.users.get(place.next..place.end).unwrap_or_default();
        let next = next.get(..place.together).unwrap_or(next);
        let users: Vec<&str> = next.iter().map(|user_id| user_id.as_str()).collect();
        let mut snapshot = self.keys.0.db.snapshot().await?;
        let sizes = device_key::list_sizes(&mut snapshot, &users).await?;
        let count = match place.section {
            Section::Devices if place.after.is_some() => 0,
            Section::Devices => place.section.count_fitting(next, &sizes),
            // Nobody has too many of these for one part.
            _ => place.section.count_fitting(next, &sizes).max(1),
        };
        let Some(users) = users.get(..count).filter(|users| !users.is_empty()) else {
            let Some(user_id) = next.first() else { return Ok(()) };
            return self.write_devices(&mut snapshot, user_id, place, text).await;
        };
        let mut page = QueriedKeys::default();
        if place.section == Section::Devices {
            add_devices(&mut snapshot, users, &self.asked, &mut page).await?;
        } else {
            add_cross_signing(&mut snapshot, users, &self.reader, &mut page).await?;
        }
        drop(snapshot);
        match place.section {
            Section::Devices => place.write_all(text, &page.device_keys)?,
            Section::Masters => place.write_all(text, &page.master_keys)?,
            Section::SelfSigning => place.write_all(text, &page.self_signing_keys)?,
            Section::UserSigning => place.write_all(text, &page.user_signing_keys)?,
        }
        place.next += count;
        place.together = (2 * count).min(TOGETHER);
        Ok(())
    }

    /// Writes the next devices of the next user, who has too many for one part.
    async fn write_devices(
        &self,
        snapshot: &mut Tx,
        user_id: &UserId,
        place: &mut Place,
        text: &mut Vec<u8>,
    ) -> Result<()> {
        let after = place.after.as_ref().map_or("", |device_id| device_id.as_str());
        let limit = i64::try_from(DEVICES).unwrap_or(i64::MAX);
        let listed = device_key::list_next(snapshot, user_id, after, limit).await?;
        let device_ids = listed.iter().filter_map(|device| Some(device.keys.as_ref()?.device_id.clone()));
        let device_ids: Vec<OwnedDeviceId> = device_ids.collect();
        let mut page = QueriedKeys::default();
        add_listed(listed, &self.asked, &mut page)?;
        if place.after.is_none() {
            place.write_name(text, user_id.as_str())?;
            text.push(b'{');
            place.has_entries = false;
        }
        for devices in page.device_keys.values() {
            place.write_all(text, devices)?;
        }
        // A device is there once for each signature.
        let is_last = device_ids.iter().collect::<BTreeSet<_>>().len() < DEVICES;
        place.after = device_ids.into_iter().next_back().filter(|_| !is_last);
        if is_last {
            text.push(b'}');
            (place.next, place.together, place.has_entries) = (place.next + 1, 2, true);
        }
        Ok(())
    }
}

impl Section {
    /// What comes after it, and how that is called.
    fn following(self) -> Option<(Self, &'static str)> {
        match self {
            Self::Devices => Some((Self::Masters, "master_keys")),
            Self::Masters => Some((Self::SelfSigning, "self_signing_keys")),
            Self::SelfSigning => Some((Self::UserSigning, "user_signing_keys")),
            Self::UserSigning => None,
        }
    }

    /// How many of the first of these users are not too much for one part.
    fn count_fitting(self, users: &[OwnedUserId], sizes: &BTreeMap<OwnedUserId, KeySizes>) -> usize {
        let mut total = 0;
        let fits = |user_id: &&OwnedUserId| {
            total += sizes.get(*user_id).map_or(0, |sizes| self.size(*sizes));
            total <= PART
        };
        users.iter().take_while(fits).count()
    }

    /// What has to be read for it, in bytes.
    fn size(self, sizes: KeySizes) -> i64 {
        match self {
            Self::Devices => sizes.devices,
            Self::Masters | Self::SelfSigning | Self::UserSigning => sizes.cross_signing,
        }
    }
}

impl Place {
    /// The name of an entry of the object that is open.
    fn write_name(&mut self, text: &mut Vec<u8>, name: &str) -> Result<()> {
        if self.has_entries {
            text.push(b',');
        }
        self.has_entries = true;
        serde_json::to_writer(&mut *text, name).map_err(Error::broken)?;
        text.push(b':');
        Ok(())
    }

    fn write_all<K: AsRef<str>, V: Serialize>(&mut self, text: &mut Vec<u8>, entries: &BTreeMap<K, V>) -> Result<()> {
        for (name, value) in entries {
            self.write_name(text, name.as_ref())?;
            serde_json::to_writer(&mut *text, value).map_err(Error::broken)?;
        }
        Ok(())
    }
}
