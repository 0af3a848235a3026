//! Events that are known without a place in their room: what others cite, and the state before a gap.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#pdus>

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use ruma::{
    EventId, OwnedEventId, RoomId,
    events::{StateEventType, TimelineEventType},
};

use super::{
    receive::{check_auth_events, check_format},
    room::Room,
    rooms::Rooms,
};
use crate::{
    error::{Error, Result},
    event::{Pdu, Standing},
    ground::position::{EventKey, Order},
    store::{self, event::NewRow},
};

/// How many are looked up, or written, at once.
const STEP: usize = 500;
/// After how many that were judged others have a turn.
const TURN: usize = 64;

impl Rooms {
    /// Keeps those of fetched events of a room that the authorization rules allow by what they cite, each after those of
    /// them that it cites. Their signatures and hashes have been verified.
    ///
    /// Returns the others: those that the rules refuse, and those that cite what is refused or not here.
    pub async fn keep_allowed_outliers(&self, room: &Room, pdus: Vec<Pdu>) -> Result<Vec<OwnedEventId>> {
        let (room_id, create) =
            room.view(|view| (view.room_id.clone(), view.state.find(&StateEventType::RoomCreate).cloned()));
        let known = self.list_cited(&pdus).await?;
        let mut allowed: HashMap<OwnedEventId, Arc<Pdu>> = HashMap::with_capacity(pdus.len());
        let (mut kept, mut refused) = (Vec::with_capacity(pdus.len()), Vec::new());
        for (count, pdu) in pdus.into_iter().enumerate() {
            if count % TURN == TURN - 1 {
                tokio::task::yield_now().await;
            }
            let find = |id: &OwnedEventId| allowed.get(id).or_else(|| known.get(id)).cloned();
            let cited: Vec<Arc<Pdu>> = pdu.auth_events().iter().filter_map(find).collect();
            if let Err(reason) = check_outlier(&pdu, &room_id, &cited, create.as_ref()) {
                tracing::info!(event_id = %pdu.event_id(), %reason, "an event that others cite is refused");
                refused.push(pdu.event_id().to_owned());
                continue;
            }
            let pdu = Arc::new(pdu);
            allowed.insert(pdu.event_id().to_owned(), Arc::clone(&pdu));
            kept.push(pdu);
        }
        for some in kept.chunks(STEP) {
            self.keep_outliers(&room_id, some).await?;
        }
        Ok(refused)
    }

    /// Those of the events that some others cite which are here and count.
    async fn list_cited(&self, pdus: &[Pdu]) -> Result<HashMap<OwnedEventId, Arc<Pdu>>> {
        let cited: BTreeSet<&EventId> = pdus.iter().flat_map(Pdu::auth_events).map(|id| &**id).collect();
        let cited: Vec<&EventId> = cited.into_iter().collect();
        let mut known = HashMap::with_capacity(cited.len());
        for some in cited.chunks(STEP) {
            let found = store::event::list(&mut self.0.db.read().await?, some).await?;
            let counting = found.into_iter().filter(|event| event.standing != Standing::Rejected);
            known.extend(counting.map(|event| (event.pdu.event_id().to_owned(), event.pdu)));
        }
        Ok(known)
    }

    /// Keeps events of a room of this server whose signatures and hashes have been verified and whose place in the room is
    /// not known. Those that are known already stay as they are.
    pub async fn keep_outliers(&self, room_id: &RoomId, pdus: &[Arc<Pdu>]) -> Result<()> {
        if let Some(pdu) = pdus.iter().find(|pdu| pdu.room_id() != room_id) {
            return Err(Error::bad_json(format!("the event {} is of another room", pdu.event_id())));
        }
        let mut new: BTreeMap<&EventId, &Pdu> = pdus.iter().map(|pdu| (pdu.event_id(), &**pdu)).collect();
        let wanted: Vec<&EventId> = new.keys().copied().collect();
        for (known, _) in store::event::keys(&mut self.0.db.read().await?, &wanted).await? {
            new.remove(&*known);
        }
        if new.is_empty() {
            return Ok(());
        }
        let mut tx = self.0.db.begin().await?;
        let highest = store::history::take_keys(&mut tx, i64::try_from(new.len()).unwrap_or(i64::MAX)).await?;
        let rows: Vec<NewRow<'_>> =
            (0_i64..).zip(new.into_values()).map(|(steps, pdu)| outlier(EventKey(highest.0 - steps), pdu)).collect();
        store::event::insert_unless_known(&mut tx, &rows).await?;
        tx.commit().await?;
        // What is state before a gap is shown, and may have been redacted before it was fetched.
        self.try_to_settle_redactions(&wanted).await;
        Ok(())
    }
}

/// Those of the events of another server's answer that the rules allow by what they cite, which is looked for among those
/// before them alone: each has to come after what it cites. `create` is the room's beginning.
///
/// It takes tens of microseconds for each.
pub(crate) fn list_allowed(room_id: &RoomId, create: &Arc<Pdu>, sorted: Vec<Pdu>) -> Vec<Arc<Pdu>> {
    let mut by_id: HashMap<OwnedEventId, Arc<Pdu>> = HashMap::with_capacity(sorted.len());
    let mut allowed = Vec::with_capacity(sorted.len());
    for pdu in sorted {
        let cited: Vec<Arc<Pdu>> = pdu.auth_events().iter().filter_map(|id| by_id.get(id)).cloned().collect();
        if let Err(reason) = check_outlier(&pdu, room_id, &cited, Some(create)) {
            tracing::info!(event_id = %pdu.event_id(), %reason, "an event of a room that is joined is refused");
            continue;
        }
        let pdu = Arc::new(pdu);
        by_id.insert(pdu.event_id().to_owned(), Arc::clone(&pdu));
        allowed.push(pdu);
    }
    allowed
}

/// Checks 1 and 4 of those on receipt of a PDU: what else there is to check takes a place in the room.
fn check_outlier(pdu: &Pdu, room_id: &RoomId, cited: &[Arc<Pdu>], create: Option<&Arc<Pdu>>) -> Result<(), String> {
    if pdu.room_id() != room_id {
        return Err("it is of another room".to_owned());
    }
    let is_begun_by = create.is_some_and(|create| create.event_id() == pdu.event_id());
    if *pdu.kind() == TimelineEventType::RoomCreate && !is_begun_by {
        return Err("a room begins only once".to_owned());
    }
    check_format(pdu)?;
    check_auth_events(pdu, cited, create)
}

fn outlier(key: EventKey, pdu: &Pdu) -> NewRow<'_> {
    NewRow {
        key,
        order: Order::START,
        missing: &[],
        pdu,
        standing: Standing::Outlier,
        fork: None,
        notifies: false,
        thread_root: None,
        transaction: None,
        replaces: None,
        moment: None,
    }
}
