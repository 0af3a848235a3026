//! How well a text matches, on either engine: how often it says what is looked for, and where.
//!
//! Neither engine's own measure is used: they differ, and that of FTS5 depends on what else is in the index, so that
//! what is said elsewhere would move results from page to page.

use crate::store::search::{Fields, Phrase, Text};

/// A room is called so: that says more than what it is about, and that more than one message.
const NAME: u32 = 3;
const TOPIC: u32 = 2;
const BODY: u32 = 1;

/// How well a text matches a search in some of its fields; higher is better.
///
/// 0 for a text that no longer has any of it, as after a redaction. It depends on nothing but these arguments, so a
/// place in the order holds.
pub(super) fn of(text: &Text, fields: Fields, phrases: &[Phrase]) -> u32 {
    let fields = [(&text.name, fields.name, NAME), (&text.topic, fields.topic, TOPIC), (&text.body, fields.body, BODY)];
    let mut rank: u32 = 0;
    for (words, _, weight) in fields.into_iter().filter(|(_, is_in, _)| *is_in) {
        for phrase in phrases {
            rank = rank.saturating_add(occurrences(words, phrase).saturating_mul(weight));
        }
    }
    rank
}

/// How often the words of a phrase follow each other in a text.
fn occurrences(words: &[String], phrase: &Phrase) -> u32 {
    let Some((last, before)) = phrase.words.split_last() else { return 0 };
    let is_last = |word: &String| if phrase.is_prefix { word.starts_with(last.as_str()) } else { word == last };
    let is_there =
        |words: &&[String]| words.split_last().is_some_and(|(word, others)| is_last(word) && others == before);
    u32::try_from(words.windows(phrase.words.len()).filter(is_there).count()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reader::search::words::{phrases, words};

    #[test]
    fn what_is_said_often_and_in_a_name_is_better() {
        let everywhere = Fields { body: true, name: true, topic: true };
        let body = |text: &str| Text { body: words(text), ..Text::default() };
        let rank = |text: &Text, term: &str| of(text, everywhere, &phrases(term));
        for (text, term, expected) in [
            ("apple", "apple", 1),
            ("Apple, apple and apples", "apple", 3),
            ("apples and apple", "\"apple\"", 1),
            ("red apple, red pear", "red apple", 3),
            ("red apple, red pear", "\"red apple\"", 1),
            ("na na na", "\"na na\"", 2),
            ("pear", "apple", 0),
            ("", "apple", 0),
        ] {
            assert_eq!(rank(&body(text), term), expected, "{term} in {text}");
        }
        let garden = words("garden");
        let all = Text { body: garden.clone(), name: garden.clone(), topic: garden };
        assert_eq!(rank(&all, "garden"), 6);
        let only = |fields| of(&all, fields, &phrases("garden"));
        assert_eq!(only(Fields { body: false, ..everywhere }), 5);
        assert_eq!(only(Fields { body: true, name: false, topic: false }), 1);
    }
}
