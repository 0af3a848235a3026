//! What locked and suspended accounts may do: every endpoint is sorted here.
//!
//! A locked account can log out, and nothing else. A suspended one can read, and do what is on a list: what others
//! don't see, what ends something, and what keeps a device and its keys in order. Whatever is not on the list is
//! refused, so that an endpoint that nobody has thought about is closed.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#account-locking> and
//! <https://spec.matrix.org/v1.19/client-server-api/#account-suspension>

use http::{Method, request::Parts};
use ruma::{
    CanonicalJsonValue, EventId, RoomId,
    api::{Metadata, path_builder::PathBuilder as _},
    events::TimelineEventType,
};

use crate::{account::Caller, app::App, error::Result, room::Message};

/// Open to locked accounts too.
const LOCKED: [&str; 2] = ["POST /logout", "POST /logout/all"];

/// Open to suspended accounts too, beside everything that only reads. `/send` is for redactions, as [`check_sending`]
/// sees to, and `/join` for the room in which the server speaks to them, as [`check_joining`] does. Addresses
/// (`/account/3pid`) are not here: the specification recommends that only to servers that keep a history of them.
const SUSPENDED: &[&str] = &[
    "DELETE /org.matrix.msc3391/user/{user_id}/account_data/{event_type}",
    "DELETE /org.matrix.msc3391/user/{user_id}/rooms/{room_id}/account_data/{event_type}",
    "POST /account/deactivate",
    "POST /account/password",
    "POST /delete_devices",
    "DELETE /devices/{device_id}",
    "POST /join/{room_id_or_alias}",
    "POST /keys/claim",
    "POST /keys/device_signing/upload",
    "POST /keys/query",
    "POST /keys/signatures/upload",
    "POST /keys/upload",
    "POST /login/get_token",
    "POST /publicRooms",
    "POST /pushers/set",
    "DELETE /pushrules/global/{kind}/{rule_id}",
    "PUT /pushrules/global/{kind}/{rule_id}",
    "PUT /pushrules/global/{kind}/{rule_id}/actions",
    "PUT /pushrules/global/{kind}/{rule_id}/enabled",
    "DELETE /room_keys/keys",
    "PUT /room_keys/keys",
    "DELETE /room_keys/keys/{room_id}",
    "PUT /room_keys/keys/{room_id}",
    "DELETE /room_keys/keys/{room_id}/{session_id}",
    "PUT /room_keys/keys/{room_id}/{session_id}",
    "POST /room_keys/version",
    "DELETE /room_keys/version/{version}",
    "PUT /room_keys/version/{version}",
    "POST /rooms/{room_id}/forget",
    "POST /rooms/{room_id}/join",
    "POST /rooms/{room_id}/leave",
    "POST /rooms/{room_id}/read_markers",
    "POST /rooms/{room_id}/receipt/{receipt_type}/{event_id}",
    "PUT /rooms/{room_id}/redact/{event_id}/{txn_id}",
    "POST /rooms/{room_id}/report",
    "POST /rooms/{room_id}/report/{event_id}",
    "PUT /rooms/{room_id}/send/{event_type}/{txn_id}",
    "POST /search",
    "POST /sync",
    "PUT /user/{user_id}/account_data/{event_type}",
    "POST /user/{user_id}/filter",
    "PUT /user/{user_id}/rooms/{room_id}/account_data/{event_type}",
    "DELETE /user/{user_id}/rooms/{room_id}/tags/{tag}",
    "PUT /user/{user_id}/rooms/{room_id}/tags/{tag}",
    "POST /user_directory/search",
    "POST /users/{user_id}/report",
];

/// To which accounts an endpoint is open. A request that carries none of these is for accounts without restrictions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum OpenTo {
    Locked,
    Suspended,
    #[default]
    Unrestricted,
}

impl OpenTo {
    /// By the method of an endpoint and any of its paths.
    pub(crate) fn of<R: Metadata>() -> Self {
        let is_on = |list: &[&str]| {
            R::PATH_BUILDER.all_paths().any(|path| name(&R::METHOD, path).is_some_and(|name| list.contains(&&*name)))
        };
        if is_on(&LOCKED) {
            Self::Locked
        } else if [Method::GET, Method::HEAD].contains(&R::METHOD) || is_on(SUSPENDED) {
            Self::Suspended
        } else {
            Self::Unrestricted
        }
    }

    /// Refuses who may not call the endpoint of a request.
    pub(super) fn check(parts: &Parts, caller: &Caller) -> Result<()> {
        match parts.extensions.get::<Self>().copied().unwrap_or_default() {
            Self::Locked => Ok(()),
            Self::Suspended => caller.restrictions.check_unlocked(),
            Self::Unrestricted => {
                caller.restrictions.check_unlocked()?;
                caller.restrictions.check_not_suspended()
            }
        }
    }
}

/// `POST /logout` for `/_matrix/client/v3/logout`: without the version, which may be another one for old clients.
fn name(method: &Method, path: &str) -> Option<String> {
    let (_version, rest) = path.strip_prefix("/_matrix/client/")?.split_once('/')?;
    Some(format!("{method} /{rest}"))
}

/// Refuses a suspended user who sends anything but the redaction of something that they have sent themselves.
pub(crate) async fn check_sending(app: &App, caller: &Caller, message: &Message) -> Result<()> {
    if !caller.restrictions.suspended {
        return Ok(());
    }
    if message.kind == TimelineEventType::RoomRedaction {
        let target = message.content.get("redacts").and_then(CanonicalJsonValue::as_str);
        let sender = match target.and_then(|target| <&EventId>::try_from(target).ok()) {
            Some(target) => app.rooms.find_sender(target).await?,
            None => None,
        };
        // What is not there or names nothing is refused for that.
        if sender.is_none_or(|sender| sender == caller.user_id) {
            return Ok(());
        }
    }
    caller.restrictions.check_not_suspended()
}

/// Refuses a suspended user who joins any room but the one in which the server speaks to them.
pub(crate) async fn check_joining(app: &App, caller: &Caller, room_id: &RoomId) -> Result<()> {
    if caller.restrictions.suspended
        && let Some(notices) = &app.notices
        && notices.is_room(room_id).await?
    {
        return Ok(());
    }
    caller.restrictions.check_not_suspended()
}

/// Every endpoint that was routed on this thread, for the tests that walk them all.
#[cfg(test)]
pub(super) mod routed {
    use std::{borrow::Cow, cell::RefCell};

    use super::{Metadata, Method, OpenTo, name};
    use ruma::api::path_builder::PathBuilder as _;

    #[derive(Clone, Debug)]
    pub(crate) struct Endpoint {
        pub(crate) method: Method,
        /// As they are routed, each in all its spellings.
        pub(crate) paths: Vec<String>,
        /// Its names in the lists, whichever path it is called by.
        pub(crate) names: Vec<String>,
        pub(crate) takes_token: bool,
        pub(crate) open_to: OpenTo,
    }

    thread_local! {
        static ENDPOINTS: RefCell<Vec<Endpoint>> = const { RefCell::new(Vec::new()) };
    }

    pub(crate) fn note<R: Metadata>(paths: &[Cow<'_, str>]) {
        let scheme = std::any::type_name::<R::Authentication>().rsplit("::").next().unwrap_or_default();
        let name = |path: &str| name(&R::METHOD, path).unwrap_or_else(|| format!("{} {path}", R::METHOD));
        let endpoint = Endpoint {
            method: R::METHOD,
            paths: paths.iter().map(|path| path.clone().into_owned()).collect(),
            names: R::PATH_BUILDER.all_paths().map(name).collect(),
            // That of application services is looked at like any other, although none of them holds it.
            takes_token: ["AccessToken", "AccessTokenOptional", "AppserviceToken"].contains(&scheme),
            open_to: OpenTo::of::<R>(),
        };
        ENDPOINTS.with_borrow_mut(|endpoints| endpoints.push(endpoint));
    }

    pub(crate) fn take() -> Vec<Endpoint> {
        ENDPOINTS.take()
    }
}
