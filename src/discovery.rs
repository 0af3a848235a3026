//! What this server tells about itself to whoever asks, as its operator configured it.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#server-discovery>

use ruma::{
    RoomVersionId,
    api::client::{discovery::discover_support::Contact, rtc::RtcTransport},
    serde::Base64,
};

#[derive(Clone, Debug)]
pub(crate) struct Discovery {
    /// Where clients find the API, for users who only know the server name.
    pub(crate) client_base_url: Option<String>,
    pub(crate) support_contacts: Vec<Contact>,
    pub(crate) support_page: Option<String>,
    /// What carries the calls of many, best first.
    pub(crate) rtc_transports: Vec<RtcTransport>,
    /// What others check the policy server's signatures with, if there is one at this name.
    pub(crate) policy_server_key: Option<Base64>,
    /// What new rooms are made of.
    pub(crate) default_room_version: RoomVersionId,
}
