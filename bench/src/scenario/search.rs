//! Searching what was said.
//!
//! The messages are made of words as languages have them: few are in most messages, most in hardly any.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::asking::{ASKERS, Page, Question, ask};
use crate::client::{Client, Preset, Room, User};
use crate::report::Outcome;
use crate::stage::Stage;
use crate::tasks::Tasks;

const ROOMS: usize = 64;
/// Words are made of these, three each.
const CONSONANTS: &str = "bdfghklmnprstvwz";
const VOWELS: &str = "aeiou";
const SYLLABLES: u64 = 16 * 5;
/// The words that there are: two to the power of it.
const POWERS: u64 = 15;
/// Words of a message.
const FEWEST: u64 = 6;
const SPREAD: u64 = 12;
/// The last thing that is said in every room.
const END: &str = "fullstop";
/// How often the server is asked whether its index has everything.
const LOOKS: usize = 1_200;

/// Words by how common they are, the most common first: in half of all messages, in one of 15, of a thousand, of
/// 100,000. Then several at once, a sequence, the beginning of a word, and one that was never said.
fn terms() -> Vec<String> {
    let (most, often, seldom, hardly) = (word(1), word(12), word(900), word(30_000));
    vec![
        format!("{often} {most}"),
        format!("{seldom} {often}"),
        format!("\"{most} {often}\""),
        seldom.chars().take(5).collect(),
        "xylophone".to_owned(),
        most,
        often,
        seldom,
        hardly,
    ]
}

pub(super) async fn messages(name: &'static str, stage: &mut Stage) -> Result<Outcome> {
    let searchers = stage.new_users(ASKERS).await?;
    fill(stage, &searchers).await?;
    let recent = ask(stage, &searchers, read, |nth| course(nth, "recent")).await?;
    let ranked = ask(stage, &searchers, read, |nth| course(nth, "rank")).await?;
    Ok(recent.outcome(name, "searches", "messages_a_search")?.with_latency("by_rank", ranked.micros))
}

fn course(nth: usize, order_by: &'static str) -> impl FnMut(Option<String>) -> Result<Question> + Send + 'static {
    // Each begins with another term.
    let mut terms = terms().into_iter().cycle().skip(nth);
    move |_| search_for(&terms.next().unwrap_or_default(), order_by)
}

/// As clients ask: with the message before and after each.
fn search_for(term: &str, order_by: &str) -> Result<Question> {
    #[derive(Serialize)]
    struct Request<'a> {
        search_categories: Categories<'a>,
    }
    #[derive(Serialize)]
    struct Categories<'a> {
        room_events: Criteria<'a>,
    }
    #[derive(Serialize)]
    struct Criteria<'a> {
        search_term: &'a str,
        order_by: &'a str,
        event_context: Context,
    }
    #[derive(Serialize)]
    struct Context {
        before_limit: u32,
        after_limit: u32,
        include_profile: bool,
    }
    let event_context = Context { before_limit: 1, after_limit: 1, include_profile: true };
    let room_events = Criteria { search_term: term, order_by, event_context };
    Question::post(PATH, &Request { search_categories: Categories { room_events } })
}

const PATH: &str = "/_matrix/client/v3/search";

fn read(answer: &[u8]) -> Result<Page> {
    #[derive(Deserialize)]
    struct Answer {
        search_categories: Categories,
    }
    #[derive(Deserialize)]
    struct Categories {
        room_events: Page,
    }
    let answer: Answer = serde_json::from_slice(answer).context("an answer holds no results")?;
    Ok(answer.search_categories.room_events)
}

/// Has `--messages` messages said in rooms that all searchers are in.
async fn fill(stage: &mut Stage, searchers: &[User]) -> Result<()> {
    let count = u64::from(stage.options.messages);
    let senders = stage.new_users(ROOMS).await?;
    eprintln!("  saying {count} things in {ROOMS} rooms");
    let saying = Tasks::start((0..).zip(&senders).map(|(nth, sender)| {
        let (mut client, mut searchers): (Client, Vec<Client>) =
            (stage.client(sender), searchers.iter().map(|searcher| stage.client(searcher)).collect());
        async move {
            let room = client.create_room(Preset::PublicChat, "Bench").await?;
            for searcher in &mut searchers {
                searcher.join(&room).await?;
            }
            say(&mut client, &room, nth, count).await
        }
    }));
    saying.finish().await?;
    let Some((searcher, _)) = searchers.split_first() else { return Ok(()) };
    until_found(&mut stage.client(searcher)).await
}

/// One sender's part of all messages.
async fn say(client: &mut Client, room: &Room, nth: u64, count: u64) -> Result<()> {
    for at in (nth..count).step_by(ROOMS) {
        client.send(room, &text(at)).await?;
    }
    client.send(room, END).await
}

/// Waits until the server finds what was said last in each room.
async fn until_found(client: &mut Client) -> Result<()> {
    eprintln!("  waiting for the index");
    let body =
        format!(r#"{{"search_categories":{{"room_events":{{"search_term":"{END}","filter":{{"limit":100}}}}}}}}"#);
    for _ in 0..LOOKS {
        let answer = client.call(&hyper::Method::POST, PATH, body.clone().into()).await?;
        if read(&answer)?.found() >= ROOMS {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    anyhow::bail!("the server does not find what was said last in each room")
}

/// The message of an index: always the same, so that two servers search the same.
fn text(at: u64) -> String {
    let mut random = Random(at.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let words = FEWEST + random.below(SPREAD);
    let words: Vec<String> = (0..words).map(|_| common(&mut random)).map(word).collect();
    words.join(" ")
}

/// A number that is the smaller the more likely: each power of two is as likely as the next.
fn common(random: &mut Random) -> u64 {
    let power = 1 << random.below(POWERS);
    power + random.below(power)
}

/// The word of a number below 512,000. Words of numbers next to each other begin differently.
fn word(number: u64) -> String {
    let syllables = || CONSONANTS.chars().flat_map(|consonant| VOWELS.chars().map(move |vowel| [consonant, vowel]));
    let parts = [number, number / SYLLABLES, number / SYLLABLES / SYLLABLES].map(|part| part % SYLLABLES);
    parts.iter().filter_map(|nth| syllables().nth(usize::try_from(*nth).ok()?)).flatten().collect()
}

/// Xorshift: as random as words need to be.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn words_differ() {
        let words: HashSet<String> = (0..1 << POWERS).map(word).collect();
        assert_eq!(words.len(), 1 << POWERS);
        assert!(words.iter().all(|word| word.len() == 6));
    }

    #[test]
    fn few_words_are_in_most_messages_and_most_in_few() {
        let texts: Vec<String> = (0..2_000).map(text).collect();
        let with = |number| texts.iter().filter(|text| text.split(' ').any(|said| said == word(number))).count();
        assert!((800..1_400).contains(&with(1)), "{}", with(1));
        assert!((60..250).contains(&with(12)), "{}", with(12));
        assert!(with(900) < 20, "{}", with(900));
    }
}
