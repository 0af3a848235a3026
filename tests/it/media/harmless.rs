//! Files are harmless to whoever opens them, whatever they are and whatever they are called.

use super::{Ask, UPLOAD, at, name};
use crate::{
    on_both,
    world::{Client, World, escape},
};

const SVG: &[u8] = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>";
const HTML: &[u8] = b"<!DOCTYPE html><script>alert(1)</script>";
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0";

/// Uploads a file of some name.
async fn upload_as(world: &World, client: &Client, file_name: &str, kind: &str, file: &[u8]) -> String {
    let path = format!("{UPLOAD}?filename={}", escape(file_name));
    let reply = world.put_file(client, "POST", &path, kind, file).await.reply().ok();
    reply["content_uri"].as_str().unwrap().to_owned()
}

on_both! {
    async fn nothing_in_a_file_runs(world) {
        let alice = world.user("alice").await;
        for (kind, file) in [("image/png", PNG), ("text/html", HTML), ("image/svg+xml", SVG), ("x/y", b"\0")] {
            let uri = world.upload(&alice, kind, file).await;
            let url = format!("{}{}", world.nodes[0].url, at(&uri));
            let headers = [("origin", "https://client.example")];
            let answer = Ask { method: "GET", url, token: Some(&alice.token), headers: &headers, body: None }.send().await;
            let policy = "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; \
                          style-src 'unsafe-inline'; object-src 'self';";
            assert_eq!(answer.header("content-security-policy"), policy, "{kind}");
            assert_eq!(answer.header("x-content-type-options"), "nosniff");
            assert_eq!(answer.header("cross-origin-resource-policy"), "cross-origin");
            assert_eq!(answer.header("cache-control"), "private, max-age=86400, immutable");
            // Clients in browsers read them all, pages too.
            assert_eq!(answer.header("access-control-allow-origin"), "*", "{kind}");
            assert_eq!(answer.file(), file);
        }
    }

    /// Trap: content types that run scripts.
    async fn what_runs_scripts_is_saved_and_not_shown(world) {
        let alice = world.user("alice").await;
        for (claimed, file, sent, shown) in [
            ("image/png", PNG, "image/png", "inline"),
            ("text/plain; charset=utf-8", b"hello".as_slice(), "text/plain; charset=utf-8", "inline"),
            ("text/html", HTML, "text/html", "attachment"),
            ("image/svg+xml", SVG, "image/svg+xml", "attachment"),
            ("application/xhtml+xml", HTML, "application/xhtml+xml", "attachment"),
            ("application/pdf", b"%PDF-1.7", "application/pdf", "attachment"),
            ("text/javascript", b"alert(1)", "text/javascript", "attachment"),
            ("application/zip", b"PK\x03\x04", "application/zip", "attachment"),
            // Lies.
            ("image/png", HTML, "application/octet-stream", "attachment"),
            ("image/png", SVG, "application/octet-stream", "attachment"),
            ("application/json", SVG, "application/octet-stream", "attachment"),
            ("text/html", PNG, "image/png", "inline"),
            ("text/plain", HTML, "text/plain", "inline"),
            // Of two types browsers take the last.
            ("text/plain; ,text/html", HTML, "text/plain", "inline"),
            ("text/plain; a=b, text/html", HTML, "text/plain", "inline"),
            ("no type at all", PNG, "image/png", "inline"),
        ] {
            let answer = world.download(&alice, &world.upload(&alice, claimed, file).await).await;
            let said = (answer.header("content-type"), answer.header("content-disposition"));
            assert_eq!(said, (sent, shown), "{claimed} {:?}", String::from_utf8_lossy(file));
        }
    }

    async fn names_are_told_and_lead_nowhere(world) {
        let alice = world.user("alice").await;
        for (file_name, shown) in [
            ("a picture.png", "inline; filename=\"a picture.png\""),
            ("ü▲.png", "inline; filename=\"__.png\"; filename*=UTF-8''%C3%BC%E2%96%B2.png"),
            ("../../etc/passwd", "inline; filename=\"passwd\""),
            (r"..\..\boot.ini", "inline; filename=\"boot.ini\""),
            ("a\r\nSet-Cookie: b=c\0.png", "inline; filename=\"aSet-Cookie: b=c.png\""),
            ("cod\u{202e}gnp.exe", "inline; filename=\"codgnp.exe\""),
            ("\"quoted\".png", "inline; filename=\"_quoted_.png\"; filename*=UTF-8''%22quoted%22.png"),
            ("..", "inline"),
        ] {
            let uri = upload_as(&world, &alice, file_name, "image/png", PNG).await;
            let answer = world.download(&alice, &uri).await;
            assert_eq!(answer.header("content-disposition"), shown, "{file_name:?}");
            assert!(!answer.headers.contains_key("set-cookie"));
            // By the name that the one who downloads it wants.
            if !file_name.contains(['/', '\\', '\0']) && file_name != ".." {
                let other = world.upload(&alice, "image/png", PNG).await;
                let answer = world.ask(&alice, &format!("{}/{}", at(&other), escape(file_name)), &[]).await;
                assert_eq!(answer.header("content-disposition"), shown, "{file_name:?}");
            }
        }
        let long = upload_as(&world, &alice, &format!("{}.png", "x".repeat(5_000)), "image/png", PNG).await;
        let shown = world.download(&alice, &long).await.header("content-disposition").to_owned();
        assert!(shown.len() < 300 && shown.ends_with(".png\""), "{shown}");
    }

    /// Trap: path traversal.
    async fn ids_lead_nowhere(world) {
        let alice = world.user("alice").await;
        let uri = world.upload(&alice, "image/png", PNG).await;
        for path in [
            "localhost/..%2F..%2Fetc%2Fpasswd",
            "localhost/..%5C..%5Chearth.sqlite3",
            "localhost/a%00b",
            "localhost/%C3%A9",
            &format!("{}%2F", name(&uri)),
            &format!("localhost/{}", "x".repeat(5_000)),
        ] {
            for path in [
                format!("/_matrix/client/v1/media/download/{path}"),
                format!("/_matrix/client/v1/media/thumbnail/{path}?width=32&height=32"),
            ] {
                let answer = world.ask(&alice, &path, &[]).await.reply();
                assert!([400, 404].contains(&answer.status), "{path}: {}", answer.status);
                assert!(answer.body["errcode"].is_string(), "{path}: {}", answer.body);
            }
            world
                .put_file(&alice, "PUT", &format!("{UPLOAD}/{path}"), "image/png", PNG)
                .await
                .refused(404, "M_NOT_FOUND");
        }
        for server in ["..%2F..", "a%20b", "%00", "localhost%2F..", "x%23y"] {
            let path = format!("/_matrix/client/v1/media/download/{server}/abc");
            world.ask(&alice, &path, &[]).await.refused(400, "M_INVALID_PARAM");
        }
    }
}
