//! What an operator does about media from the command line, beside a server that runs and after it has stopped.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#content-repository>

use std::{fs, time::Duration};

use hearth::admin::{MediaAdministration, MediaCount, MediaFilter, MediaSummary};
use serde_json::{Value, json};

use crate::{
    on_both,
    program::{Installation, Server},
    s3_server::walk,
    world::{escape, http_client, new_postgres_database},
};

/// A user of a server in a process of its own.
struct Person {
    http: reqwest::Client,
    url: String,
    token: String,
}

impl Person {
    /// Makes an account and logs in to it.
    async fn new(here: &Installation, server: &Server, name: &str) -> Self {
        here.run_with(&["admin", "create-user", name, "--password-stdin"], "ilovebananas\n").done();
        let (http, url) = (http_client(Duration::from_mins(1)), server.url.clone());
        let identifier = json!({ "type": "m.id.user", "user": name });
        let body = json!({ "type": "m.login.password", "identifier": identifier, "password": "ilovebananas" });
        let login = http.post(format!("{url}/_matrix/client/v3/login")).body(body.to_string()).send().await.unwrap();
        let login: Value = serde_json::from_slice(&login.bytes().await.unwrap()).unwrap();
        Self { http, url, token: login["access_token"].as_str().unwrap().to_owned() }
    }

    /// Uploads something, and returns the status and the address.
    async fn try_upload(&self, name: &str, bytes: &[u8]) -> (u16, String) {
        let upload = self.http.post(format!("{}/_matrix/media/v3/upload?filename={name}", self.url));
        let upload = upload.bearer_auth(&self.token).header("Content-Type", "text/plain").body(bytes.to_vec());
        let answer = upload.send().await.unwrap();
        let status = answer.status().as_u16();
        let answer: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        (status, answer["content_uri"].as_str().unwrap_or_default().to_owned())
    }

    async fn upload(&self, name: &str, bytes: &[u8]) -> String {
        let (status, uri) = self.try_upload(name, bytes).await;
        assert_eq!(status, 200);
        uri
    }

    /// What comes of fetching something: status and bytes.
    async fn fetch(&self, uri: &str) -> (u16, Vec<u8>) {
        let media = uri.strip_prefix("mxc://").unwrap();
        let get = self.http.get(format!("{}/_matrix/client/v1/media/download/{media}", self.url));
        let answer = get.bearer_auth(&self.token).send().await.unwrap();
        (answer.status().as_u16(), answer.bytes().await.unwrap().to_vec())
    }

    /// Makes a room and says something in it that names media.
    async fn say_in_new_room(&self, uri: &str) -> String {
        let post = self.http.post(format!("{}/_matrix/client/v3/createRoom", self.url)).bearer_auth(&self.token);
        let room = post.body("{}").send().await.unwrap().bytes().await.unwrap();
        let room: Value = serde_json::from_slice(&room).unwrap();
        let room = room["room_id"].as_str().unwrap().to_owned();
        let body = json!({ "msgtype": "m.file", "body": "a file", "url": uri });
        let put = format!("{}/_matrix/client/v3/rooms/{}/send/m.room.message/1", self.url, escape(&room));
        let sent = self.http.put(put).bearer_auth(&self.token).body(body.to_string()).send().await.unwrap();
        assert_eq!(sent.status().as_u16(), 200);
        room
    }
}

/// An installation on each engine that is at hand.
async fn installations() -> Vec<Installation> {
    let mut all = vec![Installation::new()];
    if let Some(url) = new_postgres_database().await {
        let mut installation = Installation::new();
        installation.set("DATABASE__URL", &url);
        all.push(installation);
    }
    all
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn media_are_listed_shown_and_counted() {
    for here in installations().await {
        let server = here.start();
        let (alice, bob) = (Person::new(&here, &server, "alice").await, Person::new(&here, &server, "bob").await);
        let (one, equal) = (alice.upload("one.txt", b"some bytes").await, bob.upload("two.txt", b"some bytes").await);
        let other = bob.upload("three.txt", &[b'x'; 2_048]).await;
        server.stop();

        let all = lines(&here.run(&["admin", "list-media", "--json"]).done());
        assert_eq!(all.len(), 3, "{all:?}");
        let of_bob = lines(&here.run(&["admin", "list-media", "--user", "bob", "--json"]).done());
        assert_eq!(of_bob.len(), 2, "{of_bob:?}");
        let digest =
            all.iter().find(|media| media["mxc"] == one.as_str()).unwrap()["digest"].as_str().unwrap().to_owned();
        let equals = here.run(&["admin", "list-media", "--digest", &digest]).done();
        assert!(equals.contains(&one) && equals.contains(&equal) && !equals.contains(&other), "{equals}");
        assert!(equals.starts_with("CREATED") && equals.contains("10 B") && equals.contains("one.txt"), "{equals}");
        assert_eq!(here.run(&["admin", "list-media", "--server", "example.org"]).done(), "");

        let shown: Value = serde_json::from_str(&here.run(&["admin", "show-media", &one]).done()).unwrap();
        assert_eq!(
            (&shown["user_id"], &shown["bytes"], &shown["store"], &shown["equals"], &shown["quarantined"]),
            (&json!("@alice:localhost"), &json!(10), &json!("files"), &json!([equal]), &json!(false))
        );
        let stored = here.data().join("media").join(shown["location"].as_str().unwrap());
        assert_eq!(fs::read(stored).unwrap(), b"some bytes");

        let usage: Value = serde_json::from_str(&here.run(&["admin", "media-usage", "--json"]).done()).unwrap();
        assert_eq!(usage["stores"], json!([{ "store": "files", "files": 2, "bytes": 2_058 }]));
        assert_eq!(usage["origins"], json!([{ "origin": "upload", "files": 3, "bytes": 2_068 }]));
        assert_eq!(usage["users"][0]["user_id"], "@bob:localhost");
        let usage = here.run(&["admin", "media-usage"]).done();
        assert!(usage.contains("2.0 KiB  files") && usage.contains("@alice:localhost"), "{usage}");
        let usage = here.run(&["admin", "media-usage", "bob"]).done();
        assert!(usage.contains("2.0 KiB") && usage.contains("@bob:localhost"), "{usage}");

        for (command, told) in [
            (&["admin", "show-media", "mxc://localhost/nothing"][..], "list-media"),
            (&["admin", "show-media", "nothing"], "no address of media"),
            (&["admin", "list-media", "--user", "carol"], "no user carol"),
            (&["admin", "list-media", "--digest", "abc"], "64 hexadecimal digits"),
        ] {
            let refusal = here.run(command).refused();
            assert!(refusal.contains(told), "{command:?}: {refusal}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_quarantined_nobody_gets_until_that_is_lifted() {
    for here in installations().await {
        let server = here.start();
        let (alice, bob) = (Person::new(&here, &server, "alice").await, Person::new(&here, &server, "bob").await);
        let (one, equal) = (alice.upload("one.txt", b"some bytes").await, bob.upload("two.txt", b"some bytes").await);
        let other = bob.upload("three.txt", b"other bytes").await;
        let room = alice.say_in_new_room(&one).await;
        let shown: Value = serde_json::from_str(&here.run(&["admin", "show-media", &one]).done()).unwrap();
        let digest = shown["digest"].as_str().unwrap();
        for (target, kept_away, there) in [
            (one.as_str(), &[&one][..], &[&equal, &other][..]),
            (digest, &[&one, &equal], &[&other]),
            ("@bob:localhost", &[&equal, &other], &[&one]),
            (&room, &[&one], &[&equal, &other]),
        ] {
            let done = here.run(&["admin", "quarantine-media", target]).done();
            assert!(done.contains("Nobody gets it any more"), "{done}");
            for uri in kept_away {
                assert_eq!(bob.fetch(uri).await.0, 404, "{target} {uri}");
            }
            for uri in there {
                assert_eq!(bob.fetch(uri).await.0, 200, "{target} {uri}");
            }
            let list = here.run(&["admin", "list-quarantined"]).done();
            assert!(list.contains(target), "{list}");
            assert_eq!(lines(&here.run(&["admin", "list-quarantined", "--json"]).done()).len(), 1);
            let again = here.run(&["admin", "quarantine-media", target]).done();
            assert!(again.contains("before"), "{again}");
            if target == digest {
                assert_eq!(alice.try_upload("again.txt", b"some bytes").await.0, 403);
            }
            let lifted = here.run(&["admin", "unquarantine-media", target]).done();
            assert!(lifted.contains("is lifted"), "{lifted}");
            assert_eq!(here.run(&["admin", "list-quarantined"]).done(), "");
            for uri in kept_away {
                assert_eq!(bob.fetch(uri).await.0, 200, "{target} {uri}");
            }
        }
        for (target, told) in [
            ("localhost", "own name"),
            ("mxc://localhost/nothing", "list-media"),
            ("what?", "none of these"),
            ("@eve:example.org", "its server"),
        ] {
            let refusal = here.run(&["admin", "quarantine-media", target]).refused();
            assert!(refusal.contains(told), "{target}: {refusal}");
        }
        server.stop();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn media_are_deleted_one_by_one_and_all_of_a_user() {
    for here in installations().await {
        let server = here.start();
        let (alice, bob) = (Person::new(&here, &server, "alice").await, Person::new(&here, &server, "bob").await);
        let (one, equal) = (alice.upload("one.txt", b"some bytes").await, bob.upload("two.txt", b"some bytes").await);
        let other = bob.upload("three.txt", b"other bytes").await;

        // Where nobody can be asked whether it is meant, nothing is done.
        let meant = here.run(&["admin", "delete-media", "@bob:localhost"]).refused();
        assert!(meant.contains("2 files") && meant.contains("--yes"), "{meant}");
        assert_eq!(bob.fetch(&other).await.0, 200);

        let deleted = here.run(&["admin", "delete-media", "@bob:localhost", "--yes"]).done();
        assert!(deleted.contains("Deleted 2 files, 21 B"), "{deleted}");
        for uri in [&equal, &other] {
            assert_eq!(bob.fetch(uri).await.0, 404);
        }
        assert_eq!(bob.fetch(&one).await, (200, b"some bytes".to_vec()), "alice has the same bytes");
        here.run(&["admin", "delete-media", &one, "--yes"]).done();
        assert_eq!(alice.fetch(&one).await.0, 404);
        assert_eq!(here.run(&["admin", "list-media"]).done(), "");
        assert!(here.run(&["admin", "delete-media", &one, "--yes"]).refused().contains("list-media"));
        assert!(here.run(&["admin", "delete-media", "!room:localhost", "--yes"]).refused().contains("file by file"));
        assert!(here.run(&["admin", "delete-media", "localhost", "--yes"]).refused().contains("own name"));
        server.stop();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_finds_what_nothing_has_and_what_is_gone() {
    for here in installations().await {
        let server = here.start();
        let alice = Person::new(&here, &server, "alice").await;
        let (one, two) = (alice.upload("one.txt", b"some bytes").await, alice.upload("two.txt", b"other bytes").await);
        let media = here.data().join("media");
        let left = media.join("aa/bb/0123456789abcdef0123456789abcdef");
        let young = media.join("aa/bb/f0123456789abcdef0123456789abcde");
        fs::create_dir_all(left.parent().unwrap()).unwrap();
        for path in [&left, &young] {
            fs::write(path, "left behind").unwrap();
        }
        let long_ago = std::time::SystemTime::UNIX_EPOCH + Duration::from_hours(24 * 365 * 50);
        fs::File::options().write(true).open(&left).unwrap().set_modified(long_ago).unwrap();

        fs::write(media.join("README"), "of somebody else").unwrap();

        let found = here.run(&["admin", "sweep-media", "--dry-run"]).done();
        assert!(found.contains("Store files: 4 files") && found.contains("deleted 0 of these"), "{found}");
        assert!(left.exists());
        let swept = here.run(&["admin", "sweep-media"]).done();
        assert!(swept.contains("Nothing has 2 of them, 22 B; deleted 1 of these, 11 B."), "{swept}");
        assert!(swept.contains("1 that are not Hearth's"), "{swept}");
        assert!(!left.exists() && young.exists() && media.join("README").exists());
        assert_eq!((alice.fetch(&one).await.0, alice.fetch(&two).await.0), (200, 200));

        let shown: Value = serde_json::from_str(&here.run(&["admin", "show-media", &one]).done()).unwrap();
        fs::remove_file(media.join(shown["location"].as_str().unwrap())).unwrap();
        let said = here.run(&["admin", "sweep-media", "files"]);
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.out.contains(&one) && !said.out.contains(&two) && said.err.contains("backup"), "{said:?}");
        let nowhere = here.run(&["admin", "sweep-media", "nowhere"]).refused();
        assert!(nowhere.contains("nowhere"), "{nowhere}");

        // Whoever uploads the same once more mends it for everybody.
        alice.upload("again.txt", b"some bytes").await;
        assert_eq!(alice.fetch(&one).await, (200, b"some bytes".to_vec()));
        here.run(&["admin", "sweep-media"]).done();
        server.stop();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn media_move_to_another_store_and_another_key_beside_a_server() {
    const KEYS: [&str; 2] =
        ["old:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "new:Hx4dHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA="];
    for mut here in installations().await {
        let (old, new) = (here.dir.path().join("old"), here.dir.path().join("new"));
        let stores =
            format!("[{{ name = 'old', path = '{}' }}, {{ name = 'new', path = '{}' }}]", old.display(), new.display());
        here.set("MEDIA__STORES", &stores);
        let server = here.start();
        let alice = Person::new(&here, &server, "alice").await;
        let mut sent = Vec::new();
        for number in 1..=20_u8 {
            let bytes = vec![number; 1_000 * usize::from(number)];
            sent.push((alice.upload("file", &bytes).await, bytes));
        }
        assert_eq!(walk(&old).len(), 20);
        server.stop();

        here.set("MEDIA__STORE", "new");
        here.set("MEDIA__MASTER_KEYS", KEYS[0]);
        let server = here.start();
        let moved = here.run(&["admin", "move-media", "old", "new"]).done();
        assert!(moved.contains("20 of 20 files"), "{moved}");
        let alice = Person { url: server.url.clone(), ..alice };
        for (uri, bytes) in &sent {
            assert_eq!(alice.fetch(uri).await, (200, bytes.clone()));
        }
        let usage: Value = serde_json::from_str(&here.run(&["admin", "media-usage", "--json"]).done()).unwrap();
        let stores: Vec<_> = usage["stores"].as_array().unwrap().iter().map(|store| &store["store"]).collect();
        assert_eq!(stores, ["new"]);
        // Encrypted on the way.
        assert!(walk(&new).iter().all(|path| fs::read(path).unwrap().len() % 1_000 == 16), "{:?}", walk(&new));
        let again = here.run(&["admin", "move-media", "old", "new"]).done();
        assert!(again.contains("0 of 0 files"), "{again}");
        for (from, to, told) in [("new", "new", "new"), ("nowhere", "new", "nowhere"), ("old", "nowhere", "nowhere")] {
            let refusal = here.run(&["admin", "move-media", from, to]).refused();
            assert!(refusal.contains(told), "{refusal}");
        }
        server.stop();

        here.set("MEDIA__MASTER_KEYS", &format!("{},{}", KEYS[1], KEYS[0]));
        let server = here.start();
        let rotated = here.run(&["admin", "rotate-media-key"]).done();
        assert!(rotated.contains("20 files"), "{rotated}");
        assert!(here.run(&["admin", "rotate-media-key"]).done().contains("0 files"));
        server.stop();

        here.set("MEDIA__MASTER_KEYS", KEYS[1]);
        let server = here.start();
        let alice = Person { url: server.url.clone(), ..alice };
        for (uri, bytes) in &sent {
            assert_eq!(alice.fetch(uri).await, (200, bytes.clone()));
        }
        let shown: Value = serde_json::from_str(&here.run(&["admin", "show-media", &sent[0].0]).done()).unwrap();
        assert_eq!(shown["master_key"], "new");
        server.stop();
        here.set("MEDIA__MASTER_KEYS", "");
        let refusal = here.run(&["admin", "rotate-media-key"]).refused();
        assert!(refusal.contains("media.master_keys"), "{refusal}");
    }
}

on_both! {
    async fn a_quarantine_and_a_deletion_hold_on_every_node_at_once(world) {
        let operator = MediaAdministration::new(&world.config, world.app().db.clone(), world.clock.clone());
        let alice = world.user("alice").await;
        // JSON, as which all answers are read here.
        let uploaded = world.call_raw("POST", "/_matrix/media/v3/upload", Some(&alice.token), "[1, 2, 3]").await.ok();
        let uri = uploaded["content_uri"].as_str().unwrap();
        let path = format!("/_matrix/client/v1/media/download/{}", uri.strip_prefix("mxc://").unwrap());
        let nodes: Vec<_> = (0..world.nodes.len()).map(|node| alice.clone().at_node(&world, node)).collect();
        for node in &nodes {
            assert_eq!(node.get(&path).await.ok(), json!([1, 2, 3]));
        }
        assert!(operator.put_under_quarantine(uri).await.unwrap().changed);
        for node in &nodes {
            node.get(&path).await.refused(404, "M_NOT_FOUND");
        }
        assert_eq!(operator.list_quarantined().await.unwrap()[0].name, uri);
        assert!(operator.lift_quarantine(uri).await.unwrap().changed);
        for node in &nodes {
            node.get(&path).await.ok();
        }
        let deleted = operator.delete(uri, &mut |_| {}).await.unwrap();
        assert_eq!(deleted, MediaCount { files: 1, bytes: 9 });
        for node in &nodes {
            node.get(&path).await.refused(404, "M_NOT_FOUND");
        }
        assert!(operator.list(&MediaFilter::default(), None).await.unwrap().is_empty());
    }

    async fn pages_of_a_list_follow_each_other(world) {
        let operator = MediaAdministration::new(&world.config, world.app().db.clone(), world.clock.clone());
        let alice = world.user("alice").await;
        let mut uploaded = Vec::new();
        for number in 0..5 {
            let body = format!("[{number}]");
            let answer = world.call_raw("POST", "/_matrix/media/v3/upload", Some(&alice.token), &body).await.ok();
            uploaded.push(answer["content_uri"].as_str().unwrap().to_owned());
        }
        let names = |page: &[MediaSummary]| page.iter().map(|media| media.mxc.clone()).collect::<Vec<_>>();
        let all = operator.list(&MediaFilter::default(), None).await.unwrap();
        // In the order of the database.
        let mut sorted = names(&all);
        sorted.sort();
        uploaded.sort();
        assert_eq!(sorted, uploaded);
        let rest = operator.list(&MediaFilter::default(), Some(&all[2])).await.unwrap();
        assert_eq!(names(&rest), names(&all[3..]));
        assert!(operator.list(&MediaFilter::default(), Some(&all[4])).await.unwrap().is_empty());
        let usage = operator.usage(10).await.unwrap();
        assert_eq!((usage.users.len(), usage.users[0].files, usage.users[0].bytes), (1, 5, 15));
    }
}
