//! Pages for people, where a browser asks instead of a client.
//!
//! There are few and they are small, so they are texts in their handlers, and whatever is put into one goes through
//! [`escape`].

use aws_lc_rs::digest;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use ruma::serde::{Base64, base64::Standard};

const STYLE: &str = ":root{color-scheme:light dark}\
    body{font:18px/1.5 sans-serif;max-width:32em;margin:4em auto;padding:0 1em}\
    button{font:inherit}code{overflow-wrap:anywhere}";

/// A page that loads nothing, runs nothing, sends nothing, is shown in no other page and passes its address on to
/// nobody. What is in `title` and `body` has been escaped.
pub(super) fn html(status: StatusCode, title: &str, body: &str) -> Response {
    answer(status, (title, body), "'none'")
}

/// A page with a form, which leads to this server and, by its answer, to a page of `onward`, an origin.
pub(super) fn html_with_form(title: &str, body: &str, onward: Option<&str>) -> Response {
    // Some browsers want the page named that a form's answer sends people on to.
    let targets = onward.map_or_else(|| "'self'".to_owned(), |origin| format!("'self' {origin}"));
    answer(StatusCode::OK, (title, body), &targets)
}

fn answer(status: StatusCode, (title, body): (&str, &str), form_targets: &str) -> Response {
    let page = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>{title}</title><style>{STYLE}</style><h1>{title}</h1>{body}</html>\n"
    );
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8".to_owned()),
        (header::CONTENT_SECURITY_POLICY, policy(form_targets)),
        (header::REFERRER_POLICY, "no-referrer".to_owned()),
        (header::CACHE_CONTROL, "no-store".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
    ];
    (status, headers, page).into_response()
}

/// Only our own style counts, and forms lead to nobody else.
fn policy(form_targets: &str) -> String {
    let style = Base64::<Standard, _>::new(digest::digest(&digest::SHA256, STYLE.as_bytes()));
    // Browsers want the padding that Matrix leaves out.
    format!(
        "default-src 'none'; style-src 'sha256-{}='; form-action {form_targets}; base-uri 'none'; \
         frame-ancestors 'none'",
        style.encode()
    )
}

/// A text as it is written within a page, in an attribute too.
pub(super) fn escape(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut escaped, character| {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
        escaped
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_names_the_style_by_its_hash() {
        let policy = policy("'none'");
        let hash = policy.split("'sha256-").nth(1).and_then(|rest| rest.split('\'').next()).unwrap();
        assert_eq!(hash.len(), 44, "32 bytes in base64: {policy}");
        assert!(hash.ends_with('=') && !policy.contains("unsafe"), "{policy}");
    }
}
