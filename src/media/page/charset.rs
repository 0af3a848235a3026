//! The characters of a page, whatever bytes they are written in.
//!
//! A page may say which in three places, in two of them wrongly, and often in none. What is UTF-8 by its bytes is UTF-8:
//! text in anything else is hardly ever so by chance. The old character sets of one byte are read as well; of others,
//! such as those of East Asia, only what is ASCII is, and [`Decoded::is_whole`] is false.
//!
//! <https://encoding.spec.whatwg.org/#names-and-labels>

use super::tables;

/// How far into a page it may say what its characters are written in, in bytes.
const MAX_PRESCAN: usize = 1_024;

/// A page in characters.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decoded {
    pub(super) text: String,
    /// False where a replacement character stands for something that means something, which can't be read here.
    pub(super) is_whole: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Charset {
    Utf8,
    Utf16 {
        is_big_endian: bool,
    },
    /// ASCII, and another character for each of the upper 128 bytes.
    OneByte(&'static str),
    /// Whose bytes below 128 are taken for ASCII.
    Unknown,
}

/// `content_type` is the header of the answer that the page is.
pub(super) fn decode(bytes: &[u8], content_type: Option<&str>) -> Decoded {
    let (charset, bytes) = match bytes {
        [0xef, 0xbb, 0xbf, rest @ ..] => (Charset::Utf8, rest),
        [0xfe, 0xff, rest @ ..] => (Charset::Utf16 { is_big_endian: true }, rest),
        [0xff, 0xfe, rest @ ..] => (Charset::Utf16 { is_big_endian: false }, rest),
        _ => (told(bytes, content_type), bytes),
    };
    Decoded { text: charset.decode(bytes), is_whole: charset != Charset::Unknown }
}

/// By what the page says, or what it looks like.
fn told(bytes: &[u8], content_type: Option<&str>) -> Charset {
    let by_header = content_type.and_then(|header| label_in(header.as_bytes())).map(|label| Charset::of(&label));
    if let Some(utf16 @ Charset::Utf16 { .. }) = by_header {
        return utf16;
    }
    if is_utf8(bytes) {
        return Charset::Utf8;
    }
    let by_page = || {
        let head = bytes.get(..MAX_PRESCAN).unwrap_or(bytes);
        // Whoever reads this in it has read bytes as ASCII, so they can't be UTF-16.
        label_in(head).map(|label| match Charset::of(&label) {
            Charset::Utf16 { .. } => Charset::Utf8,
            charset => charset,
        })
    };
    let looks = if bytes.is_ascii() { Charset::Utf8 } else { Charset::OneByte(tables::WINDOWS_1252) };
    by_header.or_else(by_page).unwrap_or(looks)
}

/// Whether there is something in it that only UTF-8 has, and nothing else. The last character may be cut.
fn is_utf8(bytes: &[u8]) -> bool {
    let whole = match std::str::from_utf8(bytes) {
        Ok(_) => bytes,
        Err(error) if error.error_len().is_some() => return false,
        Err(error) => bytes.get(..error.valid_up_to()).unwrap_or_default(),
    };
    !whole.is_ascii()
}

/// What follows `charset=`, in small letters.
fn label_in(text: &[u8]) -> Option<String> {
    const MARK: &[u8] = b"charset";
    let mut marks = text.windows(MARK.len()).enumerate().filter(|(_, window)| window.eq_ignore_ascii_case(MARK));
    marks.find_map(|(place, _)| label_after(text.get(place + MARK.len()..)?))
}

fn label_after(text: &[u8]) -> Option<String> {
    let value = text.trim_ascii_start().strip_prefix(b"=")?.trim_ascii_start();
    let value = value.strip_prefix(b"\"").or_else(|| value.strip_prefix(b"'")).unwrap_or(value).trim_ascii_start();
    let is_of_label = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte);
    let label: Vec<u8> = value.iter().copied().take_while(|byte| is_of_label(byte)).take(40).collect();
    String::from_utf8(label).ok().filter(|label| !label.is_empty()).map(|label| label.to_ascii_lowercase())
}

impl Charset {
    fn of(label: &str) -> Self {
        match label {
            "utf-8" | "utf8" | "unicode-1-1-utf-8" | "unicode" => Self::Utf8,
            "utf-16" | "utf-16le" => Self::Utf16 { is_big_endian: false },
            "utf-16be" => Self::Utf16 { is_big_endian: true },
            "iso-8859-1" | "iso8859-1" | "iso_8859-1" | "latin1" | "l1" | "us-ascii" | "ascii" | "windows-1252"
            | "cp1252" | "x-cp1252" => Self::OneByte(tables::WINDOWS_1252),
            "windows-1250" | "cp1250" | "x-cp1250" => Self::OneByte(tables::WINDOWS_1250),
            "windows-1251" | "cp1251" | "x-cp1251" => Self::OneByte(tables::WINDOWS_1251),
            "windows-1253" | "cp1253" | "x-cp1253" => Self::OneByte(tables::WINDOWS_1253),
            "windows-1254" | "cp1254" | "x-cp1254" | "iso-8859-9" | "iso8859-9" | "latin5" | "l5" => {
                Self::OneByte(tables::WINDOWS_1254)
            }
            "iso-8859-2" | "iso8859-2" | "iso_8859-2" | "latin2" | "l2" => Self::OneByte(tables::ISO_8859_2),
            "iso-8859-15" | "iso8859-15" | "latin9" | "l9" => Self::OneByte(tables::ISO_8859_15),
            "koi8-r" | "koi8" | "koi" => Self::OneByte(tables::KOI8_R),
            _ => Self::Unknown,
        }
    }

    fn decode(self, bytes: &[u8]) -> String {
        match self {
            Self::Utf8 => {
                // Not what was cut at the end, which would look like an error in the page.
                let cut = std::str::from_utf8(bytes).err().filter(|error| error.error_len().is_none());
                let whole = cut.and_then(|error| bytes.get(..error.valid_up_to())).unwrap_or(bytes);
                String::from_utf8_lossy(whole).into_owned()
            }
            Self::Utf16 { is_big_endian } => {
                let (pairs, _) = bytes.as_chunks::<2>();
                let read = if is_big_endian { u16::from_be_bytes } else { u16::from_le_bytes };
                let units = pairs.iter().map(|pair| read(*pair));
                char::decode_utf16(units).map(|character| character.unwrap_or('\u{fffd}')).collect()
            }
            Self::OneByte(table) => {
                let upper: Vec<char> = table.chars().collect();
                let character = |byte: &u8| match byte.checked_sub(128) {
                    None => char::from(*byte),
                    Some(place) => upper.get(usize::from(place)).copied().unwrap_or('\u{fffd}'),
                };
                bytes.iter().map(character).collect()
            }
            // An escape begins another set in some of them.
            Self::Unknown => {
                let character = |byte: &u8| match byte {
                    0x1b | 0x80.. => '\u{fffd}',
                    ascii => char::from(*ascii),
                };
                bytes.iter().map(character).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8], content_type: &str) -> String {
        let decoded = decode(bytes, Some(content_type));
        assert!(decoded.is_whole);
        decoded.text
    }

    #[test]
    fn every_table_has_128_characters() {
        for table in [
            tables::WINDOWS_1250,
            tables::WINDOWS_1251,
            tables::WINDOWS_1252,
            tables::WINDOWS_1253,
            tables::WINDOWS_1254,
            tables::ISO_8859_2,
            tables::ISO_8859_15,
            tables::KOI8_R,
        ] {
            assert_eq!(table.chars().count(), 128, "{table}");
        }
    }

    #[test]
    fn a_page_is_read_as_it_is_written() {
        assert_eq!(text("caf\u{e9}".as_bytes(), "text/html; charset=utf-8"), "café");
        assert_eq!(text(b"caf\xe9", "text/html; charset=ISO-8859-1"), "café");
        assert_eq!(text(b"\x93caf\xe9\x94", "text/html; charset=\"latin1\""), "“café”");
        assert_eq!(text(b"\xcf\xf0\xe8\xe2\xe5\xf2", "text/html;charset=windows-1251"), "Привет");
        assert_eq!(text(b"\xf0\xd2\xc9\xd7\xc5\xd4", "text/html;charset = 'koi8-r'"), "Привет");
        assert_eq!(text(b"<meta charset=iso-8859-2>\xb3\xf3d\xbc", "text/html"), "<meta charset=iso-8859-2>łódź");
        let http_equiv = "<meta http-equiv=Content-Type content='text/html; charset=windows-1250'>";
        assert_eq!(text(&[http_equiv.as_bytes(), b"\x8a"].concat(), "text/html"), format!("{http_equiv}Š"));
    }

    #[test]
    fn a_mark_at_the_beginning_counts_more_than_any_word() {
        assert_eq!(text(b"\xef\xbb\xbfcaf\xc3\xa9", "text/html; charset=iso-8859-1"), "café");
        assert_eq!(text(b"\xff\xfeh\0\xe9\0", "text/html; charset=utf-8"), "hé");
        assert_eq!(text(b"\xfe\xff\0h\0\xe9\0", "text/html"), "hé");
        assert_eq!(text(b"h\0\xe9\0\x00\xd8", "text/html; charset=utf-16"), "hé\u{fffd}");
    }

    #[test]
    fn a_page_with_a_wrong_charset_is_read_all_the_same() {
        assert_eq!(text("caf\u{e9}".as_bytes(), "text/html; charset=iso-8859-1"), "café");
        assert_eq!(text("caf\u{e9}".as_bytes(), "text/html; charset=shift_jis"), "café");
        assert_eq!(text(b"caf\xe9", "text/html"), "café");
        assert_eq!(text(b"caf\xe9 au lait", "text/html; charset=utf-8"), "caf\u{fffd} au lait");
        assert_eq!(text("<meta charset=utf-16>caf\u{e9}".as_bytes(), ""), "<meta charset=utf-16>café");
        assert_eq!(text(b"", "charset"), "");
        assert_eq!(text(b"a", "charset="), "a");
    }

    #[test]
    fn what_is_cut_at_its_end_is_still_utf_8() {
        assert_eq!(text(b"caf\xc3\xa9 \xe2\x82", "text/html; charset=iso-8859-1"), "café ");
        assert_eq!(text(b"caf\xc3\xa9 \xe2\x82", "text/html"), "café ");
    }

    #[test]
    fn of_an_unknown_charset_ascii_is_left() {
        let decoded = decode(b"<title>\x83n\x83\x8d\x81[</title>", Some("text/html; charset=Shift_JIS"));
        assert_eq!(decoded.text, "<title>\u{fffd}n\u{fffd}\u{fffd}\u{fffd}[</title>");
        assert!(!decoded.is_whole);
        assert!(!decode(b"\x1b$B%O%m!<\x1b(B", Some("text/html; charset=iso-2022-jp")).is_whole);
    }
}
