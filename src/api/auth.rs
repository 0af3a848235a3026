//! Those who may call endpoints: a handler gets its caller as a type, and can't be reached by anybody else.
//!
//! Before a token is looked up, this node reads the log up to the present, so that whoever was logged out or promoted
//! by another node is so here as well. Only a sync that waits for news does without that: it costs a look at the
//! database, and the news come anyway.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#client-authentication>

mod servers;

use std::{marker::PhantomData, net::IpAddr};

use http::request::Parts;
use ruma::{
    UserId,
    api::{auth_scheme::extract_bearer_or_query_token, error::ErrorKind},
};

pub(crate) use self::servers::{Servers, check_federates};
use super::{
    endpoint::{Callers, Freshness, KnownByHead, Rules},
    error::ApiResult,
};
use crate::{
    app::App,
    edge::telemetry::LoggedCaller,
    error::Error,
    people::{
        account::{Administrator, Appservice, Caller, Pace, User},
        rate_limit::Limit,
    },
};

/// Whoever comes. A token that is sent along is looked at only to know whose look-ups are counted.
pub(crate) struct Anybody;

/// Users who have registered.
pub(crate) struct Users;

/// Users, and guests as well.
pub(crate) struct UsersAndGuests;

/// Administrators of this server. Whoever is none learns nothing from how a body is judged.
pub(crate) struct Administrators;

/// Application services.
pub(crate) struct Appservices;

/// Strangers, and those of `W` who send a token along.
pub(crate) struct AnonymousOr<W>(PhantomData<W>);

/// Implements [`Callers`] for those whom the head of a request proves.
///
/// A macro and not one generic implementation, because each has a check of its own between the token and the handler:
/// whether guests pass, and what the endpoint's [`Rules`] say of locked and suspended accounts.
macro_rules! known_by_head {
    ($who:ty => $caller:ty, |$app:ident, $parts:ident, $address:ident, $rules:ident| $judge:expr,
     |$known:ident| $account:expr, |$judged:ident| $changed:expr) => {
        impl Callers for $who {
            type Claim = $caller;
            type Caller = $caller;

            async fn judge_head($app: &App, $parts: &Parts, $address: IpAddr, $rules: &Rules) -> ApiResult<$caller> {
                $judge
            }

            fn judge_body(claim: $caller, _: &[u8]) -> ApiResult<$caller> {
                Ok(claim)
            }

            fn has_changed($judged: &$caller) -> bool {
                $changed
            }

            fn sender(claim: &$caller) -> Option<&UserId> {
                Self::account(claim).map(|(user_id, _)| user_id)
            }

            fn account($known: &$caller) -> Option<(&UserId, Pace)> {
                $account
            }
        }

        impl KnownByHead for $who {}
    };
}

known_by_head!(Anybody => (), |_app, _parts, _address, _rules| Ok(()), |_nobody| None, |_nobody| false);

known_by_head!(Users => User, |app, parts, address, rules| {
    let user = app.find_caller(parts, address, rules).await?.into_user()?;
    rules.open_to.check(user.restrictions)?;
    Ok(user)
}, |user| Some((&user.user_id, user.pace)), |user| user.changed.is_raised());

known_by_head!(UsersAndGuests => Caller, |app, parts, address, rules| {
    let caller = app.find_caller(parts, address, rules).await?;
    rules.open_to.check(caller.restrictions())?;
    Ok(caller)
}, |caller| Some((caller.user_id(), caller.pace())), |caller| caller.changed().is_raised());

known_by_head!(Administrators => Administrator, |app, parts, address, rules| {
    Ok(Users::judge_head(app, parts, address, rules).await?.into_administrator()?)
}, |administrator| Users::account(administrator.user()), |administrator| Users::has_changed(administrator.user()));

// There are no application services yet: whoever comes with a token is somebody else.
known_by_head!(Appservices => Appservice, |app, parts, address, rules| {
    let user = Users::judge_head(app, parts, address, rules).await?;
    Err(Error::forbidden(format!("Only application services can do this, and {} is none", user.user_id)).into())
}, |appservice| match *appservice {}, |appservice| match *appservice {});

// A token that is not known is refused here as everywhere: to go on as a stranger would hide from a client that it was
// logged out.
impl<W: KnownByHead> Callers for AnonymousOr<W> {
    type Claim = Option<W::Caller>;
    type Caller = Option<W::Caller>;

    async fn judge_head(app: &App, parts: &Parts, address: IpAddr, rules: &Rules) -> ApiResult<Self::Claim> {
        match find_token(parts)? {
            Some(_) => W::judge_head(app, parts, address, rules).await.map(Some),
            None => Ok(None),
        }
    }

    fn judge_body(claim: Self::Claim, _: &[u8]) -> ApiResult<Self::Caller> {
        Ok(claim)
    }

    fn has_changed(claim: &Self::Claim) -> bool {
        claim.as_ref().is_some_and(W::has_changed)
    }

    fn sender(claim: &Self::Claim) -> Option<&UserId> {
        claim.as_ref().and_then(W::sender)
    }

    fn account(caller: &Self::Caller) -> Option<(&UserId, Pace)> {
        caller.as_ref().and_then(W::account)
    }
}

impl<W: KnownByHead> KnownByHead for AnonymousOr<W> {}

impl App {
    /// The holder of a request's token, whatever their account may do.
    ///
    /// `M_MISSING_TOKEN` where there is none, `M_UNKNOWN_TOKEN` where nobody holds it.
    async fn find_caller(&self, parts: &Parts, address: IpAddr, rules: &Rules) -> ApiResult<Caller> {
        let token = find_token(parts)?.ok_or_else(missing_token)?;
        let waits = rules.freshness == Freshness::NewestUnlessWaiting && parts.uri.query().is_some_and(waits_for_news);
        if !waits {
            self.catch_up().await?;
        }
        let caller = match self.accounts.caller(&token, address).await {
            Ok(caller) => caller,
            Err(unknown) if is_guess(&unknown) => {
                self.rate_limits.check_address(Limit::Lookup, 1, address).await?;
                return Err(unknown.into());
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(logged_caller) = parts.extensions.get::<LoggedCaller>() {
            logged_caller.set_user(caller.user_id());
        }
        Ok(caller)
    }

    /// Who sends a request for which no token is needed, if they send one along that was used here lately. Nothing is
    /// looked up for it: strangers can send any.
    pub(super) fn remember_caller(&self, parts: &Parts) -> Option<Caller> {
        self.accounts.find_remembered(&find_token(parts).ok()??)
    }

    /// Makes sure that this node knows what its caller knows: another node may have answered them a moment ago.
    ///
    /// It is a look at the end of the log, spared where no other node can have written anything.
    pub(crate) async fn catch_up(&self) -> ApiResult<()> {
        if !self.nodes.is_alone() {
            self.log.refresh().await?;
        }
        Ok(())
    }
}

/// Whether a token is one that nobody has, which anybody could send. Those that have only expired are renewed.
fn is_guess(error: &Error) -> bool {
    let Error::Refused { kind: ErrorKind::UnknownToken(data), .. } = error else { return false };
    !data.soft_logout
}

/// Whether these are the parameters of a `/sync` that goes on from a token and does not want an answer at once. A client
/// that is catching up, as its token says, gets one at once whatever it wants.
///
/// It goes by the raw query, before the request is parsed. What is spelt otherwise than clients do is looked up for
/// nothing, or answered from a node that may be a moment behind; its token then leads to the rest.
fn waits_for_news(query: &str) -> bool {
    let find = |name: &str| {
        let mut values = query.split('&').filter_map(|part| part.split_once('=')).filter(|(key, _)| *key == name);
        values.next().map(|(_, value)| value)
    };
    let goes_on =
        find("since").is_some_and(|since| !since.is_empty() && !since.ends_with('~') && !since.ends_with("%7E"));
    goes_on
        && find("timeout").is_some_and(|timeout| timeout != "0")
        && find("full_state").is_none_or(|full| full == "false")
}

/// For endpoints that take a token or something in its place, where the latter is of no use.
pub(crate) fn required(user: Option<User>) -> ApiResult<User> {
    Ok(user.ok_or_else(missing_token)?)
}

fn missing_token() -> Error {
    Error::refused(ErrorKind::MissingToken, "This needs an access token: log in and send it as Bearer token")
}

/// The token in the header or, as old clients send it, in the query.
fn find_token(parts: &Parts) -> ApiResult<Option<String>> {
    // Ruma's function takes a request and not its parts.
    let mut request = http::Request::builder().uri(parts.uri.clone()).body(()).map_err(Error::broken)?;
    request.headers_mut().clone_from(&parts.headers);
    extract_bearer_or_query_token(&request).map_err(|e| {
        Error::refused(ErrorKind::MissingToken, format!("The Authorization header can't be read: {e}")).into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_waits_if_it_has_something_to_go_on_from_and_time() {
        for query in ["since=s7&timeout=30000", "timeout=1&since=s7&filter=0", "since=s7&timeout=1&full_state=false"] {
            assert!(waits_for_news(query), "{query}");
        }
        for query in [
            "",
            "since=s7",
            "since=s7&timeout=0",
            "since=s7~&timeout=30000",
            "timeout=1&since=s7%7E",
            "timeout=30000",
            "since=s7&timeout=30000&full_state=true",
        ] {
            assert!(!waits_for_news(query), "{query}");
        }
    }
}
