use http::HeaderValue;

use super::{
    testing::{Scripted, ScriptedNames, Site},
    *,
};

fn client(names: Arc<dyn Resolve>, allowed: &[&str]) -> OutsideClient {
    let options = OutsideOptions {
        whom: "pages",
        user_agent: "Hearth/test".to_owned(),
        connect: Duration::from_secs(5),
        answer: Duration::from_secs(20),
        allowed: allowed.iter().map(|block| block.parse().unwrap()).collect(),
        authorities: Vec::new(),
    };
    OutsideClient::new(options, names).unwrap()
}

fn nameless() -> Arc<ScriptedNames> {
    ScriptedNames::new(&[])
}

fn get(url: &str) -> OutsideRequest {
    OutsideRequest::get(Url::parse(url).unwrap())
}

/// CVE-2022-31052, CVE-2023-32683, CVE-2024-52594.
#[tokio::test]
async fn no_private_address_is_asked_however_it_is_written() {
    let site = Site::start(|_| Scripted::ok("text/plain", "secret"));
    let port = site.port();
    let client = client(nameless(), &[]);
    for host in [
        "127.0.0.1",
        "127.1",
        "127.0.0.1.",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "017700000001",
        "0",
        "0.0.0.0",
        "%31%32%37.0.0.1",
        "\u{ff11}27.0.0.1",
        "10.0.0.1",
        "100.64.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "192.168.0.1",
        "192.0.2.1",
        "224.0.0.1",
        "255.255.255.255",
        "[::]",
        "[::1]",
        "[::127.0.0.1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b:1::1]",
        "[2002:7f00:1::]",
        "[2001:0:7f00:1::]",
        "[2001:db8::1]",
        "[fc00::1]",
        "[fe80::1]",
        "[ff02::1]",
    ] {
        let asked = client.send(get(&format!("http://{host}:{port}/"))).await;
        assert!(matches!(asked, Err(OutsideError::Inside)), "{host}");
    }
    assert!(site.asked().is_empty());
}

#[tokio::test]
async fn no_private_address_is_asked_by_a_name() {
    let site = Site::start(|_| Scripted::ok("text/plain", "secret"));
    for address in [
        "127.0.0.1",
        "10.0.0.1",
        "100.64.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "192.168.0.1",
        "0.0.0.0",
        "::1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "fd00::1",
        "fe80::1",
    ] {
        let names = ScriptedNames::new(&[("evil.example", &[&[address]])]);
        let asked = client(names.clone(), &[]).send(get(&format!("http://evil.example:{}/", site.port()))).await;
        assert!(matches!(asked, Err(OutsideError::Inside)), "{address}");
        assert_eq!(names.count(), 1, "{address}");
    }
    // As the machine knows it.
    let localhost = client(Arc::new(SystemNames), &[]).send(get(&format!("http://localhost:{}/", site.port()))).await;
    assert!(matches!(localhost, Err(OutsideError::Inside)));
    assert!(site.asked().is_empty());
}

#[tokio::test]
async fn no_port_of_another_protocol_is_asked() {
    let names = ScriptedNames::new(&[("mail.example", &[&["127.0.0.1"]])]);
    let client = client(names.clone(), &["127.0.0.1"]);
    for (url, port) in
        [("http://127.0.0.1:25/", 25), ("https://mail.example:465/", 465), ("http://mail.example:22", 22)]
    {
        let asked = client.send(get(url)).await;
        assert!(matches!(asked, Err(OutsideError::Port(refused)) if refused == port), "{url}");
    }
    assert_eq!(names.count(), 0);
}

/// Private addresses among public ones are left out, so that nothing falls back on them.
#[tokio::test]
async fn of_a_name_only_what_is_outside_is_asked() {
    let site = Site::start(|_| Scripted::ok("text/plain", "hello"));
    // The test's own address counts as outside, its neighbour does not.
    let names = ScriptedNames::new(&[("mixed.example", &[&["127.0.0.2", "127.0.0.1", "10.0.0.1"]])]);
    let client = client(names, &["127.0.0.1/32"]);
    let answer = client.send(get(&format!("http://mixed.example:{}/", site.port()))).await.unwrap();
    assert_eq!(answer.whole(5).await.unwrap(), b"hello");
}

/// A connection goes to an address that was checked: the name is looked up once for it. When it is looked up again, that
/// answer is checked as well.
#[tokio::test]
async fn dns_rebinding_leads_nowhere() {
    let site = Site::start(|_| Scripted::ok("text/plain", "hello"));
    let names = ScriptedNames::new(&[("evil.example", &[&["127.0.0.1"], &["127.0.0.2"]])]);
    let client = client(names.clone(), &["127.0.0.1"]);
    let url = format!("http://evil.example:{}/", site.port());
    client.send(get(&url)).await.unwrap();
    assert_eq!(names.count(), 1);
    let again = client.send(get(&url)).await;
    assert!(matches!(again, Err(OutsideError::Inside)));
    assert_eq!((names.count(), site.asked().len()), (2, 1));
}

#[tokio::test]
async fn a_redirect_is_returned_and_each_step_checked() {
    let site = Site::start(|asked| match &*asked.path {
        "/metadata" => Scripted::redirect("http://169.254.169.254/latest/meta-data/"),
        "/file" => Scripted::redirect("file:///etc/passwd"),
        "/named" => Scripted::redirect("http://evil.example/"),
        "/next" => Scripted::redirect("b?c#d"),
        _ => Scripted::redirect("http://[::"),
    });
    let client = client(ScriptedNames::new(&[("evil.example", &[&["10.0.0.1"]])]), &["127.0.0.1"]);
    let follow = async |path: &str| {
        let answer = client.send(OutsideRequest::get(site.url(path))).await.unwrap();
        assert_eq!(answer.status(), StatusCode::FOUND);
        answer.redirect()
    };
    for path in ["/metadata", "/named"] {
        let led = follow(path).await.unwrap();
        assert!(matches!(client.send(OutsideRequest::get(led)).await, Err(OutsideError::Inside)), "{path}");
    }
    let led = follow("/file").await.unwrap();
    assert!(matches!(client.send(OutsideRequest::get(led)).await, Err(OutsideError::NotAnAddress)));
    assert_eq!(follow("/next").await.unwrap(), site.url("/b?c#d"));
    assert_eq!(follow("/nonsense").await, None);
    assert_eq!(site.asked().len(), 5, "nothing was followed");
}

#[tokio::test]
async fn other_schemes_and_passwords_are_refused() {
    let client = client(nameless(), &["0.0.0.0/0"]);
    for url in ["file:///etc/passwd", "ftp://127.0.0.1/", "gopher://127.0.0.1/", "http://me:pw@127.0.0.1/", "data:,a"] {
        assert!(matches!(client.send(get(url)).await, Err(OutsideError::NotAnAddress)), "{url}");
    }
}

#[tokio::test]
async fn a_request_goes_out_as_it_was_made() {
    let site = Site::start(|_| Scripted::status("204 No Content"));
    let mut headers = HeaderMap::new();
    headers.insert("X-Test", HeaderValue::from_static("1"));
    let body = Some(Bytes::from_static(b"{}"));
    let request = OutsideRequest { method: Method::PUT, url: site.url("/a?b=c"), headers, body };
    let answer = client(nameless(), &["127.0.0.1"]).send(request).await.unwrap();
    assert_eq!((answer.status(), answer.url()), (StatusCode::NO_CONTENT, &site.url("/a?b=c")));
    let asked = site.asked();
    let [asked] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!((&*asked.method, &*asked.path, &*asked.body), ("PUT", "/a?b=c", &b"{}"[..]));
    assert_eq!((&*asked.headers["x-test"], &*asked.headers["user-agent"]), ("1", "Hearth/test"));
}

#[tokio::test]
async fn a_body_is_bounded_whatever_length_it_is_announced_with() {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n";
    let site = Site::start(move |asked| match &*asked.path {
        "/endless" => Scripted::Endless(head.as_bytes().to_vec(), b'a'),
        _ => Scripted::ok("text/plain", "hello"),
    });
    let client = client(nameless(), &["127.0.0.1"]);
    let ask = async |path: &str| client.send(OutsideRequest::get(site.url(path))).await.unwrap();
    assert!(matches!(ask("/endless").await.whole(100_000).await, Err(OutsideError::TooLong(100_000))));
    assert_eq!(ask("/endless").await.beginning(100_000).await.unwrap(), vec![b'a'; 100_000]);
    assert!(matches!(ask("/hello").await.whole(4).await, Err(OutsideError::TooLong(4))));
    assert_eq!(ask("/hello").await.whole(5).await.unwrap(), b"hello");
    assert_eq!(ask("/hello").await.beginning(2).await.unwrap(), b"he");
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_not_waited_for() {
    let site = Site::start(|asked| match &*asked.path {
        "/silent" => Scripted::Held(Vec::new()),
        _ => Scripted::Held(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhell".to_vec()),
    });
    let options = OutsideOptions {
        whom: "pages",
        user_agent: String::new(),
        connect: Duration::from_millis(300),
        answer: Duration::from_millis(300),
        allowed: vec!["127.0.0.1".parse().unwrap()],
        authorities: Vec::new(),
    };
    let client = OutsideClient::new(options, nameless()).unwrap();
    assert!(matches!(client.send(OutsideRequest::get(site.url("/silent"))).await, Err(OutsideError::Slow)));
    let half = client.send(OutsideRequest::get(site.url("/half"))).await.unwrap();
    assert!(matches!(half.whole(100).await, Err(OutsideError::Slow)));
}
