//! What a page says of itself in JSON.
//!
//! <https://oembed.com/#section2.3>

use serde_json::{Map, Value};

use crate::media::page::{PageSummary, address, limit, text::clean};

/// The longest answer that is read, in bytes.
pub(super) const MAX_OEMBED: usize = 64 * 1024;

/// Adds to a summary what is missing in it. What is no such answer adds nothing.
pub(super) fn complete(summary: &mut PageSummary, answer: &[u8]) {
    let Ok(Value::Object(answer)) = serde_json::from_slice(answer) else { return };
    for (property, field) in [("og:title", "title"), ("og:site_name", "provider_name")] {
        if let Some(text) = text(&answer, field).and_then(|text| clean(text, limit(property))) {
            summary.properties.entry(property.to_owned()).or_insert(text);
        }
    }
    let is_photo = text(&answer, "type") == Some("photo");
    let photo = text(&answer, "url").filter(|_| is_photo);
    let picture = || address(photo).or_else(|| address(text(&answer, "thumbnail_url")));
    summary.picture = summary.picture.take().or_else(picture);
}

/// None for what should be a text and is none.
fn text<'a>(answer: &'a Map<String, Value>, field: &str) -> Option<&'a str> {
    answer.get(field)?.as_str()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn completed(answer: &Value) -> PageSummary {
        let mut summary = PageSummary::default();
        complete(&mut summary, answer.to_string().as_bytes());
        summary
    }

    #[test]
    fn what_is_missing_is_added() {
        let video = json!({ "type": "video", "title": "A\nfilm", "provider_name": "Films", "thumbnail_url": "/a.jpg",
            "url": "/no", "html": "<script>", "width": 3 });
        let mut summary = completed(&video);
        assert_eq!((&*summary.properties["og:title"], &*summary.properties["og:site_name"]), ("A film", "Films"));
        assert_eq!(summary.picture.as_deref(), Some("/a.jpg"));
        complete(&mut summary, json!({ "title": "Another", "thumbnail_url": "/b.jpg" }).to_string().as_bytes());
        assert_eq!(&*summary.properties["og:title"], "A film");
        assert_eq!(summary.picture.as_deref(), Some("/a.jpg"));
        let photo = completed(&json!({ "type": "photo", "url": "/photo.jpg", "thumbnail_url": "/a.jpg" }));
        assert_eq!(photo.picture.as_deref(), Some("/photo.jpg"));
    }

    #[test]
    fn what_is_no_answer_adds_nothing() {
        for answer in [json!([]), json!("a"), json!({ "title": 3, "thumbnail_url": [], "provider_name": { "a": 1 } })] {
            assert_eq!(completed(&answer), PageSummary::default(), "{answer}");
        }
        // An empty address would be that of the page itself.
        assert_eq!(completed(&json!({ "title": " ", "thumbnail_url": "" })), PageSummary::default());
        let mut summary = PageSummary::default();
        complete(&mut summary, &b"[".repeat(MAX_OEMBED));
        complete(&mut summary, b"\xff\xfe");
        assert_eq!(summary, PageSummary::default());
    }
}
