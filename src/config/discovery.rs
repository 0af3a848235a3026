//! What this server publishes about itself, as its operator configured it: where its API is, whom to turn to, which
//! services carry calls.
//!
//! It is made once from the configuration, so that handlers answer without looking at anything else.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#server-discovery>

use ruma::{
    OwnedServerName, RoomVersionId,
    api::client::{discovery::discover_support::Contact, rtc::RtcTransport},
    serde::Base64,
};

use super::Config;

/// Nothing of it is secret: anybody may ask for it, without logging in.
#[derive(Clone, Debug)]
pub(crate) struct Discovery {
    /// Where clients find the API, for users who only know the server name.
    pub(crate) client_base_url: Option<String>,
    /// Where other servers find this one, if it federates and they would not find it by its name.
    pub(crate) server: Option<OwnedServerName>,
    pub(crate) support_contacts: Vec<Contact>,
    pub(crate) support_page: Option<String>,
    /// What carries the calls of many, best first.
    pub(crate) rtc_transports: Vec<RtcTransport>,
    /// What others check the policy server's signatures with, if there is one at this name.
    pub(crate) policy_server_key: Option<Base64>,
    /// What new rooms are made of.
    pub(crate) default_room_version: RoomVersionId,
}

impl Discovery {
    /// Called once, when the server starts.
    pub(crate) fn of(config: &Config) -> Self {
        let support = &config.well_known.support;
        Self {
            client_base_url: config.well_known.client_base_url.as_ref().map(|url| url.as_str().to_owned()),
            server: config.well_known.server.clone().filter(|_| config.federation.enabled),
            support_contacts: support.contacts.iter().filter_map(contact).collect(),
            support_page: support.page.as_ref().map(|url| url.as_str().to_owned()),
            rtc_transports: config.rtc.transports.clone(),
            policy_server_key: config.well_known.policy_server.ed25519.as_ref().map(|key| key.base64().clone()),
            default_room_version: config.rooms.default_version.clone(),
        }
    }
}

/// A contact without an address to turn to is none.
fn contact(contact: &super::Contact) -> Option<Contact> {
    let (role, address) = (contact.role.clone(), contact.email_address.clone());
    match (contact.matrix_id.clone(), address) {
        (Some(matrix_id), address) => {
            let mut out = Contact::with_matrix_id(role, matrix_id);
            out.email_address = address;
            Some(out)
        }
        (None, Some(address)) => Some(Contact::with_email_address(role, address)),
        (None, None) => None,
    }
}
