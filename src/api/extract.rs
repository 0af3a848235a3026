//! From an HTTP request to a call of an endpoint, by somebody who may call it.
//!
//! The order matters for strangers: nobody who may not call an endpoint learns from it whether a body is well formed,
//! and nobody makes the server read a body for which they have no token. Rate limits come before what is asked for is
//! read, because that costs something too.

use std::net::IpAddr;

use axum::{RequestPartsExt as _, body::Body, extract::RawPathParams};
use http::request::Parts;

use super::{
    body::BodyLimits,
    endpoint::{Callers, Endpoint, Policy, Proves as _, RateLimit, ReceiveBody as _, Rules},
    error::ApiResult,
    forward::address_of,
};
use crate::{app::App, edge::serve::budget::Holder, error::Error, people::rate_limit::Limit};

/// A call of endpoint `R`, by somebody whom the type names.
pub(crate) struct Call<R: Policy> {
    pub(crate) request: R,
    pub(crate) caller: <R::Who as Callers>::Caller,
    /// Where the call came from, as far as trusted proxies report it.
    pub(crate) address: IpAddr,
}

impl<R: Endpoint> Call<R> {
    /// Judges the head, then what the body proves, and only then what is asked for.
    pub(super) async fn read(app: &App, mut parts: Parts, body: Body, rules: &Rules) -> ApiResult<Self> {
        let address = address_of(&parts);
        let mut claim = R::Who::judge_head(app, &parts, address, rules).await?;
        let sender = R::Who::sender(&claim).map(|user_id| Holder::User(user_id.to_owned()));
        let limits = BodyLimits::new(app, &parts, rules.body_limit, sender.unwrap_or_else(|| Holder::at(address)));
        let body = R::Body::receive(body, limits).await?;
        // A body may take minutes to come: whoever has been logged out or locked by then does nothing any more.
        if R::Who::has_changed(&claim) {
            claim = R::Who::judge_head(app, &parts, address, rules).await?;
        }
        let caller = body.prove(claim)?;
        if let Some(server) = R::Who::server(&caller) {
            app.destinations.heard(server);
        }
        let size = body.bytes().map_or(0, <[u8]>::len);
        count::<R>(app, &parts, &caller, address, (rules.rate_limit, rules.cost.of(size))).await?;
        let path = parts.extract::<RawPathParams>().await.map_err(unreadable_path)?;
        let path: Vec<&str> = path.iter().map(|(_, value)| value).collect();
        let request = R::read(&parts, &path, body)?;
        Ok(Self { request, caller, address })
    }
}

/// Has a call paid for, by whoever its endpoint says.
async fn count<R: Policy>(
    app: &App,
    parts: &Parts,
    caller: &<R::Who as Callers>::Caller,
    address: IpAddr,
    (limit, cost): (RateLimit, u32),
) -> ApiResult<()> {
    let limits = &app.rate_limits;
    match (limit, R::Who::account(caller)) {
        (RateLimit::PerAccount(limit), Some((user_id, pace))) => limits.check(limit, cost, user_id, pace).await?,
        (RateLimit::PerAddress(limit), _) => limits.check_address(limit, cost, address).await?,
        (RateLimit::PerServer(limit), _) => {
            if let Some(server) = R::Who::server(caller) {
                limits.check_server(limit, cost, server).await?;
            }
        }
        (RateLimit::Lookup, Some((user_id, pace))) => limits.check(Limit::Read, cost, user_id, pace).await?,
        (RateLimit::Lookup, None) => match app.remember_caller(parts) {
            Some(caller) => limits.check(Limit::Read, cost, caller.user_id(), caller.pace()).await?,
            None => limits.check_address(Limit::Lookup, cost, address).await?,
        },
        // A test sees to it that whatever counts for an account has one.
        (RateLimit::PerAccount(_) | RateLimit::Unlimited(_) | RateLimit::InHandler(_) | RateLimit::Undecided, _) => {}
    }
    Ok(())
}

fn unreadable_path(error: impl std::fmt::Display) -> Error {
    Error::invalid_param(format!("The path can't be read: {error}"))
}
