//! The answer to whoever asks for keys: whole where it is not much, else part by part, while the client reads it.
//!
//! Each part is of its own state of the data, and so are the users in a whole answer: what changes meanwhile is in the
//! log, and the client asks again.

use std::collections::{BTreeMap, BTreeSet};

use ruma::{OwnedDeviceId, OwnedUserId, UserId};
use serde_json::{Map, Value};

use super::{
    Keys,
    query::{Found, SignedMasters},
    shown::{ShownDevice, ShownKeys, devices_of},
};
use crate::{
    error::{Error, Result},
    store::device_key,
};

/// How many users are looked at by one set of statements.
const TOGETHER: usize = 1_000;
/// How many devices are read at once of a user who has too many to be shown with others.
const DEVICES: usize = 200;

/// Who is asked for, and which of their devices, or none for all of them.
type Asked = BTreeMap<OwnedUserId, BTreeSet<OwnedDeviceId>>;

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

/// What an answer consists of, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Section {
    Devices,
    Masters,
    SelfSigning,
    UserSigning,
}

/// How far an answer is written.
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
        let mut place = if let Some(place) = self.place.take() {
            place
        } else {
            if let Some(whole) = self.find_whole().await? {
                return Ok((whole, true));
            }
            self.write_head(&mut text)?;
            self.begin(Section::Devices)
        };
        loop {
            while place.next == place.end {
                if !self.write_section_end(&mut place, &mut text)? {
                    return Ok((text, true));
                }
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

    /// What stands before the first section, which it opens.
    fn write_head(&self, text: &mut Vec<u8>) -> Result<()> {
        text.extend(br#"{"failures":"#);
        serde_json::to_writer(&mut *text, &self.failures).map_err(Error::broken)?;
        text.extend(br#","device_keys":{"#);
        Ok(())
    }

    /// Closes a section, and opens the next. False where there is none, and all is written.
    fn write_section_end(&self, place: &mut Place, text: &mut Vec<u8>) -> Result<bool> {
        let Some((section, name)) = place.section.following() else {
            text.extend(b"}}");
            return Ok(false);
        };
        text.extend(b"},");
        serde_json::to_writer(&mut *text, name).map_err(Error::broken)?;
        text.extend(b":{");
        *place = self.begin(section);
        Ok(true)
    }

    /// All of the answer, if that is no more than a part.
    async fn find_whole(&self) -> Result<Option<Vec<u8>>> {
        if self.users.len() > TOGETHER {
            return Ok(None);
        }
        let gathered = self.keys.gather(&self.users).await?;
        if gathered.len() < self.users.len() || gathered.iter().any(|(_, found)| matches!(found, Found::Large)) {
            return Ok(None);
        }
        let signed = self.keys.find_signed(&self.reader, &gathered).await?;
        let mut text = Vec::with_capacity(capacity(&gathered));
        self.write_head(&mut text)?;
        let mut place = self.begin(Section::Devices);
        loop {
            let of_section = gathered.get(place.next..place.end).unwrap_or_default();
            self.write_gathered(&mut place, of_section, &signed, &mut text)?;
            if !self.write_section_end(&mut place, &mut text)? {
                return Ok(Some(text));
            }
        }
    }

    /// Writes what there is of the next users, as many as are not too much, or of the next devices of one.
    async fn write_next(&self, place: &mut Place, text: &mut Vec<u8>) -> Result<()> {
        let next = self.users.get(place.next..place.end).unwrap_or_default();
        let next = next.get(..place.together).unwrap_or(next);
        if let Some(user_id) = next.first().filter(|_| place.after.is_some()) {
            // Also if they have less by now: some of it is written.
            return self.write_large(user_id, place, text).await;
        }
        let mut gathered = self.keys.gather(next).await?;
        if place.section == Section::Devices {
            if let [(user_id, Found::Large)] = gathered.as_slice() {
                return self.write_large(user_id, place, text).await;
            }
            // Their turn comes next.
            gathered.retain(|(_, found)| !matches!(found, Found::Large));
        } else if let Some((user_id, found)) = gathered.last_mut()
            && matches!(found, Found::Large)
        {
            *found = Found::Keys(self.keys.load_cross_signing(user_id).await?.into());
        }
        let signed = match place.section {
            Section::Masters => self.keys.find_signed(&self.reader, &gathered).await?,
            _ => SignedMasters::new(),
        };
        self.write_gathered(place, &gathered, &signed, text)?;
        place.together = (2 * gathered.len()).clamp(1, TOGETHER);
        Ok(())
    }

    /// Writes what there is of the next users.
    fn write_gathered(
        &self,
        place: &mut Place,
        gathered: &[(&OwnedUserId, Found)],
        signed: &SignedMasters,
        text: &mut Vec<u8>,
    ) -> Result<()> {
        for (user_id, found) in gathered {
            if let Found::Keys(shown) = found {
                self.write_user(place, user_id, shown, signed, text)?;
            }
        }
        place.next += gathered.len();
        Ok(())
    }

    /// Writes what there is of the keys of a user that the section is of.
    fn write_user(
        &self,
        place: &mut Place,
        user_id: &UserId,
        shown: &ShownKeys,
        signed: &SignedMasters,
        text: &mut Vec<u8>,
    ) -> Result<()> {
        let keys = &shown.cross_signing;
        let key = match place.section {
            Section::Devices => {
                place.write_name(text, user_id.as_str())?;
                text.push(b'{');
                self.write_devices(user_id, &shown.devices, &mut false, text);
                text.push(b'}');
                return Ok(());
            }
            Section::Masters => {
                if let Some(master) = &keys.master {
                    let by_reader = signed.get(user_id).map(Vec::as_slice).unwrap_or_default();
                    place.write_name(text, user_id.as_str())?;
                    master.write(&self.reader, by_reader, text)?;
                }
                return Ok(());
            }
            Section::SelfSigning => &keys.self_signing,
            Section::UserSigning => &keys.user_signing,
        };
        if let Some(key) = key {
            place.write_name(text, user_id.as_str())?;
            text.extend_from_slice(key);
        }
        Ok(())
    }

    /// Writes those of a user's devices that are asked for, as entries of an object that may have others.
    fn write_devices(&self, user_id: &UserId, devices: &[ShownDevice], has_entries: &mut bool, text: &mut Vec<u8>) {
        let Some(asked) = self.asked.get(user_id) else { return };
        for device in devices.iter().filter(|device| asked.is_empty() || asked.contains(&device.id)) {
            if *has_entries {
                text.push(b',');
            }
            *has_entries = true;
            text.extend_from_slice(&device.text);
        }
    }

    /// Writes the next devices of the next user, who has too many for one part.
    async fn write_large(&self, user_id: &UserId, place: &mut Place, text: &mut Vec<u8>) -> Result<()> {
        let after = place.after.as_ref().map_or("", |device_id| device_id.as_str());
        let limit = i64::try_from(DEVICES).unwrap_or(i64::MAX);
        let mut conn = self.keys.0.db.read().await?;
        let listed = device_key::list_next(&mut conn, user_id, after, limit).await?;
        drop(conn);
        // In the order in which the database sorts them.
        let last = listed.iter().rev().find_map(|device| Some(device.keys.as_ref()?.device_id.clone()));
        let devices = devices_of(listed)?.remove(user_id).unwrap_or_default();
        if place.after.is_none() {
            place.write_name(text, user_id.as_str())?;
            text.push(b'{');
            place.has_entries = false;
        }
        self.write_devices(user_id, &devices, &mut place.has_entries, text);
        let is_last = devices.len() < DEVICES;
        place.after = last.filter(|_| !is_last);
        if is_last {
            text.push(b'}');
            (place.next, place.together, place.has_entries) = (place.next + 1, 2, true);
        }
        Ok(())
    }
}

/// About how many bytes it takes to show these users.
fn capacity(gathered: &[(&OwnedUserId, Found)]) -> usize {
    let bytes = |(user_id, found): &(&OwnedUserId, Found)| match found {
        // Each name stands there three times.
        Found::Keys(shown) => 4 * user_id.as_str().len() + shown.bytes,
        Found::Nobody | Found::Large => 0,
    };
    256 + gathered.iter().map(bytes).sum::<usize>()
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
}
