//! Gathers from the tags of a page what it says of itself.

use std::{cell::RefCell, collections::BTreeMap};

use html5ever::tokenizer::{
    Tag, TagKind, Token, TokenSink, TokenSinkResult,
    states::RawKind::{Rawtext, Rcdata, ScriptData},
};

use super::{
    summary::{MAX_ADDRESS, PageSummary},
    text::clean,
};

/// How many properties are kept.
const MAX_PROPERTIES: usize = 32;
/// The longest value that is looked at, in bytes.
const MAX_VALUE: usize = 8_192;
/// The longest texts that are kept, in characters.
const MAX_TITLE: usize = 300;
const MAX_DESCRIPTION: usize = 1_000;
const MAX_OTHER: usize = 500;
/// Where a picture may be named, the better places first.
const PLACES_OF_PICTURES: usize = 4;
/// In these stands what a page does not speak of, or what is not shown.
const ASIDE: &[&str] = &["aside", "footer", "form", "nav", "noscript", "svg", "template"];

#[derive(Default)]
pub(super) struct Elements(RefCell<Found>);

/// What was found so far. Of each the first counts.
#[derive(Default)]
struct Found {
    tokens: u64,
    is_done: bool,
    properties: BTreeMap<String, String>,
    pictures: [Option<String>; PLACES_OF_PICTURES],
    oembed: Option<String>,
    base: Option<String>,
    card_title: Option<String>,
    card_description: Option<String>,
    card_alt: Option<String>,
    description: Option<String>,
    title: Option<String>,
    heading: Option<String>,
    paragraphs: String,
    /// What text is for that comes now.
    reading: Option<(Part, String)>,
    /// Within how many elements of [`ASIDE`].
    aside: usize,
    /// Whether what comes is no text, such as a script. The next tag ends that.
    is_raw: bool,
}

#[derive(Clone, Copy)]
enum Part {
    Title,
    Heading,
    Paragraph,
}

impl TokenSink for Elements {
    type Handle = ();

    fn process_token(&self, token: Token, _: u64) -> TokenSinkResult<()> {
        let mut found = self.0.borrow_mut();
        // An error may lie within a tag.
        found.tokens += u64::from(!matches!(token, Token::ParseError(_)));
        match token {
            Token::TagToken(tag) if tag.kind == TagKind::StartTag => return found.begin(&tag),
            Token::TagToken(tag) => found.end(&tag.name),
            Token::CharacterTokens(text) => found.read(&text),
            _ => {}
        }
        TokenSinkResult::Continue
    }
}

impl Elements {
    /// How many tokens there were. None of them lies within another.
    pub(super) fn tokens(&self) -> u64 {
        self.0.borrow().tokens
    }

    /// Whether the rest of the page would add nothing.
    pub(super) fn is_done(&self) -> bool {
        self.0.borrow().is_done
    }

    /// What was found. Without `is_whole`, what has characters in it that could not be read is left out.
    pub(super) fn summary(&self, is_whole: bool) -> PageSummary {
        let mut found = self.0.take();
        found.finish_reading();
        let is_read = |text: &String| is_whole || !text.contains('\u{fffd}');
        let mut properties = found.properties;
        let fallbacks = [
            ("og:title", [found.card_title, found.title, found.heading]),
            ("og:description", [found.card_description, found.description, Some(found.paragraphs)]),
            ("og:image:alt", [found.card_alt, None, None]),
        ];
        let is_good = |value: &String| is_read(value) && clean(value, 1).is_some();
        for (name, values) in fallbacks {
            let is_said = properties.get(name).is_some_and(is_good);
            if let Some(value) = values.into_iter().flatten().find(is_good).filter(|_| !is_said) {
                properties.insert(name.to_owned(), value);
            }
        }
        let cleaned = properties.into_iter().filter(|(_, value)| is_read(value));
        let cleaned = cleaned.filter_map(|(name, value)| clean(&value, limit(&name)).map(|value| (name, value)));
        let address = |address: Option<String>| address.filter(is_read);
        PageSummary {
            properties: cleaned.filter(|(name, value)| name != "og:url" || is_web(value)).collect(),
            picture: found.pictures.into_iter().flatten().find(is_read),
            oembed: address(found.oembed),
            base: address(found.base),
        }
    }
}

/// The longest text that is kept as a property, in characters.
pub(in crate::media) fn limit(name: &str) -> usize {
    match name {
        "og:title" => MAX_TITLE,
        "og:description" => MAX_DESCRIPTION,
        _ => MAX_OTHER,
    }
}

fn is_web(address: &str) -> bool {
    ["https://", "http://"]
        .iter()
        .any(|scheme| address.get(..scheme.len()).is_some_and(|beginning| beginning.eq_ignore_ascii_case(scheme)))
}

impl Found {
    fn begin(&mut self, tag: &Tag) -> TokenSinkResult<()> {
        match &*tag.name {
            "meta" => self.meta(tag),
            "link" => self.link(tag),
            "base" => keep(&mut self.base, address(attribute(tag, "href"))),
            "title" => {
                // Pictures within a page have titles as well.
                self.is_raw = self.title.is_some() || self.aside > 0;
                if !self.is_raw {
                    self.begin_reading(Part::Title);
                }
                return TokenSinkResult::RawData(Rcdata);
            }
            "h1" if self.heading.is_none() && self.aside == 0 => self.begin_reading(Part::Heading),
            "p" if self.aside == 0 => self.begin_reading(Part::Paragraph),
            "body" => self.end_head(),
            "textarea" | "style" | "xmp" | "iframe" | "noembed" | "noframes" | "script" => {
                self.is_raw = true;
                return TokenSinkResult::RawData(match &*tag.name {
                    "textarea" => Rcdata,
                    "script" => ScriptData,
                    _ => Rawtext,
                });
            }
            "plaintext" => return TokenSinkResult::Plaintext,
            name if ASIDE.contains(&name) && !tag.self_closing => {
                self.finish_reading();
                self.aside += 1;
            }
            _ => {}
        }
        TokenSinkResult::Continue
    }

    fn end(&mut self, name: &str) {
        self.is_raw = false;
        match name {
            "title" | "h1" | "p" => self.finish_reading(),
            "head" => self.end_head(),
            name if ASIDE.contains(&name) => self.aside = self.aside.saturating_sub(1),
            _ => {}
        }
    }

    fn end_head(&mut self) {
        let has = |name| self.properties.contains_key(name);
        let has_picture = self.pictures.iter().any(Option::is_some);
        self.is_done = has("og:title") && has("og:description") && has_picture;
    }

    fn meta(&mut self, tag: &Tag) {
        let Some(value) = attribute(tag, "content") else { return };
        let names = ["property", "name", "itemprop"].into_iter().find_map(|name| attribute(tag, name));
        for name in names.unwrap_or_default().split_ascii_whitespace().take(8) {
            self.property(&name.to_ascii_lowercase(), value);
        }
    }

    fn property(&mut self, name: &str, value: &str) {
        let picture = match name {
            "og:image:secure_url" => Some(0),
            "og:image" | "og:image:url" => Some(1),
            "twitter:image" | "twitter:image:src" => Some(2),
            "image" | "thumbnailurl" => Some(3),
            _ => None,
        };
        if let Some(place) = picture.and_then(|place: usize| self.pictures.get_mut(place)) {
            return keep(place, address(Some(value)));
        }
        let value =
            || Some(beginning(value, MAX_VALUE)).filter(|value| !value.trim().is_empty()).map(ToOwned::to_owned);
        match name {
            "twitter:title" => keep(&mut self.card_title, value()),
            "twitter:description" => keep(&mut self.card_description, value()),
            "twitter:image:alt" => keep(&mut self.card_alt, value()),
            "description" => keep(&mut self.description, value()),
            _ => {
                let is_new = is_kept(name) && !self.properties.contains_key(name);
                if is_new && self.properties.len() < MAX_PROPERTIES {
                    self.properties.extend(value().map(|value| (name.to_owned(), value)));
                }
            }
        }
    }

    fn link(&mut self, tag: &Tag) {
        let is = |name, wanted| {
            attribute(tag, name)
                .is_some_and(|value| value.split_ascii_whitespace().any(|word| word.eq_ignore_ascii_case(wanted)))
        };
        let target = || address(attribute(tag, "href"));
        if is("rel", "alternate") && is("type", "application/json+oembed") {
            keep(&mut self.oembed, target());
        } else if is("rel", "image_src")
            && let Some(last) = self.pictures.last_mut()
        {
            keep(last, target());
        }
    }

    fn begin_reading(&mut self, part: Part) {
        self.finish_reading();
        self.reading = Some((part, String::new()));
    }

    fn read(&mut self, text: &str) {
        if let Some((_, read)) = &mut self.reading
            && !self.is_raw
        {
            read.push_str(beginning(text, MAX_VALUE.saturating_sub(read.len())));
        }
    }

    fn finish_reading(&mut self) {
        let Some((part, text)) = self.reading.take().filter(|(_, text)| !text.trim().is_empty()) else { return };
        match part {
            Part::Title => keep(&mut self.title, Some(text)),
            Part::Heading => keep(&mut self.heading, Some(text)),
            Part::Paragraph => {
                let free = MAX_VALUE.saturating_sub(self.paragraphs.len() + 1);
                if free > 0 {
                    self.paragraphs.push(' ');
                    self.paragraphs.push_str(beginning(&text, free));
                }
            }
        }
    }
}

/// The first one stays.
fn keep(place: &mut Option<String>, value: Option<String>) {
    if place.is_none() {
        *place = value;
    }
}

/// Of the page's properties in Open Graph, those that are said again. Pictures have a way of their own; sounds and films
/// would be fetched from elsewhere by whoever is shown them.
fn is_kept(name: &str) -> bool {
    let of_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_:".contains(&byte);
    let Some(rest) = name.strip_prefix("og:").filter(|rest| !rest.is_empty() && rest.len() <= 40) else { return false };
    let is_elsewhere = ["image", "video", "audio"].iter().any(|medium| rest.starts_with(medium));
    rest.bytes().all(of_name) && (!is_elsewhere || rest == "image:alt")
}

fn attribute<'t>(tag: &'t Tag, name: &str) -> Option<&'t str> {
    tag.attrs.iter().find(|attribute| &*attribute.name.local == name).map(|attribute| &*attribute.value)
}

/// As it is kept. None for what is empty, too long or no address.
pub(in crate::media) fn address(value: Option<&str>) -> Option<String> {
    let value = value?.trim();
    let is_fit = !value.is_empty() && value.len() <= MAX_ADDRESS && !value.contains(|c: char| c.is_control());
    is_fit.then(|| value.to_owned())
}

fn beginning(text: &str, limit: usize) -> &str {
    text.split_at(text.floor_char_boundary(limit)).0
}
