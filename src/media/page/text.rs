//! Texts of strangers, made fit to be shown in one line.

/// Without controls, marks that turn the direction of what follows, and white space beyond one space between words. Cut
/// after `limit` characters. None where nothing is left.
pub(in crate::media) fn clean(text: &str, limit: usize) -> Option<String> {
    let mut cleaned = String::new();
    let mut length = 0;
    for word in text.split_whitespace() {
        let mut shown = word.chars().filter(|character| is_shown(*character)).peekable();
        if shown.peek().is_none() {
            continue;
        }
        if length > 0 {
            cleaned.push(' ');
            length += 1;
        }
        for character in shown {
            if length >= limit {
                return Some(cleaned.trim_end().to_owned());
            }
            cleaned.push(character);
            length += 1;
        }
    }
    Some(cleaned).filter(|cleaned| !cleaned.is_empty())
}

fn is_shown(character: char) -> bool {
    let turns =
        matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !character.is_control() && !turns && character != '\u{feff}'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_one_line_of_what_is_seen() {
        let clean = |text| clean(text, 12);
        assert_eq!(clean("  a\r\n b\t\u{a0}c "), Some("a b c".to_owned()));
        assert_eq!(clean("a\u{202e}b \u{200f} \0 c\u{7}"), Some("ab c".to_owned()));
        assert_eq!(clean("twelve chars and more"), Some("twelve chars".to_owned()));
        assert_eq!(clean("twelve char and more"), Some("twelve char".to_owned()));
        assert_eq!(clean("éééééééééééééé"), Some("éééééééééééé".to_owned()));
        for nothing in ["", " ", "\0 \u{202e}"] {
            assert_eq!(clean(nothing), None, "{nothing:?}");
        }
    }
}
