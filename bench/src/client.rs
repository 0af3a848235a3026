//! A Matrix client no larger than the measurements need: one user, one connection.
//!
//! Calls are those of <https://spec.matrix.org/v1.19/client-server-api/>.

use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use hyper::header::HeaderValue;
use hyper::{Method, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::connection::{Answer, Connection, Skimmed, Target};
use crate::media::Media;
use crate::pieces::Pieces;

/// Transaction ids are unique in the process, so that two clients of one device never repeat each other.
static TRANSACTION: AtomicU64 = AtomicU64::new(0);

const UPLOAD: &str = "/_matrix/media/v3/upload";

/// An account and the access token of its one device.
#[derive(Debug, Clone)]
pub(crate) struct User {
    pub(crate) id: String,
    pub(crate) device_id: String,
    pub(crate) authorization: HeaderValue,
}

impl User {
    /// The name of the user's homeserver.
    pub(crate) fn server_name(&self) -> Result<&str> {
        Ok(self.id.split_once(':').with_context(|| format!("{} has no server", self.id))?.1)
    }
}

/// A room, kept as its id in paths, and the path of its endpoints.
#[derive(Debug, Clone)]
pub(crate) struct Room {
    id: String,
    path: String,
}

impl Room {
    /// A room by its id as it is.
    pub(crate) fn new(id: &str) -> Self {
        let id = utf8_percent_encode(id, NON_ALPHANUMERIC).to_string();
        Self { path: format!("/_matrix/client/v3/rooms/{id}"), id }
    }

    /// As it stands in a path.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }
}

/// The id of something that was said.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct EventId {
    event_id: String,
}

impl EventId {
    /// As it stands in a path.
    pub(crate) fn escaped(&self) -> String {
        utf8_percent_encode(&self.event_id, NON_ALPHANUMERIC).to_string()
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.event_id)
    }
}

/// The body of `POST /createRoom`.
#[derive(Debug, Serialize)]
pub(crate) struct NewRoom<'a> {
    preset: Preset,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    visibility: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    creation_content: Option<Creation>,
}

#[derive(Debug, Serialize)]
struct Creation {
    r#type: &'static str,
}

impl<'a> NewRoom<'a> {
    pub(crate) fn new(preset: Preset, name: &'a str) -> Self {
        Self { preset, name, visibility: None, creation_content: None }
    }

    /// A space that anybody may join.
    pub(crate) fn space(name: &'a str) -> Self {
        let creation_content = Some(Creation { r#type: "m.space" });
        Self { creation_content, ..Self::new(Preset::PublicChat, name) }
    }

    /// This room, in the public directory or not.
    pub(crate) fn listed(self, listed: bool) -> Self {
        Self { visibility: listed.then_some("public"), ..self }
    }
}

/// Who may enter a new room: one of the specification's presets.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Preset {
    PrivateChat,
    PublicChat,
}

/// An answer that is not a success.
#[derive(Debug)]
pub(crate) struct Refused {
    status: StatusCode,
    call: String,
    body: String,
}

impl Refused {
    /// Whether this error, or what caused it, is the server's rate limit.
    pub(crate) fn is_rate_limit(error: &anyhow::Error) -> bool {
        error.chain().any(|cause| {
            cause.downcast_ref::<Self>().is_some_and(|refused| refused.status == StatusCode::TOO_MANY_REQUESTS)
        })
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} was answered {}: {}", self.call, self.status, self.body)
    }
}

impl std::error::Error for Refused {}

/// One user on one connection.
#[derive(Debug)]
pub(crate) struct Client {
    connection: Connection,
    authorization: Option<HeaderValue>,
}

impl Client {
    /// A client that has not logged in.
    pub(crate) fn anonymous(target: &Arc<Target>) -> Self {
        Self { connection: Connection::new(target), authorization: None }
    }

    /// A client that has not logged in, from a chosen local address.
    pub(crate) fn anonymous_from(target: &Arc<Target>, source: Ipv4Addr) -> Self {
        Self { connection: Connection::with_source(target, source), authorization: None }
    }

    pub(crate) fn new(target: &Arc<Target>, user: &User) -> Self {
        Self { connection: Connection::new(target), authorization: Some(user.authorization.clone()) }
    }

    /// A client that connects from a chosen local address.
    pub(crate) fn with_source(target: &Arc<Target>, user: &User, source: Ipv4Addr) -> Self {
        Self { connection: Connection::with_source(target, source), authorization: Some(user.authorization.clone()) }
    }

    /// One request; the caller looks at the status.
    pub(crate) async fn exchange(&mut self, method: &Method, path: &str, body: Bytes) -> Result<Answer> {
        self.connection.request(method, path, self.authorization.as_ref(), body).await
    }

    /// One request that must succeed.
    pub(crate) async fn call(&mut self, method: &Method, path: &str, body: Bytes) -> Result<Bytes> {
        let answer = self.exchange(method, path, body).await?;
        success(method, path, answer)
    }

    /// Opens the connection by a request that costs the server nothing.
    pub(crate) async fn connect(&mut self) -> Result<()> {
        self.call(&Method::GET, "/_matrix/client/versions", Bytes::new()).await?;
        Ok(())
    }

    /// Posts a value and reads one.
    pub(crate) async fn post<T: DeserializeOwned>(&mut self, path: &str, body: &impl Serialize) -> Result<T> {
        let body = serde_json::to_vec(body).context("the request is no JSON")?;
        let answer = self.call(&Method::POST, path, body.into()).await?;
        serde_json::from_slice(&answer).with_context(|| format!("POST {path} was answered with unexpected JSON"))
    }

    /// `PUT /profile/{userId}/displayname`; `name` needs no escaping.
    pub(crate) async fn set_display_name(&mut self, user_id: &str, name: &str) -> Result<()> {
        let user_id = utf8_percent_encode(user_id, NON_ALPHANUMERIC);
        let path = format!("/_matrix/client/v3/profile/{user_id}/displayname");
        self.call(&Method::PUT, &path, format!(r#"{{"displayname":"{name}"}}"#).into()).await?;
        Ok(())
    }

    /// `POST /createRoom`.
    pub(crate) async fn create_room(&mut self, preset: Preset, name: &str) -> Result<Room> {
        self.create(&NewRoom::new(preset, name)).await
    }

    /// Makes a room with more to say of it.
    pub(crate) async fn create(&mut self, new: &NewRoom<'_>) -> Result<Room> {
        #[derive(Deserialize)]
        struct Created {
            room_id: String,
        }
        let created: Created = self.post("/_matrix/client/v3/createRoom", new).await?;
        Ok(Room::new(&created.room_id))
    }

    /// `PUT /rooms/{roomId}/state/m.space.child/{stateKey}`.
    pub(crate) async fn add_child(&mut self, space: &Room, child: &Room) -> Result<()> {
        let path = format!("{}/state/m.space.child/{}", space.path, child.id);
        self.call(&Method::PUT, &path, Bytes::from_static(br#"{"via":["localhost"]}"#)).await?;
        Ok(())
    }

    /// `PUT /rooms/{roomId}/state/m.room.encryption`: from now on clients encrypt what they say there.
    pub(crate) async fn encrypt(&mut self, room: &Room) -> Result<()> {
        let path = format!("{}/state/m.room.encryption/", room.path);
        self.call(&Method::PUT, &path, Bytes::from_static(br#"{"algorithm":"m.megolm.v1.aes-sha2"}"#)).await?;
        Ok(())
    }

    /// `POST /rooms/{roomId}/join`.
    pub(crate) async fn join(&mut self, room: &Room) -> Result<()> {
        self.call(&Method::POST, &format!("{}/join", room.path), Bytes::from_static(b"{}")).await?;
        Ok(())
    }

    /// `POST /join/{roomIdOrAlias}`, by the help of another homeserver.
    pub(crate) async fn join_via(&mut self, room: &Room, server: &str) -> Result<()> {
        let server = utf8_percent_encode(server, NON_ALPHANUMERIC);
        // The second is what `via` was called before version 1.12 of the specification.
        let path = format!("/_matrix/client/v3/join/{}?via={server}&server_name={server}", room.id);
        self.call(&Method::POST, &path, Bytes::from_static(b"{}")).await?;
        Ok(())
    }

    /// `GET /rooms/{roomId}/state`: the identifier of the event of this type with an empty state key.
    pub(crate) async fn state_event_id(&mut self, room: &Room, kind: &str) -> Result<String> {
        #[derive(Deserialize)]
        struct StateEvent {
            r#type: String,
            state_key: String,
            event_id: String,
        }
        let path = format!("{}/state", room.path);
        let answer = self.call(&Method::GET, &path, Bytes::new()).await?;
        let state: Vec<StateEvent> = serde_json::from_slice(&answer).context("the state of a room is no list")?;
        let found = state.into_iter().find(|event| event.r#type == kind && event.state_key.is_empty());
        Ok(found.with_context(|| format!("a room has no {kind}"))?.event_id)
    }

    /// `GET /rooms/{roomId}/messages`: the newest event.
    pub(crate) async fn newest(&mut self, room: &Room) -> Result<Bytes> {
        self.call(&Method::GET, &format!("{}/messages?dir=b&limit=1", room.path), Bytes::new()).await
    }

    /// `PUT /rooms/{roomId}/send/m.room.message/{txnId}`; `text` needs no escaping.
    pub(crate) async fn send(&mut self, room: &Room, text: &str) -> Result<()> {
        self.say(room, format!(r#"{{"msgtype":"m.text","body":"{text}"}}"#)).await?;
        Ok(())
    }

    /// `PUT /rooms/{roomId}/send/m.room.encrypted/{txnId}`; `text` stands for what nobody but the members can read.
    pub(crate) async fn send_encrypted(&mut self, room: &Room, text: &str) -> Result<()> {
        let content = format!(r#"{{"algorithm":"m.megolm.v1.aes-sha2","ciphertext":"{text}"}}"#);
        self.send_event(room, "m.room.encrypted", content).await?;
        Ok(())
    }

    /// Sends a message of any content.
    pub(crate) async fn say(&mut self, room: &Room, content: String) -> Result<Bytes> {
        self.send_event(room, "m.room.message", content).await
    }

    async fn send_event(&mut self, room: &Room, kind: &str, content: String) -> Result<Bytes> {
        let transaction = TRANSACTION.fetch_add(1, Ordering::Relaxed);
        let path = format!("{}/send/{kind}/{transaction}", room.path);
        self.call(&Method::PUT, &path, content.into()).await
    }

    /// `PUT /sendToDevice/m.room.encrypted/{txnId}` with a message for one device of `to`.
    pub(crate) async fn send_to_device(&mut self, to: &User, content: &str) -> Result<()> {
        let transaction = TRANSACTION.fetch_add(1, Ordering::Relaxed);
        let path = format!("/_matrix/client/v3/sendToDevice/m.room.encrypted/{transaction}");
        let body = format!(r#"{{"messages":{{"{}":{{"{}":{content}}}}}}}"#, to.id, to.device_id);
        self.call(&Method::PUT, &path, body.into()).await?;
        Ok(())
    }
}

impl Client {
    /// `POST /media/v3/upload`.
    pub(crate) async fn upload(&mut self, content_type: &'static str, file: Pieces) -> Result<Media> {
        #[derive(Deserialize)]
        struct Uploaded {
            content_uri: String,
        }
        let content_type = HeaderValue::from_static(content_type);
        let answer = self.connection.upload(UPLOAD, self.authorization.as_ref(), content_type, file).await?;
        let answer = success(&Method::POST, UPLOAD, answer)?;
        let Uploaded { content_uri } = serde_json::from_slice(&answer).context("an upload was given no URI")?;
        Media::parse(&content_uri)
    }

    /// Downloads something and returns its length in bytes.
    pub(crate) async fn skim(&mut self, path: &str) -> Result<u64> {
        let Skimmed { answer, bytes } = self.connection.skim(path, self.authorization.as_ref()).await?;
        success(&Method::GET, path, answer)?;
        Ok(bytes)
    }
}

/// The body of an answer, or why there is none.
pub(crate) fn success(method: &Method, path: &str, answer: Answer) -> Result<Bytes> {
    if answer.status.is_success() {
        return Ok(answer.body);
    }
    Err(Refused {
        status: answer.status,
        call: format!("{method} {path}"),
        body: String::from_utf8_lossy(&answer.body).chars().take(300).collect(),
    }
    .into())
}
