//! How long a message is on its way to another homeserver: from just before its send is written here until the `/sync`
//! answer that brings it there has been read by somebody who was waiting.

use anyhow::Result;

use super::delivery::{IDLE_RATE, LOADED_ROOMS, time};
use crate::client::Preset;
use crate::reader::Reader;
use crate::report::Outcome;
use crate::sender::Sender;
use crate::stage::Stage;

pub(super) async fn idle(name: &'static str, stage: &mut Stage) -> Result<Outcome> {
    measure(name, stage, 1, IDLE_RATE).await
}

pub(super) async fn busy(name: &'static str, stage: &mut Stage) -> Result<Outcome> {
    measure(name, stage, LOADED_ROOMS, stage.options.rate).await
}

/// Rooms of two, one here who sends and one there who reads.
async fn measure(name: &'static str, stage: &mut Stage, rooms: usize, rate: u32) -> Result<Outcome> {
    let mut other = stage.other().await?;
    let (speak, read) = (stage.users(rooms).await?, other.users(rooms).await?);
    eprintln!("  making {rooms} room(s) that both homeservers are in");
    let (mut senders, mut readers) = (Vec::new(), Vec::new());
    for (speaks, reads) in speak.iter().zip(&read) {
        let (mut speaker, mut reader) = (stage.client(speaks), other.client(reads));
        let room = speaker.create_room(Preset::PublicChat, "Bench").await?;
        reader.join_via(&room, speaks.server_name()?).await?;
        senders.push(Sender::new(speaker, room));
        readers.push(Reader::new(reader, reads).await?);
    }
    time(name, stage, senders, readers, rate).await
}
