use http::{HeaderMap, HeaderValue, header};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;

/// Longer than [`SILENCE`] by far.
const PATIENCE: Duration = Duration::from_secs(20);

fn call() -> SealedCall {
    SealedCall { seal: "seal".to_owned(), call: Bytes::from_static(b"call") }
}

fn peer(address: &str) -> Peer {
    Peer { id: NodeId::from("other".to_owned()), address: address.to_owned() }
}

/// The head of an answer by this status. It is of no known length: it ends with the connection.
fn head(status: &str, marked: bool) -> Bytes {
    let mark = if marked { "hearth-forwarded: answer\r\n" } else { "" };
    format!("HTTP/1.1 {status}\r\n{mark}connection: close\r\n\r\n").into()
}

fn packed(status: StatusCode) -> Bytes {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    ForwardedAnswer::pack(status, &headers, b"{}")
}

/// What is made of a node that says this, each part a moment after the one before, and hangs up.
async fn forwarded(forwarder: &Forwarder, parts: &[Bytes]) -> Option<ForwardedAnswer> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer = peer(&format!("http://{}", listener.local_addr().unwrap()));
    let node = async {
        let (mut connection, _) = listener.accept().await.unwrap();
        let mut heard = Vec::new();
        while !heard.ends_with(b"call") {
            assert!(connection.read_buf(&mut heard).await.unwrap() > 0);
        }
        for part in parts {
            connection.write_all(part).await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let (answer, ()) = tokio::join!(forwarder.forward(&peer, call()), node);
    answer
}

#[tokio::test]
async fn a_node_that_lives_may_take_longer_than_one_may_be_silent() {
    let forwarder = Forwarder::new().unwrap();
    let sign = Bytes::from_static(SIGN);
    for signs in [0, 1, 40] {
        let mut parts = vec![head("200 OK", true)];
        parts.resize(1 + signs, sign.clone());
        parts.push(packed(StatusCode::FORBIDDEN));
        let answer = forwarded(&forwarder, &parts).await.unwrap();
        assert_eq!((answer.status, &*answer.body), (StatusCode::FORBIDDEN, &b"{}"[..]), "after {signs} signs");
        assert_eq!(answer.headers[header::CONTENT_TYPE], "application/json");
    }
    // Signs and the answer may come together.
    let together = [SIGN, SIGN, &packed(StatusCode::OK)].concat().into();
    assert!(forwarded(&forwarder, &[head("200 OK", true), together]).await.is_some());
}

#[tokio::test]
async fn what_is_not_a_whole_answer_of_a_node_is_none() {
    let forwarder = Forwarder::new().unwrap();
    let (ok, answer) = (head("200 OK", true), packed(StatusCode::OK));
    for (what, parts) in [
        ("nothing", vec![]),
        ("a head", vec![ok.clone()]),
        ("signs of life", vec![ok.clone(), Bytes::from_static(SIGN)]),
        ("half an answer", vec![ok.clone(), answer.slice(..9)]),
        ("an answer by who is no node", vec![head("200 OK", false), answer.clone()]),
        ("a path that is not there", vec![head("404 Not Found", false), answer.clone()]),
        ("another node", vec![head("421 Misdirected Request", false)]),
        ("a failure", vec![ok.clone(), packed(StatusCode::SERVICE_UNAVAILABLE)]),
        ("not of the sort that is forwarded", vec![ok, packed(StatusCode::MISDIRECTED_REQUEST)]),
    ] {
        assert_eq!(forwarded(&forwarder, &parts).await, None, "{what}");
    }
}

#[tokio::test]
async fn a_silent_node_is_given_up_and_asked_again_by_one_at_a_time() {
    let forwarder = Forwarder::new().unwrap();
    // The system takes connections for it, and nobody ever says anything.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = peer(&format!("http://{}", listener.local_addr().unwrap()));
    assert_eq!(forwarder.hears(&silent), Hearing::Answers);
    let given_up = timeout(PATIENCE, forwarder.forward(&silent, call())).await;
    assert_eq!(given_up.expect("it is not waited for"), None);
    assert_eq!(forwarder.hears(&silent), Hearing::Silent);
    let other = Peer { id: NodeId::from("third".to_owned()), ..silent.clone() };
    assert_eq!(forwarder.hears(&other), Hearing::Answers, "nothing was said of that one");

    tokio::time::sleep(PROBE).await;
    assert_eq!(forwarder.hears(&silent), Hearing::ToBeAsked);
    assert_eq!(forwarder.hears(&silent), Hearing::Silent, "somebody asks already");
    forwarder.probe(&silent, call()).await;
    assert_eq!(forwarder.hears(&silent), Hearing::Silent);
    // It wakes up.
    let answer = [head("200 OK", true), packed(StatusCode::OK)];
    assert!(forwarded(&forwarder, &answer).await.is_some());
    assert_eq!(forwarder.hears(&silent), Hearing::Answers);
}

#[tokio::test]
async fn a_machine_that_is_not_there_is_given_up() {
    let forwarder = Forwarder::new().unwrap();
    // Nobody listens there.
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert_eq!(forwarder.forward(&peer(&format!("http://{gone}")), call()).await, None);
    assert_eq!(forwarder.hears(&peer("")), Hearing::Silent);
}
