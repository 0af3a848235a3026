//! What a browser finds that somebody points at the server: that it is one, whether it works, and how to go on.

use std::net::IpAddr;

use axum::{
    Router,
    extract::{Request, State},
    response::Response,
    routing::get,
};
use http::{HeaderMap, HeaderName, StatusCode, Uri, header, uri::Authority};

use super::{
    health::known_trouble,
    page::{escape, html},
};
use crate::{app::App, config::RegistrationMode};

const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

pub(super) fn routes(router: Router<App>) -> Router<App> {
    router.route("/", get(front_page))
}

async fn front_page(State(app): State<App>, request: Request) -> Response {
    let (status, state) = match known_trouble(&app) {
        None => (StatusCode::OK, "It is ready.".to_owned()),
        Some(trouble) => (StatusCode::SERVICE_UNAVAILABLE, format!("It is not ready: {}.", escape(trouble))),
    };
    let (name, version) = (escape(app.server_name.as_str()), env!("CARGO_PKG_VERSION"));
    let homeserver = escape(&homeserver(&app, &request));
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
    html(status, &name, &body)
}

/// What to type into a client: as the operator says, else where the browser found this page.
fn homeserver(app: &App, request: &Request) -> String {
    if let Some(url) = &app.discovery.client_base_url {
        return url.clone();
    }
    find_origin(request.uri(), request.headers()).unwrap_or_else(|| format!("https://{}", app.server_name))
}

/// The origin of a request, as far as it tells. Nobody but whoever sent it is shown this.
fn find_origin(uri: &Uri, headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let host = uri.authority().map(Authority::as_str).or_else(|| text(header::HOST))?;
    let scheme = text(FORWARDED_PROTO).or_else(|| uri.scheme_str()).filter(|scheme| ["http", "https"].contains(scheme));
    // Without TLS it is at most this network that is spoken to.
    let guessed = if is_nearby(host) { "http" } else { "https" };
    Some(format!("{}://{host}", scheme.unwrap_or(guessed)))
}

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
