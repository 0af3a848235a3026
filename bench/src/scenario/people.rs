//! Finding people in the user directory, as they are typed.

use std::time::Duration;

use anyhow::Result;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::client::{Client, Preset, User};
use crate::latency::number;
use crate::message::micros;
use crate::meter::Meter;
use crate::report::Outcome;
use crate::stage::Stage;
use crate::tasks::Tasks;

/// Clients that search at once. Each sends its next search when the last one has been answered.
const SEARCHERS: usize = 4;
/// Clients that prepare the people at once.
const HANDS: usize = 16;
/// People who share a room with those who search.
const COLLEAGUES: usize = 50;
/// No searcher searches more often.
const LIMIT: usize = 50_000;
const FIRST: [&str; 8] = ["Alice", "Bob", "Carol", "Dave", "Erin", "Frank", "Grace", "Heidi"];
const LAST: [&str; 7] = ["Adams", "Baker", "Clark", "Davis", "Evans", "Frank", "Green"];
/// From what everybody's name begins with to what nobody's does.
const TERMS: [&str; 9] = ["b", "bench", "a", "alice", "fra", "carol d", "davis er", "person 77", "nobody"];

pub(super) async fn search(name: &'static str, stage: &mut Stage) -> Result<Outcome> {
    let searchers = stage.new_users(SEARCHERS).await?;
    fill(stage, &searchers).await?;
    let clock = stage.clock;
    let meter = Meter::start(&stage.options).await?;
    let end = clock.micros() + micros(Duration::from_secs(stage.options.seconds));
    let searching = Tasks::start(searchers.iter().enumerate().map(|(nth, searcher)| {
        let mut client = stage.client(searcher);
        async move {
            let (mut latencies, mut found) = (Vec::new(), 0);
            // Each begins with another term.
            for term in TERMS.into_iter().cycle().skip(nth).take(LIMIT) {
                let begun = clock.micros();
                if begun >= end {
                    break;
                }
                found += search_for(&mut client, term).await?;
                latencies.push(clock.micros() - begun);
            }
            Ok((latencies, found))
        }
    }));
    let (latencies, found): (Vec<_>, Vec<u64>) = searching.finish().await?.into_iter().unzip();
    let cost = meter.stop()?;
    let latencies: Vec<u64> = latencies.into_iter().flatten().collect();
    let searches = latencies.len();
    let mean = number(found.into_iter().sum()) / number(u64::try_from(searches.max(1))?);
    Ok(Outcome::new(name, "searches", searches, latencies, cost).with("people_a_search", mean))
}

/// Tells how many were found.
async fn search_for(client: &mut Client, term: &str) -> Result<u64> {
    #[derive(Serialize)]
    struct Request<'a> {
        search_term: &'a str,
    }
    #[derive(Deserialize)]
    struct Found {
        results: Vec<IgnoredAny>,
    }
    let found: Found = client.post("/_matrix/client/v3/user_directory/search", &Request { search_term: term }).await?;
    Ok(u64::try_from(found.results.len())?)
}

/// Makes people who can be found by anybody, and some of whom share a room with those who search.
async fn fill(stage: &mut Stage, searchers: &[User]) -> Result<()> {
    let people = stage.new_users(usize::try_from(stage.options.people)?).await?;
    let Some((host, _)) = people.split_first() else { return Ok(()) };
    eprintln!("  naming {} people", people.len());
    let mut host = stage.client(host);
    let (hall, office) =
        (host.create_room(Preset::PublicChat, "Hall").await?, host.create_room(Preset::PublicChat, "Office").await?);
    let named = people.iter().zip(names()).enumerate();
    let prepared = Tasks::start((0..HANDS).map(|hand| {
        let mine: Vec<(usize, Client, String, String)> = named
            .clone()
            .skip(hand)
            .step_by(HANDS)
            .map(|(nth, (user, name))| (nth, stage.client(user), user.id.clone(), name))
            .collect();
        let (hall, office) = (hall.clone(), office.clone());
        async move {
            for (nth, mut client, user_id, name) in mine {
                client.set_display_name(&user_id, &name).await?;
                client.join(&hall).await?;
                if nth < COLLEAGUES {
                    client.join(&office).await?;
                }
            }
            Ok(())
        }
    }));
    prepared.finish().await?;
    for searcher in searchers {
        stage.client(searcher).join(&office).await?;
    }
    Ok(())
}

fn names() -> impl Iterator<Item = String> + Clone {
    let (first, last) = (FIRST.into_iter().cycle(), LAST.into_iter().cycle());
    first.zip(last).enumerate().map(|(nth, (first, last))| format!("{first} {last} Person {nth}"))
}
