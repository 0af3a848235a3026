//! SQLite on a disk that is full or broken, files that are gone from under a running server, and files that are not those
//! that the server wrote last.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::{Value, json};

use crate::{
    program::{Installation, Server},
    world::{escape, http_client},
};

/// How long a server may take to notice, on a slow machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A user of a server, in a room of their own.
struct Alice {
    http: reqwest::Client,
    url: String,
    token: String,
    room: String,
}

impl Alice {
    async fn on(here: &Installation, server: &Server) -> Self {
        here.run_with(&["admin", "create-user", "alice", "--password-stdin"], "ilovebananas\n").done();
        let (http, url) = (http_client(Duration::from_mins(1)), server.url.clone());
        let mut alice = Self { http, url, token: String::new(), room: String::new() };
        let identifier = json!({ "type": "m.id.user", "user": "alice" });
        let login = json!({ "type": "m.login.password", "identifier": identifier, "password": "ilovebananas" });
        let login = alice.call("POST", "/_matrix/client/v3/login", Some(login)).await;
        alice.token = login.1["access_token"].as_str().unwrap().to_owned();
        let room = alice.call("POST", "/_matrix/client/v3/createRoom", Some(json!({}))).await;
        room.1["room_id"].as_str().unwrap().clone_into(&mut alice.room);
        alice
    }

    /// Her room on the server as it was started again.
    fn at(self, server: &Server) -> Self {
        Self { url: server.url.clone(), ..self }
    }

    async fn call(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let mut request = self.http.request(method.parse().unwrap(), format!("{}{path}", self.url));
        request = request.bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.body(body.to_string());
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let is_later = answer.headers().contains_key("retry-after");
        assert!(status != 503 || is_later || path == "/ready", "a client is to be told that it may try again");
        (status, answer.json().await.unwrap())
    }

    /// The text is the transaction id, too.
    async fn say(&self, text: &str) -> u16 {
        let path = format!("/_matrix/client/v3/rooms/{}/send/m.room.message/{text}", escape(&self.room));
        self.call("PUT", &path, Some(json!({ "msgtype": "m.text", "body": text }))).await.0
    }

    /// Oldest first.
    async fn said(&self) -> Vec<String> {
        let path = format!("/_matrix/client/v3/rooms/{}/messages?dir=f&limit=100", escape(&self.room));
        let (status, page) = self.call("GET", &path, None).await;
        assert_eq!(status, 200, "{page}");
        let events = page["chunk"].as_array().unwrap();
        events.iter().filter_map(|event| event["content"]["body"].as_str().map(ToOwned::to_owned)).collect()
    }

    async fn until_ready_says(&self, status: u16) {
        let waited = tokio::time::timeout(PATIENCE, async {
            while self.call("GET", "/ready", None).await.0 != status {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        assert!(waited.await.is_ok(), "/ready did not say {status}");
    }

    /// Nothing is written, everybody is told to come again, and what was said can be read.
    async fn cannot_write(&self, texts: &[&str]) {
        for text in texts {
            assert_eq!(self.say(text).await, 503, "{text}");
        }
        self.until_ready_says(503).await;
        assert_eq!(self.said().await, ["before"]);
    }

    /// Writes that find a little room left succeed; the first that does not is answered so, and `/ready` knows.
    async fn cannot_write_more(&self, text: &str) -> Vec<String> {
        let mut written = Vec::new();
        let mut status = 200;
        while status == 200 {
            let text = format!("{text}{}", written.len());
            status = self.say(&text).await;
            written.push(text);
        }
        written.pop();
        assert_eq!(status, 503);
        assert_eq!(self.say(text).await, 503);
        self.until_ready_says(503).await;
        // Not only just after a failure.
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert_eq!(self.call("GET", "/ready", None).await.0, 503);
        }
        written
    }

    /// At the first attempt.
    async fn can_write(&self, text: &str) {
        assert_eq!(self.say(text).await, 200);
        self.until_ready_says(200).await;
    }
}

/// A disk of its own, which is gone with the test.
struct Disk(tempfile::TempDir);

impl Disk {
    /// None where this user may mount none.
    fn mount(megabytes: u32) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path()).output();
        mounted.is_ok_and(|mounted| mounted.status.success()).then_some(Self(folder))
    }

    fn filler(&self) -> PathBuf {
        self.0.path().join("filler")
    }

    /// Until there is no room for one more byte.
    fn fill(&self) {
        let mut filler = fs::File::create(self.filler()).unwrap();
        for length in [1 << 20, 1 << 12] {
            while filler.write_all(&vec![1; length]).is_ok() {}
        }
    }

    fn clear(&self) {
        fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

fn installation() -> Installation {
    let mut here = Installation::new();
    here.set("RATE_LIMITS__ENABLED", "false");
    here
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_no_end() {
    let Some(disk) = Disk::mount(24) else {
        eprintln!("skipped: only root may mount a disk that can be filled");
        return;
    };
    let mut here = installation();
    here.set("DATA_DIR", disk.0.path().join("data").to_str().unwrap());
    let server = here.start();
    let alice = Alice::on(&here, &server).await;
    alice.can_write("before").await;
    let mut written = vec!["before".to_owned()];
    for round in ["first", "second"] {
        disk.fill();
        written.extend(alice.cannot_write_more(round).await);
        disk.clear();
        alice.can_write(round).await;
        written.push(round.to_owned());
    }
    assert_eq!(alice.said().await, written, "once each");
    let log = server.stop();
    assert!(!log.contains("non-zero transaction depth") && log.contains("disk is full"), "{log}");
}

/// The system refuses every write of the server with an error that SQLite takes for a broken disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fails_is_no_end() {
    let here = installation();
    let server = here.start();
    let alice = Alice::on(&here, &server).await;
    alice.can_write("before").await;
    let limit = |current: Option<u64>| {
        let pid = Pid::from_raw(server.id().try_into().unwrap());
        prlimit(pid, Resource::Fsize, Rlimit { current, maximum: None }).unwrap();
    };
    limit(Some(0));
    alice.cannot_write(&["1", "2", "3"]).await;
    limit(None);
    alice.can_write("1").await;
    limit(Some(0));
    assert_eq!(alice.say("4").await, 503);
    limit(None);
    alice.can_write("4").await;
    assert_eq!(alice.said().await, ["before", "1", "4"], "once each");
    let log = server.stop();
    assert!(!log.contains("non-zero transaction depth") && log.contains("disk I/O error"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_are_gone_or_others_are_not_written_to() {
    let here = installation();
    let server = here.start();
    let alice = Alice::on(&here, &server).await;
    alice.can_write("before").await;
    let away = here.dir.path().join("away");
    fs::rename(here.data(), &away).unwrap();
    alice.cannot_write(&["1", "2"]).await;
    fs::rename(&away, here.data()).unwrap();
    alice.can_write("1").await;

    // As whoever restores a backup without stopping the server.
    let (file, other) = (here.data().join("hearth.sqlite3"), here.dir.path().join("other"));
    fs::copy(&file, &other).unwrap();
    fs::rename(&other, &file).unwrap();
    assert_eq!(alice.say("2").await, 503);
    alice.until_ready_says(503).await;
    assert_eq!(alice.said().await, ["before", "1"]);
    fs::remove_dir_all(here.data()).unwrap();
    assert_eq!(alice.say("2").await, 503);
    assert!(server.stop().contains("is gone from under the running server"));
    assert!(!here.data().exists(), "nothing is made anew");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_server_names_the_first_and_leaves_it_alone() {
    let here = installation();
    let server = here.start();
    let alice = Alice::on(&here, &server).await;
    let told = here.run(&["serve"]).refused();
    let process = format!("in use by process {} on ", server.id());
    assert!(told.contains(&process) && told.contains(" since 20") && told.contains("PostgreSQL"), "{told}");
    assert!(here.run(&["admin", "list-users"]).done().contains("@alice:localhost"));
    here.run(&["check-config", "--database"]).done();
    alice.can_write("before").await;
    // Killed, it leaves nothing behind that keeps the next one from starting.
    drop(server);
    let server = here.start();
    assert_eq!(alice.at(&server).said().await, ["before"], "what was acknowledged is there");
    server.stop();
}

/// What is in a folder but in its folders.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            continue;
        }
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_database_is_gone_on_from_only_if_that_is_meant() {
    let here = installation();
    let server = here.start();
    let alice = Alice::on(&here, &server).await;
    alice.can_write("before").await;
    server.stop();
    let backup = here.dir.path().join("backup");
    copy(&here.data(), &backup);
    let server = here.start();
    let alice = alice.at(&server);
    alice.can_write("after").await;
    server.stop();

    let file = here.data().join("hearth.sqlite3");
    let mark = here.data().join("hearth.sqlite3.mark");
    fs::copy(backup.join("hearth.sqlite3"), &file).unwrap();
    for _ in 0..2 {
        let told = here.run(&["serve"]).refused();
        let path = mark.display().to_string();
        assert!(told.contains("older copy") && told.contains("--restored") && told.contains(&path), "{told}");
    }
    here.start_with(&["serve", "--restored"]).stop();
    let server = here.start();
    let alice = alice.at(&server);
    assert_eq!(alice.said().await, ["before"]);
    alice.can_write("anew").await;
    server.stop();

    // A disk that is not mounted, say: nothing is made in its place.
    fs::rename(&file, here.dir.path().join("elsewhere")).unwrap();
    let told = here.run(&["serve"]).refused();
    assert!(told.contains("it is gone") && told.contains("--restored") && !file.exists(), "{told}");
    // An empty file, as of a copy that did not get far.
    fs::write(&file, "").unwrap();
    let told = here.run(&["serve"]).refused();
    assert!(told.contains("ends at position 0"), "{told}");
    fs::rename(here.dir.path().join("elsewhere"), &file).unwrap();
    here.start().stop();
    fs::remove_file(&mark).unwrap();
    fs::copy(backup.join("hearth.sqlite3"), &file).unwrap();
    let server = here.start();
    let alice = alice.at(&server);
    assert_eq!(alice.said().await, ["before"], "whoever has removed the mark has said so");
    server.stop();
}
