//! Names of files as their owners gave them, without what could lead anywhere or deceive, and as a header says them.
//!
//! <https://www.rfc-editor.org/rfc/rfc6266> and, for what is not ASCII, <https://www.rfc-editor.org/rfc/rfc8187>.

use std::fmt::Write as _;

use http::HeaderValue;

/// What file systems take, in bytes.
const MAX_NAME: usize = 255;
/// Of the end of a name that says what it is, in bytes.
const MAX_EXTENSION: usize = 16;

/// Whether something is shown in place or saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disposition {
    Inline,
    Attachment,
}

impl Disposition {
    fn as_str(self) -> &'static str {
        match self {
            Self::Inline => "inline",
            Self::Attachment => "attachment",
        }
    }
}

/// The last part of a path, without control characters and marks that turn the direction of a text around, by which
/// `exe.png` can be made to look like `gnp.exe`. At most 255 bytes, the extension being kept. None where nothing is left.
pub(crate) fn sanitise(name: &str) -> Option<String> {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let kept: String = last.chars().filter(|character| !is_hidden(*character)).collect();
    let kept = kept.trim();
    // `.` and `..` lead somewhere.
    if kept.chars().all(|character| character == '.') {
        return None;
    }
    Some(shorten(kept))
}

/// The value of `Content-Disposition`. The name is sanitised here once more, since it may come from a URL.
pub(crate) fn disposition(disposition: Disposition, name: Option<&str>) -> HeaderValue {
    let mut value = disposition.as_str().to_owned();
    if let Some(name) = name.and_then(sanitise) {
        let plain = plain(&name);
        // Writing to a `String` can't fail.
        write!(value, "; filename=\"{plain}\"").unwrap_or_default();
        if plain != name {
            value.push_str("; filename*=UTF-8''");
            for byte in name.bytes() {
                if byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&byte) {
                    value.push(char::from(byte));
                } else {
                    write!(value, "%{byte:02X}").unwrap_or_default();
                }
            }
        }
    }
    // It holds printable ASCII alone.
    HeaderValue::try_from(value).unwrap_or(HeaderValue::from_static("attachment"))
}

/// For clients that read no other: what is not ASCII becomes `_`, as do quotes, and `%`, which some would decode.
fn plain(name: &str) -> String {
    let plain = |character: char| match character {
        '"' | '\\' | '%' => '_',
        ' '..='~' => character,
        _ => '_',
    };
    name.chars().map(plain).collect()
}

/// Characters that nobody sees.
fn is_hidden(character: char) -> bool {
    let directions =
        matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let breaks = matches!(character, '\u{2028}' | '\u{2029}' | '\u{feff}');
    character.is_control() || directions || breaks
}

fn shorten(name: &str) -> String {
    if name.len() <= MAX_NAME {
        return name.to_owned();
    }
    let extension = name.rfind('.').and_then(|dot| name.get(dot..)).filter(|end| end.len() <= MAX_EXTENSION);
    let extension = extension.unwrap_or_default();
    let stem = name.get(..name.floor_char_boundary(MAX_NAME - extension.len())).unwrap_or_default();
    format!("{stem}{extension}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_nowhere_and_do_not_deceive() {
        for (name, sanitised) in [
            ("a picture.png", Some("a picture.png")),
            ("../../etc/passwd", Some("passwd")),
            (r"C:\Windows\system32\cmd.exe", Some("cmd.exe")),
            ("a\0b\r\nSet-Cookie: c.txt", Some("abSet-Cookie: c.txt")),
            ("photo\u{202e}gnp.exe", Some("photognp.exe")),
            (" .bashrc ", Some(".bashrc")),
            ("na;me \"q\".txt", Some("na;me \"q\".txt")),
            ("日本.png", Some("日本.png")),
            ("", None),
            ("..", None),
            (".", None),
            ("a/", None),
            ("\u{200e} \n", None),
        ] {
            assert_eq!(sanitise(name).as_deref(), sanitised, "{name:?}");
        }
    }

    #[test]
    fn long_names_are_cut_and_keep_their_extension() {
        let long = sanitise(&format!("{}.tar.gz", "ü".repeat(300))).unwrap();
        assert!(long.len() <= MAX_NAME && long.len() > MAX_NAME - 3 && long.ends_with("ü.gz"), "{long}");
        let endless = sanitise(&format!("a.{}", "é".repeat(300))).unwrap();
        assert!(endless.len() <= MAX_NAME && endless.starts_with("a.é"), "{endless}");
    }

    #[test]
    fn headers_say_names_in_both_ways() {
        for (name, header) in [
            (None, "inline"),
            (Some(".."), "inline"),
            (Some("a b;c.png"), "inline; filename=\"a b;c.png\""),
            (Some("say \"hi\""), "inline; filename=\"say _hi_\"; filename*=UTF-8''say%20%22hi%22"),
            (Some("100%.txt"), "inline; filename=\"100_.txt\"; filename*=UTF-8''100%25.txt"),
            (Some("ü▲.txt"), "inline; filename=\"__.txt\"; filename*=UTF-8''%C3%BC%E2%96%B2.txt"),
            (Some("x\r\nSet-Cookie: a"), "inline; filename=\"xSet-Cookie: a\""),
        ] {
            assert_eq!(disposition(Disposition::Inline, name), header, "{name:?}");
        }
        assert_eq!(disposition(Disposition::Attachment, Some("a")), "attachment; filename=\"a\"");
    }
}
