//! Bytes that are hardly HTTP, on a connection of their own: the server answers or hangs up, and goes on.

use std::{pin::pin, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{cases, dice::Dice, mutate};
use crate::{
    api,
    app::App,
    config::Config,
    db::testing,
    edge::{
        metrics::Metrics,
        serve::{self, Listeners},
    },
    ground::{clock::Clock, random::Random, tasks::Tasks},
};

/// After so many cases an honest client asks.
const HONEST_EVERY: u64 = 100;
/// A connection that is neither answered nor closed by then never is. It is no measure of anything.
const NEVER: Duration = Duration::from_mins(5);
const MOST_BYTES: usize = 1024 * 1024;
/// After so long a silence the client has nothing more to say.
const SILENCE: Duration = Duration::from_millis(20);

const HEADS: &[&str] = &[
    "GET /_matrix/client/versions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
    "GET /_matrix/client/v3/login HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer abc\r\nx-forwarded-for: 192.0.2.7\r\n\r\n",
    "POST /_matrix/client/v3/login HTTP/1.1\r\nhost: localhost\r\ncontent-length: 26\r\n\r\n{\"type\":\"m.login.example\"}",
    "POST /_matrix/client/v3/login HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "PUT /_matrix/client/v3/profile/%40a%3Alocalhost/displayname HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n{}",
    "OPTIONS * HTTP/1.1\r\nhost: localhost\r\norigin: https://example.org\r\naccess-control-request-method: PUT\r\n\r\n",
    "GET http://localhost/_matrix/client/v3/rooms/..%2f..%2fadmin/state?a=%zz HTTP/1.0\r\n\r\n",
    "HEAD /_matrix/../health?access_token=a&access_token=b HTTP/1.1\r\nhost: \u{fc}\r\nhost: b\r\n\r\n",
    "CONNECT localhost:80 HTTP/1.1\r\nupgrade: h2c\r\nconnection: upgrade\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0\0\0\u{5}\u{1}\u{5}\0\0\0\u{1}\u{2}\u{4}\u{7}\u{6}\u{3}",
];

fn draw(dice: &mut Dice) -> Vec<u8> {
    let mut all = Vec::new();
    for _ in 0..=dice.small(3) {
        let head = dice.pick(HEADS).as_bytes().to_vec();
        all.extend(mutate::bytes(dice, head));
    }
    if dice.one_in(20) {
        let header = format!("x-{}: {}\r\n", mutate::junk(dice), "x".repeat(dice.below(100_000)));
        let place = all.windows(2).position(|end| end == b"\r\n").map_or(0, |place| place + 2);
        all.splice(place..place, header.into_bytes());
    }
    all
}

/// Sends everything and reads what comes; where nothing more comes, the server hears that there is nothing to wait for.
async fn exchange(address: &str, sent: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let (mut heard, mut part) = (Vec::new(), vec![0; 16 * 1024]);
    // Whoever is hung up on has been answered: it need not have read everything.
    let mut writing = Box::pin(async {
        let (mut reading, mut writing) = stream.split();
        let write = async {
            drop(writing.write_all(sent).await);
            writing
        };
        let mut write = pin!(write);
        let mut written = None;
        loop {
            tokio::select! {
                done = &mut write, if written.is_none() => written = Some(done),
                read = tokio::time::timeout(SILENCE, reading.read(&mut part)) => match read {
                    Ok(Ok(1..)) if heard.len() > MOST_BYTES => return,
                    Ok(Ok(length @ 1..)) => heard.extend_from_slice(&part[..length]),
                    Ok(_) => return,
                    Err(_) => if let Some(writing) = &mut written {
                        drop(writing.shutdown().await);
                    }
                },
            }
        }
    });
    let ended = tokio::time::timeout(NEVER, &mut writing).await;
    assert!(ended.is_ok(), "neither answered nor closed: {}", String::from_utf8_lossy(sent));
    drop(writing);
    heard
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_connection_ends_and_the_next_one_is_served() {
    let cases = cases("heads", 10);
    let database = testing::sqlite().await;
    let (db, random) = (database.db().clone(), Random::seeded(cases.seed()));
    let (tasks, metrics) = (Tasks::new(), Metrics::new());
    let listen = vec!["127.0.0.1:0".parse().unwrap()];
    let config = Config { listen, data_dir: database.data_dir(), ..Config::default() };
    let listeners = Listeners::bind(&config.listen, &config).unwrap();
    let address = listeners.urls()[0].trim_start_matches("http://").trim_end_matches('/').to_owned();
    let starting = App::start(config, db, Clock::system(), random.clone(), tasks.clone(), metrics.clone());
    let app = Box::pin(starting).await.unwrap();
    let router = serve::layer(api::router(app.clone()), &metrics, &random);
    tasks.spawn("listeners", listeners.serve(router, &tasks, &metrics));
    for mut case in cases {
        let sent = draw(&mut case.dice);
        let heard = exchange(&address, &sent).await;
        let said = String::from_utf8_lossy(&heard);
        // Of HTTP/2 only frames are heard.
        let failed = ["500", "502", "503", "504"].iter().any(|status| said.contains(&format!("HTTP/1.1 {status}")));
        let too_much = heard.len() > MOST_BYTES;
        assert!(!failed && !too_much, "{}\nis answered\n{said}", String::from_utf8_lossy(&sent));
        if case.number % HONEST_EVERY == 0 {
            let said = exchange(&address, HEADS[0].as_bytes()).await;
            assert!(said.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&said));
        }
    }
    assert!(tasks.shutdown().find_reason().is_none(), "something in the background has failed");
    tasks.shutdown().start("the test is over");
    drop(app);
    let left = tasks.join_all(Duration::from_mins(1)).await;
    assert!(left.is_empty(), "{left:?} did not stop");
    database.close().await;
}
