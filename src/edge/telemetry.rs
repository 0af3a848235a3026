//! The log: human or JSON lines on standard error, every one of a request's with its id.
//!
//! What never gets there: query strings (they may carry `access_token`), headers and bodies. A request
//! is named by the template of its route, at level `debug` also by its address and its user, and of libraries only what
//! is at least `info` is let through, because their finer levels print what passes through them. What strangers write
//! can't pass for a line (`telemetry/line.rs`).
//!
//! Levels: `error` for what an operator has to mend, `warn` for what goes on worse than it should, `info` for what
//! happens seldom and on purpose, `debug` for each request.

mod line;
mod logged_caller;

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    io, panic,
    sync::Arc,
    time::Instant,
};

use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::Response,
};
use http::{HeaderName, HeaderValue, Method};
use tracing::{Instrument as _, Level, Metadata, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer, filter, fmt,
    fmt::MakeWriter,
    layer::SubscriberExt as _,
    util::{SubscriberInitExt as _, TryInitError},
};

use self::line::{Format, LogLines};
pub(crate) use self::logged_caller::LoggedCaller;
use crate::{
    config::{LogConfig, LogFormat},
    ground::random::Random,
};

/// What the lines about requests are filtered by. Part of the documented filters, so that `hearth::http=debug` shows
/// requests and nothing else.
const HTTP: &str = "hearth::http";

/// Read from a proxy's request, and set on every answer.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Why logging cannot start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("`log.level` is not a filter: {0}")]
    Filter(#[from] filter::ParseError),
    #[error("the log has already been set up: {0}")]
    Twice(#[from] TryInitError),
}

/// Starts the log of this process, panics included. Called once by the process, before anything is logged: a second
/// call is an error.
pub fn init(log: &LogConfig) -> Result<(), TelemetryError> {
    subscriber(log, io::stderr)?.try_init()?;
    panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// A line is written if `log.level` lets it through and [`is_safe`] does too.
fn subscriber<W>(log: &LogConfig, writer: W) -> Result<impl Subscriber + Send + Sync, filter::ParseError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    // The authorization rules log every event that they allow; `log.level` can ask for that by name.
    let filter = EnvFilter::builder().parse(format!("ruma_state_res=warn,{}", log.level))?;
    let lines = match log.format {
        LogFormat::Human => {
            let colours = io::IsTerminal::is_terminal(&io::stderr());
            fmt::layer().with_writer(LogLines::new(writer, Format::Human { colours })).with_ansi(colours).boxed()
        }
        LogFormat::Json => {
            fmt::layer().with_writer(LogLines::new(writer, Format::Json)).json().flatten_event(true).boxed()
        }
    };
    Ok(tracing_subscriber::registry().with(lines).with(filter).with(filter::filter_fn(is_safe)))
}

/// Finer levels than `info` only of this program: libraries print headers, queries and bodies there.
fn is_safe(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= Level::INFO || metadata.target().starts_with("hearth")
}

/// Runs inside the span of whatever has panicked, so that the line carries its request or task. A backtrace is taken
/// where `RUST_BACKTRACE` asks for one.
fn log_panic(panic: &panic::PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let message = panic.payload_as_str().unwrap_or("a value that is no text");
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        tracing::error!(%place, %backtrace, "panic: {message}");
    } else {
        tracing::error!(%place, "panic: {message}");
    }
}

/// What a request is called, here and in the logs of the proxies in front. In its extensions. Unique enough to find
/// lines by; nothing else depends on it.
#[derive(Clone, Debug)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// 1 to 64 ASCII letters, digits, `-`, `_` and `.`, so it needs no quoting anywhere.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The proxy's id, if it is one: a stranger's text does not get into the log.
    fn from_proxy(value: &HeaderValue) -> Option<Self> {
        let id = value.to_str().ok()?;
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        ((1..=64).contains(&id.len()) && id.bytes().all(allowed)).then(|| Self(id.into()))
    }
}

/// Middleware: gives the request its id and its span, and logs how it went. A request whose client leaves before the
/// answer has no line; it is counted as cancelled ([`crate::edge::metrics`]).
pub(crate) async fn trace(State(random): State<Random>, mut request: Request, next: Next) -> Response {
    let given = request.headers().get(REQUEST_ID).and_then(RequestId::from_proxy);
    let id = given.unwrap_or_else(|| RequestId(random.token(16).into()));
    request.extensions_mut().insert(id.clone());
    let logged_caller = LoggedCaller::default();
    // Where nobody will read the line, nobody need remember who called.
    if tracing::enabled!(target: HTTP, Level::DEBUG) {
        request.extensions_mut().insert(logged_caller.clone());
    }

    let method = known_method(request.method());
    let span = tracing::info_span!("request", method, route = route(&request), request_id = id.as_str());
    let started = Instant::now();
    let mut response = next.run(request).instrument(span.clone()).await;

    let (status, took) = (response.status().as_u16(), started.elapsed());
    span.in_scope(|| {
        let (address, user) = (logged_caller.address(), logged_caller.user_id());
        if response.status().is_server_error() {
            tracing::warn!(target: HTTP, status, ?took, address, user, "answered");
        } else {
            tracing::debug!(target: HTTP, status, ?took, address, user, "answered");
        }
    });
    if let Ok(id) = HeaderValue::from_str(id.as_str()) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// The template of the request's route, `/_matrix/client/v3/rooms/{roomId}/state`: few, and nobody's. `none` for a
/// request that no route matches, whatever its path.
pub(crate) fn route(request: &Request) -> &str {
    request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str)
}

/// The method, if it is one that Matrix uses: a client may send any word.
pub(crate) fn known_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use axum::{Extension, Router, body::Body, routing::get};
    use http::StatusCode;
    use parking_lot::Mutex;
    use ruma::user_id;
    use tower::ServiceExt as _;
    use tracing::instrument::WithSubscriber as _;

    use super::*;
    use crate::edge::{
        metrics::Metrics,
        serve::{self, ClientAddress},
    };

    /// A log that can be read.
    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Page {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().clone()).unwrap()
        }
    }

    impl io::Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    async fn panic_on_purpose() {
        panic!("on purpose")
    }

    async fn whoever(Extension(logged_caller): Extension<LoggedCaller>) {
        logged_caller.set_user(user_id!("@alice:example.org"));
    }

    /// Sends a request to a small server and returns the answer with all that was logged meanwhile.
    async fn logged(format: LogFormat, request: http::request::Builder) -> (Response, String) {
        let router = Router::new()
            .route("/rooms/{room}/state", get(|| async { tracing::info!("inside") }))
            .route("/me", get(whoever))
            .route("/panic", get(panic_on_purpose));
        let router = serve::layer(router, &Metrics::new(), &Random::seeded(1));
        let page = Page::default();
        let writer = page.clone();
        let log = LogConfig { level: "trace".to_owned(), format };
        let subscriber = subscriber(&log, move || writer.clone()).unwrap();
        let mut request = request.body(Body::from("BODY-SECRET")).unwrap();
        request.extensions_mut().insert(ClientAddress([192, 0, 2, 7].into()));
        let response = router.oneshot(request).with_subscriber(subscriber).await.unwrap();
        (response, page.text())
    }

    #[tokio::test]
    async fn no_token_and_no_body_gets_into_the_log() {
        for format in [LogFormat::Human, LogFormat::Json] {
            for path in ["/rooms/ROOM-SECRET/state", "/panic", "/nowhere/PATH-SECRET"] {
                let request = Request::get(format!("{path}?access_token=QUERY-SECRET"))
                    .header("authorization", "Bearer HEADER-SECRET")
                    .header("x-request-id", "bad id SECRET");
                let (_, log) = logged(format, request).await;
                assert!(log.contains("answered"), "{log}");
                assert!(!log.contains("SECRET"), "{log}");
            }
        }
    }

    #[tokio::test]
    async fn every_line_of_a_request_names_it() {
        let request = Request::get("/rooms/a/state").header("x-request-id", "from-the-proxy.1");
        let (response, log) = logged(LogFormat::Json, request).await;
        assert_eq!(response.headers()["x-request-id"], "from-the-proxy.1");
        let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2, "{log}");
        for line in &lines {
            assert_eq!(line["span"]["request_id"], "from-the-proxy.1");
            assert_eq!(line["span"]["route"], "/rooms/{room}/state");
            assert_eq!(line["span"]["method"], "GET");
        }
        assert_eq!(lines[1]["status"], 200);
    }

    #[tokio::test]
    async fn a_request_is_told_with_its_address_and_its_user() {
        let (_, log) = logged(LogFormat::Json, Request::get("/me")).await;
        let line: serde_json::Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
        assert_eq!((&line["address"], &line["user"]), (&"192.0.2.7".into(), &"@alice:example.org".into()), "{log}");
        assert_eq!(line["level"], "DEBUG");

        let (_, log) = logged(LogFormat::Human, Request::get("/rooms/a/state")).await;
        assert!(log.contains("address=\"192.0.2.7\"") && !log.contains("user="), "{log}");
    }

    #[test]
    fn a_text_of_a_stranger_is_no_line() {
        let page = Page::default();
        let writer = page.clone();
        let log = LogConfig { level: "info".to_owned(), format: LogFormat::Human };
        let subscriber = subscriber(&log, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(name = %"a\n2027-01-01T00:00:00Z  INFO hearth: all is well\x1b[2J", "no such {}", "room\rX");
        });
        let log = page.text();
        assert!(log.lines().all(|line| line.starts_with("  | ") || line.contains("no such")), "{log:?}");
        assert!(!log.contains(['\r', '\x1b']), "{log:?}");
    }

    #[tokio::test]
    async fn an_id_that_is_none_is_replaced() {
        for id in ["", "two words", "x\"y", &"a".repeat(65)] {
            let request = Request::get("/rooms/a/state").header("x-request-id", id);
            let (response, _) = logged(LogFormat::Human, request).await;
            let given = response.headers()["x-request-id"].to_str().unwrap();
            assert_ne!(given, id);
            assert_eq!(given.len(), 16);
        }
    }

    #[tokio::test]
    async fn a_panic_is_answered_with_the_id_that_the_log_has() {
        let request = Request::get("/panic").header("x-request-id", "abc");
        let (response, log) = logged(LogFormat::Human, request).await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["errcode"], "M_UNKNOWN");
        assert!(body["error"].as_str().unwrap().ends_with("under request abc"), "{body}");
        assert!(log.contains("panicked") && log.contains("abc"), "{log}");
    }

    #[test]
    fn libraries_are_heard_from_info_on() {
        let page = Page::default();
        let writer = page.clone();
        let log = LogConfig { level: "trace".to_owned(), format: LogFormat::Human };
        let subscriber = subscriber(&log, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!(target: "h2", "HEADERS");
            tracing::info!(target: "sqlx", "slow");
            tracing::trace!(target: "hearth::room", "ours");
        });
        let log = page.text();
        assert!(!log.contains("HEADERS") && log.contains("slow") && log.contains("ours"), "{log}");
    }
}
