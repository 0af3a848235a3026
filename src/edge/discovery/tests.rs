use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use futures_util::future::join_all;
use reqwest::dns::Resolve as _;

use super::{
    testing::{Authority, TestNames},
    *,
};
use crate::edge::outside_client::testing::{Asked, Scripted, Site};

const HOUR: Duration = Duration::from_hours(1);
const SECOND: Duration = Duration::from_secs(1);
/// Behind which nobody speaks HTTP.
const NO_PORT: u16 = 9;

/// A resolver in a world in which all names have certificates and what they say is a script.
struct World {
    names: Arc<TestNames>,
    clock: Clock,
    site: Site,
    resolver: ServerResolver,
}

/// Hosts of the world. All are on this machine.
const HOSTS: [&str; 6] = ["a.example", "b.example", "c.example", "d.example", "e.example", "f.example"];

impl World {
    fn new(script: impl Fn(&Asked) -> Scripted + Send + Sync + 'static) -> Self {
        let (authority, names, clock) = (Authority::new(), TestNames::new(), Clock::manual(1_000_000_000_000));
        let site = Site::start_tls(authority.tls(&HOSTS), script);
        for host in HOSTS {
            names.address(host, &["127.0.0.1"]);
        }
        let ports = Ports { https: site.port(), matrix: 8448 };
        let resolver = resolver(&names, ports, &authority, &clock);
        Self { names, clock, site, resolver }
    }

    /// A world in which each host's file is the same.
    fn with_file(file: &str) -> Self {
        let file = file.to_owned();
        Self::new(move |_| Scripted::ok("application/json", &file))
    }

    async fn find(&self, name: &str) -> Result<Route, NoRoute> {
        self.resolver.find(&OwnedServerName::try_from(name).unwrap()).await
    }

    /// The URL to which a name leads, and by which way.
    async fn way(&self, name: &str) -> (String, Way) {
        let route = self.find(name).await.unwrap();
        (route.url.to_string(), route.way)
    }

    /// Whether a name leads to another.
    async fn is_delegated(&self, name: &str) -> bool {
        self.way(name).await.0 == "https://there.example/"
    }

    fn times_asked(&self) -> usize {
        self.site.asked().len()
    }
}

fn resolver(names: &Arc<TestNames>, ports: Ports, authority: &Authority, clock: &Clock) -> ServerResolver {
    let allowed = vec!["127.0.0.0/8".parse().unwrap()];
    let parts = (clock.clone(), Random::seeded(1));
    ServerResolver::new((Arc::clone(names) as _, ports), allowed, authority.certificates(), parts, 64 * 1024).unwrap()
}

fn response(headers: &str, body: &str) -> Scripted {
    let head = format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    Scripted::Bytes([head.as_bytes(), body.as_bytes()].concat())
}

const FILE: &str = r#"{"m.server":"there.example"}"#;

/// Steps 1 and 2.
#[tokio::test]
async fn addresses_and_ports_say_themselves_where_the_server_is() {
    let world = World::with_file(FILE);
    for (name, url) in [
        ("1.2.3.4", "https://1.2.3.4:8448/"),
        ("1.2.3.4:8449", "https://1.2.3.4:8449/"),
        ("[2606:4700::1]", "https://[2606:4700::1]:8448/"),
        ("[2606:4700:0::1]:8449", "https://[2606:4700::1]:8449/"),
        ("127.0.0.1:8449", "https://127.0.0.1:8449/"),
        ("a.example:8448", "https://a.example:8448/"),
        ("A.Example:8449", "https://a.example:8449/"),
        // What `Host` says is the URL's, which leaves the usual port of HTTPS out.
        ("a.example:443", "https://a.example/"),
    ] {
        assert_eq!(world.way(name).await, (url.to_owned(), Way::ByPort), "{name}");
    }
    assert!(world.names.asked().is_empty());
    assert_eq!(world.times_asked(), 0);
}

#[tokio::test]
async fn names_that_lead_inside_or_nowhere_are_refused() {
    let world = World::with_file(FILE);
    for name in
        ["10.0.0.1", "192.168.1.1:8448", "169.254.169.254:80", "[::1]", "[fe80::1]:8448", "[::ffff:10.0.0.1]:8448"]
    {
        assert_eq!(world.find(name).await, Err(NoRoute::Inside), "{name}");
    }
    // A browser would read addresses here.
    for name in ["127.1:8448", "10.1:8448", "0x7f.1:8448", "1.2.3:8448", "2130706433:8448"] {
        assert_eq!(world.find(name).await, Err(NoRoute::NotAName(name.to_owned())), "{name}");
    }
    for (name, port) in [("a.example:25", 25), ("1.2.3.4:22", 22), ("a.example:0", 0)] {
        assert_eq!(world.find(name).await, Err(NoRoute::Port(port)), "{name}");
    }
    assert!(world.names.asked().is_empty());
}

/// Step 3: what the file says leads on as a name does, but to no other file.
#[tokio::test]
async fn a_well_known_file_leads_to_another_name() {
    let world = World::new(|asked| {
        let server = match &*asked.headers["host"] {
            "a.example" => "there.example",
            "b.example" => "there.example:443",
            "c.example" => "there.example:8449",
            "d.example" => "1.2.3.4",
            "e.example" => "[2606:4700::1]:8449",
            _ => "f.example",
        };
        Scripted::ok("text/plain", format!(r#"{{"m.server":"{server}","more":1}}"#))
    });
    for (name, url, way) in [
        ("a.example", "https://there.example/", Way::ByService),
        ("b.example", "https://there.example/", Way::ByPort),
        ("c.example", "https://there.example:8449/", Way::ByPort),
        ("d.example", "https://1.2.3.4:8448/", Way::ByPort),
        ("e.example", "https://[2606:4700::1]:8449/", Way::ByPort),
        ("f.example", "https://f.example/", Way::ByService),
    ] {
        assert_eq!(world.way(name).await, (url.to_owned(), way), "{name}");
        // In whichever letters it is asked for.
        assert_eq!(world.way(&name.to_uppercase()).await.0, url);
    }
    assert!(world.site.paths().iter().all(|path| path == "/.well-known/matrix/server"));
    assert_eq!(world.times_asked(), 6);
}

#[tokio::test]
async fn a_file_that_leads_inside_leads_nowhere() {
    let world = World::with_file(r#"{"m.server":"10.0.0.1:8448"}"#);
    assert_eq!(world.find("a.example").await, Err(NoRoute::Inside));
}

#[tokio::test]
async fn a_file_that_makes_no_sense_is_none() {
    let long = format!(r#"{{"m.server":"there.example"{}}}"#, " ".repeat(50 * 1024));
    for file in [
        "",
        "null",
        "[]",
        "there.example",
        r#"{"m.server":null}"#,
        r#"{"m.server":["there.example"]}"#,
        r#"{"m.server":""}"#,
        r#"{"m.server":"https://there.example"}"#,
        r#"{"m.server":"there.example/path"}"#,
        r#"{"m.server":"there.example:port"}"#,
        r#"{"m.homeserver":"there.example"}"#,
        "<html></html>",
        "\u{0}\u{1}",
        &long,
    ] {
        let world = World::with_file(file);
        assert_eq!(world.way("a.example").await, ("https://a.example/".to_owned(), Way::ByService), "{file:.40}");
    }
    let mut longest = r#"{"m.server":"there.example"}"#.to_owned();
    longest.push_str(&" ".repeat(50 * 1024 - longest.len()));
    assert!(World::with_file(&longest).is_delegated("a.example").await);
}

#[tokio::test]
async fn a_file_is_good_for_as_long_as_its_headers_say() {
    for (headers, shorter, longer) in [
        ("", HOUR * 21, HOUR * 6),
        ("Cache-Control: max-age=3600\r\n", Duration::from_secs(3_599), SECOND),
        ("Cache-Control: max-age=1\r\n", Duration::from_secs(299), SECOND),
        ("Cache-Control: no-store\r\n", Duration::from_secs(299), SECOND),
        ("Cache-Control: max-age=9999999\r\n", Duration::from_secs(48 * 3_600 - 1), SECOND),
    ] {
        let world = World::new(move |_| response(headers, FILE));
        assert!(world.is_delegated("a.example").await);
        world.clock.advance(shorter);
        assert!(world.is_delegated("a.example").await);
        assert_eq!(world.times_asked(), 1, "{headers}");
        world.clock.advance(longer);
        assert!(world.is_delegated("a.example").await);
        assert_eq!(world.times_asked(), 2, "{headers}");
    }
}

#[tokio::test]
async fn that_there_is_no_file_is_remembered_for_an_hour_and_silence_for_two_minutes() {
    for (answer, remembered) in
        [("404 Not Found", HOUR), ("403 Forbidden", HOUR), ("502 Bad Gateway", Duration::from_mins(2))]
    {
        let world = World::new(move |_| Scripted::status(answer));
        assert!(!world.is_delegated("a.example").await);
        world.clock.advance(remembered.saturating_sub(SECOND));
        assert!(!world.is_delegated("a.example").await);
        assert_eq!(world.times_asked(), 1, "{answer}");
        world.clock.advance(SECOND);
        assert!(!world.is_delegated("a.example").await);
        assert_eq!(world.times_asked(), 2, "{answer}");
    }
    // Nobody knows this name.
    let world = World::with_file(FILE);
    for (later, is_asked) in [(0, true), (119, false), (1, true)] {
        world.clock.advance(SECOND * later);
        assert!(!world.is_delegated("nowhere.example").await);
        assert_eq!(world.names.asked().is_empty(), !is_asked);
    }
}

#[tokio::test]
async fn a_file_that_was_there_is_believed_for_two_hours_more() {
    for gone in ["404 Not Found", "500 Internal Server Error"] {
        let gone_at = Arc::new(AtomicBool::new(false));
        let is_gone = Arc::clone(&gone_at);
        let world = World::new(move |_| {
            if is_gone.load(Ordering::SeqCst) {
                return Scripted::status(gone);
            }
            response("Cache-Control: max-age=3600\r\n", FILE)
        });
        assert!(world.is_delegated("a.example").await);
        gone_at.store(true, Ordering::SeqCst);
        world.clock.advance(HOUR + SECOND);
        assert!(world.is_delegated("a.example").await);
        assert!(world.is_delegated("a.example").await);
        assert_eq!(world.times_asked(), 2, "not asked each time");
        world.clock.advance(Duration::from_mins(3));
        assert!(world.is_delegated("a.example").await);
        assert_eq!(world.times_asked(), 3, "but soon again");
        world.clock.advance(Duration::from_secs(2 * 3_600 - 180 - 2));
        assert!(world.is_delegated("a.example").await);
        world.clock.advance(SECOND);
        assert!(!world.is_delegated("a.example").await, "{gone}");
        // It is back.
        gone_at.store(false, Ordering::SeqCst);
        world.clock.advance(HOUR);
        assert!(world.is_delegated("a.example").await);
    }
}

#[tokio::test]
async fn redirects_are_followed_by_https_and_not_in_circles() {
    let world = World::new(|asked| match (&*asked.headers["host"], &*asked.path) {
        ("a.example", "/.well-known/matrix/server") => Scripted::redirect("/one"),
        ("a.example", "/one") => Scripted::redirect("two?three"),
        (_, "/two?three") => Scripted::ok("application/json", FILE),
        ("b.example", "/.well-known/matrix/server") => Scripted::redirect("/round"),
        ("b.example", _) => Scripted::redirect("/.well-known/matrix/server"),
        ("c.example", path) => Scripted::redirect(&format!("{path}/on")),
        ("d.example", _) => Scripted::redirect("http://a.example/two?three"),
        ("e.example", _) => Scripted::redirect("https://169.254.169.254/two?three"),
        _ => Scripted::redirect("https://f.example:25/two?three"),
    });
    assert!(world.is_delegated("a.example").await);
    assert_eq!(world.times_asked(), 3);
    for (host, times) in [("b.example", 2), ("c.example", 11), ("d.example", 1), ("e.example", 1), ("f.example", 1)] {
        let before = world.times_asked();
        assert!(!world.is_delegated(host).await, "{host}");
        assert_eq!(world.times_asked() - before, times, "{host}");
    }
}

#[tokio::test]
async fn a_file_from_whoever_has_no_certificate_is_none() {
    let (authority, names, clock) = (Authority::new(), TestNames::new(), Clock::system());
    names.address("a.example", &["127.0.0.1"]);
    for tls in [authority.tls(&["b.example"]), Authority::new().tls(&["a.example"])] {
        let site = Site::start_tls(tls, |_| Scripted::ok("application/json", FILE));
        let resolver = resolver(&names, Ports { https: site.port(), matrix: 8448 }, &authority, &clock);
        let route = resolver.find(&OwnedServerName::try_from("a.example").unwrap()).await.unwrap();
        assert_eq!(route.url.as_str(), "https://a.example/");
        assert!(site.asked().is_empty());
    }
}

#[tokio::test]
async fn one_looks_for_all_who_ask() {
    let world = World::with_file(FILE);
    let found = join_all((0..20).map(|_| world.is_delegated("a.example"))).await;
    assert!(found.into_iter().all(|found| found));
    assert_eq!(world.times_asked(), 1);
}

#[tokio::test]
async fn what_is_remembered_is_bounded() {
    let world = World::with_file(FILE);
    for number in 0..1_000 {
        assert!(!world.is_delegated(&format!("{number}.nowhere.example")).await);
    }
    let weight = world.resolver.cache().weight();
    assert!(weight.bytes <= weight.limit && weight.bytes > weight.limit / 4, "{weight:?}");
}

/// Steps 3.3 to 3.5 and 4 to 6, once the file has been asked for.
#[tokio::test]
async fn services_are_found_by_their_records_and_else_at_the_usual_port() {
    let world = World::with_file("");
    let names = &world.names;
    names.address("one.example", &["1.1.1.1", "2606:4700::1"]);
    names.address("two.example", &["2.2.2.2"]);
    for (service, priority, port, target) in [
        // In no order, and with a target that is not there.
        ("_matrix-fed._tcp.a.example", 20, 8002, "two.example"),
        ("_matrix-fed._tcp.a.example", 10, 8001, "one.example"),
        ("_matrix-fed._tcp.a.example", 5, 8001, "nowhere.example"),
        ("_matrix._tcp.a.example", 1, 1, "nowhere.example"),
        ("_matrix._tcp.b.example", 10, 8003, "two.example"),
        ("_matrix-fed._tcp.d.example", 0, 0, ""),
        ("_matrix._tcp.d.example", 10, 8003, "two.example"),
        ("_matrix-fed._tcp.e.example", 10, 8001, "nowhere.example"),
    ] {
        names.service(service, (priority, port), target);
    }
    names.fail("_matrix-fed._tcp.f.example");
    let located = async |host: &str| match world.resolver.locate(host).await {
        Ok(found) => Ok(found.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")),
        Err(error) => Err(error.to_string()),
    };
    for (host, expected) in [
        ("a.example", "1.1.1.1:8001 [2606:4700::1]:8001 2.2.2.2:8002"),
        ("b.example", "2.2.2.2:8003"),
        ("c.example", "127.0.0.1:8448"),
        ("f.example", "127.0.0.1:8448"),
    ] {
        assert_eq!(located(host).await.unwrap(), expected, "{host}");
    }
    for (host, problem) in [
        ("d.example", "says that there is no such service"),
        ("e.example", "none of the hosts that _matrix-fed._tcp.e.example leads to has an address: nowhere.example"),
        ("nowhere.example", "nowhere.example has no address"),
    ] {
        let said = located(host).await.unwrap_err();
        assert!(said.contains(problem), "{host}: {said}");
    }
    let found = world.resolver.locate("f.example").await.unwrap();
    assert_eq!(found.unanswered, ["_matrix-fed._tcp.f.example: request timed out"]);
    names.fail("f.example");
    assert_eq!(located("f.example").await.unwrap_err(), "request timed out");
}

#[tokio::test]
async fn of_what_is_found_only_what_lies_outside_is_asked() {
    async fn resolve(names: &CheckedNames, host: &str) -> Option<String> {
        let found = names.resolve(host.parse().unwrap()).await.ok()?;
        Some(found.map(|address| address.to_string()).collect::<Vec<_>>().join(" "))
    }
    let (authority, names) = (Authority::new(), TestNames::new());
    let resolver = resolver(&names, Ports { https: NO_PORT, matrix: 8448 }, &authority, &Clock::system());
    names.address("mixed.example", &["10.0.0.1", "127.0.0.1", "169.254.169.254", "8.8.8.8", "::1"]);
    names.address("inside.example", &["10.0.0.1", "fd00::1"]);
    names.service("_matrix-fed._tcp.mail.example", (0, 25), "mixed.example");
    let (by_service, by_port) = (resolver.names_by_service(), resolver.names_by_port());
    assert_eq!(resolve(&by_service, "mixed.example").await.unwrap(), "127.0.0.1:8448 8.8.8.8:8448");
    assert_eq!(resolve(&by_port, "mixed.example").await.unwrap(), "127.0.0.1:0 8.8.8.8:0");
    for host in ["inside.example", "mail.example", "nowhere.example"] {
        assert_eq!(resolve(&by_service, host).await, None, "{host}");
    }
    assert_eq!(resolve(&by_port, "inside.example").await, None);
}
