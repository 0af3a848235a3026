//! Messages from device to device: how many a second are taken, and how a device reads through those that wait.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use hyper::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use crate::client::{Client, User};
use crate::latency::{millis, number};
use crate::message::micros;
use crate::meter::{Meter, server_memory};
use crate::procfs::Memory;
use crate::report::Outcome;
use crate::stage::Stage;
use crate::tasks::Tasks;

const SENDERS: usize = 64;
const RECIPIENTS: usize = 64;
/// No sender sends more.
const LIMIT: usize = 50_000;
/// Messages of each sender that belong to no measurement.
const WARM_UP: usize = 3;

/// Those who fill one inbox, and with how much.
const FILLERS: usize = 16;
const BACKLOG: usize = 10_000;
/// After how many pages the server's memory is looked at.
const LOOK_EVERY: usize = 5;

/// Text that stands for a session's key, encrypted for the device: a message has about 1 KB with it.
const CIPHERTEXT: usize = 800;

/// Somebody who sends numbered messages to the devices in turn.
struct Outbox {
    client: Client,
    sender: usize,
    to: Arc<[User]>,
    sent: usize,
}

impl Outbox {
    async fn send(&mut self) -> Result<()> {
        let recipient = (self.sender + self.sent) % self.to.len().max(1);
        let recipient = self.to.get(recipient).context("there is nobody to send to")?;
        self.client.send_to_device(recipient, &content(self.sender, self.sent)).await?;
        self.sent += 1;
        Ok(())
    }
}

fn content(sender: usize, number: usize) -> String {
    format!(
        r#"{{"algorithm":"m.olm.v1.curve25519-aes-sha2","bench_number":{number},"bench_sender":{sender},"ciphertext":{{"jVjjAxKVE12Xl4P9vWfGL1ExBLUT5EVhvqWWJGzPCSE":{{"body":"{:x<CIPHERTEXT$}","type":1}}}},"sender_key":"Szl29ksW/L8yZGWAX+8dY1XyFi+i5wm+DRhTGkbMiwU"}}"#,
        ""
    )
}

/// `PUT /sendToDevice` with a message for one device each. Afterwards everybody reads what was sent: what was
/// acknowledged has to be there once and in order.
pub(super) async fn send(name: &'static str, stage: &mut Stage) -> Result<Outcome> {
    let recipients: Arc<[User]> = stage.new_users(RECIPIENTS).await?.into();
    let senders = stage.users(SENDERS).await?;
    let outboxes = senders.iter().enumerate().map(|(sender, user)| {
        let mut outbox = Outbox { client: stage.client(user), sender, to: Arc::clone(&recipients), sent: 0 };
        async move {
            for _ in 0..WARM_UP {
                outbox.send().await?;
            }
            Ok(outbox)
        }
    });
    let outboxes = Tasks::start(outboxes).finish().await?;

    let clock = stage.clock;
    let meter = Meter::start(&stage.options).await?;
    let end = clock.micros() + micros(Duration::from_secs(stage.options.seconds));
    let sending = Tasks::start(outboxes.into_iter().map(|mut outbox| async move {
        let mut latencies = Vec::new();
        while latencies.len() < LIMIT {
            let begun = clock.micros();
            if begun >= end {
                break;
            }
            outbox.send().await?;
            latencies.push(clock.micros() - begun);
        }
        Ok(latencies)
    }));
    let latencies: Vec<u64> = sending.finish().await?.into_iter().flatten().collect();
    let cost = meter.stop()?;

    eprintln!("  reading what was sent");
    let reading = Tasks::start(recipients.iter().map(|user| {
        let mut reader = InboxReader::new(stage.client(user));
        async move {
            while reader.read_page().await? > 0 {}
            Ok(reader.count)
        }
    }));
    let received: usize = reading.finish().await?.into_iter().sum();
    let sent = latencies.len() + SENDERS * WARM_UP;
    if received != sent {
        bail!("{sent} messages were acknowledged and {received} received");
    }
    Ok(Outcome::new(name, "messages", latencies.len(), latencies, cost).with_disk())
}

/// `/sync` after `/sync` until nothing waits any more. Of each sender the messages have to come in their order.
pub(super) async fn backlog(name: &'static str, stage: &mut Stage) -> Result<Outcome> {
    let recipient: Arc<[User]> = stage.new_users(1).await?.into();
    let senders = stage.users(FILLERS).await?;
    eprintln!("  sending {BACKLOG} messages");
    let filling = Tasks::start(senders.iter().enumerate().map(|(sender, user)| {
        let mut outbox = Outbox { client: stage.client(user), sender, to: Arc::clone(&recipient), sent: 0 };
        async move {
            for _ in (sender..BACKLOG).step_by(FILLERS) {
                outbox.send().await?;
            }
            Ok(())
        }
    }));
    filling.finish().await?;

    let (clock, pids) = (stage.clock, stage.options.pids.clone());
    let mut reader = InboxReader::new(stage.client(recipient.first().context("nobody reads")?));
    let meter = Meter::start(&stage.options).await?;
    let before = server_memory(&pids)?;
    let (mut latencies, mut memory, mut largest) = (Vec::new(), Vec::new(), 0);
    loop {
        let begun = clock.micros();
        let found = reader.read_page().await?;
        latencies.push(clock.micros() - begun);
        if latencies.len().is_multiple_of(LOOK_EVERY) {
            memory.extend(server_memory(&pids)?);
        }
        if found == 0 {
            break;
        }
        largest = largest.max(found);
    }
    let cost = meter.stop()?;
    if reader.count != BACKLOG {
        bail!("{BACKLOG} messages were acknowledged and {} received", reader.count);
    }
    let all: u64 = latencies.iter().sum();
    let mut outcome = Outcome::new(name, "pages", latencies.len(), latencies, cost)
        .with("all_ms", millis(all))
        .with("messages_in_the_largest_page", number(u64::try_from(largest)?));
    let after = outcome.cost.server_memory;
    let peak = memory.into_iter().chain(after).map(Memory::kib).max();
    if let (Some(before), Some(peak), Some(after)) = (before, peak, after) {
        let growth = |kib: u64| (number(kib) - number(before.kib())) / 1024.0;
        outcome =
            outcome.with("memory_growth_mib_peak", growth(peak)).with("memory_growth_mib_after", growth(after.kib()));
    }
    Ok(outcome)
}

/// A device that reads its inbox, and sees to it that of each sender everything comes once and in order.
struct InboxReader {
    client: Client,
    since: Option<String>,
    /// The number of the last message of each sender.
    last: BTreeMap<usize, usize>,
    count: usize,
}

impl InboxReader {
    fn new(client: Client) -> Self {
        Self { client, since: None, last: BTreeMap::new(), count: 0 }
    }

    /// One `/sync` that does not wait, and how many messages it brought.
    async fn read_page(&mut self) -> Result<usize> {
        let since = self.since.as_deref().map(|since| utf8_percent_encode(since, NON_ALPHANUMERIC));
        let since = since.map(|since| format!("&since={since}")).unwrap_or_default();
        let path = format!("/_matrix/client/v3/sync?set_presence=offline&timeout=0{since}");
        let answer = self.client.call(&Method::GET, &path, Bytes::new()).await?;
        let Sync { next_batch, to_device } = serde_json::from_slice(&answer).context("an answer is no /sync")?;
        for Message { content: Numbered { bench_number, bench_sender } } in &to_device.events {
            let last = self.last.insert(*bench_sender, *bench_number);
            if last.is_some_and(|last| last >= *bench_number) {
                bail!("message {bench_number} of sender {bench_sender} came after {last:?}");
            }
        }
        self.count += to_device.events.len();
        self.since = Some(next_batch);
        Ok(to_device.events.len())
    }
}

#[derive(Deserialize)]
struct Sync {
    next_batch: String,
    #[serde(default)]
    to_device: Messages,
}

#[derive(Default, Deserialize)]
struct Messages {
    #[serde(default)]
    events: Vec<Message>,
}

#[derive(Deserialize)]
struct Message {
    content: Numbered,
}

#[derive(Deserialize)]
struct Numbered {
    bench_number: usize,
    bench_sender: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_of_the_size_of_a_real_one_and_numbered() {
        let content = content(3, 7);
        assert!((1_000..1_100).contains(&content.len()), "{}", content.len());
        let numbered: Numbered = serde_json::from_str(&content).unwrap();
        assert_eq!((numbered.bench_sender, numbered.bench_number), (3, 7));
    }
}
