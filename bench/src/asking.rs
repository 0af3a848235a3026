//! Clients that ask one question after the other, and how long they wait for the answers.

use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use hyper::Method;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::client::User;
use crate::latency::number;
use crate::message::micros;
use crate::meter::{Cost, Meter};
use crate::report::Outcome;
use crate::stage::Stage;
use crate::tasks::Tasks;

/// Clients that ask at once. Each asks its next question when the last one has been answered.
pub(crate) const ASKERS: usize = 4;
/// No client asks more often.
const LIMIT: usize = 50_000;

/// A request that is answered with a page of something.
#[derive(Debug)]
pub(crate) struct Question {
    method: Method,
    path: String,
    body: Bytes,
}

impl Question {
    pub(crate) fn get(path: String) -> Self {
        Self { method: Method::GET, path, body: Bytes::new() }
    }

    pub(crate) fn post(path: &str, body: &impl Serialize) -> Result<Self> {
        let body = serde_json::to_vec(body).context("the question is no JSON")?;
        Ok(Self { method: Method::POST, path: path.to_owned(), body: body.into() })
    }
}

/// What was found, and where the next page begins.
#[derive(Debug, Deserialize)]
pub(crate) struct Page {
    #[serde(default, alias = "rooms", alias = "results")]
    chunk: Vec<IgnoredAny>,
    #[serde(default)]
    next_batch: Option<String>,
}

impl Page {
    /// A page that stands at the top of its answer.
    pub(crate) fn read(answer: &[u8]) -> Result<Self> {
        serde_json::from_slice(answer).context("an answer holds no page")
    }

    pub(crate) fn found(&self) -> usize {
        self.chunk.len()
    }
}

/// What was answered, in how many microseconds each, and at what cost.
#[derive(Debug)]
pub(crate) struct Answers {
    pub(crate) micros: Vec<u64>,
    found: u64,
    cost: Cost,
}

impl Answers {
    /// `found` names what a question finds.
    pub(crate) fn outcome(self, scenario: &'static str, unit: &'static str, found: &str) -> Result<Outcome> {
        let asked = self.micros.len();
        let mean = number(self.found) / number(u64::try_from(asked.max(1))?);
        Ok(Outcome::new(scenario, unit, asked, self.micros, self.cost).with(found, mean))
    }
}

/// Has each user ask for as long as scenarios are measured. What a user asks comes from the token of the page after
/// the last answer, if there is one, and `next`, which `course` makes for the user of each index.
pub(crate) async fn ask<N>(
    stage: &Stage,
    users: &[User],
    read: fn(&[u8]) -> Result<Page>,
    course: impl Fn(usize) -> N,
) -> Result<Answers>
where
    N: FnMut(Option<String>) -> Result<Question> + Send + 'static,
{
    let clock = stage.clock;
    let meter = Meter::start(&stage.options).await?;
    let end = clock.micros() + micros(Duration::from_secs(stage.options.seconds));
    let asking = Tasks::start(users.iter().enumerate().map(|(nth, user)| {
        let (mut client, mut next) = (stage.client(user), course(nth));
        async move {
            let (mut latencies, mut found, mut token) = (Vec::new(), 0, None);
            while latencies.len() < LIMIT {
                let Question { method, path, body } = next(token)?;
                let begun = clock.micros();
                if begun >= end {
                    break;
                }
                let answer = client.call(&method, &path, body).await?;
                latencies.push(clock.micros() - begun);
                let page = read(&answer)?;
                found += u64::try_from(page.found())?;
                token = page.next_batch;
            }
            Ok((latencies, found))
        }
    }));
    let (latencies, found): (Vec<_>, Vec<u64>) = asking.finish().await?.into_iter().unzip();
    let cost = meter.stop()?;
    Ok(Answers { micros: latencies.into_iter().flatten().collect(), found: found.into_iter().sum(), cost })
}
