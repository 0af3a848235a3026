//! The words of a name: the form in which names are kept to be searched, and in which they are looked for.
//!
//! A name is found by whatever it goes on with from the beginning of one of its words: `Anna Maria Berg` by `anna m`,
//! by `maria` and by `be`. So it is kept as often as it has words, each time from another one on, in small letters and
//! without punctuation. Whoever looks for the beginning of a kept text then reads one range of an index.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#user-directory>

use std::collections::BTreeMap;

use ruma::UserId;

/// How much of a name is read, in characters.
const MAX_READ: usize = 256;
/// How much is kept from each word on, in characters. Of what is looked for not more counts.
const MAX_KEPT: usize = 64;
/// How many words of a name are kept.
const MAX_WORDS: usize = 16;

/// A text by which a user is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) text: String,
    pub(crate) rank: Rank,
}

/// Where in a name a text begins, the better ones first. Those with a display name come before those without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank(pub(crate) i64);

impl Rank {
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

/// A name in small letters, its words apart by one space or by what kind of letters they are.
#[derive(Debug, Default, PartialEq, Eq)]
struct Folded {
    text: String,
    /// Where its words begin, in bytes.
    starts: Vec<usize>,
}

/// The beginning of a word to look for, and if there is another one, that it must come with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) beginning: String,
    pub(crate) with: Option<String>,
}

/// The texts by which a user is found who calls themselves so.
pub(crate) fn of_user(user_id: &UserId, display_name: Option<&str>) -> Vec<Word> {
    let display_name = display_name.map(fold).unwrap_or_default();
    let has_display_name = !display_name.text.is_empty();
    let mut ranks: BTreeMap<String, Rank> = BTreeMap::new();
    let mut keep = |text: String, begins_name: bool| {
        let rank = Rank::new(begins_name, has_display_name);
        ranks.entry(text).and_modify(|known| *known = rank.min(*known)).or_insert(rank);
    };
    for name in [display_name, fold(user_id.localpart())] {
        for (nth, start) in name.starts.iter().enumerate() {
            keep(name.text.get(*start..).map(kept).unwrap_or_default(), nth == 0);
        }
    }
    keep(identifier(user_id.as_str()), true);
    ranks.into_iter().map(|(text, rank)| Word { text, rank }).collect()
}

/// What to look for where somebody searches for `term`: as it is written, and if it has several words, its two longest
/// in any order. Nothing where there is nothing in it.
pub(crate) fn wanted(term: &str) -> Vec<Wanted> {
    let term = term.trim();
    if term.starts_with('@') && term.contains(':') {
        return vec![Wanted { beginning: identifier(term), with: None }];
    }
    let folded = fold(term);
    if folded.text.is_empty() {
        return Vec::new();
    }
    let mut wanted = vec![Wanted { beginning: kept(&folded.text), with: None }];
    let mut words: Vec<&str> = folded.text.split(' ').collect();
    words.sort_by_key(|word| std::cmp::Reverse(word.chars().count()));
    if let [longest, next, ..] = words.as_slice() {
        wanted.push(Wanted { beginning: kept(longest), with: Some(kept(next)) });
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
    small(user_id).filter(|c| !is_invisible(*c)).take(MAX_READ).collect()
}

fn fold(name: &str) -> Folded {
    let mut folded = Folded::default();
    let (mut gap, mut stood_alone) = (true, false);
    for c in small(name).filter(|c| !is_invisible(*c)).take(MAX_READ) {
        if separates(c) {
            gap = true;
            continue;
        }
        let alone = stands_alone(c);
        if gap && !folded.text.is_empty() {
            folded.text.push(' ');
        }
        if (gap || alone || stood_alone) && folded.starts.len() < MAX_WORDS {
            folded.starts.push(folded.text.len());
        }
        folded.text.push(c);
        (gap, stood_alone) = (false, alone);
    }
    if folded.text.is_empty() {
        // Who is called `?!` is found by that.
        folded.text = small(name.trim()).filter(|c| !is_invisible(*c)).take(MAX_KEPT).collect();
        folded.starts.extend((!folded.text.is_empty()).then_some(0));
    }
    folded
}

/// In small letters. One of them has two forms, of which the second stands at the end of words.
fn small(text: &str) -> impl Iterator<Item = char> {
    text.chars().flat_map(char::to_lowercase).map(|c| if c == 'ς' { 'σ' } else { c })
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

/// White space and punctuation.
fn separates(c: char) -> bool {
    c.is_whitespace()
        || c.is_ascii_punctuation()
        || matches!(
            c,
            '\u{a1}'
                | '\u{ab}'
                | '\u{b7}'
                | '\u{bb}'
                | '\u{bf}'
                | '\u{60c}'
                | '\u{61b}'
                | '\u{61f}'
                | '\u{2010}'..='\u{205e}'
                | '\u{3001}'..='\u{3003}'
                | '\u{3008}'..='\u{3020}'
                | '\u{30fb}'
                | '\u{ff01}'..='\u{ff0f}'
                | '\u{ff1a}'..='\u{ff20}'
        )
}

/// What is a word by itself although no space surrounds it: emoji and other symbols, and the characters of Chinese,
/// Japanese and Korean, since a given name follows a family name there without a gap.
fn stands_alone(c: char) -> bool {
    matches!(
        c,
        '\u{2190}'..='\u{2bff}'
            | '\u{3040}'..='\u{30ff}'
            | '\u{3400}'..='\u{9fff}'
            | '\u{ac00}'..='\u{d7af}'
            | '\u{1f000}'..='\u{1faff}'
            | '\u{20000}'..='\u{3ffff}'
    )
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
        for (name, term) in [("Anna Berg", "nna"), ("Anna Berg", "anna z"), ("Anna Berg", "?"), ("?!", "a")] {
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
        assert_eq!(texts(&long), [("ä".repeat(MAX_KEPT), 0)]);
        assert!(found_by(&long, &long));
        let words: Vec<String> = (100..10_000).map(|n| n.to_string()).collect();
        assert_eq!(texts(&words.join(" ")).len(), MAX_WORDS);
        assert_eq!(wanted(&"x".repeat(10_000)).first().map(|wanted| wanted.beginning.len()), Some(MAX_KEPT));
        assert!(texts("\u{10ffff}").is_empty());
        assert!("ab" < end_of("a").as_str() && "a\u{10fffe}z" < end_of("a").as_str() && end_of("a").as_str() < "b");
    }
}
