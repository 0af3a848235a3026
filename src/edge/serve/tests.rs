//! The listeners with real sockets: each kind answers, certificates change under way, and shutdown lets
//! requests finish.

use std::{fs, path::Path};

use axum::{Extension, routing::get};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
    task::yield_now,
};

use super::*;
use crate::{config::ServedApis, ground::tasks::Reason};

const SOON: Duration = Duration::from_secs(10);

/// A server on the addresses of `config`, until `stop`.
struct World {
    tasks: Tasks,
    urls: Vec<String>,
    served: Tasks,
}

impl World {
    fn start(config: &Config) -> Self {
        let tasks = Tasks::new();
        let shutdown = tasks.shutdown().clone();
        let poll = move || {
            let shutdown = shutdown.clone();
            async move {
                shutdown.started().await;
                "nothing new"
            }
        };
        let router = Router::new()
            .route("/address", get(|Extension(ClientAddress(address))| async move { address.to_string() }))
            .route("/poll", get(poll))
            .route("/stuck", get(std::future::pending::<()>));
        let listeners = Listeners::bind(&config.listen, config).unwrap();
        let urls = listeners.urls();
        let metrics = Metrics::new();
        let router = layer(router, &metrics, &Random::system());
        let (served, of_server) = (Tasks::new(), tasks.clone());
        served.spawn("server", listeners.serve(router, &of_server, &metrics));
        Self { tasks, urls, served }
    }

    async fn stop(self) {
        self.tasks.shutdown().start("the test has ended");
        assert!(self.served.join_all(SOON).await.is_empty());
        assert!(self.tasks.join_all(SOON).await.is_empty());
        assert_eq!(self.tasks.shutdown().find_reason(), Some(Reason::Asked("the test has ended".to_owned())));
    }
}

fn listening_on(listen: &[&str]) -> Config {
    let listen = listen.iter().map(|address| address.parse().unwrap()).collect();
    Config { listen, ..Config::default() }
}

/// Speaks HTTP/1.1 as it is written, and returns all that comes back until the server hangs up.
async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, path: &str, headers: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn connect(url: &str) -> TcpStream {
    TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap()
}

/// Writes a certificate for `localhost` signed by itself; returns it as PEM.
fn write_certificate(folder: &Path) -> String {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(folder.join("cert.pem"), made.cert.pem()).unwrap();
    fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    made.cert.pem()
}

fn tls_client(certificate: &str) -> reqwest::Client {
    let roots = [reqwest::Certificate::from_pem(certificate.as_bytes()).unwrap()];
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    // The first test wins; the others find the same provider installed.
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        drop(rustls::crypto::CryptoProvider::install_default((*provider).clone()));
    }
    reqwest::Client::builder().tls_certs_only(roots).build().unwrap()
}

#[tokio::test]
async fn tcp_tells_who_is_calling_and_believes_only_trusted_proxies() {
    let mut config = listening_on(&["127.0.0.1:0"]);
    let world = World::start(&config);
    let answer = exchange(connect(&world.urls[0]).await, "/address", "x-forwarded-for: 198.51.100.7\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("127.0.0.1"), "{answer}");
    world.stop().await;

    config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let world = World::start(&config);
    let answer = exchange(connect(&world.urls[0]).await, "/address", "x-forwarded-for: 198.51.100.7\r\n").await;
    assert!(answer.ends_with("198.51.100.7"), "{answer}");
    world.stop().await;
}

#[tokio::test]
async fn a_unix_socket_serves_and_its_file_goes_with_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hearth.sock");
    let world = World::start(&listening_on(&[&format!("unix:{}", path.display())]));
    let stream = UnixStream::connect(&path).await.unwrap();
    let answer = exchange(stream, "/address", "x-forwarded-for: 198.51.100.7\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("198.51.100.7"), "{answer}");
    world.stop().await;
    assert!(!path.exists());
}

#[tokio::test]
async fn connections_are_refused_until_there_is_somebody_to_serve_them() {
    let config = listening_on(&["127.0.0.1:0"]);
    let listeners = Listeners::bind(&config.listen, &config).unwrap();
    let address = listeners.urls()[0].strip_prefix("http://").unwrap().to_owned();
    assert_eq!(TcpStream::connect(&address).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    let tasks = Tasks::new();
    let serving = listeners.serve(Router::new(), &tasks, &Metrics::new());
    TcpStream::connect(&address).await.unwrap();
    drop(serving);
}

#[tokio::test]
async fn an_address_in_use_is_told_with_what_to_do() {
    let world = World::start(&listening_on(&["127.0.0.1:0"]));
    let taken = world.urls[0].strip_prefix("http://").unwrap();
    let config = listening_on(&[taken]);
    let error = Listeners::bind(&config.listen, &config).err().unwrap().to_string();
    assert_eq!(error, format!("address {taken} is in use: is another hearth running? Stop it, or change `listen`"));
    world.stop().await;
}

#[tokio::test]
async fn tls_takes_a_new_certificate_but_not_a_broken_one() {
    let folder = tempfile::tempdir().unwrap();
    let first = write_certificate(folder.path());
    let tasks = Tasks::new();
    let certificate = Certificate::load(&folder.path().join("cert.pem"), &folder.path().join("key.pem")).unwrap();
    let fresh = certificate.clone().keep_fresh(Duration::from_millis(20), tasks.shutdown().clone());
    tasks.spawn("certificate", fresh);
    let (listener, address) = tcp::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let router = Router::new().route("/", get(|| async { "here" }));
    let admission = Admission::new(100, 100, Metrics::new());
    let limits = ConnectionsConfig::default();
    let (trusted, uncounted): (Arc<[IpBlock]>, Arc<[IpBlock]>) = (Arc::new([]), Arc::new([]));
    let connections = Connections { router, trusted, uncounted, admission, limits, apis: ServedApis::All };
    let ending = ShutdownPlan { shutdown: tasks.shutdown().clone(), grace: SOON, socket: None };
    let serving = BoundListener::Tls(listener, address).serve(Some(&certificate), connections, ending);
    tasks.spawn("server", async move { serving.await.unwrap() });

    let url = format!("https://localhost:{}/", address.port());
    let answer = tls_client(&first).get(&url).send().await.unwrap();
    assert_eq!(answer.text().await.unwrap(), "here");

    fs::write(folder.path().join("key.pem"), "broken").unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(tls_client(&first).get(&url).send().await.is_ok(), "the old certificate stays in use");

    let second = write_certificate(folder.path());
    let renewed = async {
        while tls_client(&second).get(&url).send().await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, renewed).await.expect("the new certificate comes into use");
    assert!(tls_client(&first).get(&url).send().await.is_err());

    tasks.shutdown().start("the test has ended");
    assert!(tasks.join_all(SOON).await.is_empty());
}

#[tokio::test]
async fn a_key_that_is_not_the_certificates_is_told_with_both_files() {
    let folder = tempfile::tempdir().unwrap();
    write_certificate(folder.path());
    let certificate = fs::read(folder.path().join("cert.pem")).unwrap();
    write_certificate(folder.path());
    fs::write(folder.path().join("cert.pem"), certificate).unwrap();

    let mut config = listening_on(&["tls:127.0.0.1:0"]);
    config.tls.certificate = Some(folder.path().join("cert.pem"));
    config.tls.key = Some(folder.path().join("key.pem"));
    let error = Listeners::bind(&config.listen, &config).err().unwrap().to_string();
    assert!(error.contains("cert.pem") && error.contains("key.pem") && error.contains("belong"), "{error}");

    config.tls.key = Some(folder.path().join("missing.pem"));
    let error = Listeners::bind(&config.listen, &config).err().unwrap().to_string();
    assert!(error.starts_with("`tls.key`: cannot read") && error.contains("missing.pem"), "{error}");
}

#[tokio::test]
async fn shutdown_answers_long_polls_and_refuses_new_connections() {
    let world = World::start(&listening_on(&["127.0.0.1:0"]));
    let url = world.urls[0].clone();
    let (poll, stop) = (exchange(connect(&url).await, "/poll", ""), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        world.stop().await;
    });
    let (answer, ()) = tokio::join!(poll, stop);
    assert!(answer.ends_with("nothing new"), "{answer}");
    yield_now().await;
    assert!(TcpStream::connect(url.strip_prefix("http://").unwrap()).await.is_err());
}

#[tokio::test]
async fn a_request_that_does_not_end_is_cut_off_after_its_grace() {
    let mut config = listening_on(&["127.0.0.1:0"]);
    config.timeouts.shutdown_seconds = 0;
    let world = World::start(&config);
    let stream = connect(&world.urls[0]).await;
    let (answer, ()) = tokio::join!(exchange(stream, "/stuck", ""), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        world.stop().await;
    });
    assert_eq!(answer, "");
}

#[tokio::test]
async fn http_2_is_spoken_with_those_who_begin_with_it() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const EMPTY_SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    let world = World::start(&listening_on(&["127.0.0.1:0"]));
    let mut stream = connect(&world.urls[0]).await;
    stream.write_all(&[PREFACE, EMPTY_SETTINGS].concat()).await.unwrap();
    let mut frame_header = [0; 9];
    stream.read_exact(&mut frame_header).await.unwrap();
    assert_eq!(frame_header[3], 4, "the server's first frame is SETTINGS: {frame_header:?}");
    drop(stream);
    world.stop().await;
}

#[tokio::test]
async fn headers_have_an_end() {
    let world = World::start(&listening_on(&["127.0.0.1:0"]));
    let long = format!("x-long: {}\r\n", "a".repeat(2 * HEADER_BYTES as usize));
    let mut stream = connect(&world.urls[0]).await;
    let request = format!("GET /address HTTP/1.1\r\nhost: localhost\r\n{long}\r\n");
    // The server may hang up before all is written.
    drop(stream.write_all(request.as_bytes()).await);
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 431");
    world.stop().await;
}

/// A server that takes this machine for many: each of its addresses is counted.
fn start_counting(config: &Config) -> (Tasks, Metrics, SocketAddr) {
    let (tasks, metrics) = (Tasks::new(), Metrics::new());
    let mut listeners = Listeners::bind(&config.listen, config).unwrap();
    listeners.uncounted = Arc::new([]);
    let address = listeners.urls()[0].strip_prefix("http://").unwrap().parse().unwrap();
    let read = axum::routing::post(|body: axum::body::Bytes| async move { body.len().to_string() });
    let router = Router::new().route("/", get(|| async { "here" })).route("/read", read);
    let router = layer(router, &metrics, &Random::system());
    tasks.spawn("server", listeners.serve(router, &tasks, &metrics));
    (tasks, metrics, address)
}

/// Connects from one of this machine's addresses.
async fn connect_from(own: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(own.parse().unwrap(), 0)).unwrap();
    socket.connect(to).await.unwrap()
}

/// Begins a body that never ends.
async fn begin_a_body(stream: &mut TcpStream) {
    stream.write_all(b"POST /read HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\nslow").await.unwrap();
}

async fn until_metric(metrics: &Metrics, line: &str) {
    let seen = async {
        while !metrics.render().unwrap().lines().any(|found| found == line) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let seen = tokio::time::timeout(SOON, seen).await;
    seen.unwrap_or_else(|_| panic!("{line}\n{}", metrics.render().unwrap()));
}

/// What comes until the connection ends, whichever way.
async fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut read = Vec::new();
    drop(stream.read_to_end(&mut read).await);
    read
}

/// Trap: some hundred slow bodies from a few addresses shut everybody out.
#[tokio::test]
async fn whoever_has_few_connections_gets_in_where_others_have_all() {
    let mut config = listening_on(&["127.0.0.1:0"]);
    config.connections.max = Some(6);
    let (tasks, metrics, address) = start_counting(&config);
    let mut slow = Vec::new();
    for count in 1..=6 {
        let mut stream = connect_from("127.0.0.2", address).await;
        begin_a_body(&mut stream).await;
        until_metric(&metrics, &format!("hearth_connections {count}")).await;
        slow.push(stream);
    }
    for _ in 0..3 {
        let answer = exchange(connect_from("127.0.0.3", address).await, "/", "").await;
        assert!(answer.ends_with("here"), "{answer}");
        until_metric(&metrics, "hearth_connections 5").await;
    }
    // The first has made room for all three, which came one after the other.
    assert_eq!(read_to_end(&mut slow[0]).await, b"");
    until_metric(&metrics, "hearth_limits_struck_total{limit=\"made_room\"} 1").await;
    slow[1].write_all(&[b'.'; 96]).await.unwrap();
    let answer = read_answer(&mut slow[1]).await;
    assert!(answer.ends_with("100"), "{answer}");
    drop(slow);
    tasks.shutdown().start("the test has ended");
    assert!(tasks.join_all(SOON).await.is_empty());
}

#[tokio::test]
async fn one_address_has_so_many_connections() {
    let mut config = listening_on(&["127.0.0.1:0"]);
    config.connections.max_per_address = 2;
    let (tasks, metrics, address) = start_counting(&config);
    let mut first = connect_from("127.0.0.2", address).await;
    begin_a_body(&mut first).await;
    let second = connect_from("127.0.0.2", address).await;
    until_metric(&metrics, "hearth_connections 2").await;
    assert_eq!(read_to_end(&mut connect_from("127.0.0.2", address).await).await, b"", "the third is refused");
    until_metric(&metrics, "hearth_limits_struck_total{limit=\"connections_of_address\"} 1").await;
    let answer = exchange(connect_from("127.0.0.3", address).await, "/", "").await;
    assert!(answer.ends_with("here"), "{answer}");
    // Who was there before stays, and who leaves makes room.
    drop(second);
    until_metric(&metrics, "hearth_connections 1").await;
    let answer = exchange(connect_from("127.0.0.2", address).await, "/", "").await;
    assert!(answer.ends_with("here"), "{answer}");
    first.write_all(&[b'.'; 96]).await.unwrap();
    assert!(read_answer(&mut first).await.ends_with("100"));
    drop(first);
    tasks.shutdown().start("the test has ended");
    assert!(tasks.join_all(SOON).await.is_empty());
}

/// Trap: a refusal by the headers alone closed the connection under a body that was still coming.
#[tokio::test]
async fn who_is_answered_before_their_body_has_come_can_go_on() {
    let config = listening_on(&["127.0.0.1:0"]);
    let tasks = Tasks::new();
    let (answered, mut has_answered) = tokio::sync::mpsc::unbounded_channel();
    let refuse = move || {
        let answered = answered.clone();
        async move {
            answered.send(()).unwrap();
            (http::StatusCode::UNAUTHORIZED, "who are you?")
        }
    };
    let listeners = Listeners::bind(&config.listen, &config).unwrap();
    let url = listeners.urls()[0].clone();
    let router = layer(Router::new().route("/", axum::routing::post(refuse)), &Metrics::new(), &Random::system());
    tasks.spawn("server", listeners.serve(router, &tasks, &Metrics::new()));

    let mut stream = connect(&url).await;
    for path in ["/", "/", "/unknown", "/"] {
        let head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 6\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        if path == "/" {
            has_answered.recv().await.unwrap();
        }
        stream.write_all(b"se").await.unwrap();
        stream.write_all(b"cret").await.unwrap();
        let expected = if path == "/" { "HTTP/1.1 401" } else { "HTTP/1.1 404" };
        let answer = read_answer(&mut stream).await;
        assert!(answer.starts_with(expected), "{path}: {answer}");
        assert!(!answer.to_ascii_lowercase().contains("connection: close"), "{answer}");
    }
    // Whoever would send the body only when asked is not asked for it.
    stream.write_all(b"POST / HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\n").await.unwrap();
    stream.write_all(b"content-length: 6\r\n\r\n").await.unwrap();
    let answer = read_answer(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    drop(stream);
    tasks.shutdown().start("the test has ended");
    assert!(tasks.join_all(SOON).await.is_empty());
}

/// One answer with its body, whose length its headers tell.
async fn read_answer(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let is_whole = |answer: &[u8]| {
        let text = String::from_utf8_lossy(answer).to_ascii_lowercase();
        let (head, body) = text.split_once("\r\n\r\n")?;
        let length = head.split("content-length: ").nth(1)?.lines().next()?.parse::<usize>().ok()?;
        (body.len() == length).then_some(())
    };
    while is_whole(&answer).is_none() {
        assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0, "closed after {answer:?}");
    }
    String::from_utf8(answer).unwrap()
}
