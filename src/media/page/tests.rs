use super::{MAX_PAGE, PageSummary};

fn read(page: &str) -> PageSummary {
    super::read(page.as_bytes(), Some("text/html; charset=utf-8"))
}

fn properties(summary: &PageSummary) -> Vec<(&str, &str)> {
    summary.properties.iter().map(|(name, value)| (&**name, &**value)).collect()
}

/// So many texts, one after the other.
fn join(count: u32, text: impl Fn(u32) -> String) -> String {
    (0..count).map(text).collect()
}

#[test]
fn open_graph_comes_first() {
    let summary = read(
        r#"<!DOCTYPE html><html><head><title>Title</title>
        <meta property="og:title" content="The &quot;Rock&quot;
            &amp; more"><meta property="og:title" content="Another">
        <META PROPERTY="OG:Type" CONTENT="video.movie">
        <meta name="og:site_name" content="Films">
        <meta property="og:url" content="https://example.org/rock"/>
        <meta property="og:image" content=" /rock.jpg "><meta property="og:image:width" content="20">
        <meta property="og:image:alt" content="A rock">
        <meta property="og:video" content="https://example.org/film">
        <meta property="og:audio:url" content="https://example.org/sound">
        <meta property="og:description" content="A film">
        <meta name="description" content="Words"><meta name="twitter:title" content="Card">"#,
    );
    assert_eq!(
        properties(&summary),
        [
            ("og:description", "A film"),
            ("og:image:alt", "A rock"),
            ("og:site_name", "Films"),
            ("og:title", r#"The "Rock" & more"#),
            ("og:type", "video.movie"),
            ("og:url", "https://example.org/rock"),
        ]
    );
    assert_eq!(summary.picture.as_deref(), Some("/rock.jpg"));
}

#[test]
fn cards_come_after_open_graph() {
    let summary = read(
        r#"<meta name="twitter:card" content="summary"><meta name="twitter:title" content="Card">
        <meta property="twitter:description" content="Words"><meta name="twitter:image:src" content="//cdn.example/a.png">
        <meta name="twitter:image:alt" content="A card"><title>Title</title><p>Text</p>"#,
    );
    let expected = [("og:description", "Words"), ("og:image:alt", "A card"), ("og:title", "Card")];
    assert_eq!(properties(&summary), expected);
    assert_eq!(summary.picture.as_deref(), Some("//cdn.example/a.png"));
}

#[test]
fn a_plain_page_has_a_title_and_some_text() {
    let summary = read(
        "<html><head><title> A  page </title><style>p { <p>hidden</p> }</style><script>\"<p>hidden</p>\"</script>
        <link rel=image_src href=a.png><base href=/b/></head>
        <body><nav><p>Menu</nav><h1>Heading</h1><p>First <b>bold</b> words.<p>More.</p>outside<!-- <p>hidden --></body>",
    );
    let expected = [("og:description", "First bold words. More."), ("og:title", "A page")];
    assert_eq!(properties(&summary), expected);
    assert_eq!((summary.picture.as_deref(), summary.base.as_deref()), (Some("a.png"), Some("/b/")));
    assert_eq!(properties(&read("<h1>Heading</h1>")), [("og:title", "Heading")]);
    assert_eq!(properties(&read("<title>unended")), [("og:title", "unended")]);
    let described = "<title>t</title><meta name=description content=said><p>text</p>";
    assert_eq!(properties(&read(described)), [("og:description", "said"), ("og:title", "t")]);
    let raw = "<title>t</title><p>One <script>'<p>no'</script>two<style>p {}</style> <textarea><b></textarea>three</p>";
    assert_eq!(properties(&read(raw)), [("og:description", "One two three"), ("og:title", "t")]);
    assert_eq!(read("hello"), PageSummary::default());
    assert_eq!(read(""), PageSummary::default());
}

#[test]
fn an_oembed_document_is_found() {
    let summary = read(
        r#"<link rel="alternate" type="text/xml+oembed" href="/xml">
        <link rel="alternate" type="application/json+oembed" href="/json?a=1&amp;b=2" title="x">"#,
    );
    assert_eq!(summary.oembed.as_deref(), Some("/json?a=1&b=2"));
}

#[test]
fn an_empty_property_hides_nothing() {
    let summary = read(
        r#"<title>Title</title><meta property="og:title" content=" "><meta property="og:url" content="javascript:a">"#,
    );
    assert_eq!(properties(&summary), [("og:title", "Title")]);
}

#[test]
fn what_can_not_be_read_is_left_out() {
    let page = b"<title>\x83n\x83\x8d\x81[</title><meta name=description content=plain><meta property=og:image content=/\x83.png>";
    let summary = super::read(page, Some("text/html; charset=shift_jis"));
    assert_eq!(properties(&summary), [("og:description", "plain")]);
    assert_eq!(summary.picture, None);
}

#[test]
fn texts_and_addresses_are_bounded() {
    let long = "wörd ".repeat(2_000);
    let many = join(1_000, |n| format!("<meta property=og:x{n} content=a>"));
    let summary = read(&format!("<title>{long}</title><link rel=image_src href='{long}'>{many}<p>{long}</p>"));
    assert!(summary.properties.len() <= 34);
    assert!(summary.properties["og:title"].chars().count() <= 300);
    assert!(summary.properties["og:title"].starts_with("wörd wörd"));
    assert_eq!(summary.picture, None);
}

#[test]
fn what_comes_late_is_not_read() {
    let filling = "<b></b>".repeat(MAX_PAGE / 7);
    let summary = read(&format!("<title>Title</title>{filling}<meta property=og:title content=late>"));
    assert_eq!(properties(&summary), [("og:title", "Title")]);
}

/// CVE-2022-31052: a page in which elements lie deep in each other.
#[test]
fn a_deep_page_is_read_without_recursion() {
    let deep = "<div><nav><p>".repeat(50_000);
    assert_eq!(properties(&read(&format!("<title>Title</title>{deep}"))), [("og:title", "Title")]);
}

/// The tokenizer compares attributes with each other: how many of a page it sees is bounded, which the time that this
/// test takes would show.
#[test]
fn a_tag_of_many_attributes_ends_the_page() {
    let attributes = join(100_000, |n| format!(" {n:x}"));
    let summary = read(&format!("<title>Title</title><b{attributes}><meta property=og:title content=late>"));
    assert_eq!(properties(&summary), [("og:title", "Title")]);
    let tag = format!("<b{}>", join(3_000, |n| format!(" {n:x}")));
    let summary = read(&format!("<title>Title</title>{}<meta property=og:title content=late>", tag.repeat(40)));
    assert_eq!(properties(&summary), [("og:title", "Title")]);
    // Nor do errors within a tag make it another one.
    let errors = join(100_000, |n| format!(" a a{n:x}\"<"));
    let summary = read(&format!("<title>Title</title><b{errors}><meta property=og:title content=late>"));
    assert_eq!(properties(&summary), [("og:title", "Title")]);
    // A large address is none of that.
    let data = format!("<link rel=icon href=\"data:image/png;base64,{}\">", "abcd+/gh".repeat(3_000));
    let summary = read(&format!("<title>Title</title>{data}<meta property=og:title content=later>"));
    assert_eq!(properties(&summary), [("og:title", "later")]);
}
