//! How much of one tag is read.
//!
//! The tokenizer compares each attribute of a tag with all others of it, so a page that is one tag with 200,000 of them
//! would keep a thread busy for a minute. It says nothing before the tag ends, so what is counted is what stands between
//! attributes since it last said something. A comment of so many words ends a page as well.

/// How many there may be before the page is read no further: so many attributes are compared within some milliseconds.
const MAX_SEPARATORS: usize = 4_096;
/// How many in all where it was silent: there may be as many tags of that size as make these.
const MAX_IN_ALL: usize = 65_536;

#[derive(Default)]
pub(super) struct TagLimit {
    tokens: u64,
    /// In the piece that was counted last, since the last token, and whenever there was none.
    last: usize,
    separators: usize,
    in_all: usize,
}

impl TagLimit {
    /// Before a piece is read.
    pub(super) fn count(&mut self, piece: &str) {
        let is_separator = |byte: &u8| matches!(byte, b'\t' | b'\n' | b'\x0c' | b'\r' | b' ' | b'/' | b'"' | b'\'');
        self.last = piece.as_bytes().iter().filter(|byte| is_separator(byte)).count();
        self.separators += self.last;
    }

    /// Whether to read on. `tokens` is how many the tokenizer has found so far.
    pub(super) fn holds(&mut self, tokens: u64) -> bool {
        if tokens == self.tokens {
            self.in_all += self.last;
        } else {
            (self.tokens, self.separators) = (tokens, 0);
        }
        self.separators <= MAX_SEPARATORS && self.in_all <= MAX_IN_ALL
    }
}
