//! Previews of URLs: what a page says of itself, for clients to show beside a link to it.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediapreview_url>
//!
//! The server goes where a user says, so it goes to addresses outside only ([`outside_client`]), to the hosts that the
//! operator wants, and takes in little. A page is looked at once, however many ask for it, and what was seen is kept for a
//! day; that it could not be seen, for some minutes. The answer to that is always one: why would tell whoever asks what
//! there is in networks that only this server reaches.
//!
//! [`outside_client`]: crate::edge::outside_client

mod address;
mod allowance;
mod flights;
mod kept;
mod look;
mod oembed;
mod picture;
#[cfg(test)]
mod tests;
mod turns;

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use reqwest::{Url, dns::Resolve};
use ruma::{OwnedServerName, OwnedUserId, UserId};
use serde_json::{Map, Value};
use tokio::sync::Semaphore;

use self::{
    address::Hosts,
    allowance::Allowances,
    flights::Looks,
    kept::Kept,
    look::{Looker, NoSight, Seen},
    picture::Pictures,
    turns::Turns,
};
use super::objects::Objects;
use crate::{
    config::UrlPreviewsConfig,
    db::Db,
    edge::outside_client::{OutsideClient, OutsideOptions, SystemNames},
    error::{Error, Result},
    ground::{
        clock::{Clock, millis},
        random::Random,
    },
    store::url_preview,
};

/// How many pages are looked at at once. Each takes some MiB.
const AT_ONCE: usize = 16;
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// For how long it is kept that a page could not be looked at, or its picture not be taken in.
const NOTHING: Duration = Duration::from_mins(10);
const MIB: u64 = 1024 * 1024;

/// Looks at pages for this server's users. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Previews(Arc<Inner>);

struct Inner {
    db: Db,
    clock: Clock,
    hosts: Arc<Hosts>,
    looker: Looker,
    pictures: Pictures,
    languages: Vec<String>,
    lifetime: Duration,
    flights: Looks,
    turns: Turns,
    allowances: Allowances,
    places: Semaphore,
}

/// A preview as clients get it.
struct Shown {
    preview: Map<String, Value>,
    /// Whether there is a picture that was not taken in for whoever has asked. For others it would be.
    lacks_picture: bool,
}

impl Previews {
    /// None where they are not switched on.
    pub(crate) fn start(
        parts: (Db, Clock, Random),
        server_name: OwnedServerName,
        objects: Objects,
        config: &UrlPreviewsConfig,
    ) -> Result<Option<Self>> {
        if !config.enabled {
            return Ok(None);
        }
        Self::new(parts, server_name, objects, config, Arc::new(SystemNames)).map(Some)
    }

    /// `names` says which addresses a name has.
    fn new(
        (db, clock, random): (Db, Clock, Random),
        server_name: OwnedServerName,
        objects: Objects,
        config: &UrlPreviewsConfig,
        names: Arc<dyn Resolve>,
    ) -> Result<Self> {
        let time = Duration::from_secs(config.timeout_seconds);
        let own_name = || format!("Hearth/{} (bot; previews of links)", env!("CARGO_PKG_VERSION"));
        let options = OutsideOptions {
            whom: "pages of which previews are shown",
            user_agent: config.user_agent.clone().unwrap_or_else(own_name),
            connect: CONNECT.min(time),
            answer: time,
            allowed: config.allowed_addresses.clone(),
            authorities: Vec::new(),
        };
        let client = OutsideClient::new(options, names).map_err(Error::broken)?;
        let hosts = Arc::new(Hosts::new(&config.allow, &config.deny));
        let max_bytes = u64::from(config.max_image_megabytes) * MIB;
        let pictures = Pictures { db: db.clone(), clock: clock.clone(), random, server_name, objects, max_bytes };
        Ok(Self(Arc::new(Inner {
            db,
            clock,
            looker: Looker::new(client, Arc::clone(&hosts), time),
            hosts,
            pictures,
            languages: config.languages.clone(),
            lifetime: Duration::from_hours(u64::from(config.cache_hours)),
            flights: Looks::default(),
            turns: Turns::default(),
            allowances: Allowances::default(),
            places: Semaphore::new(AT_ONCE),
        })))
    }

    /// What the page at `url` says of itself, in one of the languages that a client asks for with `Accept-Language`.
    /// Empty where it says nothing.
    ///
    /// `M_INVALID_PARAM` for what is no address of a page, `M_FORBIDDEN` for a host that the operator does not want,
    /// `M_UNKNOWN` with 502 for a page that can't be looked at, and `M_LIMIT_EXCEEDED` for who waits for many.
    pub(crate) async fn preview(
        &self,
        user_id: &UserId,
        url: &str,
        accept_language: Option<&str>,
    ) -> Result<Map<String, Value>> {
        let url = address::parse(url)?;
        if !self.0.hosts.lets(&url) {
            let host = url.host_str().unwrap_or_default();
            return Err(Error::forbidden(format!("This server shows no previews of pages on {host}")));
        }
        let languages = address::languages(accept_language, &self.0.languages);
        let kept = if let Some(kept) = self.find(&url, &languages).await? {
            kept
        } else {
            let _turn = self.0.turns.take(user_id)?;
            let wanted = (url.as_str().to_owned(), languages.clone());
            let look = self.0.flights.join(wanted, self.clone().look(user_id.to_owned(), url, languages));
            look.await.map_err(Error::of_shared)?
        };
        match kept {
            Kept::Preview(preview) => Ok(preview),
            Kept::Nothing => Err(nothing_to_see()),
        }
    }

    async fn find(&self, url: &Url, languages: &str) -> Result<Option<Kept>> {
        let found = url_preview::find(&mut self.0.db.read().await?, url.as_str(), languages, self.now()).await?;
        let Some(json) = found else { return Ok(None) };
        // What another version has kept in another way is looked at anew.
        Ok(serde_json::from_str(&json).ok())
    }

    /// `user_id`: who has asked first.
    async fn look(self, user_id: OwnedUserId, url: Url, languages: String) -> Result<Kept> {
        // The last look may have ended since the database was asked.
        if let Some(kept) = self.find(&url, &languages).await? {
            return Ok(kept);
        }
        let full = |_| Error::Unavailable("The server looks at too many pages at this moment".to_owned());
        let _place = self.0.places.try_acquire().map_err(full)?;
        let (kept, lifetime) = match self.0.looker.look(&url, &languages).await {
            Ok(seen) => {
                let Shown { preview, lacks_picture } = self.show(&user_id, seen).await?;
                let lifetime = if lacks_picture { NOTHING.min(self.0.lifetime) } else { self.0.lifetime };
                (Kept::Preview(preview), lifetime)
            }
            // It says nothing of the page.
            Err(NoSight::Ending) => return Err(Error::Unavailable("The server is about to end".to_owned())),
            Err(reason) => {
                tracing::debug!(host = url.host_str(), %reason, "a page could not be looked at");
                (Kept::Nothing, NOTHING.min(self.0.lifetime))
            }
        };
        let (now, json) = (self.now(), serde_json::to_string(&kept).map_err(Error::broken)?);
        let mut tx = self.0.db.begin().await?;
        let expires_at = now.saturating_add(millis(lifetime));
        url_preview::insert(&mut tx, (url.as_str(), &languages), &json, now, expires_at).await?;
        tx.commit().await?;
        Ok(kept)
    }

    async fn show(&self, user_id: &UserId, seen: Seen) -> Result<Shown> {
        let mut preview: Map<String, Value> =
            seen.properties.into_iter().map(|(name, value)| (name, Value::String(value))).collect();
        let lacks_picture = seen.picture.is_some() && !self.0.allowances.has_some(user_id, self.now());
        let picture = match seen.picture.filter(|_| !lacks_picture) {
            Some(response) => self.0.pictures.keep(&self.0.looker, response).await?,
            None => None,
        };
        match picture {
            Some(picture) => {
                let bytes = picture.get("matrix:image:size").and_then(Value::as_u64).unwrap_or(0);
                self.0.allowances.spend(user_id, bytes, self.now());
                preview.extend(picture);
            }
            None => drop(preview.remove("og:image:alt")),
        }
        Ok(Shown { preview, lacks_picture })
    }

    fn now(&self) -> i64 {
        self.0.clock.now().get().into()
    }
}

fn nothing_to_see() -> Error {
    let message = "The page can't be shown: it is not there, answers too late, or is not on the public internet";
    Error::Relayed {
        status: StatusCode::BAD_GATEWAY.as_u16(),
        errcode: "M_UNKNOWN".to_owned(),
        message: message.to_owned(),
    }
}
