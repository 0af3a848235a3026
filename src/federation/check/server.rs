//! A server, step by step: discovery, addresses and TLS, its keys, a request that this server signs, and whether it reaches
//! this one.

use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomAliasId, ServerName, UInt,
    api::federation::{
        discovery::{get_remote_server_keys::v2 as get_remote_server_keys, get_server_keys::v2 as get_server_keys},
        event::get_event::v1 as get_event,
        query::get_room_information::v1 as get_room_information,
    },
    serde::Base64,
};

use super::{
    FederationCheck, Told,
    judge::{self, OwnKeys},
    tell,
};
use crate::{
    edge::federation_client::{Bounds, Step, Went},
    error::{Error, Result},
    event::PublishedKey,
    federation::server_keys::{LIFETIME, PublishedKeys, read_published},
    ground::clock::millis,
    store::server_key,
};

/// For how long before it is looked at what is here of keys counts as fetched just now, in milliseconds.
const JUST_NOW: i64 = 60_000;

impl FederationCheck {
    /// Another server: whether it is reached from here, whether it takes what this one signs, and whether it reaches this
    /// one.
    pub(crate) async fn server(&self, server: &ServerName, told: &Told) -> Result<()> {
        if !self.tell_way(server, told).await {
            return self.tell_standing(server, told).await;
        }
        let Some(published) = self.ask_keys(server, told).await else { return Ok(()) };
        self.compare_remembered(server, &published, told).await?;
        let is_trusted = self.try_signed_request(server, told).await?;
        self.ask_for_own_keys(server, is_trusted, told).await;
        self.tell_standing(server, told).await
    }

    /// This server, as others see it: what this machine can see of that, and what notaries say.
    pub(crate) async fn itself(&self, told: &Told) -> Result<()> {
        self.compare_delegation(told).await;
        if !self.tell_way(&self.server_name, told).await {
            return Ok(());
        }
        let Some(published) = self.ask_keys(&self.server_name, told).await else { return Ok(()) };
        tell(told, judge::own_keys_here(&published, &self.own_keys()));
        self.try_own_request(told).await?;
        for notary in self.notaries.iter().filter(|notary| **notary != self.server_name) {
            self.ask_for_own_keys(notary, false, told).await;
        }
        if self.notaries.is_empty() {
            let advice = "`hearth admin federation-check SERVER`, with a server that you know, has that one look";
            tell(told, Step::oddly("only this machine has looked; from outside it may be otherwise").advise(advice));
        }
        Ok(())
    }

    /// From the name to an answer. Whether there was one.
    async fn tell_way(&self, server: &ServerName, told: &Told) -> bool {
        let steps = self.remote.explain(server).await;
        // Of several addresses some may be out of order.
        let is_reached = steps.last().is_some_and(|last| last.went != Went::Badly)
            || self.remote.call(server, get_server_keys::Request::new(), Bounds::QUICK).await.is_ok();
        for step in steps {
            tell(told, step);
        }
        is_reached
    }

    /// What the server says that it signs with.
    async fn ask_keys(&self, server: &ServerName, told: &Told) -> Option<PublishedKeys> {
        let answer = self.remote.call(server, get_server_keys::Request::new(), Bounds::QUICK).await;
        let read = match answer {
            Ok(answer) => read_published(answer.server_key.json(), self.now()),
            Err(error) => Err(error.to_string()),
        };
        let (step, published) = judge::published(server, read, self.now());
        tell(told, step);
        published
    }

    /// Whether the keys are those that this server knows from before.
    async fn compare_remembered(&self, server: &ServerName, published: &PublishedKeys, told: &Told) -> Result<()> {
        let remembered = server_key::list(&mut self.db.read().await?, &[server.as_str()]).await?;
        for known in remembered {
            if published.keys.get(&known.key_id).is_some_and(|key| *key != known.public_key) {
                let text = format!("its key {} is another one than this server knows by that name", known.key_id);
                tell(
                    told,
                    Step::badly(text)
                        .advise("Somebody else answers in its name, or it has lost its keys. Its operator must know"),
                );
            }
        }
        Ok(())
    }

    /// Asks for an alias that is hardly there. Whoever says so has looked at the signature before. Whether it was good.
    async fn try_signed_request(&self, server: &ServerName, told: &Told) -> Result<bool> {
        let alias = OwnedRoomAliasId::try_from(format!("#federation-check:{server}")).map_err(Error::broken)?;
        let request = get_room_information::Request::new(alias);
        let answer = self.remote.call(server, request, Bounds::QUICK).await.map(drop);
        let step = judge::signed_request(server, answer);
        let is_trusted = step.went == Went::Well;
        tell(told, step);
        Ok(is_trusted)
    }

    /// Sends this server what a proxy may change on the way: a header, and a path with what is escaped in it.
    async fn try_own_request(&self, told: &Told) -> Result<()> {
        let event_id = OwnedEventId::try_from("$federation/check").map_err(Error::broken)?;
        let request = get_event::Request::new(event_id);
        tell(told, judge::own_request(self.remote.call(&self.server_name, request, Bounds::QUICK).await.map(drop)));
        Ok(())
    }

    /// Asks a server, as a notary, for this server's keys, and for none that it has from before: it has to fetch them, so
    /// that it reaches this server.
    async fn ask_for_own_keys(&self, notary: &ServerName, is_trusted: bool, told: &Told) {
        let since = self.now().saturating_sub(JUST_NOW);
        let fresh_until = since.saturating_add(millis(LIFETIME));
        let until = MilliSecondsSinceUnixEpoch(UInt::try_from(fresh_until).unwrap_or(UInt::MAX));
        let request = get_remote_server_keys::Request::new(self.server_name.clone(), until);
        let answer = self.remote.call(notary, request, Bounds::ANSWER).await;
        let read = answer.map(|answer| {
            let documents = answer.server_keys.iter().filter_map(|json| read_published(json.json(), self.now()).ok());
            documents.filter(|document| document.server_name == self.server_name).collect::<Vec<_>>()
        });
        tell(told, judge::reverse(notary, read, &self.own_keys(), (fresh_until, is_trusted)));
    }

    /// Whether others are led where the configuration says.
    async fn compare_delegation(&self, told: &Told) {
        let Some(configured) = &self.delegate else { return };
        if self.server_name.port().is_some() || self.server_name.is_ip_literal() {
            let text =
                format!("`well_known.server` counts for nothing: {} says itself where the server is", self.server_name);
            return tell(told, Step::oddly(text).advise("Take it out of the configuration"));
        }
        let found = self.remote.find_delegate(&self.server_name).await;
        if found.as_ref().is_ok_and(|found| found.as_str().eq_ignore_ascii_case(configured.as_str())) {
            return;
        }
        let file = format!("https://{}/.well-known/matrix/server", self.server_name.host());
        let found = found.map_or_else(|error| format!("nowhere ({error})"), |found| format!("to {found}"));
        tell(
            told,
            Step::badly(format!("`well_known.server` is {configured}, and {file} leads {found}")).advise(format!(
                "Others go by the file. Hearth answers it: pass that path on to it, or serve there \
                 {{\"m.server\": \"{configured}\"}}"
            )),
        );
    }

    /// By their identifiers: all that are published, and the one that signs.
    fn own_keys(&self) -> OwnKeys {
        let shown = |one: &PublishedKey| {
            let key: Base64 = Base64::new(one.key.public_key().to_vec());
            (one.key.id().to_string(), key.encode())
        };
        OwnKeys { all: self.own.published().iter().map(shown).collect(), current: self.own.current().id().to_string() }
    }
}
