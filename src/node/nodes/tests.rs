use super::*;
use crate::{
    db::testing,
    event::fact::Entry,
    node::{duty::Epoch, peers::weight},
};

/// What a node is started with.
struct Machine {
    tasks: Tasks,
    clock: Clock,
}

impl Machine {
    fn new() -> Self {
        Self { tasks: Tasks::new(), clock: Clock::wrong_by(3_600_000) }
    }

    async fn enter(&self, db: &Db, address: Option<&str>) -> Nodes {
        self.enter_at(db, address, watch::channel(Position::START).1).await
    }

    async fn enter_at(&self, db: &Db, address: Option<&str>, reached: watch::Receiver<Position>) -> Nodes {
        let (random, hub, address) = (Random::system(), Hub::disconnected(), address.map(ToOwned::to_owned));
        let entering =
            Nodes::enter((db.clone(), reached), self.clock.clone(), &random, hub, address, Metrics::new(), &self.tasks);
        entering.await.unwrap()
    }

    async fn stop(self) {
        self.tasks.shutdown().start("the test is over");
        self.tasks.join_all(Duration::from_secs(10)).await;
    }
}

/// Waits for something that a beat brings about.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(20), async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.unwrap_or_else(|_elapsed| panic!("{what}"));
}

#[tokio::test]
async fn an_embedded_node_is_alone_and_does_everything() {
    let database = testing::sqlite().await;
    let machine = Machine::new();
    let node = machine.enter(database.db(), Some("http://here")).await;
    assert!(node.is_alone() && node.is_member() && node.find_not_ready_reason().is_none());
    assert_eq!(node.find_preferred("!room:here"), None);
    assert_eq!(node.duty("typing").await.unwrap().epoch(), Some(Epoch(0)));
    assert!(node::list(&mut database.db().read().await.unwrap()).await.unwrap().is_empty());
    machine.stop().await;
    database.close().await;
}

#[tokio::test]
async fn whoever_enters_is_known_to_all_and_whoever_leaves_is_missed() {
    for database in testing::databases().await {
        if database.db().engine() == Engine::Sqlite {
            continue;
        }
        let (one, other) = (Machine::new(), Machine::new());
        let first = one.enter(database.db(), Some("http://one")).await;
        assert!(first.is_alone() && first.is_member());
        let typing = first.duty("typing").await.unwrap();
        let epoch = typing.epoch().expect("there is nobody else to do it");

        let second = other.enter(database.db(), Some("http://other")).await;
        assert!(!first.is_alone() && !second.is_alone(), "an entrance ends only when all have noticed");
        assert!(first.remembers(second.id()) && second.remembers(first.id()));
        for room in ["!a:here", "!b:here", "!c:here", "!d:here", "!e:here", "!f:here", "!g:here", "!h:here"] {
            let chosen = (first.find_preferred(room), second.find_preferred(room));
            assert_ne!(chosen.0.is_none(), chosen.1.is_none(), "one of them writes itself, the other forwards to it");
        }
        let same = second.duty("typing").await.unwrap();
        until("one of two has the duty", || typing.is_mine() != same.is_mine()).await;

        one.stop().await;
        until("the others notice who has left", || second.is_alone()).await;
        until("a duty finds another", || same.is_mine()).await;
        assert!(same.epoch() > Some(epoch));
        assert!(!second.remembers(first.id()));
        assert_eq!(second.find_preferred("!a:here"), None);
        other.stop().await;
        database.close().await;
    }
}

/// What the others have written last is read before this node answers by what it knows.
#[tokio::test]
async fn whoever_was_left_alone_is_so_once_they_have_read_the_log() {
    for database in testing::databases().await {
        if database.db().engine() == Engine::Sqlite {
            continue;
        }
        let (one, other) = (Machine::new(), Machine::new());
        one.enter(database.db(), Some("http://one")).await;
        let (read, reached) = watch::channel(Position::START);
        let second = other.enter_at(database.db(), Some("http://other"), reached).await;
        let mut tx = database.db().begin().await.unwrap();
        let (at, entry) = (Position(1), Entry::Listing(ruma::room_id!("!a:here").to_owned()));
        log::insert_batch(&mut tx, at, at, "the last", &[entry]).await.unwrap();
        tx.commit().await.unwrap();
        one.stop().await;
        until("the other notices that it is left", || second.0.peers.read().alone_from == Some(at)).await;
        assert!(!second.is_alone());
        read.send_replace(at);
        assert!(second.is_alone());
        other.stop().await;
        database.close().await;
    }
}

#[tokio::test]
async fn the_database_has_the_time() {
    for database in testing::databases().await {
        if database.db().engine() == Engine::Sqlite {
            continue;
        }
        let machine = Machine::new();
        let node = machine.enter(database.db(), None).await;
        let theirs = node::now(&mut database.db().read().await.unwrap()).await.unwrap();
        let ahead = i64::from(machine.clock.now().get()) - theirs;
        assert!(ahead.abs() < 60_000, "an hour off is noticed, {ahead} ms are left");
        assert!(node.is_alone());
        machine.stop().await;
        database.close().await;
    }
}

#[tokio::test]
async fn a_lease_is_held_by_one_and_counts_its_holders() {
    for database in testing::databases().await {
        let mut conn = database.db().begin().await.unwrap();
        let (one, other) = (NodeId::from("one".to_owned()), NodeId::from("other".to_owned()));
        assert_eq!(node::take_lease(&mut conn, "push", &one, 60_000).await.unwrap(), Some(1));
        assert_eq!(node::take_lease(&mut conn, "push", &other, 60_000).await.unwrap(), None);
        assert_eq!(node::take_lease(&mut conn, "push", &one, 0).await.unwrap(), Some(1), "renewed, and over at once");
        assert_eq!(node::take_lease(&mut conn, "push", &other, 60_000).await.unwrap(), Some(2));
        assert_eq!(node::take_lease(&mut conn, "push", &one, 60_000).await.unwrap(), None);
        node::release_lease(&mut conn, "push", &one).await.unwrap();
        assert_eq!(node::take_lease(&mut conn, "push", &one, 60_000).await.unwrap(), None, "it was not theirs");
        node::release_lease(&mut conn, "push", &other).await.unwrap();
        assert_eq!(node::take_lease(&mut conn, "push", &one, 60_000).await.unwrap(), Some(3));
        drop(conn);
        database.close().await;
    }
}

#[test]
fn rooms_are_spread_evenly_and_stay_where_they_are() {
    let nodes: Vec<NodeId> = ["one", "two", "three"].map(|id| NodeId::from(id.to_owned())).into();
    let rooms: Vec<String> = (0..3_000).map(|n| format!("!room{n}:here")).collect();
    let best = |nodes: &[NodeId], room: &str| nodes.iter().max_by_key(|id| weight(id, room)).cloned().unwrap();
    for id in &nodes {
        let share = rooms.iter().filter(|room| best(&nodes, room) == *id).count();
        assert!((900..1_100).contains(&share), "{share}");
    }
    let (left, gone) = nodes.split_at(2);
    for room in &rooms {
        let before = best(&nodes, room);
        assert!(before == best(left, room) || gone.contains(&before));
    }
}
