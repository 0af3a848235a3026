//! Downloads that are answered with where the bytes are, and beside them what they are to cost no more than: syncs that
//! bring nothing.
//!
//! The server has to be one that redirects, so this is played only when it is asked for.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use hyper::{Method, StatusCode};

use crate::asking::ASKERS;
use crate::client::{Client, success};
use crate::latency::number;
use crate::media::Files;
use crate::message::{Clock, micros};
use crate::meter::Meter;
use crate::reader::Reader;
use crate::report::Outcome;
use crate::stage::Stage;
use crate::tasks::Tasks;

/// No client asks more often.
const LIMIT: usize = 500_000;

pub(super) async fn compare(name: &'static str, stage: &mut Stage) -> Result<Outcome> {
    let users = stage.users(ASKERS).await?;
    let (clock, length) = (stage.clock, micros(Duration::from_secs(stage.options.seconds)));
    let mut client = stage.client(users.first().context("somebody has to upload")?);
    let media = client.upload("application/octet-stream", Files::new()?.fresh()).await?;
    let path = media.download();
    ask(&mut client, &path).await?;

    let meter = Meter::start(&stage.options).await?;
    let end = clock.micros() + length;
    let asking = Tasks::start(users.iter().map(|user| ask_until(stage.client(user), path.clone(), clock, end)));
    let downloads: Vec<u64> = asking.finish().await?.into_iter().flatten().collect();
    let cost = meter.stop()?;

    let mut readers = Vec::new();
    for user in &users {
        readers.push(Reader::new(stage.client(user), user).await?);
    }
    let meter = Meter::start(&stage.options).await?;
    let end = clock.micros() + length;
    let syncing = Tasks::start(readers.into_iter().map(|reader| sync_until(reader, clock, end)));
    let syncs: Vec<u64> = syncing.finish().await?.into_iter().flatten().collect();
    let cost_of_syncs = meter.stop()?;

    let count = number(u64::try_from(syncs.len().max(1))?);
    let outcome = Outcome::new(name, "downloads", downloads.len(), downloads, cost).with_latency("sync", syncs);
    Ok(cost_of_syncs
        .server_cpu_us
        .into_iter()
        .fold(outcome, |outcome, cpu| outcome.with("sync_server_us", cpu / count)))
}

async fn ask(client: &mut Client, path: &str) -> Result<()> {
    let answer = client.exchange(&Method::GET, path, Bytes::new()).await?;
    if answer.status == StatusCode::TEMPORARY_REDIRECT {
        return Ok(());
    }
    success(&Method::GET, path, answer)?;
    bail!("GET {path} was answered with the bytes: have the server redirect downloads to its object store or a CDN")
}

async fn ask_until(mut client: Client, path: String, clock: Clock, end: u64) -> Result<Vec<u64>> {
    let mut latencies = Vec::new();
    while clock.micros() < end && latencies.len() < LIMIT {
        let begun = clock.micros();
        ask(&mut client, &path).await?;
        latencies.push(clock.micros() - begun);
    }
    Ok(latencies)
}

async fn sync_until(mut reader: Reader, clock: Clock, end: u64) -> Result<Vec<u64>> {
    let mut latencies = Vec::new();
    while clock.micros() < end && latencies.len() < LIMIT {
        let begun = clock.micros();
        reader.sync(0).await?;
        latencies.push(clock.micros() - begun);
    }
    Ok(latencies)
}
