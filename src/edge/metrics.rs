//! Prometheus metrics: what an operator watches, on a listener of its own.
//!
//! Names carry their units. Labels have few values: routes are templates, never paths.
//!
//! What is counted where it happens are counters of this file; what can be looked up (memory, files, connections, disk)
//! is asked for only when the metrics are read. Reading them costs the database nothing.

mod caches;
mod federation_sender;
mod full_inboxes;
mod inbound;
mod media_store;
mod process;
mod resources;
mod servers_asked;
mod strike;
mod uploads;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{StatusCode, header};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Registry, Unit},
};
use ruma::{DeviceId, UserId};

use self::{
    caches::CacheCollector,
    federation_sender::SenderMetrics,
    full_inboxes::FullInboxes,
    inbound::{InboundMetrics, KindLabel, OutcomeLabel},
    media_store::MediaStoreMetrics,
    process::Process,
    resources::ResourceCollector,
    servers_asked::ServersAsked,
    strike::{LimitLabel, Strikes},
    uploads::UploadMetrics,
};
pub use self::{
    resources::{Pool, ProcessResources},
    strike::Strike,
};
use crate::{
    edge::telemetry::{known_method, route},
    ground::weighed::Weighed,
};

/// Of the answer to `/metrics`.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Seconds. Long polls end up in the last ones.
const REQUEST_BUCKETS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];
/// Seconds.
const COMMIT_BUCKETS: [f64; 11] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0];
/// Entries. A batch holds at most a few hundred, see `log/commit.rs`.
const BATCH_BUCKETS: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// The process's metrics. Clones count into the same ones.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

/// Each metric here is also in `registry`, which shares its numbers.
struct Inner {
    registry: Registry,
    http: HttpMetrics,
    log: LogMetrics,
    waiting_syncs: Gauge,
    connections: Gauge,
    held: Gauge,
    strikes: Strikes,
    nodes: Gauge,
    forwarded: Counter,
    forwards_given_up: Counter,
    rate_limited: Family<LimitLabel, Counter>,
    to_device_unsent: Counter,
    full_inboxes: FullInboxes,
    inbound: InboundMetrics,
    uploads: UploadMetrics,
    failed_logins: Family<ReasonLabel, Counter>,
    media_stores: MediaStoreMetrics,
    servers_asked: ServersAsked,
    federation_sender: SenderMetrics,
    /// Empty until [`Metrics::watch`].
    watched: ResourceCollector,
    /// Empty until [`Metrics::watch_caches`].
    caches: CacheCollector,
}

/// Of requests on all listeners but that of the metrics.
#[derive(Default)]
struct HttpMetrics {
    requests: Family<RequestLabels, Counter>,
    durations: Durations,
    in_flight: Gauge,
}

/// By route alone: with method and status each histogram would be there a dozen times.
struct Durations(Family<RouteLabel, Histogram>);

impl Default for Durations {
    fn default() -> Self {
        Self(Family::new_with_constructor(|| Histogram::new(REQUEST_BUCKETS)))
    }
}

/// Of batches that this node committed; those of others are read and not counted.
struct LogMetrics {
    commits: Counter,
    batch_entries: Histogram,
    commit_duration: Histogram,
}

/// Each combination is a series of its own, so none of these may be a client's free choice.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    route: String,
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabel {
    route: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// Why somebody could not log in, or not confirm who they are. Their names are labels that operators have alerts on, so
/// they stay as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginFailure {
    NoSuchUser,
    WrongPassword,
    InvalidToken,
    Deactivated,
    Locked,
    /// Of somebody who is logged in and was asked for their password again.
    NotConfirmed,
    /// At registration with the shared secret.
    WrongSecret,
}

impl LoginFailure {
    const ALL: [Self; 7] = [
        Self::NoSuchUser,
        Self::WrongPassword,
        Self::InvalidToken,
        Self::Deactivated,
        Self::Locked,
        Self::NotConfirmed,
        Self::WrongSecret,
    ];

    /// As the log and the metrics call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoSuchUser => "no_such_user",
            Self::WrongPassword => "wrong_password",
            Self::InvalidToken => "invalid_token",
            Self::Deactivated => "deactivated",
            Self::Locked => "locked",
            Self::NotConfirmed => "not_confirmed",
            Self::WrongSecret => "wrong_secret",
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Independent of any other: tests have one for each server, where a global registry would mix them.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Process));
        let ours = registry.sub_registry_with_prefix("hearth");
        ours.register("build", "The running version", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        let http = HttpMetrics::register(ours);
        let log = LogMetrics::register(ours);
        let waiting_syncs = Gauge::default();
        ours.register("waiting_syncs", "Syncs that wait for something new", waiting_syncs.clone());
        let (connections, held, strikes) = register_callers(ours);
        let nodes = Gauge::default();
        ours.register("nodes", "Living nodes on this database, as this one sees them", nodes.clone());
        let forwarded = Counter::default();
        ours.register("forwarded_requests", "Requests that the room's preferred node answered", forwarded.clone());
        let forwards_given_up = Counter::default();
        let help = "Requests that waited for a room's preferred node in vain and were served here";
        ours.register("forwards_given_up", help, forwards_given_up.clone());
        let rate_limited = Family::default();
        let help = "Requests refused because of a limit in `rate_limits`";
        ours.register("rate_limited_requests", help, rate_limited.clone());
        let to_device_unsent = Counter::default();
        let help = "Messages to devices of other servers, which are accepted and not sent yet";
        ours.register("to_device_unsent", help, to_device_unsent.clone());
        let full_inboxes = FullInboxes::default();
        let help = "Messages to devices that were left out because as much waits for the device as may";
        ours.register("to_device_inbox_full", help, full_inboxes.left_out.clone());
        let inbound = InboundMetrics::register(ours);
        let uploads = UploadMetrics::register(ours);
        let failed_logins = Family::<ReasonLabel, Counter>::default();
        // There from the start, so that the first one is seen as one more.
        for reason in LoginFailure::ALL.map(LoginFailure::as_str) {
            failed_logins.get_or_create(&ReasonLabel { reason }).inc_by(0);
        }
        let help = "Attempts to log in, or to confirm a password, that failed; not those refused by rate limits";
        ours.register("failed_logins", help, failed_logins.clone());
        let media_stores = MediaStoreMetrics::register(ours);
        let servers_asked = ServersAsked::register(ours);
        let federation_sender = SenderMetrics::register(ours);
        let watched = ResourceCollector::default();
        ours.register_collector(Box::new(watched.clone()));
        let caches = CacheCollector::default();
        ours.register_collector(Box::new(caches.clone()));
        let inner = Inner {
            registry,
            http,
            log,
            waiting_syncs,
            connections,
            held,
            strikes,
            nodes,
            forwarded,
            forwards_given_up,
            rate_limited,
            to_device_unsent,
            full_inboxes,
            inbound,
            uploads,
            failed_logins,
            media_stores,
            servers_asked,
            federation_sender,
            watched,
            caches,
        };
        Self(Arc::new(inner))
    }

    /// Counts one committed batch of the log. `took` is from the batch's first statement, or the last part of a
    /// transaction of somebody's own rows, until the commit is known.
    pub fn batch_committed(&self, entries: usize, took: Duration) {
        let log = &self.0.log;
        log.commits.inc();
        log.batch_entries.observe(f64::from(u32::try_from(entries).unwrap_or(u32::MAX)));
        log.commit_duration.observe(took.as_secs_f64());
    }

    /// Sets how many nodes there are. This one is among them.
    pub fn set_nodes(&self, living: usize) {
        self.0.nodes.set(i64::try_from(living).unwrap_or(i64::MAX));
    }

    /// Counts a request that another node has answered.
    pub fn request_forwarded(&self) {
        self.0.forwarded.inc();
    }

    /// A request was to be answered by another node, which did not, and is served here.
    pub fn forward_given_up(&self) {
        self.0.forwards_given_up.inc();
    }

    /// Counts requests that one of the limits has refused; none, so that there is a number from the start. `limit` is
    /// its name in the code, such as `login`, which is the section's in the configuration where it has one.
    pub fn rate_limited(&self, limit: &'static str, requests: u64) {
        self.0.rate_limited.get_or_create(&LimitLabel { limit }).inc_by(requests);
    }

    /// Counts messages to devices that nobody sends on yet.
    pub fn to_device_unsent(&self, messages: usize) {
        self.0.to_device_unsent.inc_by(u64::try_from(messages).unwrap_or(u64::MAX));
    }

    /// Counts a message that was left out because as much waits for its device as may and, if it is the first one in a
    /// minute, logs for whom.
    pub fn to_device_inbox_full(&self, user_id: &UserId, device_id: &DeviceId) {
        self.0.full_inboxes.leave_out(user_id, device_id);
    }

    /// Counts a file that a user has uploaded.
    pub fn media_uploaded(&self) {
        self.0.uploads.uploads.inc();
    }

    /// Counts a file that is kept, a user's or another's: `is_new` where its bytes were stored for it, and no others like
    /// them were there.
    pub fn media_kept(&self, bytes: u64, is_new: bool) {
        self.0.uploads.kept(bytes, is_new);
    }

    /// Counts an event of another server's. `outcome` is one of a few.
    pub(crate) fn pdu_received(&self, outcome: &'static str) {
        self.0.inbound.pdus.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// Counts what another server has sent beside events. `kind` is one of a few.
    pub(crate) fn edu_received(&self, kind: &'static str) {
        self.0.inbound.edus.get_or_create(&KindLabel { kind }).inc();
    }

    /// Counts a login that has failed.
    pub fn login_failed(&self, why: LoginFailure) {
        self.0.failed_logins.get_or_create(&ReasonLabel { reason: why.as_str() }).inc();
    }

    /// Measures what a store for media has done. `operation` is one of a few.
    pub(crate) fn media_store_took(&self, store: &str, operation: &'static str, time: Duration) {
        self.0.media_stores.took(store, operation, time);
    }

    /// Shows the numbers of a store for media before there are any.
    pub(crate) fn media_store_shown(&self, store: &str, operation: &'static str) {
        self.0.media_stores.show(store, operation);
    }

    /// Counts what a store for media has not done.
    pub(crate) fn media_store_failed(&self, store: &str, operation: &'static str) {
        self.0.media_stores.failed(store, operation);
    }

    /// Counts a request to another server, and measures it. `outcome` is one of a few.
    pub(crate) fn server_asked(&self, outcome: &'static str, time: Duration) {
        self.0.servers_asked.asked(outcome, time);
    }

    /// Sets with how many other servers it stands how, of those that this node sends to.
    pub(crate) fn set_federation_destinations(&self, live: usize, catching_up: usize, owed: usize) {
        self.0.federation_sender.set_destinations(live, catching_up, owed);
    }

    /// Sets how many events wait in memory for other servers.
    pub(crate) fn set_federation_queued(&self, events: usize) {
        self.0.federation_sender.set_queued(events);
    }

    /// Counts a transaction that was sent to another server, whether or not it was taken.
    pub(crate) fn federation_transaction(&self, is_taken: bool) {
        self.0.federation_sender.transaction(is_taken);
    }

    /// Counts events that another server has taken.
    pub(crate) fn federation_events_sent(&self, events: usize) {
        self.0.federation_sender.sent.inc_by(u64::try_from(events).unwrap_or(u64::MAX));
    }

    /// Counts events that another server does not want.
    pub(crate) fn federation_events_refused(&self, events: usize) {
        self.0.federation_sender.refused.inc_by(u64::try_from(events).unwrap_or(u64::MAX));
    }

    /// Has the metrics include the database's connections and the disk from now on. Called once; a second call changes
    /// nothing.
    pub fn watch(&self, resources: ProcessResources) {
        self.0.watched.set(resources);
    }

    /// Has the metrics include what these caches take from now on. Called once; a second call changes nothing.
    pub fn watch_caches(&self, caches: Vec<Arc<dyn Weighed>>) {
        self.0.caches.set(caches);
    }

    /// Counts a sync as waiting until the result is dropped.
    #[must_use = "the sync counts as waiting only as long as this lives"]
    pub fn waiting_sync(&self) -> GaugeGuard {
        GaugeGuard::in_gauge(&self.0.waiting_syncs)
    }

    /// Counts a connection as open until the result is dropped.
    #[must_use = "the connection counts as open only as long as this lives"]
    pub fn open_connection(&self) -> GaugeGuard {
        GaugeGuard::in_gauge(&self.0.connections)
    }

    /// Adds to what is held in memory of bodies and answers that are under way; `bytes` below zero for what is not held
    /// any more.
    pub fn hold_bytes(&self, bytes: i64) {
        self.0.held.inc_by(bytes);
    }

    /// Counts that a limit has struck and, if it is the first time in a minute, logs it. `caller`: whom it struck, as
    /// far as that may be logged.
    pub fn limit_struck(&self, strike: Strike, caller: impl fmt::Display) {
        self.0.strikes.strike(strike, &caller);
    }

    /// All metrics as text, in the format that Prometheus reads. Fails only if a collector does.
    pub fn render(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.0.registry)?;
        Ok(text)
    }

    /// What the metrics listener answers: `/metrics`, and `/health` for whoever watches the watcher. It is served on an
    /// address of its own, `metrics.listen`, and asks for no credentials: the address is the protection.
    pub fn router(&self) -> Router {
        Router::new().route("/metrics", get(answer)).route("/health", get(|| async { "ok\n" })).with_state(self.clone())
    }
}

/// What callers hold, and how often that was too much.
fn register_callers(registry: &mut Registry) -> (Gauge, Gauge, Strikes) {
    let (connections, held, strikes) = (Gauge::default(), Gauge::default(), Strikes::default());
    registry.register("connections", "Open connections", connections.clone());
    let help = "Memory that bodies and answers take which are still under way, beside small ones";
    registry.register_with_unit("held", help, Unit::Bytes, held.clone());
    let help = "Connections and requests ended or refused because of a limit in `connections`";
    registry.register("limits_struck", help, strikes.counts.clone());
    (connections, held, strikes)
}

impl HttpMetrics {
    fn register(registry: &mut Registry) -> Self {
        let http = Self::default();
        let help = "Requests by method, route and class of status; `cancelled` if the client has left";
        registry.register("http_requests", help, http.requests.clone());
        let help = "Time from a request's headers to its answer's";
        registry.register_with_unit("http_request_duration", help, Unit::Seconds, http.durations.0.clone());
        registry.register("http_requests_in_flight", "Requests being answered", http.in_flight.clone());
        http
    }
}

impl LogMetrics {
    fn register(registry: &mut Registry) -> Self {
        let log = Self {
            commits: Counter::default(),
            batch_entries: Histogram::new(BATCH_BUCKETS),
            commit_duration: Histogram::new(COMMIT_BUCKETS),
        };
        registry.register("log_commits", "Batches committed to the log", log.commits.clone());
        registry.register("log_batch_entries", "Entries of a committed batch", log.batch_entries.clone());
        let help = "Time of a batch's transaction";
        registry.register_with_unit("log_commit_duration", help, Unit::Seconds, log.commit_duration.clone());
        log
    }
}

/// Something counted while it lasts.
pub struct GaugeGuard(Gauge);

impl GaugeGuard {
    fn in_gauge(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Middleware: counts the request and measures it.
pub(crate) async fn track(State(metrics): State<Metrics>, request: Request, next: Next) -> Response {
    let labels = RequestLabels {
        method: known_method(request.method()),
        route: route(&request).to_owned(),
        status: "cancelled",
    };
    let mut tracked = RequestTimer { metrics: &metrics, labels, started: Instant::now() };
    let _in_flight = GaugeGuard::in_gauge(&metrics.0.http.in_flight);
    let response = next.run(request).await;
    tracked.labels.status = class(response.status());
    response
}

/// A request that is counted when it ends, be it because its client has hung up.
struct RequestTimer<'a> {
    metrics: &'a Metrics,
    labels: RequestLabels,
    started: Instant,
}

impl Drop for RequestTimer<'_> {
    fn drop(&mut self) {
        let http = &self.metrics.0.http;
        http.requests.get_or_create(&self.labels).inc();
        let route = RouteLabel { route: std::mem::take(&mut self.labels.route) };
        http.durations.0.get_or_create(&route).observe(self.started.elapsed().as_secs_f64());
    }
}

/// Five classes rather than sixty codes: each is a series for every route.
fn class(status: StatusCode) -> &'static str {
    match status.as_u16() / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}

async fn answer(State(metrics): State<Metrics>) -> Response {
    match metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics cannot be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, middleware};
    use tower::ServiceExt as _;

    use super::*;

    async fn call(metrics: &Metrics, path: &str) -> StatusCode {
        let router = Router::new()
            .route("/rooms/{room}", get(|| async { "here" }))
            .route("/slow", get(std::future::pending::<()>))
            .layer(middleware::from_fn_with_state(metrics.clone(), track));
        let request = Request::get(path).body(Body::empty()).unwrap();
        router.oneshot(request).await.unwrap().status()
    }

    #[tokio::test]
    async fn requests_are_counted_by_template_and_class() {
        let metrics = Metrics::new();
        call(&metrics, "/rooms/a").await;
        call(&metrics, "/rooms/b").await;
        call(&metrics, "/elsewhere").await;

        let text = metrics.render().unwrap();
        for line in [
            r#"hearth_http_requests_total{method="GET",route="/rooms/{room}",status="2xx"} 2"#,
            r#"hearth_http_requests_total{method="GET",route="none",status="4xx"} 1"#,
            r#"hearth_http_request_duration_seconds_count{route="/rooms/{room}"} 2"#,
            "hearth_http_requests_in_flight 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[tokio::test]
    async fn a_request_whose_client_leaves_is_counted_too() {
        let metrics = Metrics::new();
        let call = call(&metrics, "/slow");
        assert!(tokio::time::timeout(Duration::from_millis(10), call).await.is_err());

        let text = metrics.render().unwrap();
        assert!(text.contains(r#"route="/slow",status="cancelled"} 1"#), "{text}");
        assert!(text.contains("hearth_http_requests_in_flight 0"), "{text}");
    }

    #[test]
    fn names_carry_their_units() {
        let metrics = Metrics::new();
        metrics.batch_committed(3, Duration::from_millis(4));
        let waiting = metrics.waiting_sync();

        let text = metrics.render().unwrap();
        for line in [
            "hearth_log_commits_total 1",
            "hearth_log_batch_entries_sum 3.0",
            "hearth_log_commit_duration_seconds_count 1",
            "hearth_waiting_syncs 1",
            concat!("hearth_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        drop(waiting);
        assert!(metrics.render().unwrap().contains("hearth_waiting_syncs 0"));
    }
}
