//! Rooms as they are found: in the public directory, and below a space.

use anyhow::Result;
use serde::Serialize;

use crate::asking::{ASKERS, Page, Question, ask};
use crate::client::{NewRoom, Preset, Room, User};
use crate::report::Outcome;
use crate::stage::Stage;
use crate::tasks::Tasks;

/// Clients that prepare the rooms at once.
const HANDS: usize = 16;
/// Rooms of the space.
const CHILDREN: usize = 500;
/// The answer of `/hierarchy` has the space as well.
const ALL: usize = CHILDREN + 1;
/// Rooms on a page of the directory, as clients ask for them.
const ON_A_PAGE: u32 = 20;
/// What is looked for in the directory, between looks through its pages.
const TERMS: [&str; 5] = ["room 77", "bench", "NUMBER 4", "777", "nowhere"];
/// So many pages are looked through.
const PAGES: usize = 5;

/// `POST /publicRooms` over `--rooms` rooms.
pub(super) async fn directory(name: &'static str, stage: &mut Stage) -> Result<Outcome> {
    let askers = stage.new_users(ASKERS).await?;
    let count = usize::try_from(stage.options.rooms)?;
    eprintln!("  making {count} public rooms");
    make(stage, &askers, count, true).await?;
    let course = |nth| {
        // Each begins with another term.
        let (mut turns, mut terms) = ((0..=PAGES).cycle(), TERMS.into_iter().cycle().skip(nth));
        move |since: Option<String>| match turns.next() {
            Some(0) => look(None, terms.next()),
            Some(1) => look(None, None),
            _ => look(since, None),
        }
    };
    ask(stage, &askers, Page::read, course).await?.outcome(name, "looks", "rooms_a_look")
}

fn look(since: Option<String>, term: Option<&str>) -> Result<Question> {
    #[derive(Serialize)]
    struct Request<'a> {
        limit: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        since: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        filter: Option<Filter<'a>>,
    }
    #[derive(Serialize)]
    struct Filter<'a> {
        generic_search_term: &'a str,
    }
    let filter = term.map(|generic_search_term| Filter { generic_search_term });
    Question::post("/_matrix/client/v3/publicRooms", &Request { limit: ON_A_PAGE, since, filter })
}

/// `GET /hierarchy` of a space of 500 rooms, all of it in one answer.
pub(super) async fn hierarchy(name: &'static str, stage: &mut Stage) -> Result<Outcome> {
    let askers = stage.new_users(ASKERS).await?;
    let Some((owner, _)) = askers.split_first() else { anyhow::bail!("there is nobody to ask") };
    eprintln!("  making a space of {CHILDREN} rooms");
    let mut client = stage.client(owner);
    let space = client.create(&NewRoom::space("Space")).await?;
    for child in make(stage, &askers, CHILDREN, false).await? {
        client.add_child(&space, &child).await?;
    }
    let path = format!("/_matrix/client/v1/rooms/{}/hierarchy?limit={ALL}", space.id());
    let course = |_| {
        let path = path.clone();
        move |_| Ok(Question::get(path.clone()))
    };
    ask(stage, &askers, Page::read, course).await?.outcome(name, "walks", "rooms_a_walk")
}

/// Makes rooms that anybody may join, by several hands of the same owners.
async fn make(stage: &Stage, owners: &[User], count: usize, listed: bool) -> Result<Vec<Room>> {
    let making = Tasks::start((0..HANDS).zip(owners.iter().cycle()).map(|(hand, owner)| {
        let mut client = stage.client(owner);
        async move {
            let mut rooms = Vec::new();
            for nth in (hand..count).step_by(HANDS) {
                let name = format!("Bench room number {nth}");
                rooms.push(client.create(&NewRoom::new(Preset::PublicChat, &name).listed(listed)).await?);
            }
            Ok(rooms)
        }
    }));
    Ok(making.finish().await?.into_iter().flatten().collect())
}
