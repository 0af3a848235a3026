//! The words of a text, and the form in which names are kept to be searched.
//!
//! Whatever is searched by its words, messages as well as names, is cut into them here, and so is what is looked for:
//! without case, accents and punctuation, and without differences that nobody sees.
//!
//! A name is found by whatever it goes on with from the beginning of one of its words: `Anna Maria Berg` by `anna m`,
//! by `maria` and by `be`. So it is kept as often as it has words, each time from another one on. Whoever looks for the
//! beginning of a kept text then reads one range of an index.
//!
//! What is kept is part of what the database holds: a change here takes a migration that makes the kept words anew, as
//! `0013_words` did.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#user-directory>

use std::collections::BTreeMap;

use ruma::UserId;
use unicode_normalization::{UnicodeNormalization as _, char::is_combining_mark};

/// How much of a name is read, in characters.
const MAX_READ: usize = 256;
/// How much is kept from each word on, in characters. Of what is looked for not more counts.
const MAX_KEPT: usize = 64;
/// How many words of a name are kept.
const MAX_WORDS: usize = 16;

/// A word of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WordToken {
    pub(crate) text: String,
    /// Whether the word before it ends where this one begins.
    pub(crate) adjoins: bool,
}

/// A text by which a user is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) text: String,
    pub(crate) rank: WordRank,
}

/// Where in a name a text begins, the better ones first. Those with a display name come before those without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct WordRank(pub(crate) i64);

impl WordRank {
    /// Every one, in order.
    pub(crate) const ALL: [Self; 4] = [Self(0), Self(1), Self(2), Self(3)];

    fn new(begins_name: bool, has_display_name: bool) -> Self {
        Self(2 * i64::from(!begins_name) + i64::from(!has_display_name))
    }

    /// Whether the text is the name from its beginning on.
    pub(crate) fn begins_name(self) -> bool {
        self.0 < 2
    }
}

/// A name, its words apart by one space or by what kind of letters they are.
#[derive(Debug, Default, PartialEq, Eq)]
struct Folded {
    text: String,
    /// Where its words begin, in bytes.
    starts: Vec<usize>,
}

/// The beginning of a word to look for, and if there is another one, that it must come with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WantedPrefix {
    pub(crate) beginning: String,
    pub(crate) with: Option<String>,
}

/// The words of a text, in their order. In scripts that put no spaces between words each character is one, and so is
/// each emoji.
pub(crate) fn split(text: &str) -> impl Iterator<Item = WordToken> {
    let mut characters = characters(text).peekable();
    let mut gap = true;
    std::iter::from_fn(move || {
        let first = loop {
            match characters.next()? {
                // There is nothing that it could mark.
                c if is_combining_mark(c) => {}
                c if stands_alone(c) || c.is_alphanumeric() => break c,
                _ => gap = true,
            }
        };
        let is_alone = stands_alone(first);
        let goes_on = |c: &char| is_combining_mark(*c) || !is_alone && !stands_alone(*c) && c.is_alphanumeric();
        let mut text = String::from(first);
        while let Some(c) = characters.next_if(goes_on) {
            text.push(c);
        }
        Some(WordToken { text, adjoins: !std::mem::replace(&mut gap, false) })
    })
}

/// A text as its words are compared, with what is between them.
pub(crate) fn fold(text: &str) -> String {
    characters(text).collect()
}

/// The texts by which a user is found who calls themselves so.
pub(crate) fn of_user(user_id: &UserId, display_name: Option<&str>) -> Vec<Word> {
    let display_name = display_name.map(join).unwrap_or_default();
    let has_display_name = !display_name.text.is_empty();
    let mut ranks: BTreeMap<String, WordRank> = BTreeMap::new();
    let mut keep = |text: String, begins_name: bool| {
        let rank = WordRank::new(begins_name, has_display_name);
        ranks.entry(text).and_modify(|known| *known = rank.min(*known)).or_insert(rank);
    };
    for name in [display_name, join(user_id.localpart())] {
        for (nth, start) in name.starts.iter().enumerate() {
            keep(name.text.get(*start..).map(kept).unwrap_or_default(), nth == 0);
        }
    }
    keep(identifier(user_id.as_str()), true);
    ranks.into_iter().map(|(text, rank)| Word { text, rank }).collect()
}

/// What to look for where somebody searches for `term`: as it is written, and if it has several words, its two longest
/// in any order. Nothing where there is nothing in it.
pub(crate) fn wanted(term: &str) -> Vec<WantedPrefix> {
    let term = term.trim();
    if term.starts_with('@') && term.contains(':') {
        return vec![WantedPrefix { beginning: identifier(term), with: None }];
    }
    let folded = join(term);
    if folded.text.is_empty() {
        return Vec::new();
    }
    let mut wanted = vec![WantedPrefix { beginning: kept(&folded.text), with: None }];
    let mut words: Vec<&str> = folded.text.split(' ').collect();
    words.sort_by_key(|word| std::cmp::Reverse(word.chars().count()));
    if let [longest, next, ..] = words.as_slice() {
        wanted.push(WantedPrefix { beginning: kept(longest), with: Some(kept(next)) });
    }
    wanted
}

/// Comes after every text with this beginning, and before every other that comes after it.
pub(crate) fn end_of(beginning: &str) -> String {
    format!("{beginning}\u{10ffff}")
}

fn kept(text: &str) -> String {
    text.chars().take(MAX_KEPT).collect()
}

/// A whole user id, which is found from its beginning only.
fn identifier(user_id: &str) -> String {
    characters(user_id).take(MAX_READ).collect()
}

/// The words of a name in one text.
fn join(name: &str) -> Folded {
    let read: String = name.chars().filter(|c| !is_invisible(*c)).take(MAX_READ).collect();
    let mut folded = Folded::default();
    for token in split(&read) {
        if !folded.text.is_empty() && !token.adjoins {
            folded.text.push(' ');
        }
        if folded.starts.len() < MAX_WORDS {
            folded.starts.push(folded.text.len());
        }
        folded.text.push_str(&token.text);
    }
    if folded.text.is_empty() {
        // Who is called `?!` is found by that.
        folded.text = kept(fold(&read).trim());
        folded.starts.extend((!folded.text.is_empty()).then_some(0));
    }
    folded
}

/// The characters of a text that make a difference, in small letters, in one form where there are several.
fn characters(text: &str) -> impl Iterator<Item = char> {
    // Letters are taken apart to lose their accents, and put together again where they lose none, as in Korean.
    let bare = text.nfkd().filter(|c| !is_invisible(*c) && !is_accent(*c));
    // One small letter has two forms, of which the second stands at the end of words.
    bare.nfc().flat_map(char::to_lowercase).map(|c| if c == 'ς' { 'σ' } else { c })
}

fn is_accent(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36f}')
}

/// What is not seen and not typed: control characters, marks of direction, joiners, variations of emoji, and the last
/// code point, which [`end_of`] needs.
fn is_invisible(c: char) -> bool {
    (c.is_control() && !c.is_whitespace())
        || matches!(
            c,
            '\u{ad}'
                | '\u{61c}'
                | '\u{200b}'..='\u{200f}'
                | '\u{202a}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{fe00}'..='\u{fe0f}'
                | '\u{feff}'
                | '\u{10ffff}'
        )
}

/// What is a word by itself although no space surrounds it: emoji and other symbols, and the characters of Chinese,
/// Japanese and Korean, Thai, Lao, Khmer and Burmese.
fn stands_alone(c: char) -> bool {
    let is_symbol = matches!(c, '\u{2190}'..='\u{2bff}' | '\u{4dc0}'..='\u{4dff}' | '\u{1f000}'..='\u{1faff}');
    let has_no_spaces = matches!(
        c,
        '\u{e00}'..='\u{eff}'
            | '\u{1000}'..='\u{109f}'
            | '\u{1780}'..='\u{17ff}'
            | '\u{3040}'..='\u{30ff}'
            | '\u{31f0}'..='\u{31ff}'
            | '\u{3400}'..='\u{4dbf}'
            | '\u{4e00}'..='\u{9fff}'
            | '\u{ac00}'..='\u{d7af}'
            | '\u{f900}'..='\u{faff}'
            | '\u{20000}'..='\u{3ffff}'
    );
    is_symbol || has_no_spaces && c.is_alphanumeric()
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;

    fn texts(display_name: &str) -> Vec<(String, i64)> {
        let words = of_user(user_id!("@x:here"), Some(display_name)).into_iter();
        let own = |text: &str| text == "x" || text == "@x:here";
        words.map(|word| (word.text, word.rank.0)).filter(|(text, _)| !own(text)).collect()
    }

    fn found_by(display_name: &str, term: &str) -> bool {
        let words = of_user(user_id!("@x:here"), Some(display_name));
        let has = |beginning: &str| words.iter().any(|word| word.text.starts_with(beginning));
        wanted(term).iter().any(|wanted| has(&wanted.beginning) && wanted.with.as_deref().is_none_or(has))
    }

    #[test]
    fn a_text_is_cut_into_words() {
        // What adjoins the word before it is marked.
        let cut = |text: &str| {
            let word = |token: WordToken| if token.adjoins { format!("+{}", token.text) } else { token.text };
            split(text).map(word).collect::<Vec<_>>()
        };
        for (text, expected) in [
            ("Crème\tBRÛLÉE!", vec!["creme", "brulee"]),
            ("soft\u{ad}hyphen zero\u{200b}width word\u{2060}joiner", vec!["softhyphen", "zerowidth", "wordjoiner"]),
            ("Ὀδυσσεύς", vec!["οδυσσευσ"]),
            ("안녕 하세요", vec!["안", "+녕", "하", "+세", "+요"]),
            ("\u{1112}\u{1161}\u{11ab}", vec!["한"]),
            ("東京タワーへ ｶﾞ", vec!["東", "+京", "+タ", "+ワ", "+ー", "+へ", "ガ"]),
            ("佐々木・健", vec!["佐", "+々", "+木", "健"]),
            ("น้ำ", vec!["น\u{e49}\u{e4d}", "+\u{e32}"]),
            ("Hi🦊there 👍🏽 ❤\u{fe0f}", vec!["hi", "+🦊", "+there", "👍", "+🏽", "❤"]),
            ("हिन्दी में", vec!["हिन्दी", "में"]),
            ("v1.19—№ 5", vec!["v1", "19", "no", "5"]),
            ("\u{301}\u{3099} \u{94d}", vec![]),
        ] {
            assert_eq!(cut(text), expected, "{text}");
        }
        assert_eq!(fold("#Straße:ΠΟΛΙΣ\n"), "#straße:πολισ\n");
    }

    #[test]
    fn a_name_is_kept_from_each_of_its_words_on() {
        let kept = [("anna maria berg", 0), ("berg", 2), ("maria berg", 2)].map(|(text, rank)| (text.to_owned(), rank));
        assert_eq!(texts("  Anna-Maria\tBERG! "), kept);
    }

    #[test]
    fn a_user_is_found_by_name_localpart_and_identifier() {
        let words = |name| of_user(user_id!("@anna.b:here"), name);
        let rank = |name, text: &str| words(name).into_iter().find(|word| word.text == text).map(|word| word.rank.0);
        assert_eq!(
            [rank(Some("Berg"), "berg"), rank(Some("Berg"), "anna b"), rank(Some("Berg"), "b")],
            [Some(0), Some(0), Some(2)]
        );
        assert_eq!([rank(None, "anna b"), rank(None, "b"), rank(None, "@anna.b:here")], [Some(1), Some(3), Some(1)]);
        assert_eq!(rank(Some("B"), "b"), Some(0), "the better of two ranks");
        assert_eq!(rank(Some("\u{200f}\0 "), "anna b"), Some(1), "nothing is no name");
    }

    #[test]
    fn names_in_any_script_are_found() {
        for (name, term) in [
            ("Ærøskøbing ÅSE", "åse"),
            ("ΟΔΥΣΣΕΥΣ", "οδυσσευς"),
            ("Ὀδυσσεύς", "ΟΔΥΣΣΕΥΣ"),
            ("Jos\u{e9}", "jose\u{301}"),
            ("Jose\u{301}", "JOSE"),
            ("ＡＢＣ Corp", "abc"),
            ("abc", "ＡＢ"),
            ("？！", "?"),
            ("ｶﾞｲﾄﾞ", "ガイ"),
            ("Ольга Петрова", "ПЕТР"),
            ("山田太郎", "太郎"),
            ("김철수", "철수"),
            ("مريم حسن", "حسن"),
            ("\u{202e}\u{200f}שרה\u{200e} לוי", "לוי"),
            ("अनुष्का शर्मा", "शर्मा"),
            ("Anna🦊Berg", "berg"),
            ("Anna🦊Berg", "🦊"),
            ("\u{2764}\u{fe0f} Eve", "\u{2764}"),
            ("O'Neill, Tip", "tip o"),
            ("Berg, Anna Maria", "anna berg"),
            ("?!", "?"),
            ("A\0B", "ab"),
        ] {
            assert!(found_by(name, term), "{name} by {term}");
        }
        for (name, term) in
            [("Anna Berg", "nna"), ("Anna Berg", "anna z"), ("Anna Berg", "?"), ("?!", "a"), ("ガイド", "カ")]
        {
            assert!(!found_by(name, term), "{name} by {term}");
        }
    }

    #[test]
    fn whole_identifiers_and_their_beginnings_are_looked_for_as_such() {
        let beginning = |term: &str| wanted(term).into_iter().map(|wanted| wanted.beginning).collect::<Vec<_>>();
        assert_eq!(beginning(" @Anna.B:HERE"), ["@anna.b:here"]);
        assert_eq!(beginning("@anna"), ["anna"]);
        assert_eq!(beginning("@"), ["@"]);
        for nothing in ["", "  \t\n", "\0\u{200f}"] {
            assert_eq!(wanted(nothing), [], "{nothing:?}");
        }
    }

    #[test]
    fn whatever_is_written_is_bounded() {
        let long = "Ä".repeat(60_000);
        assert_eq!(texts(&long), [("a".repeat(MAX_KEPT), 0)]);
        assert!(found_by(&long, &long));
        let words: Vec<String> = (100..10_000).map(|n| n.to_string()).collect();
        assert_eq!(texts(&words.join(" ")).len(), MAX_WORDS);
        assert_eq!(wanted(&"x".repeat(10_000)).first().map(|wanted| wanted.beginning.len()), Some(MAX_KEPT));
        assert!(texts(&"\u{fdfa}".repeat(10_000)).iter().all(|(text, _)| text.chars().count() <= MAX_KEPT));
        assert!(texts("\u{10ffff}").is_empty());
        assert!("ab" < end_of("a").as_str() && "a\u{10fffe}z" < end_of("a").as_str() && end_of("a").as_str() < "b");
    }
}
