//! What relates to an event.
//!
//! Three paths, one meaning: each narrows down what the one before lists.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#relationships-api>

use ruma::{
    EventId, OwnedRoomId, RoomId, UInt,
    api::{
        Direction,
        client::relations::{
            get_relating_events, get_relating_events_with_rel_type as with_rel_type,
            get_relating_events_with_rel_type_and_event_type as with_both,
        },
        error::ErrorKind,
    },
    serde::Raw,
};

use super::{
    reaching::{Asked, Reaching},
    token::{end, start},
};
use crate::{
    api::{error::ApiResult, extract::Call, in_room::InRoom, own::given, route::Endpoints},
    app::App,
    error::Error,
    people::account::User,
    room::read::{
        reading::ReadableRoom,
        relation::{Children, MAX_DEPTH},
    },
};

/// How many events come in a page where the client does not say.
const DEFAULT_LIMIT: usize = 50;

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints
        .endpoint::<InRoom<get_relating_events::v1::Request>, _, _>(all)
        .endpoint::<InRoom<with_rel_type::v1::Request>, _, _>(of_type)
        .endpoint::<InRoom<with_both::v1::Request>, _, _>(of_type_and_kind)
}

/// What the three endpoints have in common.
struct RelationsQuery<'a> {
    /// What the others relate to.
    parent: &'a EventId,
    /// Empty for any type of relation.
    rel_type: &'a str,
    /// Empty for any kind of event.
    kind: &'a str,
    direction: Direction,
    from: Option<&'a str>,
    to: Option<&'a str>,
    limit: Option<UInt>,
    /// Whether what relates to those that relate is asked for as well.
    recurse: bool,
}

/// A page of either endpoint, before it takes on the type of its response.
struct RelationsPage<T> {
    chunk: Vec<Raw<T>>,
    next_batch: Option<String>,
    prev_batch: Option<String>,
    /// How many steps were followed, if that was asked for.
    recursion_depth: Option<UInt>,
}

/// What a request to one of them asks for; its path names the type of relation and the kind of event, or not.
///
/// Ruma has a type for each of the three, with equal fields and no trait in common.
macro_rules! asked {
    ($request:expr, $rel_type:expr, $kind:expr) => {
        RelationsQuery {
            parent: &$request.event_id,
            rel_type: $rel_type,
            kind: $kind,
            direction: $request.dir,
            from: $request.from.as_deref(),
            to: $request.to.as_deref(),
            limit: $request.limit,
            recurse: $request.recurse,
        }
    };
}

/// The response of one of them.
macro_rules! answer {
    ($found:expr, $endpoint:ident) => {{
        let found = $found;
        let mut response = $endpoint::v1::Response::new(found.chunk);
        response.next_batch = found.next_batch;
        response.prev_batch = found.prev_batch;
        response.recursion_depth = found.recursion_depth;
        Ok(response)
    }};
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidrelationseventid>
async fn all(
    app: App,
    call: Call<InRoom<get_relating_events::v1::Request>>,
) -> ApiResult<get_relating_events::v1::Response> {
    let (room_id, reading) = open(&app, &call.caller, &call.request.room_id).await?;
    let request = call.request.read()?;
    let asked = asked!(request, "", "");
    answer!(find(&app, &call.caller, (room_id, reading), asked).await?, get_relating_events)
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidrelationseventidreltype>
async fn of_type(app: App, call: Call<InRoom<with_rel_type::v1::Request>>) -> ApiResult<with_rel_type::v1::Response> {
    let (room_id, reading) = open(&app, &call.caller, &call.request.room_id).await?;
    let request = call.request.read()?;
    let asked = asked!(request, request.rel_type.as_ref(), "");
    answer!(find(&app, &call.caller, (room_id, reading), asked).await?, with_rel_type)
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidrelationseventidreltypeeventtype>
async fn of_type_and_kind(app: App, call: Call<InRoom<with_both::v1::Request>>) -> ApiResult<with_both::v1::Response> {
    let (room_id, reading) = open(&app, &call.caller, &call.request.room_id).await?;
    let request = call.request.read()?;
    let kind = request.event_type.to_string();
    let asked = asked!(request, request.rel_type.as_ref(), &kind);
    answer!(find(&app, &call.caller, (room_id, reading), asked).await?, with_both)
}

fn not_found() -> Error {
    Error::not_found("There is no such event in this room, or you can't see it")
}

/// `M_NOT_FOUND` alike for an event that is not there and one that the caller may not see, the whole room included.
async fn open(app: &App, caller: &User, room_id: &RoomId) -> ApiResult<(OwnedRoomId, ReadableRoom)> {
    match app.rooms.open(room_id, &caller.user_id).await {
        Err(Error::Refused { kind: ErrorKind::Forbidden, .. }) => Err(not_found().into()),
        opened => {
            let ignored = app.account_data.ignored(&caller.user_id).await?;
            Ok((room_id.to_owned(), opened?.ignoring(ignored)))
        }
    }
}

/// Has fetched what is missing of what an event is, or of what relates to it. Whether there is more here now.
async fn fetch_missing(
    app: &App,
    reaching: &mut Reaching<'_>,
    reading: &mut ReadableRoom,
    parent: &EventId,
) -> ApiResult<bool> {
    let Some(parent) = app.rooms.find_event(reading, parent).await? else {
        return Ok(reaching.fetch_event(&reading.room, parent).await?);
    };
    // What relates to an event came after it.
    let stretch = (parent.order, reading.until);
    Ok(reaching.fill(&reading.room, Direction::Forward, stretch).await? == Asked::More)
}

async fn find<T>(
    app: &App,
    caller: &User,
    (room_id, mut reading): (OwnedRoomId, ReadableRoom),
    asked: RelationsQuery<'_>,
) -> ApiResult<RelationsPage<T>> {
    let wanted = Children {
        parent: asked.parent,
        rel_type: asked.rel_type,
        kind: asked.kind,
        direction: asked.direction,
        from: start(app, asked.from, asked.direction).await?,
        to: end(app, asked.to, asked.direction).await?,
        limit: asked.limit.map_or(DEFAULT_LIMIT, |limit| usize::try_from(limit).unwrap_or(usize::MAX)),
        recurse: asked.recurse,
    };
    let mut reaching = Reaching::new(app, (&caller.user_id, caller.pace), &room_id);
    while fetch_missing(app, &mut reaching, &mut reading, asked.parent).await? {
        reading = open(app, caller, &room_id).await?.1;
    }
    let page = app.rooms.children(&mut reading, &wanted).await?.ok_or_else(not_found)?;
    let events = page.events.iter().map(|event| &**event);
    let writer = app.rooms.writer(&reading, events, &caller.device_id, app.clock.now()).await?;
    let tokens = app.log.page_tokens(page.end).await?;
    Ok(RelationsPage {
        chunk: page.events.iter().map(|event| writer.write(event)).collect(),
        next_batch: page.end.map(|end| tokens.of_page(end).to_string()),
        // A page leads back to where it began. The first one began at an end, where there is nothing to lead to.
        prev_batch: given(asked.from).map(ToOwned::to_owned),
        recursion_depth: asked.recurse.then(|| MAX_DEPTH.into()),
    })
}
