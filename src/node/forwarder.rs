//! Carries calls to other nodes, and gives up on a node that is silent.
//!
//! A node that works on a call gives signs of life until it answers, every [`SIGN_OF_LIFE`] and on the same connection.
//! One that gives none for [`SILENCE`] is stopped, cut off or gone: the caller then does the work itself, in under a
//! second. A call may so take its time at a node that lives (up to [`ANSWER`]), and nobody waits for one that does not.
//!
//! Who has been silent is remembered. Nobody waits for them a second time: they get no calls until one that carries
//! nothing has been answered, and no client's request waits for that one.
//!
//! Silence says nothing about what was done: the node may have done the work, or may do it when it wakes up. So only
//! what the database recognises when it is done twice is forwarded.
//!
//! All calls go to one path. Where an answer does not carry [`FORWARDED`], it is not a node's: a call that somebody else
//! has got, or a node of a release that knows no such path, was not answered.

use std::{collections::HashMap, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderName, StatusCode};
use parking_lot::Mutex;
use reqwest::Response;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, timeout},
};

use super::{ForwardedAnswer, Peer};
use crate::{
    edge::http_client::{self, Certificates, ClientOptions, HttpClientError},
    event::fact::NodeId,
};

/// The one path that calls between nodes go to.
pub(crate) const FORWARDED_PATH: &str = "/_hearth/forwarded";
/// Carries the seal of a call, and marks what answers it.
pub(crate) const FORWARDED: HeaderName = HeaderName::from_static("hearth-forwarded");
/// How often a node that works on a call says so.
pub(crate) const SIGN_OF_LIFE: Duration = Duration::from_millis(200);
/// What it says before its answer. The answer begins with a length, which is far too short to begin with this.
pub(crate) const SIGN: &[u8] = &[0xff];

/// Who has given no sign for so long is silent: room for three signs, so that a busy machine is not taken for a dead one.
const SILENCE: Duration = Duration::from_millis(700);
/// Another node in the same network is there at once or not at all.
const CONNECT: Duration = Duration::from_millis(500);
/// As long as clients commonly wait, for a node that lives.
const ANSWER: Duration = Duration::from_secs(30);
/// The longest answer that is read, in bytes.
const MAX_ANSWER: usize = 1024 * 1024;
/// How many calls may be under way. Each is a connection, of which the other node allows one address so many (512 by
/// default), and with more the other node is the bottleneck.
const MOST_CALLS: usize = 256;
/// How often a silent node is asked whether it is there again.
const PROBE: Duration = Duration::from_secs(1);
/// Who was not even asked for so long is forgotten: most likely the node is gone for good.
const FORGOTTEN: Duration = Duration::from_mins(1);

/// Sends calls to the other nodes, and remembers which of them are silent.
pub(crate) struct Forwarder {
    http: reqwest::Client,
    /// Who is silent, and when each was last asked.
    silent: Mutex<HashMap<NodeId, Instant>>,
    places: Semaphore,
}

/// Whether calls may go to a node.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Hearing {
    Answers,
    Silent,
    /// It was silent, and the caller is to find out whether it still is ([`Forwarder::probe`]). Others are not told so
    /// for a while.
    ToBeAsked,
}

/// A call that is ready to go.
pub(crate) struct SealedCall {
    pub(crate) seal: String,
    /// Empty for a call that only asks whether the node is there.
    pub(crate) call: Bytes,
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
        Ok(Self { http: http?, silent: Mutex::default(), places: Semaphore::new(MOST_CALLS) })
    }

    /// A place for a call, to be held while it is under way. None where so many are that it is better served here.
    pub(crate) fn find_place(&self) -> Option<SemaphorePermit<'_>> {
        self.places.try_acquire().ok()
    }

    /// Whether calls may go to this node.
    pub(crate) fn hears(&self, peer: &Peer) -> Hearing {
        match self.silent.lock().get_mut(&peer.id) {
            None => Hearing::Answers,
            Some(asked) if asked.elapsed() < PROBE => Hearing::Silent,
            Some(asked) => {
                *asked = Instant::now();
                Hearing::ToBeAsked
            }
        }
    }

    /// The other node's answer. None if it has none of its own: then it may or may not have done what was asked.
    pub(crate) async fn forward(&self, peer: &Peer, call: SealedCall) -> Option<ForwardedAnswer> {
        let answered = self.send(peer, call).await;
        // Whoever answers is not silent, whatever they answer.
        judge(self.note(peer, answered)?)
            .inspect_err(|error| tracing::debug!(node = peer.id.as_str(), %error, "no answer; the work is done here"))
            .ok()
    }

    /// Asks a silent node whether it is there again. `call` carries nothing.
    pub(crate) async fn probe(&self, peer: &Peer, call: SealedCall) {
        let answered = self.send(peer, call).await;
        self.note(peer, answered);
    }

    fn note<T>(&self, peer: &Peer, answered: Result<T, String>) -> Option<T> {
        let mut silent = self.silent.lock();
        match answered {
            Ok(answer) => {
                silent.remove(&peer.id);
                Some(answer)
            }
            Err(error) => {
                tracing::debug!(node = peer.id.as_str(), %error, "a node did not answer; its work is done here");
                silent.retain(|_, asked| asked.elapsed() < FORGOTTEN);
                silent.insert(peer.id.clone(), Instant::now());
                None
            }
        }
    }

    /// What the node answers, without its signs of life. An error says why there is nothing.
    async fn send(&self, peer: &Peer, SealedCall { seal, call }: SealedCall) -> Result<Bytes, String> {
        let url = format!("{}{FORWARDED_PATH}", peer.address.trim_end_matches('/'));
        let asked = self.http.post(url).header(FORWARDED, seal).body(call).send();
        // The first sign is the head of the answer, and connecting is part of the wait for it.
        let head = timeout(SILENCE, asked).await.map_err(|_elapsed| "it gave no sign of life".to_owned())?;
        let head = head.map_err(|e| e.without_url().to_string())?;
        if head.status() != StatusCode::OK || !head.headers().contains_key(FORWARDED) {
            return Err(format!("it answered {}", head.status()));
        }
        read(head).await
    }
}

/// The answer behind the signs of life.
async fn read(mut answer: Response) -> Result<Bytes, String> {
    let mut read = BytesMut::new();
    loop {
        let part = timeout(SILENCE, answer.chunk()).await.map_err(|_elapsed| "it has fallen silent".to_owned())?;
        let Some(part) = part.map_err(|e| e.without_url().to_string())? else { return Ok(read.freeze()) };
        let signs = if read.is_empty() { part.iter().take_while(|byte| SIGN.contains(byte)).count() } else { 0 };
        read.extend_from_slice(part.get(signs..).unwrap_or_default());
        if read.len() > MAX_ANSWER {
            return Err(format!("its answer is longer than {MAX_ANSWER} bytes"));
        }
    }
}

/// A refusal is an answer too, a failure is not: it may be that node's alone.
fn judge(packed: Bytes) -> Result<ForwardedAnswer, String> {
    let answer = ForwardedAnswer::unpack(packed).ok_or("its answer is not whole")?;
    if answer.status == StatusCode::MISDIRECTED_REQUEST || answer.status.is_server_error() {
        return Err(format!("it answered {}", answer.status));
    }
    Ok(answer)
}

#[cfg(test)]
mod tests;
