//! Rust, cut into names and signs.

/// A name, or a character that is part of none. `::` is one, and a text or a number is nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Name(String),
    Sign(char),
    Colons,
}

pub(super) fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(length) = Some(first).filter(|c| "\"'bcr".contains(*c)).and_then(|_| literal(rest)) {
            length
        } else if first.is_alphanumeric() || first == '_' {
            let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            if !first.is_numeric() {
                tokens.push(Token::Name(rest[..length].to_owned()));
            }
            length
        } else if rest.starts_with("::") {
            tokens.push(Token::Colons);
            2
        } else {
            if !first.is_whitespace() {
                tokens.push(Token::Sign(first));
            }
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    tokens
}

/// How long the text, the character or the lifetime is that something begins with.
fn literal(rest: &str) -> Option<usize> {
    let prefix = ["br", "b", "c", "r", ""].into_iter().find(|prefix| {
        let after = rest.strip_prefix(prefix).unwrap_or_default();
        after.starts_with('"') || (prefix.ends_with('r') && after.trim_start_matches('#').starts_with('"'))
    });
    if let Some(prefix) = prefix {
        let after = &rest[prefix.len()..];
        let marks = after.len() - after.trim_start_matches('#').len();
        if prefix.ends_with('r') {
            let end = format!("\"{}", "#".repeat(marks));
            let inner = &after[marks + 1..];
            return Some(prefix.len() + marks + 1 + inner.find(&end).map_or(inner.len(), |at| at + end.len()));
        }
        return Some(prefix.len() + quoted(after, '"'));
    }
    let after = rest.strip_prefix('\'')?;
    let mut characters = after.chars();
    let is_character = characters.next()? == '\\' || characters.next() == Some('\'');
    Some(if is_character {
        quoted(rest, '\'')
    } else {
        1 + after.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(after.len())
    })
}

/// How long something is that stands between two quotes.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}
