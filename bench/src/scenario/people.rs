//! Finding people in the user directory, as they are typed.

use anyhow::Result;
use serde::Serialize;

use crate::asking::{ASKERS, Page, Question, ask};
use crate::client::{Client, Preset, User};
use crate::report::Outcome;
use crate::stage::Stage;
use crate::tasks::Tasks;

/// Clients that prepare the people at once.
const HANDS: usize = 16;
/// People who share a room with those who search.
const COLLEAGUES: usize = 50;
const FIRST: [&str; 8] = ["Alice", "Bob", "Carol", "Dave", "Erin", "Frank", "Grace", "Heidi"];
const LAST: [&str; 7] = ["Adams", "Baker", "Clark", "Davis", "Evans", "Frank", "Green"];
/// From what everybody's name begins with to what nobody's does.
const TERMS: [&str; 9] = ["b", "bench", "a", "alice", "fra", "carol d", "davis er", "person 77", "nobody"];

pub(super) async fn search(name: &'static str, stage: &mut Stage) -> Result<Outcome> {
    let searchers = stage.new_users(ASKERS).await?;
    fill(stage, &searchers).await?;
    let course = |nth| {
        // Each begins with another term.
        let mut terms = TERMS.into_iter().cycle().skip(nth);
        move |_| search_for(terms.next().unwrap_or_default())
    };
    ask(stage, &searchers, Page::read, course).await?.outcome(name, "searches", "people_a_search")
}

fn search_for(term: &str) -> Result<Question> {
    #[derive(Serialize)]
    struct Request<'a> {
        search_term: &'a str,
    }
    Question::post("/_matrix/client/v3/user_directory/search", &Request { search_term: term })
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
