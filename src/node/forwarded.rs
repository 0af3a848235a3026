//! What nodes send each other when they forward: a call as it came in, and the answer to it.
//!
//! Both travel opaque. A call's path is whatever a client has written, and a second reading of it as part of a URL
//! would be another one: libraries take `\` for a slash and `%2E%2E` for a way up. So nothing of it becomes part of the
//! URL between the nodes, and the node that serves it parses the very bytes that the first one parsed.
//!
//! Each part goes behind its length, so that no byte of one means anything outside of it.

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header,
    uri::{InvalidUri, PathAndQuery},
};

/// What the serving node needs of a call, beside its path and body.
const SENT_ON: [HeaderName; 2] = [header::AUTHORIZATION, header::CONTENT_TYPE];
/// What the client needs of the answer, beside its body.
const SENT_BACK: [HeaderName; 2] = [header::CONTENT_TYPE, header::RETRY_AFTER];

/// A client's call, on its way to another node.
#[derive(Debug, PartialEq)]
pub(crate) struct ForwardedCall {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) target: Uri,
    /// Those of [`SENT_ON`].
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// What a node answers a call with that was forwarded to it.
#[derive(Debug, PartialEq)]
pub(crate) struct ForwardedAnswer {
    pub(crate) status: StatusCode,
    /// Those of [`SENT_BACK`].
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl ForwardedCall {
    pub(crate) fn pack(method: &Method, target: &Uri, headers: &HeaderMap, body: &[u8]) -> Bytes {
        let target = target.path_and_query().map_or("/", PathAndQuery::as_str);
        pack([method.as_str().as_bytes(), target.as_bytes(), body], headers, &SENT_ON)
    }

    /// None if it is not what [`Self::pack`] has written.
    pub(crate) fn unpack(packed: Bytes) -> Option<Self> {
        let mut parts = Parts(packed);
        let method = Method::from_bytes(&parts.take()?).ok()?;
        let target = parse_target(parts.take()?).ok()?;
        let body = parts.take()?;
        Some(Self { method, target, headers: parts.headers(&SENT_ON)?, body })
    }
}

impl ForwardedAnswer {
    pub(crate) fn pack(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Bytes {
        pack([status.as_str().as_bytes(), body], headers, &SENT_BACK)
    }

    /// None if it is not what [`Self::pack`] has written, or not all of it.
    pub(crate) fn unpack(packed: Bytes) -> Option<Self> {
        let mut parts = Parts(packed);
        let status = StatusCode::from_bytes(&parts.take()?).ok()?;
        let body = parts.take()?;
        Some(Self { status, headers: parts.headers(&SENT_BACK)?, body })
    }
}

/// As the listener parses what a client writes behind the method: it neither decodes nor normalises.
fn parse_target(target: Bytes) -> Result<Uri, InvalidUri> {
    PathAndQuery::from_maybe_shared(target).map(Uri::from)
}

/// The parts, and behind them how many headers there are and each one's name and value.
fn pack<const N: usize>(parts: [&[u8]; N], headers: &HeaderMap, names: &[HeaderName]) -> Bytes {
    let mut packed = BytesMut::with_capacity(parts.iter().map(|part| part.len() + 8).sum::<usize>() + 256);
    let mut put = |part: &[u8]| {
        packed.put_u64(part.len() as u64);
        packed.put_slice(part);
    };
    parts.into_iter().for_each(&mut put);
    let sent: Vec<_> =
        names.iter().flat_map(|name| headers.get_all(name).iter().map(move |value| (name, value))).collect();
    put(sent.len().to_string().as_bytes());
    for (name, value) in sent {
        put(name.as_str().as_bytes());
        put(value.as_bytes());
    }
    packed.freeze()
}

/// What is left of what [`pack`] has written.
struct Parts(Bytes);

impl Parts {
    fn take(&mut self) -> Option<Bytes> {
        let length = usize::try_from(u64::from_be_bytes(*self.0.first_chunk()?)).ok()?;
        let mut part = self.0.split_off(8);
        self.0 = if length <= part.len() { part.split_off(length) } else { return None };
        Some(part)
    }

    /// The headers, of which there are no others than these, and behind which nothing may follow.
    fn headers(mut self, names: &[HeaderName]) -> Option<HeaderMap> {
        let count: usize = std::str::from_utf8(&self.take()?).ok()?.parse().ok()?;
        let mut headers = HeaderMap::new();
        for _ in 0..count {
            let name = HeaderName::from_bytes(&self.take()?).ok().filter(|name| names.contains(name))?;
            headers.try_append(name, HeaderValue::from_maybe_shared(self.take()?).ok()?).ok()?;
        }
        self.0.is_empty().then_some(headers)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn packed(target: &str, headers: &HeaderMap, body: &[u8]) -> Bytes {
        ForwardedCall::pack(&Method::PUT, &target.parse().unwrap(), headers, body)
    }

    #[test]
    fn a_call_arrives_as_it_was() {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_bytes(b"Bearer \xffodd").unwrap());
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.append(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        let sent = headers.clone();
        headers.insert(header::COOKIE, HeaderValue::from_static("nobody needs it"));
        for target in ["/a/..\\..\\b/../c", "/%2E%2E/%2f//", "/./%5c?a=../b&c=\\", "/ä/☕?☕", "/a%00\"{}|^b"] {
            let call = ForwardedCall::unpack(packed(target, &headers, b"{}")).unwrap();
            assert_eq!(call.method, Method::PUT);
            assert_eq!(call.target.path_and_query().unwrap().as_str(), target);
            assert_eq!(call.headers, sent);
            assert_eq!(call.body, "{}");
        }
    }

    #[test]
    fn an_answer_arrives_as_it_was_or_not_at_all() {
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
        let packed = ForwardedAnswer::pack(StatusCode::TOO_MANY_REQUESTS, &headers, b"slower");
        let answer = ForwardedAnswer { status: StatusCode::TOO_MANY_REQUESTS, headers, body: "slower".into() };
        assert_eq!(ForwardedAnswer::unpack(packed.clone()), Some(answer));
        for length in 0..packed.len() {
            assert_eq!(ForwardedAnswer::unpack(packed.slice(..length)), None, "cut at {length}");
        }
        assert_eq!(ForwardedAnswer::unpack([&packed[..], b"x"].concat().into()), None, "something follows");
    }

    proptest! {
        #[test]
        fn what_somebody_made_up_is_refused_and_breaks_nothing(bytes in vec(any::<u8>(), 0..200)) {
            drop(ForwardedCall::unpack(bytes.clone().into()));
            drop(ForwardedAnswer::unpack(bytes.into()));
        }

        #[test]
        fn a_call_that_was_tampered_with_breaks_nothing(at in 0_usize..70, byte: u8) {
            let mut bytes = packed("/a/b?c", &HeaderMap::new(), b"body").to_vec();
            if let Some(there) = bytes.get_mut(at) {
                *there = byte;
            }
            drop(ForwardedCall::unpack(bytes.into()));
        }
    }
}
