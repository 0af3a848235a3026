//! Words as they are indexed and looked for: without case and accents, the same for both engines.
//!
//! Scripts that put no spaces between words are cut into single characters, so that a word of theirs is found as a
//! sequence of them.

use unicode_normalization::{UnicodeNormalization as _, char::is_combining_mark};

use crate::store::search::Phrase;

/// Longer words are found by their beginning, in characters.
const MAX_WORD: usize = 64;
/// From so many characters on the last word of a term stands for all that begin with it.
const PREFIX: usize = 4;

/// The words of a text, in their order.
pub(crate) fn words(text: &str) -> Vec<String> {
    let mut splitter = Splitter::default();
    for character in text.nfkd() {
        splitter.push(character);
    }
    splitter.end();
    splitter.words
}

/// What a search term asks for: each word, and what is in quotes or not separated by a space as a sequence. The last
/// word may go on: somebody may be typing it.
pub(crate) fn phrases(term: &str) -> Vec<Phrase> {
    let mut phrases: Vec<Phrase> = Vec::new();
    let mut is_open = false;
    for (number, part) in term.split('"').enumerate() {
        let is_quoted = number % 2 == 1;
        let pieces: Vec<&str> = if is_quoted { vec![part] } else { part.split_whitespace().collect() };
        let found = pieces.into_iter().map(words).filter(|words| !words.is_empty());
        let before = phrases.len();
        phrases.extend(found.map(|words| Phrase { words, is_prefix: false }));
        if phrases.len() > before {
            is_open = !is_quoted;
        }
    }
    if let Some(last) = phrases.last_mut() {
        last.is_prefix = is_open && last.words.last().is_some_and(|word| word.chars().count() >= PREFIX);
    }
    phrases
}

#[derive(Default)]
struct Splitter {
    words: Vec<String>,
    current: String,
    length: usize,
    /// The current word is one character of a script without spaces.
    is_single: bool,
}

impl Splitter {
    fn push(&mut self, character: char) {
        match character {
            // Joiners shape letters and part nothing; accents over letters make no other word.
            '\u{200c}' | '\u{200d}' | '\u{300}'..='\u{36f}' => {}
            _ if is_combining_mark(character) => {
                if !self.current.is_empty() {
                    self.add(character);
                }
            }
            _ if has_no_spaces(character) => {
                self.end();
                self.add(character);
                self.is_single = true;
            }
            _ if character.is_alphanumeric() => {
                if self.is_single {
                    self.end();
                }
                for lower in character.to_lowercase() {
                    self.add(lower);
                }
            }
            _ => self.end(),
        }
    }

    fn add(&mut self, character: char) {
        self.length += 1;
        if self.length <= MAX_WORD {
            self.current.push(character);
        }
    }

    fn end(&mut self) {
        if !self.current.is_empty() {
            self.words.push(std::mem::take(&mut self.current));
        }
        self.length = 0;
        self.is_single = false;
    }
}

/// Chinese and Japanese characters, Thai, Lao, Khmer and Burmese.
fn has_no_spaces(character: char) -> bool {
    matches!(character,
        '\u{0e00}'..='\u{0eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' | '\u{3041}'..='\u{30ff}'
        | '\u{31f0}'..='\u{31ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}'
        | '\u{20000}'..='\u{323af}')
        && character.is_alphanumeric()
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
            ("v1.19 2026-11-23", vec!["v1", "19", "2026", "11", "23"]),
            ("  \t\n ", vec![]),
            ("!?🙂", vec![]),
            ("東京タワーへ", vec!["東", "京", "タ", "ワ", "ー", "へ"]),
            ("हिन्दी में", vec!["हिन्दी", "में"]),
            ("a\u{0}b", vec!["a", "b"]),
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
