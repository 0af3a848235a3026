//! Pages that strangers write, as previews read them.

use super::{cases, dice::Dice, mutate};
use crate::media::page::{self, PageSummary};

const PIECES: &[&str] = &[
    "<!DOCTYPE html>",
    "<html><head>",
    "<title>A title &amp; more</title>",
    "<meta charset=utf-8>",
    "<meta http-equiv='Content-Type' content='text/html; charset=windows-1251'>",
    "<meta property=\"og:title\" content=\"A &quot;title&quot;\">",
    "<meta property='og:description' content='Some\nwords'/>",
    "<meta property=og:image content=/a.png>",
    "<meta name=\"twitter:image:src\" content=\"//cdn.example/a.png\">",
    "<meta name=description content=words>",
    "<link rel=alternate type=application/json+oembed href='/oembed?a=1&amp;b=2'>",
    "<link rel=\"image_src\" href=\"a.png\">",
    "<base href=https://example.org/b/>",
    "<script>if (a < b) { \"</title>\" }</script>",
    "<style>p { color: red }</style>",
    "</head><body>",
    "<h1>A <b>heading</b></h1>",
    "<nav><p>Menu</p></nav>",
    "<p>A paragraph <i>of words</i>.</p>",
    "<svg><title>none</title></svg>",
    "<!-- a comment -->",
    "<textarea><p></textarea>",
    "<![CDATA[a]]>",
    "&#x1f980; &#0; &notit; &#1114112;",
    "<b a='1' a='2' c d=\"",
    "</body></html>",
];
const TYPES: &[&str] = &[
    "text/html",
    "text/html; charset=utf-8",
    "text/html; charset=iso-8859-1",
    "text/html;charset=\"koi8-r\"",
    "text/html; charset=shift_jis",
    "text/html; charset=utf-16",
];

fn page(dice: &mut Dice) -> String {
    let count = dice.small(60) + 1;
    (0..count)
        .map(|_| {
            let piece = dice.pick(PIECES);
            match dice.below(4) {
                0 => mutate::text(dice, piece),
                1 => mutate::junk(dice),
                _ => piece.to_owned(),
            }
        })
        .collect()
}

/// It keeps to its bounds, and can be stored and shown in one line.
fn check(summary: &PageSummary) {
    assert!(summary.properties.len() <= 35, "{summary:?}");
    for (name, value) in &summary.properties {
        assert!(name.starts_with("og:") && name.len() <= 43, "{summary:?}");
        assert!(!value.is_empty() && value.chars().count() <= 1_000, "{summary:?}");
        assert!(!value.chars().any(char::is_control), "{summary:?}");
    }
    for address in [&summary.picture, &summary.oembed, &summary.base].into_iter().flatten() {
        assert!(!address.is_empty() && address.len() <= 2_048, "{summary:?}");
        assert!(!address.chars().any(char::is_control), "{summary:?}");
    }
}

#[test]
fn a_page_is_read_within_bounds_whatever_is_in_it() {
    for mut case in cases("pages", 4) {
        let dice = &mut case.dice;
        let text = page(dice);
        // What it is written in changes nothing.
        let in_utf8 = page::read(format!("\u{feff}{text}").as_bytes(), None);
        let units = "\u{feff}".encode_utf16().chain(text.encode_utf16());
        if 2 * text.len() < page::MAX_PAGE / 2 {
            let in_utf16: Vec<u8> = units.flat_map(u16::to_le_bytes).collect();
            assert_eq!(page::read(&in_utf16, None), in_utf8, "{text:?}");
        }
        check(&in_utf8);
        let bytes = mutate::bytes(dice, text.into_bytes());
        check(&page::read(&bytes, Some(dice.pick(TYPES))));
    }
}
