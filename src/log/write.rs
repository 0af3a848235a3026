//! A batch's rows, table by table, as multi-row inserts.

mod people;

use std::collections::{HashMap, HashSet};

use ruma::{EventId, OwnedEventId, OwnedRoomId, RoomId, ServerName, UserId, events::room::member::MembershipState};

use crate::{
    db::{DbResult, Tx},
    event::{Pdu, Relation, Standing, StateChange},
    fact::{Fact, ForkBase, NewEvent, News, RoomHead, Typing, Write},
    position::{Lineage, Position},
    store::{
        self,
        event::{Moment, NewRow},
        membership::Membership,
        room::{Doors, RoomStanding},
        state::{ForkChange, Version},
    },
};

/// A batch on its way into the database.
pub(super) struct NewBatch<'a> {
    pub(super) id: &'a str,
    /// The place of its first entry.
    pub(super) first: Position,
    pub(super) writes: &'a [&'a Write],
    /// How the rooms stand that the database knows.
    pub(super) rooms: HashMap<OwnedRoomId, RoomStanding>,
    /// The name of this server.
    pub(super) here: &'a ServerName,
}

/// A room that a batch adds to: how it stood and how it stands afterwards.
struct Touched<'a> {
    /// Nothing for a room that begins with this batch.
    doors_before: Option<Doors>,
    standing: RoomStanding,
    head: &'a RoomHead,
}

type Rooms<'a> = HashMap<&'a RoomId, Touched<'a>>;

/// Writes everything and tells what readers are to be told, in the order of positions.
pub(super) async fn write(tx: &mut Tx, batch: NewBatch<'_>) -> DbResult<Vec<News>> {
    let NewBatch { id: batch_id, first, writes, rooms, here } = batch;
    let mut at = first;
    let mut events: Vec<(Position, &NewEvent)> = Vec::new();
    let mut facts: Vec<(Position, &Fact)> = Vec::new();
    let mut news = Vec::new();
    for write in writes {
        for event in &write.events {
            events.push((at, event));
            news.push(News::Event(std::sync::Arc::new(event.at(at))));
            at = at.next();
        }
        for fact in &write.facts {
            facts.push((at, fact));
            news.push(fact.news());
            at = at.next();
        }
    }
    let entries: Vec<_> = news.iter().filter_map(News::entry).collect();
    store::log::insert_batch(tx, first, at.before(), batch_id, &entries).await?;
    if !events.is_empty() {
        write_events(tx, &events, &rooms, here).await?;
    }
    drop_typing_outside(tx, first, &mut facts, &mut news).await?;
    if !facts.is_empty() {
        write_facts(tx, &facts).await?;
        drop_receipts_behind(tx, first, &mut news).await?;
    }
    Ok(news)
}

/// A receipt that would have moved back was not written. This node's readers are told as little of it as those
/// of other nodes, who don't find it in the table.
async fn drop_receipts_behind(tx: &mut Tx, first: Position, news: &mut [News]) -> DbResult<()> {
    let rooms: HashSet<&RoomId> = news
        .iter()
        .filter_map(|news| if let News::Receipt(receipt) = news { Some(&*receipt.room_id) } else { None })
        .collect();
    if rooms.is_empty() {
        return Ok(());
    }
    let rooms: Vec<&RoomId> = rooms.into_iter().collect();
    let written = store::ephemeral::receipts_written(tx, &rooms, first).await?;
    for (at, news) in (first.0..).map(Position).zip(news) {
        if matches!(news, News::Receipt(_)) && !written.contains(&at) {
            *news = News::Superseded;
        }
    }
    Ok(())
}

/// Whoever has left a room while it was on its way that they type there does not type. No reader is told.
async fn drop_typing_outside(
    tx: &mut Tx,
    first: Position,
    facts: &mut Vec<(Position, &Fact)>,
    news: &mut [News],
) -> DbResult<()> {
    let begins = |fact: &&Fact| matches!(fact, Fact::Typing(typing) if typing.until.is_some());
    let typing = || facts.iter().map(|(_, fact)| *fact).filter(begins).filter_map(Fact::typing);
    if typing().next().is_none() {
        return Ok(());
    }
    let rooms: Vec<&RoomId> = typing().map(|typing| &*typing.room_id).collect();
    let users: Vec<&UserId> = typing().map(|typing| &*typing.user_id).collect();
    let inside = store::membership::list_joined_pairs(tx, &rooms, &users).await?;
    let is_outside = |fact: &Fact| {
        let typing = fact.typing().filter(|typing| typing.until.is_some());
        typing.is_some_and(|typing| !inside.contains(&(typing.room_id.clone(), typing.user_id.clone())))
    };
    for (at, _) in facts.iter().filter(|(_, fact)| is_outside(fact)) {
        let index = usize::try_from(at.0 - first.0).ok();
        if let Some(told) = index.and_then(|index| news.get_mut(index)) {
            *told = News::Superseded;
        }
    }
    facts.retain(|(_, fact)| !is_outside(fact));
    Ok(())
}

async fn write_events(
    tx: &mut Tx,
    events: &[(Position, &NewEvent)],
    known: &HashMap<OwnedRoomId, RoomStanding>,
    here: &ServerName,
) -> DbResult<()> {
    let mut rooms = Rooms::new();
    let mut rows = Vec::with_capacity(events.len());
    for (position, event) in events {
        let room = rooms.entry(event.pdu.room_id()).or_insert_with(|| Touched::new(*position, event, known));
        rows.push(NewRow::new(*position, event, room.follow(event)));
    }
    store::event::insert(tx, &rows).await?;
    let heads: Vec<_> = rooms.iter().map(|(room_id, room)| (*room_id, room.head, room.standing)).collect();
    store::room::upsert_heads(tx, &heads).await?;
    let highlights: Vec<(Position, &RoomId, &UserId)> = events
        .iter()
        .flat_map(|(at, event)| event.highlights.iter().map(|user| (*at, event.pdu.room_id(), &**user)))
        .collect();
    store::event::insert_highlights(tx, &highlights).await?;
    let relations: Vec<_> = events
        .iter()
        .filter(|(_, event)| event.standing == Standing::Accepted)
        .filter_map(|(at, event)| Some((*at, &*event.pdu, Relation::of(&event.pdu)?)))
        .collect();
    store::relation::insert(tx, &relations).await?;
    // After what only inserts: it reads, for which everything that waits to be inserted is sent.
    write_state(tx, events, &rooms, here).await?;
    for (_, event) in events {
        if let Some(redacted) = &event.redacted {
            store::event::replace_redacted(tx, redacted, event.pdu.event_id()).await?;
            store::relation::delete(tx, redacted.event_id()).await?;
            people::redact(tx, redacted, here).await?;
        }
    }
    Ok(())
}

impl<'a> Touched<'a> {
    fn new(position: Position, event: &'a NewEvent, known: &HashMap<OwnedRoomId, RoomStanding>) -> Self {
        let known = known.get(event.pdu.room_id());
        let new = RoomStanding { trunk: Lineage(position.0), doors: Doors::default(), newest_ts: 0 };
        Self {
            doors_before: known.map(|standing| standing.doors),
            standing: known.copied().unwrap_or(new),
            head: &event.head,
        }
    }

    /// Takes the next event of the room and tells how late it is with it.
    fn follow(&mut self, event: &'a NewEvent) -> Moment {
        let moment = Moment::then(self.standing.newest_ts, &event.pdu, event.standing);
        self.standing.newest_ts = moment.newest_ts;
        for change in &event.changes {
            self.standing.doors.follow(change);
        }
        self.head = &event.head;
        moment
    }
}

/// The trunk's changes, the forks, the memberships that follow from the trunk, and who can be found because of them.
async fn write_state(
    tx: &mut Tx,
    events: &[(Position, &NewEvent)],
    rooms: &Rooms<'_>,
    here: &ServerName,
) -> DbResult<()> {
    if events.iter().all(|(_, event)| event.changes.is_empty() && event.fork.is_none()) {
        return Ok(());
    }
    let positions = positions_of_changes(tx, events).await?;
    let place = |change: &StateChange| change.event.as_ref().and_then(|pdu| positions.get(pdu.event_id()).copied());
    let mut versions = Vec::new();
    let mut forks = Vec::new();
    let mut fork_changes = Vec::new();
    let mut memberships: HashMap<(&UserId, &RoomId), (Membership<'_>, Option<&Pdu>)> = HashMap::new();
    for (at, event) in events {
        let Some(trunk) = rooms.get(event.pdu.room_id()).map(|room| room.standing.trunk) else { continue };
        for change in &event.changes {
            versions.push(Version { line: trunk, change, from: *at, event: place(change) });
            if let Some(membership) = Membership::of(change, event.pdu.room_id(), *at) {
                let key = (membership.user_id, membership.room_id);
                memberships.insert(key, (membership, change.event.as_deref()));
            }
        }
        if let Some(fork) = &event.fork {
            let (line, base) = match fork.base {
                ForkBase::Trunk => (trunk, at.before()),
                ForkBase::Line(line, base) => (line, base),
                ForkBase::Nothing => (Lineage(at.0), Position::START),
            };
            forks.push((*at, line, base));
            for change in &fork.changes {
                let event = place(change);
                if fork.base == ForkBase::Nothing {
                    versions.push(Version { line, change, from: base, event });
                } else {
                    fork_changes.push(ForkChange { fork: *at, change, event });
                }
            }
        }
    }
    store::state::insert_versions(tx, &versions).await?;
    store::state::insert_forks(tx, &forks, &fork_changes).await?;
    let (memberships, members): (Vec<_>, Vec<_>) = memberships.into_values().unzip();
    store::membership::upsert(tx, &memberships).await?;
    end_typing(tx, &memberships).await?;
    people::follow(tx, rooms, &memberships, &members, here).await
}

/// Whoever is no longer in a room types there no more. Readers have it from the change of membership.
async fn end_typing(tx: &mut Tx, memberships: &[Membership<'_>]) -> DbResult<()> {
    let is_out =
        |membership: &&Membership<'_>| matches!(membership.state, MembershipState::Leave | MembershipState::Ban);
    let gone: HashMap<(&RoomId, &UserId), Position> = memberships
        .iter()
        .filter(is_out)
        .map(|membership| ((membership.room_id, membership.user_id), membership.position))
        .collect();
    if gone.is_empty() {
        return Ok(());
    }
    let (rooms, users): (Vec<&RoomId>, Vec<&UserId>) = gone.keys().copied().unzip();
    let typing = store::ephemeral::list_typing_of(tx, &rooms, &users).await?;
    let ended: Vec<(Position, Typing)> = typing
        .into_iter()
        .filter(|typing| typing.until.is_some())
        .filter_map(|typing| {
            let at = gone.get(&(&*typing.room_id, &*typing.user_id))?;
            Some((*at, Typing { until: None, ..typing }))
        })
        .collect();
    let rows: Vec<(Position, &Typing)> = ended.iter().map(|(at, typing)| (*at, typing)).collect();
    store::ephemeral::upsert_typing(tx, &rows).await
}

/// Where the events stand that state refers to: in this batch, or found in the database.
async fn positions_of_changes(
    tx: &mut Tx,
    events: &[(Position, &NewEvent)],
) -> DbResult<HashMap<OwnedEventId, Position>> {
    let mut known: HashMap<OwnedEventId, Position> =
        events.iter().map(|(at, event)| (event.pdu.event_id().to_owned(), *at)).collect();
    let older: Vec<&EventId> = events
        .iter()
        .flat_map(|(_, event)| event.changes.iter().chain(event.fork.iter().flat_map(|fork| &fork.changes)))
        .filter_map(|change| change.event.as_deref().map(Pdu::event_id))
        .filter(|id| !known.contains_key(*id))
        .collect();
    if !older.is_empty() {
        known.extend(store::event::positions(tx, &older).await?);
    }
    Ok(known)
}

/// The newest of several facts about one thing is the one that stays; of receipts the one that is furthest ahead.
async fn write_facts(tx: &mut Tx, facts: &[(Position, &Fact)]) -> DbResult<()> {
    let mut receipts = HashMap::new();
    let mut account_data = HashMap::new();
    let mut typing = HashMap::new();
    let mut presence = HashMap::new();
    let mut erased = Vec::new();
    for (at, fact) in facts {
        match fact {
            Fact::Receipt(r) => {
                let furthest =
                    receipts.entry((&r.room_id, &r.user_id, &r.receipt_type, &r.thread_id)).or_insert((*at, r));
                if r.event_position >= furthest.1.event_position {
                    *furthest = (*at, r);
                }
            }
            Fact::AccountData(d) | Fact::AccountDataAfter { data: d, .. } => {
                account_data.insert((&d.user_id, &d.room_id, &d.kind), (*at, d));
            }
            Fact::Typing(t) => {
                typing.insert((&t.room_id, &t.user_id), (*at, t));
            }
            Fact::Presence(p) => {
                presence.insert(&p.user_id, (*at, p));
            }
            Fact::Forgotten { user_id, room_id } => store::membership::forget(tx, user_id, room_id).await?,
            Fact::AliasAdded { alias, room_id, creator } => store::alias::insert(tx, alias, room_id, creator).await?,
            Fact::AliasRemoved { alias, .. } => store::alias::delete(tx, alias).await?,
            Fact::Published { room_id, listed } => store::room::publish(tx, room_id, *listed).await?,
            Fact::Erased { user_id } => erased.push((&**user_id, *at)),
            Fact::Devices { .. } => {}
        }
    }
    store::erasure::insert(tx, &erased).await?;
    store::ephemeral::upsert_receipts(tx, &receipts.into_values().collect::<Vec<_>>()).await?;
    store::account_data::upsert(tx, &account_data.into_values().collect::<Vec<_>>()).await?;
    store::ephemeral::upsert_typing(tx, &typing.into_values().collect::<Vec<_>>()).await?;
    store::ephemeral::upsert_presence(tx, &presence.into_values().collect::<Vec<_>>()).await
}

impl<'a> NewRow<'a> {
    fn new(position: Position, event: &'a NewEvent, moment: Moment) -> Self {
        Self {
            position,
            pdu: &event.pdu,
            standing: event.standing,
            fork: event.fork.is_some().then_some(position),
            notifies: event.notifies && event.standing == Standing::Accepted,
            thread_root: event.thread_root.as_deref(),
            transaction: event.transaction.as_ref(),
            replaces: event.replaces.as_deref().map(Pdu::event_id),
            moment,
        }
    }
}
