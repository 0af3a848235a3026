//! Glob-style patterns: `*` stands for any characters, or none, and `?` for one.
//!
//! <https://spec.matrix.org/v1.19/appendices/#glob-style-matching>
//!
//! Patterns come from anybody, so a match must not cost more than the lengths of pattern and text multiplied: after a
//! mismatch the last star alone takes one character more. A pattern with more characters than the text can't match and is
//! not tried.

/// Whether a pattern matches a whole text, whatever the case of the letters A to Z.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let fold = |text: &str| -> Vec<char> { text.chars().map(|letter| letter.to_ascii_lowercase()).collect() };
    let text = fold(text);
    if pattern.chars().filter(|letter| *letter != '*').count() > text.len() {
        return false;
    }
    let mut pattern = fold(pattern);
    pattern.dedup_by(|one, other| *one == '*' && *other == '*');
    matches_folded(&pattern, &text)
}

fn matches_folded(pattern: &[char], text: &[char]) -> bool {
    let (mut rest, mut left) = (pattern, text);
    // What follows the last star, and what it has not been tried on yet.
    let mut again: Option<(&[char], &[char])> = None;
    loop {
        match (rest.split_first(), left.split_first()) {
            (Some(('*', after)), _) => {
                again = Some((after, left));
                rest = after;
            }
            (Some((wanted, after)), Some((letter, further))) if *wanted == '?' || wanted == letter => {
                (rest, left) = (after, further);
            }
            (None, None) => return true,
            _ => {
                let Some((after, [_, further @ ..])) = again else { return false };
                again = Some((after, further));
                (rest, left) = (after, further);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks() {
        for (pattern, text) in [
            ("*", ""),
            ("*", "evil.com"),
            ("EVIL.com", "evil.COM"),
            ("*.evil.com", "a.b.evil.com"),
            ("evil*", "evil"),
            ("e?il.*", "evil.com"),
            ("*a*b*", "xaybz"),
            ("**a", "aa"),
            ("a*b*c", "abbbcabc"),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("", "a"),
            ("evil.com", "evil.com.org"),
            ("*.evil.com", "evil.com"),
            ("e?il.com", "eil.com"),
            ("?", ""),
            ("*b", "abc"),
            ("a*c?", "abc"),
            ("évil", "Évil"),
        ] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }

    /// A pattern of another kind of matcher's nightmares.
    #[test]
    fn a_hostile_pattern_costs_little() {
        let pattern = "*a".repeat(100) + "b";
        assert!(!matches(&pattern, &"a".repeat(200)));
        assert!(!matches(&"*a*?".repeat(10_000), &"a".repeat(255)));
        assert!(matches(&"*".repeat(60_000), "a"));
    }
}
