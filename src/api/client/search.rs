//! Messages, names and topics by their words.
//!
//! The search itself is `reader/search.rs`; here its results get what surrounds them, and the shape that clients read.
//! Everything is gathered for all results at once, so that a page of a hundred costs few statements.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3search>

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use ruma::{
    OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UInt, UserId,
    api::{
        client::filter::RoomEventFilter,
        client::search::search_events::v3::{
            self as search_events, Criteria as Asked, EventContextResult, GroupingKey, OrderBy, ResultGroup,
            ResultGroupMap, ResultGroupMapsByGroupingKey, ResultRoomEvents, SearchKeys, SearchResult, UserProfile,
        },
        error::DeserializationError,
    },
    events::AnyStateEvent,
    serde::Raw,
};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Value, json};

use crate::{
    api::{
        error::ApiResult,
        extract::Call,
        json::{AsJson, Json},
        own::{Extra, WithExtra, given},
        route::Endpoints,
    },
    app::App,
    error::{Error, Result},
    event::{ClientFormat, Stored, client_event},
    ground::position::Order as RoomOrder,
    log::Tokens,
    people::account::User,
    reader::search::{Criteria, Fields, FoundEvent, Group, ResultOrder, ResultPlace, SearchPage},
    room::{
        Room,
        act::member_profile::MemberProfile,
        read::{reading::ReadableRoom, timeline::Surroundings},
    },
};

/// How many results come in a page where the client does not say, and at most.
const DEFAULT_LIMIT: usize = 10;
const MAX_LIMIT: usize = 100;
/// The most events before a result, and after it.
const MAX_CONTEXT: usize = 25;

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint::<AsJson<WithExtra<search_events::Request, WantsContext>>, _, _>(search)
}

async fn search(app: App, call: Call<AsJson<WithExtra<search_events::Request, WantsContext>>>) -> ApiResult<Json> {
    let Call { request: AsJson(WithExtra { request, extra: WantsContext(wants_context) }), caller, .. } = call;
    let mut categories = serde_json::Map::new();
    if let Some(asked) = &request.search_categories.room_events {
        let from = given(request.next_batch.as_deref()).map(str::parse).transpose()?;
        let found = room_events(&app, &caller, asked, wants_context, from).await?;
        categories.insert("room_events".to_owned(), with_lists(&found, wants_context)?);
    }
    Ok(Json::from(json!({ "search_categories": categories })))
}

/// With every list: ruma leaves empty ones out, and clients go through them without a look.
fn with_lists(found: &ResultRoomEvents, wants_context: bool) -> Result<Value> {
    let fill = |value: Option<&mut Value>, lists: &[&str]| {
        let Some(object) = value.and_then(Value::as_object_mut) else { return };
        for list in lists {
            object.entry(*list).or_insert_with(|| json!([]));
        }
    };
    let mut found = serde_json::to_value(found).map_err(Error::broken)?;
    fill(Some(&mut found), &["highlights", "results"]);
    let results = found.get_mut("results").and_then(Value::as_array_mut).into_iter().flatten();
    for result in results.filter(|_| wants_context) {
        fill(result.get_mut("context"), &["events_before", "events_after"]);
    }
    Ok(found)
}

/// The results of the one category that there is. `M_INVALID_PARAM` for an order, a key or a grouping that the
/// specification lacks, and for too many words.
///
/// What is read from the database is read once for all results, in this order because each step needs the one before:
/// the matches, what surrounds them, what the reader was in each room by the oldest event that is shown, profiles,
/// bundles.
async fn room_events(
    app: &App,
    caller: &User,
    asked: &Asked,
    wants_context: bool,
    from: Option<ResultPlace>,
) -> Result<ResultRoomEvents> {
    // The page's size is the filter's `limit`: the endpoint has no parameter of its own for it.
    let limit = asked.filter.limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(DEFAULT_LIMIT);
    let criteria = Criteria {
        reader: &caller.user_id,
        ignored: app.account_data.ignored(&caller.user_id).await?,
        term: &asked.search_term,
        fields: fields(asked)?,
        filter: &asked.filter,
        order: order(asked)?,
        limit: limit.clamp(1, MAX_LIMIT),
        from,
    };
    let groups = groupings(asked)?;
    let mut found = app.searches.find(&criteria).await?;
    let mut answer = ResultRoomEvents::new();
    // At least so many: what matches is counted page by page, and only as far as has been looked.
    answer.count = UInt::try_from(found.count).ok();
    answer.next_batch = found.next.as_ref().map(ToString::to_string);
    answer.highlights = std::mem::take(&mut found.highlights);
    answer.groups = groups.into_iter().map(|key| group(&found, &key)).collect::<ResultGroupMapsByGroupingKey>();
    if asked.include_state == Some(true) {
        answer.state = state(app, &found).await?;
    }
    let mut results: Vec<ResultInContext> = std::mem::take(&mut found.results)
        .into_iter()
        .filter_map(|result| {
            let room = Arc::clone(&found.readings.get(result.event.pdu.room_id())?.room);
            Some(ResultInContext { found: result, room, around: None, profiles: BTreeMap::new() })
        })
        .collect();
    if wants_context {
        add_surroundings(app, asked, &found.readings, &mut results).await?;
    }
    // Each event says what the reader was in the room when it was sent, so that has to be known from the oldest on.
    let mut oldest: HashMap<&RoomId, RoomOrder> = HashMap::new();
    for event in results.iter().flat_map(ResultInContext::events) {
        let oldest = oldest.entry(event.pdu.room_id()).or_insert(event.order);
        *oldest = event.order.min(*oldest);
    }
    let readings = found.readings.iter_mut();
    let readings = readings.filter_map(|(room_id, reading)| Some((reading, *oldest.get(&**room_id)?)));
    app.rooms.load_memberships_from(readings).await?;
    if wants_context && asked.event_context.include_profile {
        add_profiles(app, &caller.user_id, &mut results).await?;
    }
    // Most events have nothing that relates to them. One question for all spares a question for each of those.
    let parents = app.rooms.parents(results.iter().flat_map(ResultInContext::events)).await?;
    let around = results.iter().filter_map(|shown| shown.around.as_ref());
    let places: Vec<RoomOrder> = around.flat_map(|around| [around.start, around.end]).collect();
    let tokens = app.log.page_tokens(places).await?;
    for result in results {
        let Some(reading) = found.readings.get(result.found.event.pdu.room_id()) else { continue };
        answer.results.push(write(app, caller, reading, result, (&parents, &tokens)).await?);
    }
    Ok(answer)
}

/// A result and what was said around it, if the client wants to know.
struct ResultInContext {
    found: FoundEvent,
    room: Arc<Room>,
    around: Option<Surroundings>,
    /// What those who sent these events were called when the result was sent.
    profiles: BTreeMap<OwnedUserId, UserProfile>,
}

impl ResultInContext {
    /// Everything that is shown of it: what surrounds it, then the result itself.
    fn events(&self) -> impl Iterator<Item = &Stored> {
        let others = self.around.iter().flat_map(|around| around.before.iter().chain(&around.after));
        others.map(|event| &**event).chain([&self.found.event])
    }
}

/// One result as the client reads it, with the tokens of the places around it. Something relates to the `parents`, and
/// to nothing else.
async fn write(
    app: &App,
    caller: &User,
    reading: &ReadableRoom,
    shown: ResultInContext,
    (parents, tokens): (&HashSet<OwnedEventId>, &Tokens),
) -> Result<SearchResult> {
    let with_bundles = shown.events().filter(|event| parents.contains(event.pdu.event_id()));
    let writer = app.rooms.writer(reading, with_bundles, &caller.device_id, app.clock.now()).await?;
    let ResultInContext { found: FoundEvent { event, rank }, around, profiles, .. } = shown;
    let mut result = SearchResult::new();
    result.rank = Some(f64::from(rank));
    result.result = Some(writer.write(&event));
    if let Some(around) = around {
        let mut written = EventContextResult::new();
        written.start = Some(tokens.of_page(around.start).to_string());
        written.end = Some(tokens.of_page(around.end).to_string());
        written.events_before = around.before.iter().map(|event| writer.write(event)).collect();
        written.events_after = around.after.iter().map(|event| writer.write(event)).collect();
        written.profile_info = profiles;
        result.context = written;
    }
    Ok(result)
}

/// Reads what was said around the results. Whom the reader ignores is left out of it by their readings.
async fn add_surroundings(
    app: &App,
    asked: &Asked,
    readings: &HashMap<OwnedRoomId, ReadableRoom>,
    results: &mut [ResultInContext],
) -> Result<()> {
    let limit = |limit: UInt| usize::try_from(limit).unwrap_or(usize::MAX).min(MAX_CONTEXT);
    let limits = (limit(asked.event_context.before_limit), limit(asked.event_context.after_limit));
    let place = |shown: &ResultInContext| {
        let event = &shown.found.event;
        Some((readings.get(event.pdu.room_id())?, event.order))
    };
    // Every result has a reading, or it would not be among them: so places and results go side by side.
    let places: Vec<(&ReadableRoom, RoomOrder)> = results.iter().filter_map(place).collect();
    let around = app.rooms.surroundings(&places, limits, &RoomEventFilter::default()).await?;
    for (shown, around) in results.iter_mut().zip(around) {
        shown.around = Some(around);
    }
    Ok(())
}

/// Reads what the senders were called when the result was sent, which is what a client shows beside it.
async fn add_profiles(app: &App, reader: &UserId, results: &mut [ResultInContext]) -> Result<()> {
    let senders = |shown: &ResultInContext| shown.events().map(|event| event.pdu.sender().to_owned()).collect();
    let senders: Vec<BTreeSet<OwnedUserId>> = results.iter().map(senders).collect();
    let mut wanted = Vec::new();
    for (shown, senders) in results.iter().zip(&senders) {
        wanted.extend(senders.iter().map(|sender| (&*shown.room, shown.found.event.order, &**sender)));
    }
    // One for each of those wanted, in their order; none for who was never in the room.
    let mut members = app.rooms.members_at(reader, &wanted).await?.into_iter();
    for (shown, senders) in results.iter_mut().zip(senders) {
        for (sender, member) in senders.into_iter().zip(&mut members) {
            let Some(member) = member else { continue };
            let MemberProfile { displayname, avatar_url } = MemberProfile::said_by(&member);
            let mut profile = UserProfile::new();
            profile.displayname = displayname;
            profile.avatar_url = avatar_url.map(Into::into);
            shown.profiles.insert(sender, profile);
        }
    }
    Ok(())
}

/// The state of each room in the results, as the reader may know it.
async fn state(app: &App, found: &SearchPage) -> Result<BTreeMap<OwnedRoomId, Vec<Raw<AnyStateEvent>>>> {
    let format = ClientFormat { with_room_id: true, now: Some(app.clock.now()), ..ClientFormat::default() };
    let mut rooms = BTreeMap::new();
    for (room_id, reading) in &found.readings {
        let state = app.rooms.readable_state(reading).await?;
        rooms.insert(room_id.clone(), state.iter().map(|pdu| client_event(&pdu, &format)).collect());
    }
    Ok(rooms)
}

/// The results by one of their properties. Where there are more results at all, each group says how to go on in it.
fn group(found: &SearchPage, key: &GroupingKey) -> ResultGroupMap {
    let add = |groups: &mut BTreeMap<String, ResultGroup>, name: String, group: Group, event: &Stored| {
        // A group's place is that of its first result, which is the best or the newest of it.
        let order = UInt::try_from(groups.len()).ok();
        let entry = groups.entry(name).or_insert_with(|| {
            let mut entry = ResultGroup::new();
            entry.order = order;
            entry.next_batch = found.next.as_ref().map(|next| next.within(group).to_string());
            entry
        });
        entry.results.push(event.pdu.event_id().to_owned());
    };
    let mut groups = BTreeMap::new();
    for result in &found.results {
        let (room_id, sender) = (result.event.pdu.room_id(), result.event.pdu.sender());
        if *key == GroupingKey::RoomId {
            add(&mut groups, room_id.to_string(), Group::Room(room_id.to_owned()), &result.event);
        } else {
            add(&mut groups, sender.to_string(), Group::Sender(sender.to_owned()), &result.event);
        }
    }
    match key {
        GroupingKey::RoomId => ResultGroupMap::RoomId(
            groups.into_iter().filter_map(|(room, group)| Some((room.try_into().ok()?, group))).collect(),
        ),
        _ => ResultGroupMap::Sender(
            groups.into_iter().filter_map(|(user, group)| Some((user.try_into().ok()?, group))).collect(),
        ),
    }
}

/// By what the results are to be grouped, each once.
fn groupings(asked: &Asked) -> Result<Vec<GroupingKey>> {
    let mut keys = Vec::new();
    for key in asked.groupings.group_by.iter().filter_map(|grouping| grouping.key.as_ref()) {
        if !matches!(key, GroupingKey::RoomId | GroupingKey::Sender) {
            return Err(Error::invalid_param("Results can be grouped by room_id and by sender"));
        }
        if !keys.contains(key) {
            keys.push(key.clone());
        }
    }
    Ok(keys)
}

/// The best first, where the client does not say.
fn order(asked: &Asked) -> Result<ResultOrder> {
    match &asked.order_by {
        None | Some(OrderBy::Rank) => Ok(ResultOrder::Rank),
        Some(OrderBy::Recent) => Ok(ResultOrder::Recent),
        Some(_) => Err(Error::invalid_param("order_by is rank or recent")),
    }
}

/// Where to look for the words: everywhere, where the client does not say.
fn fields(asked: &Asked) -> Result<Fields> {
    let Some(keys) = asked.keys.as_deref().filter(|keys| !keys.is_empty()) else {
        return Ok(Fields { body: true, name: true, topic: true });
    };
    let mut fields = Fields { body: false, name: false, topic: false };
    for key in keys {
        match key {
            SearchKeys::ContentBody => fields.body = true,
            SearchKeys::ContentName => fields.name = true,
            SearchKeys::ContentTopic => fields.topic = true,
            _ => return Err(Error::invalid_param("keys may be content.body, content.name and content.topic")),
        }
    }
    Ok(fields)
}

/// Whether what was said around the results is asked for: in ruma's request that looks like asking for the usual amount
/// of it.
struct WantsContext(bool);

impl Extra for WantsContext {
    fn read(request: &http::Request<&[u8]>) -> std::result::Result<Self, DeserializationError> {
        #[derive(Deserialize)]
        struct SearchBody {
            search_categories: Categories,
        }
        #[derive(Deserialize)]
        struct Categories {
            room_events: Option<RoomEvents>,
        }
        #[derive(Deserialize)]
        struct RoomEvents {
            event_context: Option<IgnoredAny>,
        }
        let body: SearchBody = serde_json::from_slice(request.body())?;
        let wants_context = body.search_categories.room_events.is_some_and(|asked| asked.event_context.is_some());
        Ok(Self(wants_context))
    }
}
