//! Every endpoint of the specification against a running server: what its OpenAPI data says, and what hostile clients
//! make of it.
//!
//! A valid request to each endpoint, and then the same with everything wrong that a client can do: no 5xx, no error
//! that is not Matrix's, no success that does not match its schema. `MATRIX_SPEC_DATA` names the folder with the data
//! (<https://github.com/matrix-org/matrix-spec/tree/main/data>); without it these tests only say that they were
//! skipped.

mod between_servers;
mod data;
mod fixture;
mod judge;
mod mutate;
mod sample;
mod schema;
mod walk;

use std::collections::BTreeSet;

use self::{
    between_servers::ServerWalk,
    data::{CLIENT_SERVER, Data, Operation, SERVER_SERVER},
    fixture::Fixture,
    mutate::Share,
    walk::Walk,
};
use crate::world::{Engine, World};

/// What this server does not have yet, by what has to come first. Whatever is routed is taken out here: the walk
/// insists on it.
const NOT_YET: [(&str, &[&str]); 2] = [
    (
        "push: rules that users change, pushers, notifications",
        &[
            "deletePushRule",
            "getNotifications",
            "postPusher",
            "setPushRule",
            "setPushRuleActions",
            "setPushRuleEnabled",
        ],
    ),
    ("OAuth and single sign-on", &["getAuthMetadata", "redirectToIdP", "redirectToSSO"]),
];

/// What servers call that this one does not have: not yet, or because there is nothing that it could say.
const NOT_YET_BETWEEN_SERVERS: [(&str, &[&str]); 4] = [
    ("devices and keys of users elsewhere", &["claimUserEncryptionKeys", "getUserDevices", "queryUserEncryptionKeys"]),
    ("media of this server for others", &["getContent", "getContentThumbnail"]),
    ("it is no policy server, and says so in this way", &["askPolicyServerToSign"]),
    ("queries of kinds that nobody has heard of: the others have endpoints of their own", &["queryInfo"]),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_endpoint_keeps_to_the_specification_on_sqlite() {
    Box::pin(walk(Engine::Sqlite, Share { important: 1, other: 3 })).await;
}

/// Fewer requests, since each takes longer. What only PostgreSQL stumbles over shows here too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_endpoint_keeps_to_the_specification_on_a_cluster() {
    Box::pin(walk(Engine::Cluster, Share { important: 2, other: 12 })).await;
}

#[ignore = "some 60 of its 1,800 answers are still to be judged, most of them invitations without `origin`"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_endpoint_between_servers_keeps_to_the_specification_on_sqlite() {
    Box::pin(walk_between_servers(Engine::Sqlite, Share { important: 1, other: 3 })).await;
}

#[ignore = "some 60 of its 1,800 answers are still to be judged, most of them invitations without `origin`"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_endpoint_between_servers_keeps_to_the_specification_on_a_cluster() {
    Box::pin(walk_between_servers(Engine::Cluster, Share { important: 2, other: 12 })).await;
}

/// The oracle is no stricter than those who wrote the data.
#[test]
fn the_specifications_own_examples_match_its_schemas() {
    let Some(data) = find_data() else { return };
    let mut faults = Vec::new();
    let mut examples = 0;
    for operation in data.operations(CLIENT_SERVER).into_iter().chain(data.operations(SERVER_SERVER)) {
        for (status, response) in &operation.responses {
            let Some(schema) = response.schema else { continue };
            examples += response.examples.len();
            for fault in response.examples.iter().flat_map(|example| schema.faults(example)) {
                faults.push(format!("{} {status}: {fault}", operation.id));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(examples > 200, "there are only {examples} examples");
}

/// What the walk reads out of the data is all that there is, and what it leaves out is there.
#[test]
fn the_walk_passes_every_endpoint() {
    let Some(data) = find_data() else { return };
    for (api, not_yet) in [(CLIENT_SERVER, &NOT_YET[..]), (SERVER_SERVER, &NOT_YET_BETWEEN_SERVERS[..])] {
        let operations = data.operations(api);
        if let Some(listed) = data.find_listed(api) {
            let read = operations.iter().map(|operation| {
                let Operation { id, method, path, .. } = operation;
                (method.to_string(), path.clone(), (*id).to_owned())
            });
            assert_eq!(read.collect::<BTreeSet<_>>(), listed);
        }
        let known: BTreeSet<_> = operations.iter().map(|operation| operation.id).collect();
        let unknown: Vec<_> = not_yet.iter().flat_map(|(_, ids)| *ids).filter(|id| !known.contains(*id)).collect();
        assert!(unknown.is_empty(), "NOT_YET names endpoints that there are not: {unknown:?}");
    }
}

async fn walk(engine: Engine, share: Share) {
    let Some(data) = find_data() else { return };
    let Some(world) = World::on(engine, fixture::configure).await else {
        eprintln!("skipped: ./test starts a PostgreSQL and a Redis for this");
        return;
    };
    let operations = data.operations(CLIENT_SERVER);
    let fixture = Fixture::set_up(world).await;
    let (requests, faults) = Walk::new(fixture, share).over(&operations).await;
    eprintln!("{requests} requests to {} endpoints", operations.len());
    assert!(faults.is_empty(), "{} of {requests} answers are wrong:\n{}", faults.len(), faults.join("\n"));
}

async fn walk_between_servers(engine: Engine, share: Share) {
    let Some(data) = find_data() else { return };
    let Some(walk) = ServerWalk::set_up(engine, share).await else {
        eprintln!("skipped: ./test starts a PostgreSQL and a Redis for this");
        return;
    };
    let operations = data.operations(SERVER_SERVER);
    let (requests, faults) = walk.over(&operations).await;
    eprintln!("{requests} requests to {} endpoints", operations.len());
    assert!(faults.is_empty(), "{} of {requests} answers are wrong:\n{}", faults.len(), faults.join("\n"));
}

fn find_data() -> Option<&'static Data> {
    let data = data::find();
    if data.is_none() {
        eprintln!("skipped: MATRIX_SPEC_DATA names no folder with the specification's data");
    }
    data
}
