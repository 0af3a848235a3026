//! What is measured: a name, a line about it, and the file that plays it.

mod accounts;
mod attack;
mod busy;
mod delivery;
mod destinations;
mod encrypted;
mod join_remote;
mod keys;
mod listed;
mod media;
mod memory;
mod people;
mod polls;
mod receive;
mod redirect;
mod remote_delivery;
mod rooms;
mod search;
mod send;
mod sync;
mod thread;
mod thumbnail;
mod to_device;
mod wake;

use anyhow::Result;
use clap::ValueEnum;

use crate::report::Outcome;
use crate::stage::Stage;

/// The scenarios in the order in which they are played.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Scenario {
    Register,
    CreateRoom,
    #[value(name = "send_1")]
    Send1,
    #[value(name = "send_16")]
    Send16,
    #[value(name = "send_64")]
    Send64,
    BusyQuiet,
    BusyRead,
    DeliveryIdle,
    DeliveryLoaded,
    InitialSync,
    SyncIdle,
    #[value(name = "wake_250")]
    Wake250,
    Hierarchy,
    Thread,
    PublicRooms,
    SearchUsers,
    SearchMessages,
    KeysQuery,
    KeysClaim,
    ToDevice,
    ToDeviceBacklog,
    SendEncrypted,
    MediaUpload,
    MediaDownload,
    MediaUploadDownload,
    Thumbnail,
    MediaRedirect,
    IdlePolls,
    Memory,
    RemoteDelivery,
    RemoteDeliveryBusy,
    #[value(name = "receive_1_room")]
    Receive1Room,
    #[value(name = "receive_50_rooms")]
    Receive50Rooms,
    #[value(name = "send_to_1_server")]
    SendTo1Server,
    #[value(name = "send_to_10_servers")]
    SendTo10Servers,
    #[value(name = "send_to_100_servers")]
    SendTo100Servers,
    JoinRemote,
    Attack,
}

impl Scenario {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::CreateRoom => "create_room",
            Self::Send1 => "send_1",
            Self::Send16 => "send_16",
            Self::Send64 => "send_64",
            Self::BusyQuiet => "busy_quiet",
            Self::BusyRead => "busy_read",
            Self::DeliveryIdle => "delivery_idle",
            Self::DeliveryLoaded => "delivery_loaded",
            Self::InitialSync => "initial_sync",
            Self::SyncIdle => "sync_idle",
            Self::Wake250 => "wake_250",
            Self::Hierarchy => "hierarchy",
            Self::Thread => "thread",
            Self::PublicRooms => "public_rooms",
            Self::SearchUsers => "search_users",
            Self::SearchMessages => "search_messages",
            Self::KeysQuery => "keys_query",
            Self::KeysClaim => "keys_claim",
            Self::ToDevice => "to_device",
            Self::ToDeviceBacklog => "to_device_backlog",
            Self::SendEncrypted => "send_encrypted",
            Self::MediaUpload => "media_upload",
            Self::MediaDownload => "media_download",
            Self::MediaUploadDownload => "media_upload_download",
            Self::Thumbnail => "thumbnail",
            Self::MediaRedirect => "media_redirect",
            Self::IdlePolls => "idle_polls",
            Self::Memory => "memory",
            Self::RemoteDelivery => "remote_delivery",
            Self::RemoteDeliveryBusy => "remote_delivery_busy",
            Self::Receive1Room => "receive_1_room",
            Self::Receive50Rooms => "receive_50_rooms",
            Self::SendTo1Server => "send_to_1_server",
            Self::SendTo10Servers => "send_to_10_servers",
            Self::SendTo100Servers => "send_to_100_servers",
            Self::JoinRemote => "join_remote",
            Self::Attack => "attack",
        }
    }

    /// Whether it is played only when it is asked for: it leaves much behind, or wants a server of another kind.
    pub(crate) fn is_for_itself(self) -> bool {
        matches!(self, Self::Attack | Self::MediaRedirect) || self.is_of_federation()
    }

    fn is_of_federation(self) -> bool {
        matches!(
            self,
            Self::RemoteDelivery
                | Self::RemoteDeliveryBusy
                | Self::Receive1Room
                | Self::Receive50Rooms
                | Self::SendTo1Server
                | Self::SendTo10Servers
                | Self::SendTo100Servers
                | Self::JoinRemote
        )
    }

    pub(crate) fn about(self) -> &'static str {
        match self {
            Self::Register => "registrations by concurrent clients (--concurrency)",
            Self::CreateRoom => "new private rooms with a name, by concurrent creators (--concurrency)",
            Self::Send1 => "sends by 1 sender",
            Self::Send16 => "sends by 16 senders in rooms of their own",
            Self::Send64 => "sends by 64 senders in rooms of their own",
            Self::BusyQuiet => "sends into one room of 50 members (--senders), nobody reads",
            Self::BusyRead => "sends into one room of 50 members (--senders), all 50 read",
            Self::DeliveryIdle => "send to delivery in a waiting /sync, 20 sends/s and nothing else",
            Self::DeliveryLoaded => "send to delivery in waiting /syncs, 64 rooms and --rate sends/s",
            Self::InitialSync => "initial /sync of a user in --joined-rooms rooms with 10 messages each",
            Self::SyncIdle => "incremental /sync of the same user, timeout 0 and nothing new",
            Self::Wake250 => "one event wakes 250 waiting /syncs: until the last one has read it",
            Self::Hierarchy => "the hierarchy of a space of 500 rooms in one answer, by 4 clients",
            Self::Thread => "pages of a thread of 10,000 replies, by 4 clients",
            Self::PublicRooms => "pages and searches of the public directory by 4 clients, over --rooms rooms",
            Self::SearchUsers => "searches of the user directory by 4 clients, among --people people",
            Self::SearchMessages => {
                "searches of --messages messages in 64 rooms by 4 clients, newest first, then by rank"
            }
            Self::KeysQuery => "the keys of --queried-users users with 3 devices each in one /keys/query",
            Self::KeysClaim => "one-time keys of 64 devices claimed one by one, by 64 clients at once",
            Self::ToDevice => "to-device messages of 1 KB by 64 senders to 64 devices that do not read",
            Self::ToDeviceBacklog => "a device reads 10,000 to-device messages that wait for it, page by page",
            Self::SendEncrypted => {
                "sends into an encrypted room of 50 members with keys (--senders), all 50 read; beside a plain room"
            }
            Self::MediaUpload => "uploads of 500 KB, no two equal, so many at once (--transfers)",
            Self::MediaDownload => "downloads of 64 files of 500 KB, so many at once (--transfers)",
            Self::MediaUploadDownload => "uploads and downloads of 500 KB, half of --transfers each",
            Self::Thumbnail => {
                "800×600 of 20 photographs of 12 megapixels, by 4 clients; before, one by one for the first time"
            }
            Self::MediaRedirect => {
                "downloads that a server redirects, beside idle syncs, by 4 clients; only when asked for"
            }
            Self::IdlePolls => "waiting /syncs with nothing to say (--polls): memory each",
            Self::Attack => {
                "two people talk while a user and a stranger do harm on --attack-connections each; only when asked for"
            }
            Self::Memory => "memory and processor time of the idle server, before and after everything",
            Self::RemoteDelivery => {
                "send to delivery in a waiting /sync at --other-url, 20 sends/s; only when asked for"
            }
            Self::RemoteDeliveryBusy => {
                "send to delivery in waiting /syncs at --other-url, 64 rooms and --rate sends/s; only when asked for"
            }
            Self::Receive1Room => "PDUs that another homeserver pushes into one room; only when asked for",
            Self::Receive50Rooms => "PDUs that another homeserver pushes into 50 rooms; only when asked for",
            Self::SendTo1Server => "PDUs to 1 other homeserver in a room, by --senders; only when asked for",
            Self::SendTo10Servers => "PDUs to 10 other homeservers in a room, by --senders; only when asked for",
            Self::SendTo100Servers => "PDUs to 100 other homeservers in a room, by --senders; only when asked for",
            Self::JoinRemote => {
                "joins to rooms of --remote-members members of --remote-servers homeservers; only when asked for"
            }
        }
    }

    pub(crate) async fn play(self, stage: &mut Stage) -> Result<Outcome> {
        let name = self.name();
        match self {
            Self::Register => Box::pin(accounts::register(name, stage)).await,
            Self::CreateRoom => Box::pin(rooms::create(name, stage)).await,
            Self::Send1 => Box::pin(send::own_rooms(name, stage, 1)).await,
            Self::Send16 => Box::pin(send::own_rooms(name, stage, 16)).await,
            Self::Send64 => Box::pin(send::own_rooms(name, stage, 64)).await,
            Self::BusyQuiet => Box::pin(busy::quiet(name, stage)).await,
            Self::BusyRead => Box::pin(busy::read(name, stage)).await,
            Self::DeliveryIdle => Box::pin(delivery::idle(name, stage)).await,
            Self::DeliveryLoaded => Box::pin(delivery::loaded(name, stage)).await,
            Self::InitialSync => Box::pin(sync::initial(name, stage)).await,
            Self::SyncIdle => Box::pin(sync::idle(name, stage)).await,
            Self::Wake250 => Box::pin(wake::crowd(name, stage)).await,
            Self::Hierarchy => Box::pin(listed::hierarchy(name, stage)).await,
            Self::Thread => Box::pin(thread::relations(name, stage)).await,
            Self::PublicRooms => Box::pin(listed::directory(name, stage)).await,
            Self::SearchUsers => Box::pin(people::search(name, stage)).await,
            Self::SearchMessages => Box::pin(search::messages(name, stage)).await,
            Self::KeysQuery => Box::pin(keys::query(name, stage)).await,
            Self::KeysClaim => Box::pin(keys::claim(name, stage)).await,
            Self::ToDevice => Box::pin(to_device::send(name, stage)).await,
            Self::ToDeviceBacklog => Box::pin(to_device::backlog(name, stage)).await,
            Self::SendEncrypted => Box::pin(encrypted::compare(name, stage)).await,
            Self::MediaUpload => Box::pin(media::upload(name, stage)).await,
            Self::MediaDownload => Box::pin(media::download(name, stage)).await,
            Self::MediaUploadDownload => Box::pin(media::both(name, stage)).await,
            Self::Thumbnail => Box::pin(thumbnail::thumbnails(name, stage)).await,
            Self::MediaRedirect => Box::pin(redirect::compare(name, stage)).await,
            Self::IdlePolls => Box::pin(polls::hold(name, stage)).await,
            Self::Attack => Box::pin(attack::withstand(name, stage)).await,
            Self::Memory => Box::pin(memory::compare(name, stage)).await,
            Self::RemoteDelivery => Box::pin(remote_delivery::idle(name, stage)).await,
            Self::RemoteDeliveryBusy => Box::pin(remote_delivery::busy(name, stage)).await,
            Self::Receive1Room => Box::pin(receive::push(name, stage, 1)).await,
            Self::Receive50Rooms => Box::pin(receive::push(name, stage, 50)).await,
            Self::SendTo1Server => Box::pin(destinations::send(name, stage, 1)).await,
            Self::SendTo10Servers => Box::pin(destinations::send(name, stage, 10)).await,
            Self::SendTo100Servers => Box::pin(destinations::send(name, stage, 100)).await,
            Self::JoinRemote => Box::pin(join_remote::join(name, stage)).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_command_line() {
        for scenario in Scenario::value_variants() {
            assert_eq!(scenario.to_possible_value().unwrap().get_name(), scenario.name());
        }
    }
}
