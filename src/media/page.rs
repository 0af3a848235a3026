//! What a page says of itself, for whoever shows a link to it: Open Graph first, then the cards of Twitter, then what
//! every page has, such as a title.
//!
//! A page comes from a stranger, so all of this is bounded: how much of it is read, how long an address or a text may
//! be, and how many there are. It is read by html5ever's tokenizer and no tree is made of it, so however deep its
//! elements lie in each other, that costs nothing.
//!
//! <https://ogp.me/>, <https://oembed.com/#section4>

mod charset;
mod elements;
mod summary;
mod tables;
mod tag_limit;
#[cfg(test)]
mod tests;
pub(super) mod text;

use html5ever::{
    tendril::StrTendril,
    tokenizer::{BufferQueue, Tokenizer, TokenizerOpts},
};

pub(super) use self::elements::{address, limit};
pub(crate) use self::summary::PageSummary;
use self::{elements::Elements, tag_limit::TagLimit};

/// How much of a page is read, in bytes. What it says of itself stands at its beginning.
pub(crate) const MAX_PAGE: usize = 768 * 1024;
/// How many bytes of it are read before it is looked whether to go on.
const PIECE: usize = 1_024;

/// Reads the first [`MAX_PAGE`] bytes. `content_type` is the header that the page came with. Takes a moment.
pub(crate) fn read(page: &[u8], content_type: Option<&str>) -> PageSummary {
    let decoded = charset::decode(page.get(..MAX_PAGE).unwrap_or(page), content_type);
    let tokenizer = Tokenizer::new(Elements::default(), TokenizerOpts::default());
    let (input, mut limit, mut rest) = (BufferQueue::default(), TagLimit::default(), &*decoded.text);
    while !rest.is_empty() && !tokenizer.sink.is_done() && limit.holds(tokenizer.sink.tokens()) {
        let (piece, later) = rest.split_at(rest.floor_char_boundary(PIECE));
        limit.count(piece);
        input.push_back(StrTendril::from_slice(piece));
        // It stops at the end of a piece only: the sink returns nothing that it would stop for.
        drop(tokenizer.feed(&input));
        rest = later;
    }
    tokenizer.sink.summary(decoded.is_whole)
}
