//! What a search term asks for, and the words of a message, as both engines find them.
//!
//! The last word of a term stands for longer words as well, unless much is found without them: neither engine is fast
//! where many words begin alike.
//!
//! Terms and messages are split by one function (`ground/words.rs`), so that whatever is copied from a message finds
//! it.

use crate::{ground::words, store::search::Phrase};

/// Longer words are found by their beginning, in characters.
const MAX_WORD: usize = 64;
/// From so many characters on the last word of a term stands for all that begin with it.
const PREFIX: usize = 4;

/// The words of a text, in their order.
///
/// Without case and accents. Two long words that begin alike are one.
pub(crate) fn words(text: &str) -> Vec<String> {
    words::split(text).map(|token| token.text.chars().take(MAX_WORD).collect()).collect()
}

/// What a search term asks for: each word, and what is in quotes or not separated by a space as a sequence. The last
/// word may go on: somebody may be typing it. (Unless much is found as it is: see [`literal`].)
pub(crate) fn phrases(term: &str) -> Vec<Phrase> {
    let mut phrases: Vec<Phrase> = Vec::new();
    let mut is_open = false;
    for (number, part) in term.split('"').enumerate() {
        // Between the first quote and the second, the third and the fourth, and so on. One that is not closed goes to
        // the end.
        let is_quoted = number % 2 == 1;
        let pieces: Vec<&str> = if is_quoted { vec![part] } else { part.split_whitespace().collect() };
        let found = pieces.into_iter().map(words).filter(|words| !words.is_empty());
        let before = phrases.len();
        phrases.extend(found.map(|words| Phrase { words, is_prefix: false }));
        // The last part that says anything decides whether somebody may still be typing it.
        if phrases.len() > before {
            is_open = !is_quoted;
        }
    }
    if let Some(last) = phrases.last_mut() {
        // Fewer characters would stand for too many words.
        last.is_prefix = is_open && last.words.last().is_some_and(|word| word.chars().count() >= PREFIX);
    }
    phrases
}

/// Phrases of which none goes on.
///
/// For terms of which much is found as they stand.
pub(crate) fn literal(phrases: &[Phrase]) -> Vec<Phrase> {
    phrases.iter().map(|phrase| Phrase { is_prefix: false, ..phrase.clone() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_have_no_case_no_accents_and_no_punctuation() {
        for (text, expected) in [
            ("Hello, World!", vec!["hello", "world"]),
            ("Crème Brûlée", vec!["creme", "brulee"]),
            ("don't", vec!["don", "t"]),
            ("ＡＢＣ ﬁne", vec!["abc", "fine"]),
            ("naïve—or not…", vec!["naive", "or", "not"]),
            ("Ёлка ЙОГА", vec!["елка", "иога"]),
            ("Οδυσσεύς", vec!["οδυσσευσ"]),
            ("v1.19 2026-11-23", vec!["v1", "19", "2026", "11", "23"]),
            ("  \t\n ", vec![]),
            ("!?🙂", vec!["🙂"]),
            ("東京タワーへ", vec!["東", "京", "タ", "ワ", "ー", "へ"]),
            ("हिन्दी में", vec!["हिन्दी", "में"]),
            ("a\u{0}b in\u{ad}vis\u{200b}ible", vec!["ab", "invisible"]),
        ] {
            assert_eq!(words(text), expected, "{text}");
        }
    }

    #[test]
    fn long_words_are_cut_and_marks_alone_are_none() {
        assert_eq!(words(&"a".repeat(10_000)), ["a".repeat(MAX_WORD)]);
        assert_eq!(words("\u{301}\u{3099}\u{94d}"), Vec::<String>::new());
    }

    #[test]
    fn a_term_is_words_and_sequences() {
        let phrase = |words: &[&str], is_prefix| Phrase {
            words: words.iter().map(|&word| word.to_owned()).collect(),
            is_prefix,
        };
        assert_eq!(phrases("red Martians"), [phrase(&["red"], false), phrase(&["martians"], true)]);
        assert_eq!(phrases("\"Red Martians\" men"), [phrase(&["red", "martians"], false), phrase(&["men"], false)]);
        assert_eq!(phrases("Martians reds"), [phrase(&["martians"], false), phrase(&["reds"], true)]);
        assert_eq!(phrases("\"red\" Martians !"), [phrase(&["red"], false), phrase(&["martians"], true)]);
        assert_eq!(phrases("Martians \"reds\" \"\""), [phrase(&["martians"], false), phrase(&["reds"], false)]);
        assert_eq!(phrases("foo-bars"), [phrase(&["foo", "bars"], true)]);
        assert_eq!(phrases("東京"), [phrase(&["東", "京"], false)]);
        assert_eq!(phrases("\"open red"), [phrase(&["open", "red"], false)]);
        assert_eq!(phrases(" \"\" ... "), []);
    }
}
