//! Carries requests to other nodes.
//!
//! The request is the client's own, with its token and body, and a seal that says which node forwarded it and for whom.
//! The answer is passed on as it comes. A node that does not answer, answers with 421 or has failed is no answer: the
//! caller then serves the request itself, which is safe because only what may be repeated is forwarded.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, Response, StatusCode, header};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::Peer;
use crate::{
    edge::http_client::{self, Certificates, ClientOptions, HttpClientError},
    event::fact::NodeId,
};

pub(crate) const SEAL: HeaderName = HeaderName::from_static("hearth-forwarded");
/// What the other node needs of a request, beside its path and body.
const SENT_ON: [HeaderName; 2] = [header::AUTHORIZATION, header::CONTENT_TYPE];
/// What the client needs of the answer, beside its body.
const SENT_BACK: [HeaderName; 2] = [header::CONTENT_TYPE, header::RETRY_AFTER];
/// Another node in the same network is there at once or not at all.
const CONNECT: Duration = Duration::from_millis(500);
/// As long as a write may wait for the database. Longer, and the client would have given up.
const ANSWER: Duration = Duration::from_secs(10);
/// A node that has not answered is left alone for so long.
const REST: Duration = Duration::from_secs(2);

/// Sends requests to the other nodes, and remembers which of them have not answered.
pub(crate) struct Forwarder {
    http: reqwest::Client,
    /// Who has not answered, until when they are left alone.
    resting: Mutex<HashMap<NodeId, Instant>>,
}

/// A request on its way.
pub(crate) struct ForwardedRequest<'a> {
    pub(crate) seal: String,
    pub(crate) method: &'a Method,
    pub(crate) path_and_query: &'a str,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: Bytes,
}

impl Forwarder {
    /// Made once: connections to other nodes are kept. Fails if no HTTP client can be made.
    pub(crate) fn new() -> Result<Self, HttpClientError> {
        let http = http_client::new(ClientOptions {
            whom: "other nodes",
            connect: CONNECT,
            answer: ANSWER,
            // They are in the same network, where a proxy would only be one more that can fail, and that reads tokens.
            proxy: false,
            // Most nodes speak plain HTTP with each other.
            certificates: Certificates::Welcome,
        });
        Ok(Self { http: http?, resting: Mutex::default() })
    }

    /// Whether a node has not answered a moment ago.
    pub(crate) fn is_resting(&self, peer: &Peer) -> bool {
        self.resting.lock().get(&peer.id).is_some_and(|until| Instant::now() < *until)
    }

    /// The other node's answer. None if it has none of its own: then it may or may not have done what was asked.
    pub(crate) async fn forward(&self, peer: &Peer, forwarded: ForwardedRequest<'_>) -> Option<Response<Bytes>> {
        match self.try_to_forward(peer, forwarded).await {
            Ok(answer) => Some(answer),
            Err(error) => {
                tracing::debug!(node = peer.id.as_str(), %error, "a node did not answer; its work is done here");
                let mut resting = self.resting.lock();
                resting.retain(|_, until| Instant::now() < *until);
                resting.insert(peer.id.clone(), Instant::now() + REST);
                None
            }
        }
    }

    async fn try_to_forward(&self, peer: &Peer, forwarded: ForwardedRequest<'_>) -> Result<Response<Bytes>, String> {
        let url = format!("{}{}", peer.address, forwarded.path_and_query);
        let mut request =
            self.http.request(forwarded.method.clone(), url).header(SEAL, forwarded.seal).body(forwarded.body);
        for name in SENT_ON {
            if let Some(value) = forwarded.headers.get(&name) {
                request = request.header(name, value);
            }
        }
        let answered = request.send().await.map_err(|e| e.without_url().to_string())?;
        let status = answered.status();
        if status == StatusCode::MISDIRECTED_REQUEST || status.is_server_error() {
            return Err(format!("it answered {status}"));
        }
        let mut response = Response::builder().status(status);
        for name in SENT_BACK {
            if let Some(value) = answered.headers().get(&name) {
                response = response.header(name, value);
            }
        }
        let body = answered.bytes().await.map_err(|e| e.without_url().to_string())?;
        response.body(body).map_err(|e| e.to_string())
    }
}
