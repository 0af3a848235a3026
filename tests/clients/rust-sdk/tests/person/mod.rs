//! Somebody with an account and a matrix-sdk client that encrypts, its store in memory.
//!
//! `HEARTH_URL` names the homeserver. `HEARTH_NODES`, if it is there, names all its nodes, separated by spaces: each
//! device then speaks to one of them, in turn.

pub mod flow;

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail, ensure};
use matrix_sdk::{
    Client, Room, RoomState,
    config::SyncSettings,
    deserialized_responses::TimelineEventKind,
    ruma::{
        OwnedDeviceId, OwnedUserId, RoomId,
        api::client::{
            account::register::v3::Request as RegisterRequest,
            room::{
                create_room::v3::{Request as CreateRoomRequest, RoomPreset},
                get_room_event::v3::Request as EventRequest,
            },
            uiaa::{AuthData, Dummy},
        },
        events::{
            AnyTimelineEvent, GlobalAccountDataEventType, InitialStateEvent,
            room::{encryption::RoomEncryptionEventContent, member::MembershipState, message::RoomMessageEventContent},
        },
        serde::Raw,
    },
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// How long anything may take to reach a client that is waiting for it.
const PATIENCE: Duration = Duration::from_secs(30);
const PASSWORD: &str = "correct horse battery staple";

/// How many there were so far.
static DEVICES: AtomicUsize = AtomicUsize::new(0);
static NAMES: AtomicUsize = AtomicUsize::new(0);

/// Looks again and again until something is there.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let started = Instant::now();
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        ensure!(started.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain for {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A name that no earlier run on the same server has taken.
fn fresh(name: &str) -> Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
    Ok(format!("{name}-{now:x}-{}", NAMES.fetch_add(1, Ordering::Relaxed)))
}

async fn new_client() -> Result<Client> {
    let urls = std::env::var("HEARTH_NODES").or_else(|_| std::env::var("HEARTH_URL"));
    let urls = urls.context("set HEARTH_URL to the base URL of a homeserver with open registration")?;
    let nodes: Vec<_> = urls.split_whitespace().collect();
    ensure!(!nodes.is_empty(), "HEARTH_URL is empty");
    let node = nodes[DEVICES.fetch_add(1, Ordering::Relaxed) % nodes.len()];
    Ok(Client::builder().homeserver_url(node).build().await?)
}

/// Makes an account through user-interactive authentication, as an app does.
async fn register(username: &str) -> Result<()> {
    let auth = new_client().await?.matrix_auth();
    let mut request = RegisterRequest::new();
    request.username = Some(username.to_owned());
    request.password = Some(PASSWORD.to_owned());
    // A client is for one session, and this one would only be forgotten.
    request.inhibit_login = true;
    let Err(challenge) = auth.register(request.clone()).await else { return Ok(()) };
    let Some(info) = challenge.as_uiaa_response() else { bail!("{challenge}") };
    let mut dummy = Dummy::new();
    dummy.session = info.session.clone();
    request.auth = Some(AuthData::Dummy(dummy));
    auth.register(request).await?;
    Ok(())
}

pub struct Person {
    pub name: String,
    pub id: OwnedUserId,
    pub device: OwnedDeviceId,
    pub client: Client,
    syncing: JoinHandle<()>,
}

/// A message that was sent, and what the server has of it.
pub struct Message {
    pub text: String,
    pub wire: Raw<AnyTimelineEvent>,
}

fn start_syncing(client: &Client) -> JoinHandle<()> {
    let client = client.clone();
    tokio::spawn(async move {
        let settings = SyncSettings::default().timeout(Duration::from_secs(10));
        if let Err(error) = client.sync(settings).await {
            eprintln!("a client stopped syncing: {error}");
        }
    })
}

impl Person {
    /// A new account, logged in with its password, whose device has its keys on the server.
    pub async fn arrive(name: &str) -> Result<Self> {
        let username = fresh(name)?;
        register(&username).await?;
        Self::log_in(username).await
    }

    /// The same person on a new device.
    pub async fn elsewhere(&self) -> Result<Self> {
        Self::log_in(self.name.clone()).await
    }

    async fn log_in(name: String) -> Result<Self> {
        let client = new_client().await?;
        let session = client.matrix_auth().login_username(&name, PASSWORD).send().await?;
        // Uploads the keys, too.
        client.sync_once(SyncSettings::default()).await?;
        let syncing = start_syncing(&client);
        Ok(Self { name, id: session.user_id, device: session.device_id, client, syncing })
    }

    /// Ends the sync loop; what it had not taken in by then stays on the server.
    pub async fn goes_away(&mut self) {
        self.syncing.abort();
        let _cancelled = (&mut self.syncing).await;
    }

    pub fn comes_back(&mut self) {
        self.syncing = start_syncing(&self.client);
    }

    /// Waits until everything has arrived that was on the way to this device before.
    pub async fn catches_up(&self) -> Result<()> {
        let account = self.client.account();
        let kind = GlobalAccountDataEventType::from("org.example.barrier");
        let mark = fresh("mark")?;
        let content = Raw::new(&json!({ "mark": mark }))?.cast_unchecked();
        account.set_account_data_raw(kind.clone(), content).await?;
        eventually(&format!("{} to catch up", self.name), async || {
            let Some(here) = account.account_data_raw(kind.clone()).await? else { return Ok(None) };
            Ok((here.get_field::<String>("mark")?.as_ref() == Some(&mark)).then_some(()))
        })
        .await
    }

    /// The room, as soon as this client knows that it has joined it and that it is encrypted.
    pub async fn room(&self, id: &RoomId) -> Result<Room> {
        eventually(&format!("{} in {id}", self.name), async || {
            let Some(room) = self.client.get_room(id) else { return Ok(None) };
            let ready = room.state() == RoomState::Joined && room.latest_encryption_state().await?.is_encrypted();
            Ok(ready.then_some(room))
        })
        .await
    }

    /// Waits until this client trusts a device of the same person, because the keys of both say so.
    pub async fn trusts(&self, device: &OwnedDeviceId) -> Result<()> {
        eventually(&format!("{} to trust {device}", self.device), async || {
            let device = self.client.encryption().get_device(&self.id, device).await?;
            Ok(device.filter(|device| device.is_verified_with_cross_signing()).map(|_| ()))
        })
        .await
    }

    /// Waits until this device is signed by its owner.
    pub async fn is_signed(&self) -> Result<()> {
        eventually(&format!("{} to be signed", self.device), async || {
            let device = self.client.encryption().get_own_device().await?;
            Ok(device.filter(|device| device.is_cross_signed_by_owner()).map(|_| ()))
        })
        .await
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        self.syncing.abort();
    }
}

impl Message {
    /// What a client makes of the message with the keys that it has now.
    async fn open_in(&self, room: &Room) -> Result<Option<String>> {
        let event = room.decrypt_event(self.wire.cast_ref_unchecked(), None).await?;
        if !matches!(event.kind, TimelineEventKind::Decrypted(_)) {
            return Ok(None);
        }
        let content: Option<Value> = event.raw().get_field("content")?;
        Ok(content.and_then(|content| Some(content.get("body")?.as_str()?.to_owned())))
    }

    /// Waits until the client that this room is of can read the message.
    pub async fn is_read_in(&self, room: &Room) -> Result<()> {
        let what = format!("the key of \"{}\"", self.text);
        let text = eventually(&what, async || self.open_in(room).await).await?;
        ensure!(text == self.text, "{text} instead of {}", self.text);
        Ok(())
    }

    /// Checks that the client that this room is of cannot read the message.
    pub async fn is_closed_in(&self, room: &Room) -> Result<()> {
        ensure!(self.open_in(room).await?.is_none(), "\"{}\" can be read", self.text);
        Ok(())
    }
}

/// Says something as the user whose room it is.
pub async fn say(room: &Room, text: &str) -> Result<Message> {
    let sent = room.send(RoomMessageEventContent::text_plain(text)).await?;
    let request = EventRequest::new(room.room_id().to_owned(), sent.response.event_id);
    let wire = room.client().send(request).await?.event;
    let kind: Option<String> = wire.get_field("type")?;
    ensure!(kind.as_deref() == Some("m.room.encrypted"), "{text} was sent in the clear");
    Ok(Message { text: text.to_owned(), wire })
}

/// An encrypted room that the first makes and the second is invited to, as each of them has it. Both have said
/// something in it, so that each knows the devices of the other.
pub async fn encrypted_room(creator: &Person, guest: &Person, preset: RoomPreset) -> Result<[Room; 2]> {
    let encryption = RoomEncryptionEventContent::with_recommended_defaults();
    let mut request = CreateRoomRequest::new();
    request.preset = Some(preset);
    request.invite = vec![guest.id.clone()];
    request.initial_state = vec![InitialStateEvent::with_empty_state_key(encryption).to_raw_any()];
    let id = creator.client.create_room(request).await?.room_id().to_owned();
    eventually("the invite", async || Ok(guest.client.get_room(&id).filter(|room| room.state() == RoomState::Invited)))
        .await?;
    guest.client.join_room_by_id(&id).await?;
    let rooms = [creator.room(&id).await?, guest.room(&id).await?];
    eventually("the guest to join", async || {
        let member = rooms[0].get_member_no_sync(&guest.id).await?;
        Ok(member.filter(|member| *member.membership() == MembershipState::Join))
    })
    .await?;
    say(&rooms[0], "welcome").await?.is_read_in(&rooms[1]).await?;
    say(&rooms[1], "thank you").await?.is_read_in(&rooms[0]).await?;
    Ok(rooms)
}
