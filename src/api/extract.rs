//! From an HTTP request to a call of an endpoint, by somebody who may call it.
//!
//! The order matters for strangers: nobody who may not call an endpoint learns from it whether a body is well formed,
//! and nobody makes the server read a body for which they have no token. Rate limits count what is well formed.

use std::net::IpAddr;

use axum::{RequestPartsExt as _, body::Body, extract::RawPathParams};
use http::request::Parts;

use super::{
    body::BodyLimits,
    endpoint::{Callers, Endpoint, Policy, Proves as _, RateLimit, ReceiveBody as _, Rules},
    error::ApiResult,
    forward::address_of,
};
use crate::{app::App, edge::serve::budget::Holder, error::Error};

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
        let limits = BodyLimits::new(app, &parts, rules.body_limit, Holder::at(address));
        let body = R::Body::receive(body, limits).await?;
        // A body may take minutes to come: whoever has been logged out or locked by then does nothing any more.
        if R::Who::has_changed(&claim) {
            claim = R::Who::judge_head(app, &parts, address, rules).await?;
        }
        let caller = body.prove(claim)?;
        let path = parts.extract::<RawPathParams>().await.map_err(unreadable_path)?;
        let path: Vec<&str> = path.iter().map(|(_, value)| value).collect();
        let request = R::read(&parts, &path, body)?;
        match rules.rate_limit {
            // Who has no account is counted by the handler, if at all.
            RateLimit::PerAccount(limit) => {
                if let Some((user_id, pace)) = R::Who::account(&caller) {
                    app.rate_limits.check(limit, user_id, pace).await?;
                }
            }
            RateLimit::PerAddress(limit) => app.rate_limits.check_address(limit, address).await?,
            RateLimit::Unlimited | RateLimit::InHandler => {}
        }
        Ok(Self { request, caller, address })
    }
}

fn unreadable_path(error: impl std::fmt::Display) -> Error {
    Error::invalid_param(format!("The path can't be read: {error}"))
}
