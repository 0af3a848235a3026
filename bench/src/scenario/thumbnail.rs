//! Thumbnails of photographs of 12 megapixels: when they are asked for the first time, and ever after.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use hyper::Method;

use crate::asking::ASKERS;
use crate::client::Client;
use crate::media::Photograph;
use crate::message::{Clock, micros};
use crate::meter::{self, Meter};
use crate::report::Outcome;
use crate::stage::Stage;
use crate::tasks::Tasks;

/// Different ones, for of equal ones a server need make one thumbnail only.
const PICTURES: u64 = 20;
const WIDTH: u32 = 4_000;
const HEIGHT: u32 = 3_000;
/// What is asked for, as clients do for a picture in the timeline.
const THUMBNAIL: (u32, u32) = (800, 600);
/// No client asks more often.
const LIMIT: usize = 200_000;

pub(super) async fn thumbnails(name: &'static str, stage: &mut Stage) -> Result<Outcome> {
    let users = stage.users(ASKERS).await?;
    let mut client = stage.client(users.first().context("somebody has to ask")?);
    let paths = upload(&mut client).await?;
    meter::quiet(&stage.options.pids).await?;
    let first = make(&mut client, &paths, stage.clock).await?;

    let clock = stage.clock;
    let meter = Meter::start(&stage.options).await?;
    let end = clock.micros() + micros(Duration::from_secs(stage.options.seconds));
    let asking = Tasks::start((0..).zip(&users).map(|(nth, user)| {
        let (client, mut paths) = (stage.client(user), paths.clone());
        // Each begins with another one.
        paths.rotate_left(nth);
        ask(client, paths, clock, end)
    }));
    let latencies: Vec<u64> = asking.finish().await?.into_iter().flatten().collect();
    let cost = meter.stop()?;
    Ok(Outcome::new(name, "thumbnails", latencies.len(), latencies, cost).with_latency("first", first))
}

/// Uploads the pictures and returns where their thumbnails will be.
async fn upload(client: &mut Client) -> Result<Vec<String>> {
    eprintln!("  uploading {PICTURES} photographs of {WIDTH}×{HEIGHT}");
    let photograph = Photograph::take(WIDTH, HEIGHT)?;
    let mut paths = Vec::new();
    for number in 0..PICTURES {
        let media = client.upload("image/jpeg", photograph.copy(number)?).await?;
        paths.push(media.thumbnail(THUMBNAIL.0, THUMBNAIL.1));
    }
    Ok(paths)
}

/// Asks for each for the first time, one after the other, and looks at it.
async fn make(client: &mut Client, paths: &[String], clock: Clock) -> Result<Vec<u64>> {
    let mut latencies = Vec::new();
    for path in paths {
        let begun = clock.micros();
        let answer = client.call(&Method::GET, path, Bytes::new()).await?;
        latencies.push(clock.micros() - begun);
        let picture = image::load_from_memory(&answer).with_context(|| format!("GET {path} brought no JPEG"))?;
        if (picture.width(), picture.height()) != THUMBNAIL {
            bail!("GET {path} brought a picture of {}×{}", picture.width(), picture.height());
        }
    }
    Ok(latencies)
}

async fn ask(mut client: Client, paths: Vec<String>, clock: Clock, end: u64) -> Result<Vec<u64>> {
    let mut latencies = Vec::new();
    for path in paths.iter().cycle().take(LIMIT) {
        let begun = clock.micros();
        if begun >= end {
            break;
        }
        client.skim(path).await?;
        latencies.push(clock.micros() - begun);
    }
    Ok(latencies)
}
