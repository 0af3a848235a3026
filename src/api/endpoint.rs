//! What an endpoint is: where it lies, who may call it and under which rules, what it reads and what it answers, all of
//! it said by the type of its request.
//!
//! Where it lies is ruma's metadata. Who may call it and the rules stand in one table, `api/policy.rs`.
//!
//! That these are traits and not values has two uses: a combination that can't work, such as a signature over a body
//! that is a stream, does not compile, and a handler gets exactly the caller that its policy lets through.

use std::{io, net::IpAddr};

use axum::{body::Body, response::Response};
use bytes::{Bytes, BytesMut};
use futures_util::stream::BoxStream;
use http::{HeaderValue, Method, header::CONTENT_TYPE, request::Parts};
use ruma::{
    ServerName, UserId,
    api::{IncomingRequest, Metadata, OutgoingResponse, OutgoingResponseExt as _},
};

use super::{
    body::{BodyLimits, BodyStream, WholeBody},
    error::ApiResult,
    read::read,
};
use crate::{
    app::App,
    error::Error,
    people::{
        account::{Pace, Restrictions},
        rate_limit::Limit,
    },
};

/// Enough for any event with white space in it, in bytes. Endpoints with larger or smaller bodies say so.
const BODY_LIMIT: usize = 256 * 1024;

/// Who may call an endpoint, and under which rules.
pub(crate) trait Policy: Metadata {
    type Who: Callers;

    fn rules() -> Rules;
}

/// A request that an endpoint can be made of. Every request of ruma's is one, read whole and answered whole.
pub(crate) trait Endpoint: Policy + Sized + Send + 'static {
    /// How the body is taken: [`WholeBody`] up to its limit, or as a [`BodyStream`].
    type Body: ReceiveBody + Proves<Self::Who>;
    type Answer: Answer;

    fn read(parts: &Parts, path: &[&str], body: Self::Body) -> ApiResult<Self>;
}

impl<R: IncomingRequest + Policy + Send + 'static> Endpoint for R {
    type Body = WholeBody;
    type Answer = R::OutgoingResponse;

    fn read(parts: &Parts, path: &[&str], body: WholeBody) -> ApiResult<Self> {
        read(parts, path, &body.0)
    }
}

/// Those who may call an endpoint, in two steps.
///
/// The head of a request says who sends it, and is judged before anything of the body is read, so that a stranger
/// learns nothing from how a body is judged. Where the body is signed, that is only a claim, which the body proves.
pub(crate) trait Callers {
    /// What the head says.
    type Claim: Send;
    type Caller: Send + Sync;

    /// Judges the head of a request. `address` is where it comes from, as far as trusted proxies say.
    fn judge_head(
        app: &App,
        parts: &Parts,
        address: IpAddr,
        rules: &Rules,
    ) -> impl Future<Output = ApiResult<Self::Claim>> + Send;

    /// Judges a body, as it was sent, by what the head claims.
    fn judge_body(claim: Self::Claim, body: &[u8]) -> ApiResult<Self::Caller>;

    /// Whether they have to be judged again because something of their account has changed since.
    fn has_changed(claim: &Self::Claim) -> bool;

    /// The account that the head proves, if it proves one: their body is charged to them while it comes, and not to the
    /// address that they may share with others.
    fn sender(claim: &Self::Claim) -> Option<&UserId>;

    /// The account whose acts are counted, if it is one that calls.
    fn account(caller: &Self::Caller) -> Option<(&UserId, Pace)>;

    /// The other server whose acts are counted, if it is one that calls.
    fn server(_: &Self::Caller) -> Option<&ServerName> {
        None
    }

    /// The rules of an endpoint of theirs of which nothing else is said.
    fn rules(method: &Method) -> Rules {
        Rules::of(method)
    }
}

/// Callers whom the head of a request proves alone, so that its body can be handed over before it is there.
pub(crate) trait KnownByHead: Callers<Claim = <Self as Callers>::Caller> {}

/// A body that proves what the head claims of it.
pub(crate) trait Proves<W: Callers> {
    fn prove(&self, claim: W::Claim) -> ApiResult<W::Caller>;
}

impl<W: Callers> Proves<W> for WholeBody {
    fn prove(&self, claim: W::Claim) -> ApiResult<W::Caller> {
        W::judge_body(claim, &self.0)
    }
}

impl<W: KnownByHead> Proves<W> for BodyStream {
    fn prove(&self, claim: W::Claim) -> ApiResult<W::Caller> {
        Ok(claim)
    }
}

/// A way to take the body of a request.
pub(crate) trait ReceiveBody: Send + Sized {
    fn receive(body: Body, limits: BodyLimits) -> impl Future<Output = ApiResult<Self>> + Send;

    /// What of it is here already.
    fn bytes(&self) -> Option<&[u8]>;
}

impl ReceiveBody for WholeBody {
    async fn receive(body: Body, limits: BodyLimits) -> ApiResult<Self> {
        BodyStream::new(body, limits).collect().await.map(Self)
    }

    fn bytes(&self) -> Option<&[u8]> {
        Some(&self.0)
    }
}

impl ReceiveBody for BodyStream {
    async fn receive(body: Body, limits: BodyLimits) -> ApiResult<Self> {
        Ok(Self::new(body, limits))
    }

    fn bytes(&self) -> Option<&[u8]> {
        None
    }
}

/// What a handler returns.
pub(crate) trait Answer {
    fn write(self) -> ApiResult<http::Response<AnswerBody>>;
}

/// The body of an answer.
pub(crate) enum AnswerBody {
    /// All of it is in memory. It takes room there until it is read, see `edge/serve/answers.rs`.
    Whole(Bytes),
    /// It is made while it is read, part by part, each of which takes room.
    Parts(BoxStream<'static, io::Result<Bytes>>),
    /// It is made while it is read in pieces that need not be counted, or very small.
    Streamed(Body),
}

impl From<AnswerBody> for Body {
    fn from(body: AnswerBody) -> Self {
        match body {
            AnswerBody::Whole(whole) => whole.into(),
            AnswerBody::Parts(parts) => Body::from_stream(parts),
            AnswerBody::Streamed(body) => body,
        }
    }
}

impl<A: OutgoingResponse> Answer for A {
    fn write(self) -> ApiResult<http::Response<AnswerBody>> {
        let response = self.try_into_http_response::<BytesMut>().map_err(Error::broken)?;
        Ok(response.map(|body| AnswerBody::Whole(body.freeze())))
    }
}

/// An answer that the handler writes itself: a page, or a body that is made while it is read.
pub(crate) struct RawAnswer(pub(crate) http::Response<AnswerBody>);

impl From<Response> for RawAnswer {
    fn from(response: Response) -> Self {
        Self(response.map(AnswerBody::Streamed))
    }
}

impl RawAnswer {
    /// JSON that is written already, or is being written.
    pub(crate) fn json(body: AnswerBody) -> Self {
        let mut response = http::Response::new(body);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Self(response)
    }
}

impl Answer for RawAnswer {
    fn write(self) -> ApiResult<http::Response<AnswerBody>> {
        Ok(self.0)
    }
}

/// What is decided about a request without looking inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(crate) open_to: OpenTo,
    pub(crate) forwarding: Forwarding,
    /// How long a body may be, in bytes.
    pub(crate) body_limit: usize,
    pub(crate) rate_limit: RateLimit,
    /// Where it is not the handler that counts.
    pub(crate) cost: Cost,
    pub(crate) freshness: Freshness,
    pub(crate) availability: Availability,
}

/// To which accounts an endpoint is open.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#account-locking> and
/// <https://spec.matrix.org/v1.19/client-server-api/#account-suspension>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OpenTo {
    Locked,
    Suspended,
    Unrestricted,
}

/// On which node a request is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forwarding {
    /// Where it arrives.
    Here,
    /// On the preferred node of the room that the path begins with. Only for requests that name their transaction: one
    /// may be done by two nodes, the second time long after the client has gone on.
    ToRoom,
    /// There too, unless something is to be sent later: that is written in no room yet, and scheduling may not be
    /// repeated.
    ToRoomUnlessDelayed,
}

/// Out of which bucket a call is paid for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RateLimit {
    /// Nobody has decided yet, which a test does not let pass.
    Undecided,
    /// As often as one likes, and why that does no harm.
    Unlimited(&'static str),
    /// That of the account that calls.
    PerAccount(Limit),
    /// That of the address that the call comes from.
    PerAddress(Limit),
    /// That of the other server that calls.
    PerServer(Limit),
    /// Anybody may look it up: an account pays as for reading, a stranger by their address.
    Lookup,
    /// What a call costs depends on what it asks for, so the handler counts; and what it counts, for the reader of
    /// `docs/operating.md`.
    InHandler(&'static str),
}

/// What a call costs, in the units of its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cost {
    Units(u32),
    /// One unit, and one for each time that the body has so many bytes.
    ForEach(usize),
}

impl Cost {
    /// Of a call with a body of so many bytes.
    pub(super) fn of(self, body: usize) -> u32 {
        match self {
            Self::Units(units) => units,
            Self::ForEach(bytes) => {
                let further = body.checked_div(bytes).unwrap_or_default();
                u32::try_from(further).unwrap_or(u32::MAX).saturating_add(1)
            }
        }
    }
}

/// Whether a node looks up that it knows what its callers know, before it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    Newest,
    /// Not where the client waits for news: it gets everything as it comes.
    NewestUnlessWaiting,
}

/// Whether a node may answer that the others may have forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Availability {
    Member,
    Always,
}

impl Rules {
    /// Those of an endpoint of which nothing else is said: whoever is suspended may read, and a GET counts as one read.
    pub(crate) fn of(method: &Method) -> Self {
        let reads = [Method::GET, Method::HEAD].contains(method);
        Self {
            open_to: if reads { OpenTo::Suspended } else { OpenTo::Unrestricted },
            forwarding: Forwarding::Here,
            body_limit: BODY_LIMIT,
            rate_limit: if reads { RateLimit::PerAccount(Limit::Read) } else { RateLimit::Undecided },
            cost: Cost::Units(1),
            freshness: Freshness::Newest,
            availability: Availability::Member,
        }
    }

    /// Open to suspended accounts too.
    pub(crate) fn suspended(self) -> Self {
        Self { open_to: OpenTo::Suspended, ..self }
    }

    /// Open to locked accounts too.
    pub(crate) fn locked(self) -> Self {
        Self { open_to: OpenTo::Locked, ..self }
    }

    pub(crate) fn forwarded(self, forwarding: Forwarding) -> Self {
        Self { forwarding, ..self }
    }

    /// With bodies of at most so many bytes.
    pub(crate) fn body(self, body_limit: usize) -> Self {
        Self { body_limit, ..self }
    }

    pub(crate) fn per_account(self, limit: Limit) -> Self {
        Self { rate_limit: RateLimit::PerAccount(limit), ..self }
    }

    pub(crate) fn per_address(self, limit: Limit) -> Self {
        Self { rate_limit: RateLimit::PerAddress(limit), ..self }
    }

    pub(crate) fn per_server(self, limit: Limit) -> Self {
        Self { rate_limit: RateLimit::PerServer(limit), ..self }
    }

    pub(crate) fn lookup(self) -> Self {
        Self { rate_limit: RateLimit::Lookup, ..self }
    }

    pub(crate) fn counted_by_handler(self, what: &'static str) -> Self {
        Self { rate_limit: RateLimit::InHandler(what), ..self }
    }

    pub(crate) fn unlimited(self, reason: &'static str) -> Self {
        Self { rate_limit: RateLimit::Unlimited(reason), ..self }
    }

    /// As much as so many ordinary calls.
    pub(crate) fn costs(self, units: u32) -> Self {
        Self { cost: Cost::Units(units), ..self }
    }

    /// As much as one ordinary call, and as one more for each time that the body has so many bytes.
    pub(crate) fn costs_for_each(self, bytes: usize) -> Self {
        Self { cost: Cost::ForEach(bytes), ..self }
    }

    /// Where clients wait for news.
    pub(crate) fn waits(self) -> Self {
        Self { freshness: Freshness::NewestUnlessWaiting, ..self }
    }

    /// Also on a node that the others may have forgotten.
    pub(crate) fn always(self) -> Self {
        Self { availability: Availability::Always, ..self }
    }
}

impl OpenTo {
    /// Refuses an account that may not call the endpoint as it stands.
    pub(crate) fn check(self, restrictions: Restrictions) -> ApiResult<()> {
        match self {
            Self::Locked => {}
            Self::Suspended => restrictions.check_unlocked()?,
            Self::Unrestricted => {
                restrictions.check_unlocked()?;
                restrictions.check_not_suspended()?;
            }
        }
        Ok(())
    }
}
