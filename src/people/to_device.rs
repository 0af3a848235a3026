//! Messages from device to device: sent by a request, kept in an inbox for each device, and given out by `/sync`.
//!
//! A message is a row of its device's inbox, at a place of the log, and is in no memory but the client's. A device gets
//! what waits for it in the order of the log, a page at a time, and confirms a page with the token that came with it:
//! the token says up to where its bearer has everything ([`Token`](crate::ground::position::Token)). So nothing is kept
//! of what was given out to whom, every node does the same with the same token, and who repeats a token gets the same
//! messages again, as long as the next one was not used. A token that says nothing of messages confirms nothing.
//!
//! What waits for a device that ends is gone for everybody at that moment; its rows go afterwards, in steps
//! (`to_device/ended.rs`).
//!
//! What is confirmed is deleted before the client is answered. A look at the cache (`to_device/cache.rs`) tells that a
//! device has nothing waiting, and spares the database the question.
//!
//! What is for users of other servers is accepted, and counted; it will be sent when there is federation.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#send-to-device-messaging>

mod cache;
mod confirmations;
mod ended;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use ruma::{
    DeviceId, OwnedDeviceId, OwnedServerName, OwnedTransactionId, OwnedUserId, UserId,
    api::client::to_device::send_event_to_device::v3::Messages, to_device::DeviceIdOrAllDevices,
};
use serde_json::value::RawValue;

pub(crate) use self::cache::InboxCache;
use self::{cache::UserInboxes, confirmations::Confirmations};
pub(crate) use crate::store::to_device::WaitingMessage;
use crate::{
    db::Db,
    edge::metrics::Metrics,
    error::{Error, Result},
    event::{
        fact::{Fact, NewToDevice, ToDeviceRequest, Write},
        parse_content,
    },
    ground::{clock::Clock, position::Position},
    log::{CommitError, Log, Quotas},
    store,
};

/// Of one message's content, in bytes of JSON. More would later be too much for another server, and in its way for ever.
pub(crate) const MAX_CONTENT: usize = 64 * 1024;
/// How many messages one request sends at most: they are written at once. Clients send up to 250.
const MAX_MESSAGES: usize = 2_000;
/// What they take together, in bytes: what is for all devices of a user is written for each of them, and nobody else
/// writes meanwhile. The largest request that names each device has a part of it.
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// Of a type, in bytes.
const MAX_KIND: usize = 255;
/// What a message of so many bytes costs as much as two.
const COST_BYTES: usize = 4 * 1024;

/// How many messages a device gets at once, as the specification recommends, and how many bytes: none more once there
/// are so many.
const PAGE_MESSAGES: usize = 100;
const PAGE_BYTES: i64 = 1024 * 1024;

/// The messages from device to device. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ToDeviceMessages(Arc<Inner>);

struct Inner {
    db: Db,
    log: Log,
    clock: Clock,
    server_name: OwnedServerName,
    cache: Arc<InboxCache>,
    quotas: Quotas,
    metrics: Metrics,
    confirmations: Confirmations,
}

/// A request that sends messages.
#[derive(Debug)]
pub(crate) struct SendRequest {
    pub(crate) sender: OwnedUserId,
    /// The sender's own.
    pub(crate) device_id: OwnedDeviceId,
    /// The type of the events.
    pub(crate) kind: String,
    pub(crate) transaction_id: OwnedTransactionId,
}

/// For each device its content.
type OfUser = BTreeMap<OwnedDeviceId, Arc<RawValue>>;

/// Messages of which it is known for which devices they are.
#[derive(Debug, Default)]
pub(crate) struct Addressed {
    here: BTreeMap<OwnedUserId, OfUser>,
    /// How many are for users of other servers.
    elsewhere: usize,
}

impl Addressed {
    /// How many are for devices of this server, known or not.
    pub(crate) fn len(&self) -> usize {
        self.here.values().map(BTreeMap::len).sum()
    }

    /// As [`cost`], but of what is for all devices of a user for each of them.
    pub(crate) fn cost(&self) -> u32 {
        let cost: usize = self.contents().map(cost_of).sum();
        u32::try_from(cost).unwrap_or(u32::MAX)
    }

    fn bytes(&self) -> usize {
        self.contents().map(|content| content.get().len()).sum()
    }

    fn contents(&self) -> impl Iterator<Item = &RawValue> {
        self.here.values().flat_map(BTreeMap::values).map(|content| &**content)
    }
}

/// A part of what waits for a device, oldest first.
#[derive(Debug, Default)]
pub(crate) struct InboxPage {
    pub(crate) messages: Vec<WaitingMessage>,
    /// Whoever has got this page has everything up to here.
    pub(crate) until: Position,
}

/// What a request costs, in units of the limit: 1 for each message, and 1 for each 4 KiB of it. One for all devices of a
/// user is one.
pub(crate) fn cost(messages: &Messages) -> u32 {
    let contents = messages.values().flat_map(BTreeMap::values);
    let cost: usize = contents.map(|content| cost_of(content.json())).sum();
    u32::try_from(cost).unwrap_or(u32::MAX)
}

fn cost_of(content: &RawValue) -> usize {
    1 + content.get().len() / COST_BYTES
}

impl ToDeviceMessages {
    /// `cache` has to follow the log.
    pub(in crate::people) fn new(
        (db, log, clock): (Db, Log, Clock),
        server_name: OwnedServerName,
        cache: Arc<InboxCache>,
        quotas: Quotas,
        metrics: Metrics,
    ) -> Self {
        let confirmations = Confirmations::default();
        Self(Arc::new(Inner { db, log, clock, server_name, cache, quotas, metrics, confirmations }))
    }

    /// Finds out for which devices messages are: `*` stands for all that a user has now. A device that is named beside it
    /// gets its own message alone.
    ///
    /// Devices that nobody has are left out later, where they are written: who sends does not learn of them.
    /// `M_BAD_JSON` for a content that could not be sent to another server, `M_INVALID_PARAM` for too many messages.
    pub(crate) async fn address(&self, messages: Messages) -> Result<Addressed> {
        if messages.values().map(BTreeMap::len).sum::<usize>() > MAX_MESSAGES {
            return Err(too_many());
        }
        let (mut addressed, mut to_all) = (Addressed::default(), BTreeMap::new());
        for (user_id, contents) in messages {
            if user_id.server_name() != self.0.server_name {
                addressed.elsewhere += contents.len();
                continue;
            }
            for (device, content) in contents {
                parse_content(content.json()).map_err(|e| Error::bad_json(e.to_string()))?;
                let content: Arc<RawValue> = content.into_json().into();
                match device {
                    DeviceIdOrAllDevices::AllDevices => drop(to_all.insert(user_id.clone(), content)),
                    DeviceIdOrAllDevices::DeviceId(device_id) if may_be(&user_id, &device_id) => {
                        addressed.here.entry(user_id.clone()).or_default().insert(device_id, content);
                    }
                    DeviceIdOrAllDevices::DeviceId(_) => {}
                }
            }
        }
        to_all.retain(|user_id, _| !user_id.as_str().chars().any(char::is_control));
        if !to_all.is_empty() {
            let users: Vec<&UserId> = to_all.keys().map(|user_id| &**user_id).collect();
            let devices = store::to_device::list_devices(&mut self.0.db.read().await?, &users).await?;
            for (user_id, device_id) in devices {
                let Some(content) = to_all.get(&user_id) else { continue };
                let of_user = addressed.here.entry(user_id).or_default();
                of_user.entry(device_id).or_insert_with(|| Arc::clone(content));
            }
        }
        let is_too_much = addressed.len() > MAX_MESSAGES || addressed.bytes() > MAX_BYTES;
        if is_too_much { Err(too_many()) } else { Ok(addressed) }
    }

    /// Puts messages into inboxes, in one act. A request that was made before sends nothing, whatever its messages are
    /// now.
    ///
    /// A device for which as much waits as may is left out, as one that is not there: the others get theirs, and who sends
    /// does not learn of it.
    pub(crate) async fn send(&self, request: SendRequest, addressed: Addressed) -> Result<()> {
        let SendRequest { sender, device_id, kind, transaction_id } = request;
        if kind.len() > MAX_KIND || kind.contains('\0') {
            let message = format!("A type of event has at most {MAX_KIND} bytes and no NUL character");
            return Err(Error::invalid_param(message));
        }
        self.0.metrics.to_device_unsent(addressed.elsewhere);
        if addressed.here.is_empty() {
            return Ok(());
        }
        let quotas = addressed.here.keys().filter_map(|user_id| self.0.quotas.inbox(user_id)).collect();
        let facts = addressed.here.into_iter().map(|(user_id, of_user)| {
            let messages = of_user.into_iter().collect();
            Fact::ToDevice(NewToDevice { sender: sender.clone(), kind: kind.clone(), user_id, messages })
        });
        let facts = facts.collect();
        let request = ToDeviceRequest { sender, device_id, kind, transaction_id, sent_ts: self.now() };
        let write = Write { facts, quotas, request: Some(request), ..Write::default() };
        match self.0.log.append(write).await {
            Ok(_) | Err(CommitError::Repeated) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// A device has everything up to a place: it is deleted, durably, and may be said again.
    pub(crate) async fn confirm(&self, user_id: &UserId, device_id: &DeviceId, until: Position) -> Result<()> {
        let waiting = self.inboxes(user_id).await?.find(device_id);
        if waiting.is_none_or(|span| span.oldest > until) {
            return Ok(());
        }
        self.0.confirmations.confirm(&self.0.db, user_id, device_id, until).await?;
        self.0.cache.confirm(user_id, device_id, until);
        Ok(())
    }

    /// What waits for a device after a place, up to another that this node has read: so much of it as it gets at once.
    /// Nothing is deleted by this.
    pub(crate) async fn page(
        &self,
        user_id: &UserId,
        device_id: &DeviceId,
        after: Position,
        until: Position,
    ) -> Result<InboxPage> {
        let nothing = InboxPage { messages: Vec::new(), until };
        let Some(span) = self.inboxes(user_id).await?.find(device_id) else { return Ok(nothing) };
        if span.newest <= after || span.oldest > until {
            return Ok(nothing);
        }
        let mut conn = self.0.db.read().await?;
        let limits = (PAGE_MESSAGES, PAGE_BYTES);
        let page = store::to_device::list_page(&mut conn, (user_id, device_id), (after, until), limits).await?;
        drop(conn);
        let Some(last) = page.messages.last().map(|message| message.position) else {
            // Another node has given it out, and it was confirmed there.
            if after < span.oldest && span.newest <= until {
                self.0.cache.confirm(user_id, device_id, span.newest);
            }
            return Ok(nothing);
        };
        Ok(InboxPage { messages: page.messages, until: if page.is_full { last } else { until } })
    }

    /// What waits for the devices of a user, from memory where it is there.
    async fn inboxes(&self, user_id: &UserId) -> Result<Arc<UserInboxes>> {
        if let Some(inboxes) = self.0.cache.find(user_id) {
            return Ok(inboxes);
        }
        let (log, db) = (&self.0.log, &self.0.db);
        loop {
            let mut snapshot = log.tail().snapshot(db).await?;
            let waiting = store::to_device::list_waiting(&mut snapshot, user_id).await?;
            let position = snapshot.close().await;
            let remember = |missed: &[_]| self.0.cache.remember(user_id, position, &waiting, missed);
            if let Some(inboxes) = log.tail().catch_up(position, remember) {
                return Ok(inboxes);
            }
        }
    }

    /// Milliseconds since the Unix epoch.
    fn now(&self) -> i64 {
        self.0.clock.now().get().into()
    }
}

/// Whether there may be such a device. Nobody has one with a control character in its name, with which `PostgreSQL`
/// could not even look.
fn may_be(user_id: &UserId, device_id: &DeviceId) -> bool {
    !user_id.as_str().chars().chain(device_id.as_str().chars()).any(char::is_control)
}

fn too_many() -> Error {
    let mebibytes = MAX_BYTES / 1024 / 1024;
    let message = format!("One request sends at most {MAX_MESSAGES} messages and {mebibytes} MiB: make several of it");
    Error::invalid_param(message)
}
