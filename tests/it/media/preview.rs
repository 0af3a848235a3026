//! Previews of pages.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediapreview_url>

use super::{OLD, PageServer, page_server::PICTURE};
use crate::{
    on_both,
    world::{Client, Reply, World, escape},
};

const PREVIEW: &str = "/_matrix/client/v1/media/preview_url";

async fn look(client: &Client, url: &str) -> Reply {
    client.get(&format!("{PREVIEW}?url={}", escape(url))).await
}

async fn in_language(world: &World, client: &Client, url: &str, languages: &str) -> Reply {
    let path = format!("{PREVIEW}?url={}", escape(url));
    world.ask(client, &path, &[("accept-language", languages)]).await.reply()
}

on_both! {
    async fn a_page_is_shown_with_its_picture(world, config => { PageServer::start(config); }) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let site = PageServer::of(&world);
        let preview = look(&alice, &site.url("/page")).await.ok();
        assert_eq!(preview["og:title"], "A page");
        assert_eq!(preview["og:image:width"], 1);
        assert_eq!(preview["og:image:height"], 1);
        assert_eq!(preview["matrix:image:size"], PICTURE.len());
        let picture = preview["og:image"].as_str().unwrap();
        assert_eq!(world.download(&bob, picture).await.file(), PICTURE);
        // It is not looked at again.
        let looks = site.looks();
        for _ in 0..world.nodes.len() {
            assert_eq!(look(&bob, &site.url("/page")).await.ok(), preview);
        }
        let of_old = format!("{OLD}/preview_url?url={}", escape(&site.url("/page")));
        assert_eq!(bob.get(&of_old).await.ok(), preview);
        assert_eq!(site.looks(), looks);
        assert_eq!(look(&alice, &site.url("/there")).await.ok()["og:title"], "A page");
        assert_eq!(in_language(&world, &alice, &site.url("/page"), "de").await.ok()["og:title"], "Eine Seite");
        world.call("GET", PREVIEW, None, None).await.refused(401, "M_MISSING_TOKEN");
    }

    /// Trap: private addresses, also after redirects.
    async fn what_only_the_server_reaches_is_shown_to_nobody(world, config => { PageServer::start(config); }) {
        let alice = world.user("alice").await;
        let site = PageServer::of(&world);
        let mut answers = Vec::new();
        for url in ["http://10.0.0.1/", "http://[::1]/", "http://169.254.169.254/latest", &site.url("/inside"), &site.url("/broken")] {
            let reply = look(&alice, url).await;
            reply.refused(502, "M_UNKNOWN");
            answers.push(reply.body);
        }
        // All are refused in one way: nobody learns what there is.
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
        for url in ["file:///etc/passwd", "x", "", "javascript:alert(1)"] {
            look(&alice, url).await.refused(400, "M_INVALID_PARAM");
        }
        alice.get(PREVIEW).await.refused(400, "M_MISSING_PARAM");
    }

    async fn a_server_looks_at_nothing_unless_its_operator_wants_it(world) {
        let alice = world.user("alice").await;
        look(&alice, "https://example.org/").await.refused(404, "M_UNRECOGNIZED");
        alice.get(&format!("{OLD}/preview_url?url=x")).await.refused(404, "M_UNRECOGNIZED");
    }
}
