//! Answers with files: what they say of themselves, and what browsers may make of them.
//!
//! Whoever opens a file in a browser opens it at the address of this server, so nothing in it may run: it is in a sandbox,
//! its type is the one that is named, and what is not known to be harmless is saved and not shown.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#serving-inline-content> and, for the policy,
//! <https://spec.matrix.org/v1.19/client-server-api/#content-repository>

use std::ops::Range;

use axum::body::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use serde_json::json;

use super::range::{Conditions, Part};
use crate::{
    api::endpoint::{AnswerBody, RawAnswer},
    edge::object_store::ByteStream,
    media::kind::UNKNOWN,
};

/// The specification's.
const POLICY: &str = "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; \
                      style-src 'unsafe-inline'; object-src 'self';";
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
const CROSS_ORIGIN: &str = "cross-origin";
/// What a URI names never changes, but it can be deleted. So copies are not kept for ever.
const FOR_ONESELF: &str = "private, max-age=86400, immutable";
const FOR_ALL: &str = "public, max-age=86400, immutable";

/// Who may keep a copy on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Copies {
    /// The client alone.
    Private,
    /// Whoever passes it on.
    Public,
}

/// What is said of a file beside its bytes.
#[derive(Debug)]
pub(super) struct About {
    /// In quotes. Never of two different files.
    pub(super) etag: String,
    pub(super) content_type: String,
    pub(super) disposition: HeaderValue,
    pub(super) bytes: u64,
    pub(super) copies: Copies,
}

/// An answer of which the bytes are missing, if there are to be any.
pub(super) enum Begun {
    Whole(RawAnswer),
    /// These are wanted, behind this head.
    Needs(Range<u64>, Response<()>),
}

impl About {
    /// Begins the answer to a request with these conditions. `is_head`: for what it says of itself alone.
    pub(super) fn begin(&self, conditions: &Conditions, is_head: bool) -> Begun {
        if conditions.has(&self.etag) {
            let mut response = empty(StatusCode::NOT_MODIFIED);
            self.identify(response.headers_mut());
            return Begun::Whole(RawAnswer(response));
        }
        // There are no parts of what has no bytes.
        let part = if is_head { Part::All } else { conditions.part(&self.etag, self.bytes) };
        let (status, range) = match part {
            Part::All => (StatusCode::OK, 0..self.bytes),
            Part::Some(range) => (StatusCode::PARTIAL_CONTENT, range),
            Part::Beyond => return Begun::Whole(self.too_short()),
        };
        let mut head = Response::new(());
        *head.status_mut() = status;
        let headers = head.headers_mut();
        self.identify(headers);
        headers.insert(header::CONTENT_TYPE, value(&self.content_type, UNKNOWN));
        headers.insert(header::CONTENT_DISPOSITION, self.disposition.clone());
        headers.insert(header::CONTENT_LENGTH, range.end.saturating_sub(range.start).into());
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        if status == StatusCode::PARTIAL_CONTENT {
            let last = range.end.saturating_sub(1);
            let sent = format!("bytes {}-{last}/{}", range.start, self.bytes);
            headers.insert(header::CONTENT_RANGE, value(&sent, "bytes"));
        }
        if is_head {
            return Begun::Whole(RawAnswer(head.map(|()| AnswerBody::Whole(Bytes::new()))));
        }
        Begun::Needs(range, head)
    }

    /// What whoever has the file reads too.
    fn identify(&self, headers: &mut HeaderMap) {
        headers.insert(header::ETAG, value(&self.etag, "\"\""));
        let copies = match self.copies {
            Copies::Private => FOR_ONESELF,
            Copies::Public => FOR_ALL,
        };
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(copies));
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
        headers.insert(RESOURCE_POLICY, HeaderValue::from_static(CROSS_ORIGIN));
    }

    /// 416, which tells how long it is.
    fn too_short(&self) -> RawAnswer {
        let message = format!("The file has {} bytes: the range begins behind its end", self.bytes);
        let body = json!({ "errcode": "M_INVALID_PARAM", "error": message }).to_string();
        let RawAnswer(mut response) = RawAnswer::json(AnswerBody::Whole(body.into()));
        *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
        let length = format!("bytes */{}", self.bytes);
        response.headers_mut().insert(header::CONTENT_RANGE, value(&length, "bytes"));
        RawAnswer(response)
    }
}

/// The rest of an answer: bytes as the store has them, a part in memory at a time. `what` is for the log, where they end
/// too early.
pub(super) fn send(head: Response<()>, bytes: ByteStream, what: String) -> RawAnswer {
    let bytes = bytes.inspect_err(move |error| tracing::warn!(%error, %what, "a download was broken off"));
    RawAnswer(head.map(|()| AnswerBody::Parts(bytes.boxed())))
}

/// 307: the bytes are elsewhere.
pub(super) fn redirect(url: &str) -> Option<RawAnswer> {
    let mut response = empty(StatusCode::TEMPORARY_REDIRECT);
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, HeaderValue::try_from(url).ok()?);
    headers.insert(RESOURCE_POLICY, HeaderValue::from_static(CROSS_ORIGIN));
    Some(RawAnswer(response))
}

fn empty(status: StatusCode) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::Whole(Bytes::new()));
    *response.status_mut() = status;
    response
}

/// What is no value of a header becomes `otherwise`.
fn value(text: &str, otherwise: &'static str) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(otherwise))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about() -> About {
        About {
            etag: "\"abc\"".to_owned(),
            content_type: "image/png".to_owned(),
            disposition: HeaderValue::from_static("inline"),
            bytes: 10,
            copies: Copies::Private,
        }
    }

    fn conditions(name: HeaderName, text: &'static str) -> Conditions {
        Conditions::read(&[(name, HeaderValue::from_static(text))].into_iter().collect())
    }

    #[test]
    fn heads_say_what_follows() {
        let Begun::Needs(range, head) = about().begin(&Conditions::default(), false) else { panic!("no bytes") };
        assert_eq!((range, head.status()), (0..10, StatusCode::OK));
        let headers = head.headers();
        assert_eq!(headers[header::CONTENT_LENGTH], "10");
        assert_eq!(headers[header::ETAG], "\"abc\"");
        assert_eq!(headers[header::CACHE_CONTROL], "private, max-age=86400, immutable");
        assert!(headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap().starts_with("sandbox;"));
        assert!(!headers.contains_key(header::CONTENT_RANGE));

        let Begun::Needs(range, head) = about().begin(&conditions(header::RANGE, "bytes=2-3"), false) else {
            panic!("no bytes")
        };
        assert_eq!((range, head.status()), (2..4, StatusCode::PARTIAL_CONTENT));
        assert_eq!(head.headers()[header::CONTENT_RANGE], "bytes 2-3/10");
        assert_eq!(head.headers()[header::CONTENT_LENGTH], "2");
    }

    #[test]
    fn some_answers_have_no_bytes() {
        let whole = |conditions: Conditions, is_head| match about().begin(&conditions, is_head) {
            Begun::Whole(RawAnswer(response)) => response,
            Begun::Needs(..) => panic!("bytes"),
        };
        let head = whole(conditions(header::RANGE, "bytes=2-3"), true);
        assert_eq!(
            (head.status(), &head.headers()[header::CONTENT_LENGTH]),
            (StatusCode::OK, &HeaderValue::from(10_u64))
        );
        let known = whole(conditions(header::IF_NONE_MATCH, "\"abc\""), false);
        assert_eq!(known.status(), StatusCode::NOT_MODIFIED);
        assert!(!known.headers().contains_key(header::CONTENT_LENGTH));
        let beyond = whole(conditions(header::RANGE, "bytes=10-"), false);
        assert_eq!(beyond.status(), StatusCode::RANGE_NOT_SATISFIABLE);
        assert_eq!(beyond.headers()[header::CONTENT_RANGE], "bytes */10");
    }

    #[test]
    fn what_is_no_value_of_a_header_does_not_become_one() {
        let odd = About { content_type: "text/plain\r\nx: y".to_owned(), ..about() };
        let Begun::Needs(_, head) = odd.begin(&Conditions::default(), false) else { panic!("no bytes") };
        assert_eq!(head.headers()[header::CONTENT_TYPE], UNKNOWN);
        assert!(redirect("https://cdn.example.org/\n").is_none());
    }
}
