//! Looks at a page: goes where its address leads, reads what it says of itself, and goes for the picture that it shows.
//!
//! Everything that comes from there has a bound: how often it sends elsewhere, how long it takes, how much of it is read.
//! Each step is held to the hosts of the configuration, and the client to addresses outside.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http::{HeaderValue, header};
use reqwest::Url;
use tokio::{sync::Semaphore, time::timeout};

use super::{
    address::Hosts,
    oembed::{self, MAX_OEMBED},
};
use crate::{
    edge::outside_client::{OutsideClient, OutsideError, OutsideRequest, OutsideResponse},
    media::page::{self, MAX_PAGE, PageSummary},
};

/// How often a page may send elsewhere.
const MAX_REDIRECTS: usize = 5;
const PAGES: &str = "text/html,application/xhtml+xml;q=0.9,image/*;q=0.8,*/*;q=0.1";
const PICTURES: &str = "image/*";
const OEMBED: &str = "application/json";

/// Looks at pages. Cheap to clone.
#[derive(Clone)]
pub(super) struct Looker {
    client: OutsideClient,
    hosts: Arc<Hosts>,
    /// For a page with all that it leads to, and again for its picture.
    time: Duration,
    /// Work on what strangers have written takes one thread at most.
    working: Arc<Semaphore>,
}

/// What there is to see.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) properties: BTreeMap<String, String>,
    /// Whose bytes are still to be read.
    pub(super) picture: Option<OutsideResponse>,
}

/// Why there is nothing to see. Only for the log: whoever asks would learn from it what there is in a network that they
/// are not in.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoSight {
    #[error(transparent)]
    Outside(#[from] OutsideError),
    #[error("it leads to a host that is not to be asked")]
    Denied,
    #[error("it leads from one address to the next")]
    Redirects,
    #[error("it answers {0}")]
    Status(http::StatusCode),
    #[error("its answer is compressed, which nobody asked for")]
    Compressed,
    #[error("nothing is left that could read it")]
    Ending,
}

impl Looker {
    pub(super) fn new(client: OutsideClient, hosts: Arc<Hosts>, time: Duration) -> Self {
        Self { client, hosts, time, working: Arc::new(Semaphore::new(1)) }
    }

    /// How long the bytes of a picture may take.
    pub(super) fn time(&self) -> Duration {
        self.time
    }

    /// Looks at what is at an address: a page, or a picture.
    pub(super) async fn look(&self, url: &Url, languages: &str) -> Result<Seen, NoSight> {
        let seeing = timeout(self.time, self.see(url, languages));
        let (properties, picture) = match seeing.await.unwrap_or(Err(OutsideError::Slow.into()))? {
            Sight::Page { properties, picture } => (properties, picture),
            Sight::Picture(response) => return Ok(Seen { picture: Some(response), ..Seen::default() }),
            Sight::Other => return Ok(Seen::default()),
        };
        let Some(picture) = picture else { return Ok(Seen { properties, picture: None }) };
        let finding = timeout(self.time, self.fetch(picture, PICTURES, languages));
        let found = finding.await.unwrap_or(Err(OutsideError::Slow.into()));
        let picture = found.inspect_err(|reason| tracing::debug!(%reason, "a page's picture could not be fetched"));
        Ok(Seen { properties, picture: picture.ok() })
    }

    /// Does work on a thread where it holds up nobody, one after the other. None at the end of the process.
    pub(super) async fn work<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let turn = Arc::clone(&self.working).acquire_owned().await.ok()?;
        // The turn goes with the work, which goes on where nobody waits for it any more.
        let working = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(turn);
            done
        });
        working.await.ok()
    }

    async fn see(&self, url: &Url, languages: &str) -> Result<Sight, NoSight> {
        let response = self.fetch(url.clone(), PAGES, languages).await?;
        let content_type = content_type(&response);
        let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if kind.starts_with("image/") {
            return Ok(Sight::Picture(response));
        }
        if !matches!(&*kind, "text/html" | "application/xhtml+xml") {
            return Ok(Sight::Other);
        }
        let address = response.url().clone();
        let page = response.beginning(MAX_PAGE).await?;
        let reading = self.work(move || page::read(&page, Some(&content_type)));
        let mut summary = reading.await.ok_or(NoSight::Ending)?;
        let base = summary.base.as_ref().and_then(|base| address.join(base).ok()).unwrap_or(address);
        if summary.picture.is_none() || !summary.properties.contains_key("og:title") {
            self.complete(&mut summary, &base, languages).await;
        }
        let picture = summary.picture.as_ref().and_then(|picture| base.join(picture).ok());
        Ok(Sight::Page { properties: summary.properties, picture })
    }

    /// Adds what an oEmbed document says, if the page names one. It may name nothing else to be read.
    async fn complete(&self, summary: &mut PageSummary, base: &Url, languages: &str) {
        let Some(url) = summary.oembed.as_ref().and_then(|oembed| base.join(oembed).ok()) else { return };
        let reading = async {
            let response = self.fetch(url, OEMBED, languages).await?;
            Ok::<_, NoSight>(response.whole(MAX_OEMBED).await?)
        };
        // A part of the time, so that the page is shown without it where it does not come.
        match timeout(self.time / 4, reading).await.unwrap_or(Err(OutsideError::Slow.into())) {
            Ok(answer) => oembed::complete(summary, &answer),
            Err(reason) => tracing::debug!(%reason, "a page's oEmbed document could not be read"),
        }
    }

    /// Goes where an address leads to, and returns what has answered there with success.
    async fn fetch(&self, mut url: Url, accept: &'static str, languages: &str) -> Result<OutsideResponse, NoSight> {
        for _ in 0..=MAX_REDIRECTS {
            if !self.hosts.lets(&url) {
                return Err(NoSight::Denied);
            }
            let mut request = OutsideRequest::get(url);
            request.headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            if let Ok(languages) = HeaderValue::from_str(languages)
                && !languages.is_empty()
            {
                request.headers.insert(header::ACCEPT_LANGUAGE, languages);
            }
            let response = self.client.send(request).await?;
            if let Some(next) = response.redirect() {
                url = next;
                continue;
            }
            if !response.status().is_success() {
                return Err(NoSight::Status(response.status()));
            }
            let coding = response.headers().get(header::CONTENT_ENCODING);
            let is_plain = coding.is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"identity"));
            return if is_plain { Ok(response) } else { Err(NoSight::Compressed) };
        }
        Err(NoSight::Redirects)
    }
}

/// What is at an address.
enum Sight {
    Page { properties: BTreeMap<String, String>, picture: Option<Url> },
    Picture(OutsideResponse),
    Other,
}

/// Empty where there is none.
fn content_type(response: &OutsideResponse) -> String {
    let header = response.headers().get(header::CONTENT_TYPE).and_then(|header| header.to_str().ok());
    header.unwrap_or_default().to_owned()
}
