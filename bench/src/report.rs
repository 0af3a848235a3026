//! What was measured, under which conditions: a table for people, JSON for everything else.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use hyper::Method;
use serde::Serialize;
use serde_json::Value;

use crate::client::Client;
use crate::latency::{Latency, number};
use crate::meter::Cost;
use crate::stage::Stage;

/// Part of a core from which on the generator, a single thread, may hold the server up.
const BUSY_GENERATOR: f64 = 0.8;

/// The result of one scenario.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) scenario: &'static str,
    /// What is counted, such as `sends`.
    pub(crate) unit: &'static str,
    pub(crate) operations: usize,
    /// `None` where operations are held, not done.
    pub(crate) per_second: Option<f64>,
    pub(crate) latency: Option<Latency>,
    pub(crate) server_cpu_us_per_operation: Option<f64>,
    pub(crate) generator_cpu_us_per_operation: Option<f64>,
    pub(crate) disk_bytes_per_operation: Option<f64>,
    /// What only this scenario measures.
    pub(crate) figures: BTreeMap<String, f64>,
    pub(crate) cost: Cost,
}

impl Outcome {
    /// `micros` are the times that the scenario is about, one for each operation or delivery.
    pub(crate) fn new(
        scenario: &'static str,
        unit: &'static str,
        operations: usize,
        micros: Vec<u64>,
        cost: Cost,
    ) -> Self {
        let per_operation = |value: f64| (operations > 0).then(|| value / count(operations));
        Self {
            scenario,
            unit,
            operations,
            per_second: Some(count(operations) / cost.seconds),
            latency: Latency::find(micros),
            server_cpu_us_per_operation: cost.server_cpu_us.and_then(per_operation),
            generator_cpu_us_per_operation: per_operation(cost.generator_cpu_us),
            disk_bytes_per_operation: None,
            figures: BTreeMap::new(),
            cost,
        }
    }

    /// A result about what the server holds while it does nothing.
    pub(crate) fn at_rest(scenario: &'static str, unit: &'static str, operations: usize, cost: Cost) -> Self {
        let load = cost.server_cpu_us.map(|micros| micros / (cost.seconds * 1e6));
        let outcome = Self {
            per_second: None,
            server_cpu_us_per_operation: None,
            generator_cpu_us_per_operation: None,
            ..Self::new(scenario, unit, operations, Vec::new(), cost)
        };
        load.into_iter().fold(outcome, |outcome, load| outcome.with("server_load_of_a_core", load))
    }

    /// Adds a figure of the scenario's own.
    pub(crate) fn with(mut self, name: &str, value: f64) -> Self {
        self.figures.insert(name.to_owned(), value);
        self
    }

    /// Adds the percentiles of a second kind of waiting.
    pub(crate) fn with_latency(self, name: &str, micros: Vec<u64>) -> Self {
        let Some(latency) = Latency::find(micros) else {
            return self;
        };
        self.with(&format!("{name}_p50_ms"), latency.p50_ms)
            .with(&format!("{name}_p99_ms"), latency.p99_ms)
            .with(&format!("{name}_max_ms"), latency.max_ms)
    }

    /// Counts the operations over a shorter time than the costs.
    pub(crate) fn within(mut self, seconds: f64) -> Self {
        self.per_second = Some(count(self.operations) / seconds);
        self
    }

    /// Operations are messages: what each of them left on disk is worth knowing.
    pub(crate) fn with_disk(mut self) -> Self {
        self.disk_bytes_per_operation =
            self.cost.disk_growth_bytes.filter(|_| self.operations > 0).map(|bytes| bytes / count(self.operations));
        self
    }
}

fn count(value: usize) -> f64 {
    number(u64::try_from(value).unwrap_or(u64::MAX))
}

/// Where and how the run took place.
#[derive(Debug, Serialize)]
pub(crate) struct Conditions {
    generator: &'static str,
    date: Option<String>,
    note: Option<String>,
    url: String,
    other_url: String,
    server: Option<String>,
    versions: Vec<String>,
    cores: usize,
    processor: Option<String>,
    kernel: String,
    memory_kib: Option<u64>,
    seconds: u64,
    concurrency: u32,
    senders: u32,
    rate: u32,
    people: u32,
    transfers: u32,
    polls: u32,
    poll_users: u32,
    remote_members: u32,
    remote_servers: u32,
}

/// Asks the server who it is, and the machine what it is.
pub(crate) async fn conditions(stage: &Stage) -> Result<Conditions> {
    let mut client = Client::anonymous(&stage.target);
    let versions = client
        .call(&Method::GET, "/_matrix/client/versions", Bytes::new())
        .await
        .context("no Matrix homeserver answers at --url")?;
    let versions: Value = serde_json::from_slice(&versions).context("/_matrix/client/versions is no JSON")?;
    let listed = versions.get("versions").and_then(Value::as_array).into_iter().flatten();
    let own = versions.get("server").and_then(described);
    let federation = find_federation_version(&mut client).await;
    let options = &stage.options;
    Ok(Conditions {
        generator: concat!("hearth-bench ", env!("CARGO_PKG_VERSION")),
        date: options.date.clone(),
        note: options.note.clone(),
        url: options.urls.join(", "),
        other_url: options.other_urls.join(", "),
        server: own.or(federation),
        versions: listed.filter_map(Value::as_str).map(ToOwned::to_owned).collect(),
        cores: std::thread::available_parallelism()?.get(),
        processor: find_line("/proc/cpuinfo", "model name"),
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
        memory_kib: find_line("/proc/meminfo", "MemTotal")
            .and_then(|line| line.split_whitespace().next()?.parse().ok()),
        seconds: options.seconds,
        concurrency: options.concurrency,
        senders: options.senders,
        rate: options.rate,
        people: options.people,
        transfers: options.transfers,
        polls: options.polls,
        poll_users: options.poll_users,
        remote_members: options.remote_members,
        remote_servers: options.remote_servers,
    })
}

/// The server's name and version as federation has it; a server may well not answer this.
async fn find_federation_version(client: &mut Client) -> Option<String> {
    let answer = client.call(&Method::GET, "/_matrix/federation/v1/version", Bytes::new()).await.ok()?;
    let answer: Value = serde_json::from_slice(&answer).ok()?;
    described(answer.get("server")?)
}

/// `{"name": …, "version": …}`, or just a string, in one line.
fn described(server: &Value) -> Option<String> {
    let words = [Some(server), server.get("name"), server.get("version")];
    let words: Vec<&str> = words.into_iter().flatten().filter_map(Value::as_str).collect();
    (!words.is_empty()).then(|| words.join(" "))
}

fn find_line(file: &str, key: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Everything.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) conditions: Conditions,
    pub(crate) outcomes: Vec<Outcome>,
    /// Scenarios that came to no result, and why.
    pub(crate) failures: BTreeMap<&'static str, String>,
}

impl Report {
    pub(crate) fn new(conditions: Conditions) -> Self {
        Self { conditions, outcomes: Vec::new(), failures: BTreeMap::new() }
    }

    pub(crate) fn save(&self, file: &Path) -> Result<()> {
        let json = serde_json::to_vec_pretty(self)?;
        fs::write(file, json).with_context(|| format!("{} cannot be written", file.display()))
    }

    /// Prints the conditions, then a line for each scenario with what is its own below it.
    pub(crate) fn print(&self, out: &mut impl Write) -> Result<()> {
        let conditions = &self.conditions;
        writeln!(out, "{} at {}", conditions.server.as_deref().unwrap_or("unnamed server"), conditions.url)?;
        let processor = conditions.processor.as_deref().unwrap_or("unknown processor");
        writeln!(out, "{} cores ({processor}), Linux {}", conditions.cores, conditions.kernel)?;
        for remark in [&conditions.date, &conditions.note].into_iter().flatten() {
            writeln!(out, "{remark}")?;
        }
        writeln!(
            out,
            "\n{:<21} {:>18} {:>10} {:>9} {:>9} {:>9} {:>11} {:>11} {:>9}",
            "scenario", "operations", "per s", "p50 ms", "p99 ms", "max ms", "server µs", "bench µs", "MiB"
        )?;
        for outcome in &self.outcomes {
            print_outcome(out, outcome)?;
        }
        for (scenario, error) in &self.failures {
            writeln!(out, "{scenario:<21} failed: {error}")?;
        }
        writeln!(
            out,
            "\nserver µs, bench µs: processor time an operation costs the server and the generator; MiB: the server's \
             memory afterwards"
        )?;
        Ok(())
    }
}

fn print_outcome(out: &mut impl Write, outcome: &Outcome) -> Result<()> {
    let latency = |pick: fn(&Latency) -> f64| cell(outcome.latency.as_ref().map(pick), 2);
    let counted = outcome.operations > 0;
    writeln!(
        out,
        "{:<21} {:>18} {:>10} {:>9} {:>9} {:>9} {:>11} {:>11} {:>9}",
        outcome.scenario,
        if counted { format!("{} {}", outcome.operations, outcome.unit) } else { "-".to_owned() },
        cell(outcome.per_second, 1),
        latency(|latency| latency.p50_ms),
        latency(|latency| latency.p99_ms),
        latency(|latency| latency.max_ms),
        cell(outcome.server_cpu_us_per_operation, 0),
        cell(outcome.generator_cpu_us_per_operation, 0),
        cell(outcome.cost.server_memory.map(|memory| number(memory.kib()) / 1024.0), 1),
    )?;
    let disk = outcome.disk_bytes_per_operation.map(|bytes| ("disk_bytes_per_operation", bytes));
    let own = outcome.figures.iter().map(|(name, value)| (name.as_str(), *value));
    for (name, value) in own.chain(disk) {
        writeln!(out, "  {name:<32} {}", cell(Some(value), 2))?;
    }
    let load = outcome.cost.generator_load;
    if load > BUSY_GENERATOR {
        writeln!(out, "  the generator used {:.0}% of a core and may have been the limit", load * 100.0)?;
    }
    Ok(())
}

fn cell(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.decimals$}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_server_may_describe_itself_in_two_ways() {
        assert_eq!(described(&json!({"name": "Hearth", "version": "1"})).as_deref(), Some("Hearth 1"));
        assert_eq!(described(&json!("Hearth 1")).as_deref(), Some("Hearth 1"));
        assert_eq!(described(&json!({})), None);
    }
}
