use std::{io::Cursor, sync::mpsc};

use futures_util::future::join_all;
use parking_lot::Mutex;
use ruma::{server_name, user_id};
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::{
    config::MediaConfig,
    db::testing::{TestDatabase, databases, sqlite},
    edge::{
        metrics::Metrics,
        object_store::Stores,
        outside_client::testing::{Asked, Scripted, ScriptedNames, Site},
    },
    ground::{digest::Digest, tasks::Tasks},
    media::{seal::MasterKeys, spool::Spool},
    store::{
        media::{self, Origin},
        media_quarantine::{self, QuarantineKind},
    },
};

/// Previews of pages on this machine, by its first address.
struct Scene {
    previews: Previews,
    clock: Clock,
    database: TestDatabase,
    _folder: TempDir,
}

impl Scene {
    async fn new() -> Self {
        Self::with(sqlite().await, |_| {}).await
    }

    async fn with(database: TestDatabase, change: impl FnOnce(&mut UrlPreviewsConfig)) -> Self {
        let names: &[(&str, &[&[&str]])] = &[
            ("pages.example", &[&["127.0.0.1"]]),
            ("inside.example", &[&["127.0.0.2", "10.0.0.1", "::1"]]),
            ("evil.example", &[&["127.0.0.1"], &["127.0.0.2"]]),
        ];
        let mut config = UrlPreviewsConfig { enabled: true, ..UrlPreviewsConfig::default() };
        config.allowed_addresses = vec!["127.0.0.1".parse().unwrap()];
        change(&mut config);
        let (folder, metrics, media) = (tempfile::tempdir().unwrap(), Metrics::new(), MediaConfig::default());
        let (clock, random) = (Clock::manual(1_800_000_000_000), Random::system());
        let parts = || (database.db().clone(), clock.clone(), random.clone());
        let stores = Stores::open(&media, folder.path(), metrics.clone()).unwrap();
        let spool = Spool::open(folder.path()).await.unwrap();
        let objects = Objects::new(parts(), stores, spool, MasterKeys::of(&media), metrics, Tasks::new());
        let server_name = server_name!("here").to_owned();
        let previews = Previews::new(parts(), server_name, objects, &config, ScriptedNames::new(names)).unwrap();
        Self { previews, clock, database, _folder: folder }
    }

    async fn preview(&self, url: impl AsRef<str>) -> Result<Map<String, Value>> {
        self.previews.preview(user_id!("@anna:here"), url.as_ref(), None).await
    }

    async fn shown(&self, url: impl AsRef<str>) -> Value {
        Value::Object(self.preview(url).await.unwrap())
    }

    /// Whether a page can't be looked at, as far as whoever asks learns.
    async fn shows_nothing(&self, url: impl AsRef<str>) -> bool {
        matches!(self.preview(url).await, Err(Error::Relayed { status: 502, errcode, .. }) if errcode == "M_UNKNOWN")
    }
}

fn picture() -> Vec<u8> {
    let mut png = Cursor::new(Vec::new());
    image::RgbImage::new(3, 2).write_to(&mut png, image::ImageFormat::Png).unwrap();
    png.into_inner()
}

fn titled(title: &str) -> Scripted {
    Scripted::ok("text/html", format!("<title>{title}</title>"))
}

/// A page with a title and a picture.
fn illustrated(picture: &str) -> Scripted {
    Scripted::ok("text/html", format!("<title>Title</title><meta property=og:image content='{picture}'>"))
}

#[tokio::test]
async fn a_page_is_shown_with_its_picture_kept_here() {
    let site = Site::start(|asked| match &*asked.path {
        "/pages/one" => Scripted::ok(
            "text/html; charset=windows-1252",
            b"<title>Caf\xe9</title><meta name=description content=Words><base href=/pictures/>
            <meta property=og:image content=a.png><meta property=og:image:alt content=A>",
        ),
        "/pictures/a.png" => Scripted::redirect("b.png"),
        "/pictures/b.png" => Scripted::ok("application/octet-stream", picture()),
        _ => Scripted::status("404 Not Found"),
    });
    for database in databases().await {
        let scene = Scene::with(database, |_| {}).await;
        let shown = scene.shown(site.url("/pages/one#part")).await;
        let uri = shown["og:image"].as_str().unwrap().to_owned();
        let expected = json!({
            "og:title": "Café", "og:description": "Words", "og:image": uri, "og:image:alt": "A",
            "og:image:type": "image/png", "og:image:width": 3, "og:image:height": 2,
            "matrix:image:size": picture().len(),
        });
        assert_eq!(shown, expected);
        let id = uri.strip_prefix("mxc://here/").unwrap();
        let row = media::find(&mut scene.database.db().read().await.unwrap(), "here", id).await.unwrap().unwrap();
        assert_eq!((row.origin, row.user_id, row.content_type.as_deref()), (Origin::Preview, None, Some("image/png")));
        assert_eq!(row.object.unwrap().digest, Digest::of(&picture()));
        scene.database.close().await;
    }
}

#[tokio::test]
async fn a_picture_is_its_own_preview() {
    let site = Site::start(|_| Scripted::ok("image/png", picture()));
    let shown = Scene::new().await.shown(site.url("/a.png")).await;
    assert_eq!((&shown["og:image:width"], &shown["matrix:image:size"]), (&json!(3), &json!(picture().len())));
    assert!(shown["og:image"].as_str().unwrap().starts_with("mxc://here/"));
}

#[tokio::test]
async fn what_oembed_says_completes_a_page() {
    let site = Site::start(|asked| match &*asked.path {
        "/video" => {
            Scripted::ok("text/html", "<link rel=alternate type=application/json+oembed href='/oembed?format=json'>")
        }
        "/oembed?format=json" => Scripted::ok(
            "application/json",
            json!({ "title": "Film", "provider_name": "Films", "thumbnail_url": "/a.png" }).to_string(),
        ),
        "/a.png" => Scripted::ok("image/png", picture()),
        // It leads to another such page, which nobody asks for.
        "/chain" => Scripted::ok("text/html", "<link rel=alternate type=application/json+oembed href=/video>"),
        _ => Scripted::status("404 Not Found"),
    });
    let scene = Scene::new().await;
    let shown = scene.shown(site.url("/video")).await;
    assert_eq!((&shown["og:title"], &shown["og:site_name"]), (&json!("Film"), &json!("Films")));
    assert_eq!(shown["og:image:type"], "image/png");
    let before = site.asked().len();
    assert_eq!(scene.shown(site.url("/chain")).await, json!({}));
    assert_eq!(site.asked().len(), before + 2);
}

#[tokio::test]
async fn of_other_files_there_is_nothing_to_say() {
    let site = Site::start(|asked| match &*asked.path {
        "/none" => Scripted::Bytes(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n<title>a</title>".to_vec()),
        "/text" => Scripted::ok("text/plain", "<title>a</title>"),
        _ => Scripted::ok("application/pdf", "%PDF"),
    });
    let scene = Scene::new().await;
    for path in ["/none", "/text", "/pdf"] {
        assert_eq!(scene.shown(site.url(path)).await, json!({}), "{path}");
    }
}

/// CVE-2023-32683, CVE-2024-52594: in the address itself, by a name, and after a redirect; of the page, its picture and its
/// oEmbed document.
#[tokio::test]
async fn previews_reach_no_private_address() {
    let secret = Site::start(|_| Scripted::ok("text/html", "<title>secret</title>"));
    let port = secret.port();
    let inside = [
        format!("http://127.0.0.2:{port}/"),
        format!("http://[::1]:{port}/"),
        format!("http://[::ffff:127.0.0.2]:{port}/"),
        format!("http://inside.example:{port}/"),
        format!("http://localhost.:{port}/"),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "http://10.0.0.1/".to_owned(),
        "file:///etc/passwd".to_owned(),
    ];
    let targets = inside.clone();
    let site = Site::start(move |asked| {
        let (what, target) = asked.path.trim_start_matches('/').split_once('/').unwrap();
        let target = &targets[target.parse::<usize>().unwrap()];
        match what {
            "redirect" => Scripted::redirect(target),
            "picture" => illustrated(target),
            _ => Scripted::ok(
                "text/html",
                format!("<title>Title</title><link rel=alternate type=application/json+oembed href='{target}'>"),
            ),
        }
    });
    let scene = Scene::new().await;
    for (number, url) in inside.iter().enumerate() {
        if url.starts_with("http:") {
            assert!(scene.shows_nothing(url).await, "{url}");
        }
        assert!(scene.shows_nothing(site.url(&format!("/redirect/{number}"))).await, "{url}");
        for what in ["picture", "oembed"] {
            let shown = scene.shown(site.url(&format!("/{what}/{number}"))).await;
            assert_eq!(shown, json!({ "og:title": "Title" }), "{what} {url}");
        }
    }
    assert!(secret.asked().is_empty());
}

/// The name of a page means another address when its picture is asked for.
#[tokio::test]
async fn dns_rebinding_leads_previews_nowhere() {
    let site = Site::start(|_| illustrated("/a.png"));
    let shown = Scene::new().await.shown(format!("http://evil.example:{}/", site.port())).await;
    assert_eq!(shown, json!({ "og:title": "Title" }));
    assert_eq!(site.paths(), ["/"]);
}

#[tokio::test]
async fn redirects_are_followed_for_a_few_steps() {
    let site = Site::start(|asked| match asked.path.trim_start_matches('/').parse::<u32>() {
        Ok(0) => titled("There"),
        Ok(steps) => Scripted::redirect(&format!("/{}", steps - 1)),
        Err(_) => Scripted::redirect("/loop"),
    });
    let scene = Scene::new().await;
    assert_eq!(scene.shown(site.url("/5")).await["og:title"], "There");
    let before = site.asked().len();
    assert!(scene.shows_nothing(site.url("/6")).await);
    assert!(scene.shows_nothing(site.url("/loop")).await);
    assert_eq!(site.asked().len(), before + 12);
}

#[tokio::test]
async fn what_does_not_end_is_read_for_a_while() {
    let head = |kind: &str, beginning: &str| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nConnection: close\r\n\r\n{beginning}");
        Scripted::Endless(head.into_bytes(), b'a')
    };
    let site = Site::start(move |asked| match &*asked.path {
        "/page" => head("text/html", "<title>Title</title><p>"),
        "/illustrated" => illustrated("/picture"),
        "/announced" => Scripted::Bytes(
            b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 99999999999\r\n\r\n\x89PNG\r\n\x1a\n"
                .to_vec(),
        ),
        _ => head("image/png", "\u{89}PNG"),
    });
    let scene = Scene::with(sqlite().await, |config| config.max_image_megabytes = 1).await;
    assert_eq!(scene.shown(site.url("/page")).await["og:title"], "Title");
    assert_eq!(scene.shown(site.url("/illustrated")).await, json!({ "og:title": "Title" }));
    assert_eq!(scene.shown(site.url("/picture")).await, json!({}));
    assert_eq!(scene.shown(site.url("/announced")).await, json!({}), "it ends early");
}

#[tokio::test]
async fn what_does_not_come_is_not_waited_for() {
    let site = Site::start(|asked| match &*asked.path {
        "/illustrated" => illustrated("/silent"),
        "/half" => Scripted::Held(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<title>a</title>".to_vec()),
        _ => Scripted::Held(Vec::new()),
    });
    let scene = Scene::with(sqlite().await, |config| config.timeout_seconds = 1).await;
    assert!(scene.shows_nothing(site.url("/silent")).await);
    assert!(scene.shows_nothing(site.url("/half")).await);
    assert_eq!(scene.shown(site.url("/illustrated")).await, json!({ "og:title": "Title" }));
}

#[tokio::test]
async fn a_picture_that_is_none_is_not_shown() {
    let site = Site::start(|asked| match &*asked.path {
        "/svg" => Scripted::ok("image/png", "<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"),
        "/html" => Scripted::ok("image/png", "<!DOCTYPE html><script>alert(1)</script>"),
        "/empty" => Scripted::ok("image/png", ""),
        "/gone" => Scripted::status("404 Not Found"),
        page => illustrated(page.strip_prefix("/of").unwrap()),
    });
    let scene = Scene::new().await;
    for path in ["/svg", "/html", "/empty", "/gone"] {
        let page = site.url(&format!("/of{path}"));
        assert_eq!(scene.shown(page).await, json!({ "og:title": "Title" }), "{path}");
    }
}

#[tokio::test]
async fn a_quarantined_picture_is_not_shown() {
    let site = Site::start(|asked| match &*asked.path {
        "/a.png" => Scripted::ok("image/png", picture()),
        _ => illustrated("/a.png"),
    });
    let scene = Scene::new().await;
    let mut tx = scene.database.db().begin().await.unwrap();
    let digest = Digest::of(&picture()).to_string();
    media_quarantine::insert(&mut tx, QuarantineKind::Digest, &digest, 1).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(scene.shown(site.url("/")).await, json!({ "og:title": "Title" }));
}

#[tokio::test]
async fn a_page_that_refuses_shows_nothing() {
    let compressed =
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n";
    let site = Site::start(move |asked| match &*asked.path {
        "/broken" => Scripted::Bytes(b"what?\r\n\r\n".to_vec()),
        "/compressed" => Scripted::Bytes(compressed.as_bytes().to_vec()),
        "/nowhere" => Scripted::redirect("http://[::"),
        status => Scripted::status(status.trim_start_matches('/')),
    });
    let scene = Scene::new().await;
    for path in ["/404", "/500", "/broken", "/compressed", "/nowhere"] {
        assert!(scene.shows_nothing(site.url(path)).await, "{path}");
    }
    assert!(scene.shows_nothing("http://nobody.example/").await);
}

#[tokio::test]
async fn a_preview_is_kept_for_a_day() {
    let site = Site::start(|asked| if asked.path == "/gone" { Scripted::status("404 Gone") } else { titled("Title") });
    for database in databases().await {
        let scene = Scene::with(database, |_| {}).await;
        let (page, gone, before) = (site.url("/"), site.url("/gone"), site.asked().len());
        for _ in 0..3 {
            assert_eq!(scene.shown(&page).await, json!({ "og:title": "Title" }));
            assert!(scene.shows_nothing(&gone).await);
        }
        assert_eq!(site.asked().len(), before + 2);
        // That a page could not be looked at is forgotten sooner.
        scene.clock.advance(NOTHING);
        assert!(scene.shows_nothing(&gone).await);
        scene.clock.advance(Duration::from_hours(24).saturating_sub(NOTHING + Duration::from_millis(1)));
        scene.shown(&page).await;
        assert_eq!(site.asked().len(), before + 3);
        scene.clock.advance(Duration::from_millis(1));
        scene.shown(&page).await;
        assert_eq!(site.asked().len(), before + 4);
        scene.database.close().await;
    }
}

#[tokio::test]
async fn a_page_is_asked_once_however_many_ask() {
    let (release, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let site = Site::start(move |_| {
        held.lock().recv().unwrap();
        titled("Title")
    });
    let scene = Scene::new().await;
    let url = site.url("/");
    let users: Vec<_> = (0..8).map(|n| ruma::UserId::parse(format!("@user{n}:here")).unwrap()).collect();
    let all = join_all(users.iter().map(|user| scene.previews.preview(user, url.as_str(), None)));
    let releasing = async {
        while site.asked().is_empty() {
            tokio::task::yield_now().await;
        }
        release.send(()).unwrap();
    };
    let (all, ()) = tokio::join!(all, releasing);
    assert!(all.into_iter().all(|shown| shown.unwrap()["og:title"] == "Title"));
    assert_eq!(site.asked().len(), 1);
}

#[tokio::test]
async fn only_hosts_that_the_operator_wants_are_asked() {
    let site = Site::start(|asked| match &*asked.path {
        "/denied" => {
            Scripted::redirect(&format!("http://127.0.0.1:{}/", asked.headers["host"].rsplit_once(':').unwrap().1))
        }
        "/illustrated" => {
            illustrated(&format!("http://127.0.0.1:{}/a.png", asked.headers["host"].rsplit_once(':').unwrap().1))
        }
        _ => titled("Title"),
    });
    let (named, numbered) = (format!("http://pages.example:{}", site.port()), site.url("/"));
    let is_forbidden = |asked: Result<Map<String, Value>>| {
        matches!(asked, Err(Error::Refused { kind: ruma::api::error::ErrorKind::Forbidden, .. }))
    };
    let denying = Scene::with(sqlite().await, |config| config.deny = vec!["127.*".to_owned()]).await;
    assert!(is_forbidden(denying.preview(&numbered).await));
    assert!(site.asked().is_empty());
    assert_eq!(denying.shown(&named).await["og:title"], "Title");
    // Nor is one that a page leads to.
    assert!(denying.shows_nothing(format!("{named}/denied")).await);
    assert_eq!(denying.shown(format!("{named}/illustrated")).await, json!({ "og:title": "Title" }));
    assert_eq!(site.paths(), ["/", "/denied", "/illustrated"]);
    let allowing = Scene::with(sqlite().await, |config| config.allow = vec!["*.example".to_owned()]).await;
    assert!(is_forbidden(allowing.preview(&numbered).await));
    assert_eq!(allowing.shown(&named).await["og:title"], "Title");
}

#[tokio::test]
async fn a_page_is_asked_for_in_the_languages_of_the_client() {
    let said = |asked: &Asked| asked.headers.get("accept-language").cloned().unwrap_or_default();
    let site = Site::start(move |asked| titled(&said(asked)));
    let scene = Scene::with(sqlite().await, |config| config.user_agent = Some("Looker/1".to_owned())).await;
    let ask = async |languages: Option<&str>| {
        let shown = scene.previews.preview(user_id!("@anna:here"), site.url("/").as_str(), languages).await.unwrap();
        shown["og:title"].as_str().unwrap().to_owned()
    };
    assert_eq!(ask(None).await, "en");
    assert_eq!(ask(Some("de-AT, de;q=0.5")).await, "de-at, de;q=0.8");
    assert_eq!(ask(Some("de-at,de")).await, "de-at, de;q=0.8");
    assert_eq!(ask(Some("\u{1f980}")).await, "en");
    let asked = site.asked();
    assert_eq!(asked.len(), 2);
    assert!(asked.iter().all(|asked| asked.headers["user-agent"] == "Looker/1"));
}

#[tokio::test]
async fn previews_are_off_unless_they_are_switched_on() {
    let scene = Scene::new().await;
    let parts = (scene.database.db().clone(), scene.clock.clone(), Random::system());
    let objects = scene.previews.0.pictures.objects.clone();
    let config = UrlPreviewsConfig::default();
    let started = Previews::start(parts, server_name!("here").to_owned(), objects, &config).unwrap();
    assert!(started.is_none());
}

/// Whoever asks chooses what comes onto the disk.
#[tokio::test]
async fn pictures_are_taken_in_for_one_user_up_to_a_bound() {
    let site = Site::start(|asked| match &*asked.path {
        "/a.png" => Scripted::ok("image/png", picture()),
        _ => illustrated("/a.png"),
    });
    let scene = Scene::new().await;
    let anna = user_id!("@anna:here");
    scene.previews.0.allowances.spend(anna, u64::MAX, scene.previews.now());
    assert_eq!(scene.shown(site.url("/one")).await, json!({ "og:title": "Title" }));
    // It is not kept for long: others may have the picture.
    scene.clock.advance(NOTHING);
    let shown = scene.previews.preview(user_id!("@bob:here"), site.url("/one").as_str(), None).await.unwrap();
    assert!(shown.contains_key("og:image"), "{shown:?}");
    scene.clock.advance(Duration::from_hours(24));
    assert!(scene.shown(site.url("/two")).await.get("og:image").is_some());
}
