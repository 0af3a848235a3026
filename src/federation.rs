//! Calling other servers, and being called by them.
//!
//! Each module exists whether this server federates or not: where that is switched off, whoever would ask another server is
//! refused by [`Remote`], and the endpoints for servers refuse their callers.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/>

pub(crate) mod check;
pub(crate) mod destinations;
pub(crate) mod entrance;
pub(crate) mod fetcher;
pub(crate) mod handshakes;
pub(crate) mod inbox;
pub(crate) mod reach;
pub(crate) mod remote;
pub(crate) mod server_keys;
pub(crate) mod third_party_exchange;

use std::{ops::Deref, sync::Arc};

use ruma::ServerName;

use self::{
    destinations::Destinations,
    entrance::{Entrance, OtherResidents},
    fetcher::{Fetcher, OtherServers},
    handshakes::Handshakes,
    inbox::Inbox,
    reach::Reach,
    remote::Remote,
    server_keys::{KeyServers, ServerKeys},
    third_party_exchange::ThirdPartyExchange,
};
use crate::{
    edge::federation_client::FederationClient,
    error::{Error, Result},
    people::People,
};

/// The modules of this layer at work, on those below.
pub struct Federation {
    people: People,
    pub(crate) server_keys: ServerKeys,
    pub(crate) remote: Remote,
    pub(crate) inbox: Inbox,
    pub(crate) entrance: Entrance,
    pub(crate) reach: Reach,
    pub(crate) destinations: Destinations,
    pub(crate) handshakes: Handshakes,
    pub(crate) third_party_exchange: ThirdPartyExchange,
}

impl Deref for Federation {
    type Target = People;

    fn deref(&self) -> &People {
        &self.people
    }
}

impl Federation {
    /// Nobody is asked for anything yet.
    pub(crate) fn start(people: People) -> Result<Self> {
        let (config, server_name, key) = (&people.config, people.server_name.clone(), people.key.clone());
        let client = FederationClient::new(
            config,
            &people.sizes.caches,
            server_name.clone(),
            key.clone(),
            (people.clock.clone(), people.random.clone()),
            people.metrics.clone(),
        );
        let remote = Remote::new(client.map_err(Error::broken)?);
        let destinations = Destinations::start((people.db.clone(), people.clock.clone()), &people.tasks);
        remote.tell({
            let destinations = destinations.clone();
            Arc::new(move |server: &ServerName| destinations.heard(server))
        });
        let server_keys = ServerKeys::new(
            (people.db.clone(), people.clock.clone(), people.tasks.clone()),
            (server_name, key),
            Arc::new(remote.clone()) as Arc<dyn KeyServers>,
            config.federation.trusted_key_servers.clone(),
            &people.sizes.caches,
        );
        let source = OtherServers::over(remote.clone(), server_keys.clone());
        let fetcher = Fetcher::new(people.db.clone(), people.rooms.clone(), source);
        let inbox = Inbox::start(&people, people.rooms.clone(), fetcher.clone());
        let (clock, tasks) = (people.clock.clone(), people.tasks.clone());
        let read = (people.rooms.clone(), fetcher.clone());
        let reach = Reach::over(remote.clone(), read, (clock, tasks), &people.sizes.caches);
        let residents = OtherResidents::over(remote.clone(), server_keys.clone(), people.config.federation.clone());
        let entrance = Entrance::new(people.rooms.clone(), people.tasks.clone(), residents);
        let handshakes = Handshakes::new(people.rooms.clone(), server_keys.clone());
        let third_party_exchange =
            ThirdPartyExchange::new(people.rooms.clone(), people.third_party_invites.clone(), entrance.clone());
        Ok(Self { people, server_keys, remote, inbox, entrance, reach, destinations, handshakes, third_party_exchange })
    }
}
