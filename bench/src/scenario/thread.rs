//! Reading through a long thread.

use anyhow::{Context as _, Result};

use crate::asking::{ASKERS, Page, Question, ask};
use crate::client::EventId;
use crate::report::Outcome;
use crate::stage::Stage;
use crate::tasks::Tasks;

const REPLIES: usize = 10_000;
/// Clients that write the replies at once.
const HANDS: usize = 16;
/// Replies on a page.
const ON_A_PAGE: usize = 50;

/// `GET /relations` of a thread of 10,000 replies, page after page from the newest to the oldest.
pub(super) async fn relations(name: &'static str, stage: &mut Stage) -> Result<Outcome> {
    let members = stage.new_users(HANDS).await?;
    let room = stage.room_of(&members).await?;
    let Some((first, _)) = members.split_first() else { anyhow::bail!("there is nobody to write") };
    let root = stage.client(first).say(&room, r#"{"msgtype":"m.text","body":"root"}"#.to_owned()).await?;
    let root: EventId = serde_json::from_slice(&root).context("a message has no id")?;
    eprintln!("  writing {REPLIES} replies");
    let writing = Tasks::start(members.iter().enumerate().map(|(hand, member)| {
        let (mut client, room, root) = (stage.client(member), room.clone(), root.clone());
        async move {
            for nth in (hand..REPLIES).step_by(HANDS) {
                let relates_to = format!(r#"{{"rel_type":"m.thread","event_id":"{root}"}}"#);
                let content =
                    format!(r#"{{"msgtype":"m.text","body":"reply number {nth}","m.relates_to":{relates_to}}}"#);
                client.say(&room, content).await?;
            }
            Ok(())
        }
    }));
    writing.finish().await?;
    let path =
        format!("/_matrix/client/v1/rooms/{}/relations/{}/m.thread?limit={ON_A_PAGE}", room.id(), root.escaped());
    let course = |_| {
        let path = path.clone();
        // A thread that has been read to its beginning is read again from its end.
        move |from: Option<String>| {
            Ok(Question::get(from.map_or_else(|| path.clone(), |at| format!("{path}&from={at}"))))
        }
    };
    ask(stage, members.get(..ASKERS).unwrap_or_default(), Page::read, course).await?.outcome(
        name,
        "pages",
        "replies_a_page",
    )
}
