//! Files of 500 KB that are uploaded, downloaded, or both, many at once.
//!
//! No two uploads are equal, for a server may keep equal ones once. While time is measured, of a download only the length
//! is looked at; before it each file that is downloaded is compared with what was uploaded, and after it the last upload of
//! each client.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use hyper::Method;
use tokio::time::Instant;

use crate::client::{Client, User};
use crate::latency::number;
use crate::media::{FILE_BYTES, Files, Media};
use crate::message::{Clock, micros};
use crate::meter::{self, Meter, Peak};
use crate::pieces::Pieces;
use crate::procfs::Memory;
use crate::report::Outcome;
use crate::stage::Stage;
use crate::tasks::Tasks;

/// Files that are there to be downloaded, in turn.
const FILES: usize = 64;
/// No client transfers more.
const LIMIT: usize = 100_000;
const FILE_TYPE: &str = "application/octet-stream";

/// A file, and what it has to be.
type Known = (Media, Pieces);

pub(super) async fn upload(name: &'static str, stage: &mut Stage) -> Result<Outcome> {
    let transfers = transfers(stage)?;
    let transferred = transfer(stage, transfers, 0).await?;
    Ok(transferred.outcome(name)?.with_disk())
}

pub(super) async fn download(name: &'static str, stage: &mut Stage) -> Result<Outcome> {
    let transfers = transfers(stage)?;
    transfer(stage, 0, transfers).await?.outcome(name)
}

/// Half of the clients upload, the others download.
pub(super) async fn both(name: &'static str, stage: &mut Stage) -> Result<Outcome> {
    let transfers = transfers(stage)?;
    let downloads = transfers / 2;
    let transferred = transfer(stage, transfers - downloads, downloads).await?;
    let (up, down) = (transferred.uploads.clone(), transferred.downloads.clone());
    let (sent, fetched) = (transferred.megabytes_per_second(up.len())?, transferred.megabytes_per_second(down.len())?);
    Ok(transferred
        .outcome(name)?
        .with("upload_mb_per_second", sent)
        .with("download_mb_per_second", fetched)
        .with_latency("upload", up)
        .with_latency("download", down))
}

fn transfers(stage: &Stage) -> Result<usize> {
    Ok(usize::try_from(stage.options.transfers)?)
}

/// What was transferred, in how many microseconds each, and at what cost.
struct Transferred {
    uploads: Vec<u64>,
    downloads: Vec<u64>,
    /// From the first request to the last answer.
    seconds: f64,
    cost: meter::Cost,
    memory_before: Option<Memory>,
    peak: Arc<Peak>,
}

impl Transferred {
    fn megabytes_per_second(&self, files: usize) -> Result<f64> {
        Ok(number(u64::try_from(files)? * FILE_BYTES) / 1e6 / self.seconds)
    }

    fn outcome(self, name: &'static str) -> Result<Outcome> {
        let count = self.uploads.len() + self.downloads.len();
        let together = self.megabytes_per_second(count)?;
        let Self { mut uploads, downloads, seconds, cost, memory_before, peak } = self;
        uploads.extend(downloads);
        let outcome =
            Outcome::new(name, "transfers", count, uploads, cost).within(seconds).with("mb_per_second", together);
        let Some(before) = memory_before else { return Ok(outcome) };
        let mib = |kib: u64| number(kib) / 1024.0;
        Ok(outcome
            .with("memory_mib_before", mib(before.rss_kib))
            .with("memory_mib_peak", mib(peak.rss_kib()))
            .with("memory_growth_mib_peak", mib(peak.rss_kib()) - mib(before.rss_kib)))
    }
}

async fn transfer(stage: &mut Stage, up: usize, down: usize) -> Result<Transferred> {
    let users = stage.users(up + down).await?;
    let files = Files::new()?;
    let known: Arc<[Known]> = if down > 0 { fill(stage, &users, &files).await?.into() } else { Arc::default() };
    let (uploaders, downloaders) = users.split_at(up);
    let (uploaders, downloaders) = (connected(stage, uploaders).await?, connected(stage, downloaders).await?);

    let (clock, peak) = (stage.clock, Arc::new(Peak::default()));
    let meter = Meter::start(&stage.options).await?;
    let memory_before = meter::server_memory(&stage.options.pids)?;
    let length = Duration::from_secs(stage.options.seconds);
    let (start, end) = (Instant::now(), clock.micros() + micros(length));
    let watching = Tasks::start([Arc::clone(&peak).watch(stage.options.pids.clone(), start + length)]);
    let uploading = Tasks::start(uploaders.into_iter().map(|client| upload_until(client, files.clone(), clock, end)));
    let downloading = Tasks::start(
        (0..).zip(downloaders).map(|(nth, client)| download_until(client, Arc::clone(&known), nth, clock, end)),
    );
    let (uploads, last): (Vec<_>, Vec<_>) = uploading.finish().await?.into_iter().unzip();
    let downloads = downloading.finish().await?;
    let seconds = start.elapsed().as_secs_f64();
    watching.finish().await?;
    let cost = meter.stop()?;

    let last: Vec<Known> = last.into_iter().flatten().collect();
    check(stage, &users, &last).await?;
    let [uploads, downloads] = [uploads, downloads].map(|each| each.into_iter().flatten().collect());
    Ok(Transferred { uploads, downloads, seconds, cost, memory_before, peak })
}

/// Uploads what is to be downloaded, and looks at it once.
async fn fill(stage: &Stage, users: &[User], files: &Files) -> Result<Vec<Known>> {
    eprintln!("  uploading {FILES} files");
    let mut client = stage.client(users.first().context("somebody has to upload")?);
    let mut known = Vec::with_capacity(FILES);
    for _ in 0..FILES {
        let file = files.fresh();
        known.push((client.upload(FILE_TYPE, file.clone()).await?, file));
    }
    check(stage, users, &known).await?;
    Ok(known)
}

/// Whether everything is what was uploaded.
async fn check(stage: &Stage, users: &[User], known: &[Known]) -> Result<()> {
    let mut client = stage.client(users.last().context("somebody has to download")?);
    for (media, file) in known {
        let path = media.download();
        let found = client.call(&Method::GET, &path, Bytes::new()).await?;
        if !file.are(&found) {
            bail!("GET {path} brought {} bytes that are not those uploaded", found.len());
        }
    }
    Ok(())
}

/// Clients whose connections are open.
async fn connected(stage: &Stage, users: &[User]) -> Result<Vec<Client>> {
    let connecting = Tasks::start(users.iter().map(|user| {
        let mut client = stage.client(user);
        async move {
            client.connect().await?;
            Ok(client)
        }
    }));
    connecting.finish().await
}

/// Uploads one file after the other. Returns how long each took, and the last one.
async fn upload_until(mut client: Client, files: Files, clock: Clock, end: u64) -> Result<(Vec<u64>, Option<Known>)> {
    let (mut latencies, mut last) = (Vec::new(), None);
    while latencies.len() < LIMIT {
        let begun = clock.micros();
        if begun >= end {
            break;
        }
        let file = files.fresh();
        let media = client.upload(FILE_TYPE, file.clone()).await?;
        latencies.push(clock.micros() - begun);
        last = Some((media, file));
    }
    Ok((latencies, last))
}

/// Downloads one file after the other; the client of each index begins with another one.
async fn download_until(
    mut client: Client,
    known: Arc<[Known]>,
    nth: usize,
    clock: Clock,
    end: u64,
) -> Result<Vec<u64>> {
    let mut latencies = Vec::new();
    for (media, _) in known.iter().cycle().skip(nth % FILES).take(LIMIT) {
        let begun = clock.micros();
        if begun >= end {
            break;
        }
        let path = media.download();
        let bytes = client.skim(&path).await?;
        latencies.push(clock.micros() - begun);
        if bytes != FILE_BYTES {
            bail!("GET {path} brought {bytes} bytes, not {FILE_BYTES}");
        }
    }
    Ok(latencies)
}
