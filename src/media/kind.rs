//! What bytes are, what they are said to be, and as what they go out.
//!
//! Whoever uploads something says its type, and a browser may run what has the type of a page. So what is shown in place
//! is only of the specification's types, and where the bytes are plainly something else that runs scripts, the type that
//! they were given is not repeated.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#serving-inline-content>

/// Of a media type with its parameters, in bytes.
const MAX_TYPE: usize = 255;
/// How far a page is looked through for the mark of an SVG picture.
const MARKUP: usize = 4 * 1024;
/// Of what nobody knows anything.
pub(crate) const UNKNOWN: &str = "application/octet-stream";

/// What may be shown in place, by the specification.
const INLINE: [&str; 26] = [
    "text/css",
    "text/plain",
    "text/csv",
    "application/json",
    "application/ld+json",
    "image/jpeg",
    "image/gif",
    "image/png",
    "image/apng",
    "image/webp",
    "image/avif",
    "video/mp4",
    "video/webm",
    "video/ogg",
    "video/quicktime",
    "audio/mp4",
    "audio/webm",
    "audio/aac",
    "audio/mpeg",
    "audio/ogg",
    "audio/wave",
    "audio/wav",
    "audio/x-wav",
    "audio/x-pn-wav",
    "audio/flac",
    "audio/x-flac",
];

/// What begins a page, as browsers find out (<https://mimesniff.spec.whatwg.org/#identifying-a-resource-with-an-unknown-mime-type>).
const PAGE: [&str; 17] = [
    "<!doctype html",
    "<html",
    "<head",
    "<script",
    "<iframe",
    "<h1",
    "<div",
    "<font",
    "<table",
    "<a",
    "<style",
    "<title",
    "<b",
    "<body",
    "<br",
    "<p",
    "<!--",
];

/// What the first bytes of a file look like, as a media type. [`UNKNOWN`] where they look like nothing.
pub(crate) fn sniff(head: &[u8]) -> &'static str {
    if let Some(markup) = sniff_markup(head) {
        return markup;
    }
    match infer::get(head).map(|kind| kind.mime_type()) {
        Some("image/png") if is_animated_png(head) => "image/apng",
        // As the specification calls them.
        Some("audio/m4a") => "audio/mp4",
        Some("audio/opus") => "audio/ogg",
        Some("video/x-m4v") => "video/mp4",
        // Texts begin with anything, such as `BM` or `ID3`.
        Some(sniffed) if is_medium(sniffed) && is_text(head) => "text/plain",
        Some(sniffed) => sniffed,
        None if is_text(head) => "text/plain",
        None => UNKNOWN,
    }
}

/// A media type as somebody has claimed it; type and subtype in small letters. None for what is none.
///
/// Of its parameters those are kept that nobody can read in another way: to browsers a comma begins another type, and the
/// last one counts, so `text/plain; ,text/html` is a page.
pub(crate) fn clean(claimed: &str) -> Option<String> {
    let claimed = claimed.trim();
    let mut parts = claimed.split(';');
    let (kind, subtype) = parts.next()?.trim().split_once('/')?;
    let is_sound = claimed.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if claimed.len() > MAX_TYPE || !is_token(kind) || !is_token(subtype) || !is_sound {
        return None;
    }
    let mut cleaned = format!("{kind}/{subtype}").to_ascii_lowercase();
    for parameter in parts.map(str::trim).filter(|parameter| is_parameter(parameter)) {
        cleaned.push_str("; ");
        cleaned.push_str(parameter);
    }
    Some(cleaned)
}

/// Whether something of this type may be shown in place rather than saved.
pub(crate) fn serves_inline(content_type: &str) -> bool {
    INLINE.contains(&essence(content_type).as_str())
}

/// The type with which something goes out. `claimed`: what whoever brought it says; `sniffed`: what [`sniff`] says.
pub(crate) fn served_type(claimed: Option<&str>, sniffed: &str) -> String {
    let Some(claimed) = claimed.and_then(clean) else { return sniffed.to_owned() };
    let kind = essence(&claimed);
    if runs_scripts(&kind) {
        // What is a picture is none the less for being called a page.
        return if is_medium(sniffed) && !runs_scripts(sniffed) { sniffed.to_owned() } else { claimed };
    }
    // A page that is called a picture. As text it would be shown as it is, which is what it is.
    let contradicts = runs_scripts(sniffed) && kind != UNKNOWN && !kind.starts_with("text/");
    if contradicts { UNKNOWN.to_owned() } else { claimed }
}

/// Whether browsers run what is in something of this type.
fn runs_scripts(kind: &str) -> bool {
    let kinds = [
        "text/html",
        "text/xml",
        "text/javascript",
        "text/ecmascript",
        "application/xml",
        "application/javascript",
        "application/x-javascript",
        "application/ecmascript",
        "application/pdf",
        "application/x-shockwave-flash",
        "multipart/x-mixed-replace",
    ];
    kinds.contains(&kind) || kind.ends_with("+xml")
}

fn is_medium(kind: &str) -> bool {
    ["image/", "audio/", "video/"].iter().any(|family| kind.starts_with(family))
}

/// Type and subtype alone, in small letters.
fn essence(content_type: &str) -> String {
    let (essence, _) = content_type.split_once(';').unwrap_or((content_type, ""));
    essence.trim().to_ascii_lowercase()
}

/// <https://www.rfc-editor.org/rfc/rfc9110#name-tokens>
fn is_token(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_part)
}

/// `name=value` or `name="value"`.
fn is_parameter(text: &str) -> bool {
    let Some((name, value)) = text.split_once('=') else { return false };
    let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    is_token(name) && quoted.map_or_else(|| is_token(value), |quoted| !quoted.contains(['"', '\\', ',']))
}

/// Pages, XML and SVG pictures.
fn sniff_markup(head: &[u8]) -> Option<&'static str> {
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    let head = head.get(..MARKUP).unwrap_or(head).trim_ascii_start();
    if head.first() != Some(&b'<') {
        return None;
    }
    // What is no text among it is no matter: browsers don't mind either.
    let text = String::from_utf8_lossy(head).to_ascii_lowercase();
    let ends = |rest: &str| rest.starts_with([' ', '>', '\t', '\n', '\r', '\u{c}', '/']);
    let begins = |mark: &str| text.strip_prefix(mark).is_some_and(|rest| mark == "<!--" || ends(rest));
    let is_page = PAGE.into_iter().any(begins);
    if text.contains("<svg") && !text.contains("<html") {
        return Some("image/svg+xml");
    }
    if is_page {
        return Some("text/html");
    }
    if text.starts_with("<?xml") || text.starts_with("<!doctype") {
        return Some(if text.contains("<html") { "application/xhtml+xml" } else { "text/xml" });
    }
    None
}

/// Whether a PNG picture has a chunk that says how it moves, which stands before the picture itself.
fn is_animated_png(head: &[u8]) -> bool {
    let place = |name: &[u8]| head.windows(4).position(|window| window == name);
    match (place(b"acTL"), place(b"IDAT")) {
        (Some(control), Some(data)) => control < data,
        (Some(_), None) => true,
        (None, _) => false,
    }
}

/// UTF-8 without characters that texts have not. The last character may be cut off.
fn is_text(head: &[u8]) -> bool {
    let valid = match str::from_utf8(head) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            head.get(..error.valid_up_to()).and_then(|valid| str::from_utf8(valid).ok()).unwrap_or_default()
        }
        Err(_) => return false,
    };
    let is_odd =
        |character: char| character.is_control() && !matches!(character, '\t' | '\n' | '\r' | '\u{c}' | '\u{1b}');
    !valid.is_empty() && !valid.contains(is_odd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_say_what_a_file_is() {
        let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
        let cases: [(&[u8], &str); 19] = [
            (png, "image/png"),
            (&[png.as_slice(), b"....acTL....IDAT"].concat(), "image/apng"),
            (&[png.as_slice(), b"....IDAT....acTL"].concat(), "image/png"),
            (b"\xff\xd8\xff\xe0", "image/jpeg"),
            (b"GIF89a\x01\0\x01\0", "image/gif"),
            (b"%PDF-1.7", "application/pdf"),
            (b"hello there", "text/plain"),
            (b"BMW and others", "text/plain"),
            ("ünïcödé cut o\u{fc}".as_bytes().split_last().unwrap().1, "text/plain"),
            (b"with a\0NUL", UNKNOWN),
            (b"\xfe\xdc\xba\x98\x76", UNKNOWN),
            (b"", UNKNOWN),
            (b" \n<!DOCTYPE HTML><p>", "text/html"),
            (b"\xef\xbb\xbf<script>alert(1)</script>", "text/html"),
            (b"<!-- x --><svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", "image/svg+xml"),
            (b"<?xml version='1.0'?><SVG>", "image/svg+xml"),
            (b"<?xml version='1.0'?><feed>", "text/xml"),
            (b"<?xml version='1.0'?><!DOCTYPE html><html>", "application/xhtml+xml"),
            (b"<3 you", "text/plain"),
        ];
        for (head, kind) in cases {
            assert_eq!(sniff(head), kind, "{:?}", String::from_utf8_lossy(head));
        }
    }

    #[test]
    fn claimed_types_are_read_or_dropped() {
        for (claimed, clean_type) in [
            ("image/png", "image/png"),
            (" Image/PNG ", "image/png"),
            ("text/plain;charset=UTF-8", "text/plain; charset=UTF-8"),
            ("application/ld+json", "application/ld+json"),
            ("text/plain; format = flowed; charset=\"utf-8\"; x", "text/plain; charset=\"utf-8\""),
            // As browsers name what they record.
            ("video/webm;codecs=vp8,opus", "video/webm"),
            // What browsers would take for a page.
            ("text/plain; ,text/html", "text/plain"),
            ("text/plain;charset=utf-8, text/html", "text/plain"),
            ("text/plain; a=\"b\", text/html; c=\"d\"", "text/plain; c=\"d\""),
            ("text/plain; a=\"\\\", text/html; b=\"", "text/plain"),
        ] {
            assert_eq!(clean(claimed).as_deref(), Some(clean_type));
        }
        let long = format!("text/{}", "x".repeat(300));
        for claimed in [
            "",
            "image",
            "image/",
            "/png",
            "im age/png",
            "text/plain; a\r\nSet-Cookie: b",
            "text/é",
            "text/plain,text/html",
            &long,
        ] {
            assert_eq!(clean(claimed), None, "{claimed:?}");
        }
    }

    #[test]
    fn only_what_the_specification_lists_is_shown_in_place() {
        for kind in INLINE {
            assert!(serves_inline(kind) && !runs_scripts(kind), "{kind}");
        }
        assert!(serves_inline("Text/Plain; charset=utf-8"));
        for kind in ["text/html", "image/svg+xml", "application/pdf", "text/javascript", "application/xml", "x", ""] {
            assert!(!serves_inline(kind), "{kind}");
        }
    }

    #[test]
    fn no_type_goes_out_that_the_bytes_contradict_dangerously() {
        for (claimed, sniffed, served) in [
            (Some("image/png"), "image/png", "image/png"),
            (Some("image/png"), "image/jpeg", "image/png"),
            (Some("image/png"), "text/html", UNKNOWN),
            (Some("application/json"), "image/svg+xml", UNKNOWN),
            (Some("text/plain; charset=utf-8"), "text/html", "text/plain; charset=utf-8"),
            (Some("text/html"), "image/png", "image/png"),
            (Some("text/html"), "text/plain", "text/html"),
            (Some("image/svg+xml"), "image/svg+xml", "image/svg+xml"),
            (Some("application/octet-stream"), "text/html", UNKNOWN),
            (Some("nonsense"), "image/gif", "image/gif"),
            (None, "image/gif", "image/gif"),
            (None, UNKNOWN, UNKNOWN),
        ] {
            assert_eq!(served_type(claimed, sniffed), served, "{claimed:?} {sniffed}");
        }
    }
}
