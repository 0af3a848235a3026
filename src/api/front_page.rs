//! What a browser finds that somebody points at the server: that it is one, whether it works, and how to go on.
//!
//! It is for people who have typed the address of their server into a browser, so it says what to do next. No request
//! of a client leads here.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, StatusCode, Uri, header, uri::Authority};
use ruma::api::auth_scheme::NoAuthentication;

use super::{
    endpoint::RawAnswer,
    error::ApiResult,
    extract::Call,
    health::not_ready_reason,
    json::Json,
    own::{Download, own_request},
    page::{escape, html},
    route::Endpoints,
};
use crate::{app::App, config::RegistrationMode};

/// What reverse proxies that end TLS set. Anybody can set it, but it only decides what its sender reads.
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint::<Download<FrontPage>, _, _>(front_page)
}

own_request!(
    /// Somebody's browser, and where it believes to be.
    FrontPage { origin: Option<String> }: GET NoAuthentication path "/" -> Json,
    |request, _path| Ok(Self { origin: find_origin(request.uri(), request.headers()) })
);

/// 503 where the server is not ready, so that status and text agree. Nothing here costs the database anything, because
/// anybody may load it as often as they like.
async fn front_page(app: App, call: Call<Download<FrontPage>>) -> ApiResult<RawAnswer> {
    let (status, state) = match not_ready_reason(&app) {
        None => (StatusCode::OK, "It is ready.".to_owned()),
        Some(trouble) => (StatusCode::SERVICE_UNAVAILABLE, format!("It is not ready: {}.", escape(trouble))),
    };
    let (name, version) = (escape(app.server_name.as_str()), env!("CARGO_PKG_VERSION"));
    let homeserver = escape(&homeserver(&app, call.request.0.origin));
    let register = match app.accounts.registration_mode() {
        RegistrationMode::Open => "You can register there.",
        RegistrationMode::Token => "You can register there if you have a token.",
        RegistrationMode::Closed => "Whoever runs this server makes accounts.",
    };
    let help = app.discovery.support_page.as_deref().map(escape);
    let help = help.map(|page| format!("<p><a href=\"{page}\">Help with this server</a></p>")).unwrap_or_default();
    let body = format!(
        "<p>This is a Matrix homeserver, Hearth {version}. {state}</p>\
         <p>People use it with a Matrix client. In yours, choose another homeserver than the one it offers, and type\
         </p><p><code>{homeserver}</code></p>\
         <p>{register} Names here look like <code>@alice:{name}</code>.</p>{help}"
    );
    Ok(html(status, &name, &body).into())
}

/// What to type into a client: as the operator says, else where the browser found this page.
///
/// An origin in the header may be a proxy's inner name; with `well_known.client_base_url` the operator says better.
fn homeserver(app: &App, origin: Option<String>) -> String {
    app.discovery.client_base_url.clone().or(origin).unwrap_or_else(|| format!("https://{}", app.server_name))
}

/// The origin of a request, as far as its headers say. Nobody but whoever sent it is shown this.
fn find_origin(uri: &Uri, headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let host = uri.authority().map(Authority::as_str).or_else(|| text(header::HOST))?;
    let scheme = text(FORWARDED_PROTO).or_else(|| uri.scheme_str()).filter(|scheme| ["http", "https"].contains(scheme));
    // Without TLS it is at most this network that is spoken to.
    let guessed = if is_nearby(host) { "http" } else { "https" };
    Some(format!("{}://{host}", scheme.unwrap_or(guessed)))
}

/// Whether a host, with or without a port, is this machine or an address: neither has a certificate as a rule.
fn is_nearby(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, port)| if port.ends_with(']') { host } else { name });
    name == "localhost" || name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_origin_is_where_the_browser_is() {
        let origin = |uri: &str, host: Option<&str>, scheme: Option<&str>| {
            let mut headers = HeaderMap::new();
            for (name, value) in [(header::HOST, host), (FORWARDED_PROTO, scheme)] {
                headers.extend(value.map(|value| (name, value.parse().unwrap())));
            }
            find_origin(&uri.parse().unwrap(), &headers)
        };
        for (uri, host, scheme, found) in [
            ("/", Some("127.0.0.1:8008"), None, Some("http://127.0.0.1:8008")),
            ("/", Some("[::1]:8008"), None, Some("http://[::1]:8008")),
            ("/", Some("[::1]"), None, Some("http://[::1]")),
            ("/", Some("localhost:8008"), None, Some("http://localhost:8008")),
            ("/", Some("matrix.example.org"), None, Some("https://matrix.example.org")),
            ("/", Some("matrix.example.org"), Some("http"), Some("http://matrix.example.org")),
            ("/", Some("10.0.0.5"), Some("https"), Some("https://10.0.0.5")),
            ("/", Some("matrix.example.org"), Some("javascript"), Some("https://matrix.example.org")),
            ("http://127.0.0.1:8008/", None, None, Some("http://127.0.0.1:8008")),
            ("https://matrix.example.org:8448/", None, None, Some("https://matrix.example.org:8448")),
            ("/", None, None, None),
        ] {
            assert_eq!(origin(uri, host, scheme).as_deref(), found, "{uri} {host:?} {scheme:?}");
        }
    }
}
