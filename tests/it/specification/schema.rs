//! The oracle: whether some JSON is what a schema of the specification says.
//!
//! It knows the keywords that the data uses and refuses all others, so that none of them is ever passed over.
//!
//! <https://json-schema.org/draft/2020-12/json-schema-validation>

use serde_json::Value;

use super::data::Node;

/// The names that fields of a profile may have.
const PROFILE_FIELD: &str = r"^(avatar_url|displayname|m\.tz|[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+)$";

/// Keywords that say something to whoever reads the schema, and ask nothing of the JSON.
const SAID_ONLY: [&str; 11] = [
    "$schema",
    "default",
    "deprecated",
    "description",
    "example",
    "examples",
    "title",
    "x-addedInMatrixVersion",
    "x-changedInMatrixVersion",
    "x-pattern-format",
    "x-weight",
];

impl Node {
    /// What is wrong with `value` by this schema, each fault with its place. Nothing, if it is as it should be.
    pub(super) fn faults(self, value: &Value) -> Vec<String> {
        let mut faults = Vec::new();
        self.check(value, "body", &mut faults);
        faults.sort_unstable();
        faults.dedup();
        faults
    }

    fn check(self, value: &Value, at: &str, faults: &mut Vec<String>) {
        for (keyword, node) in self.entries() {
            match keyword {
                "$ref" => self.resolve(node.text()).check(value, at, faults),
                "allOf" => node.items().into_iter().for_each(|part| part.check(value, at, faults)),
                "items" => {
                    for (place, item) in value.as_array().into_iter().flatten().enumerate() {
                        node.check(item, &format!("{at}/{place}"), faults);
                    }
                }
                "properties" | "patternProperties" | "additionalProperties" => {
                    for (name, property) in value.as_object().into_iter().flatten() {
                        let at = format!("{at}/{name}");
                        for schema in self.schemas_of(keyword, node, name) {
                            match schema.value {
                                Value::Bool(true) => {}
                                Value::Bool(false) => faults.push(format!("{at}: has no place here")),
                                _ => schema.check(property, &at, faults),
                            }
                        }
                    }
                }
                _ => faults.extend(broken(keyword, node, value).map(|what| format!("{at}: {what}"))),
            }
        }
    }

    /// What one of the three keywords for properties, with its value, says of a property of this name.
    fn schemas_of(self, keyword: &str, node: Self, name: &str) -> Vec<Self> {
        let by_pattern = |patterns: Self| -> Vec<Self> {
            let fitting = patterns.entries().into_iter().filter(|(pattern, _)| is_match(pattern, name));
            fitting.map(|(_, schema)| schema).collect()
        };
        match keyword {
            "properties" => node.find(name).into_iter().collect(),
            "patternProperties" => by_pattern(node),
            _ => {
                let named = self.find("properties").is_some_and(|properties| properties.find(name).is_some());
                let fitting: Vec<Self> = self.find("patternProperties").map_or_else(Vec::new, by_pattern);
                if named || !fitting.is_empty() { Vec::new() } else { vec![node] }
            }
        }
    }
}

/// What a keyword that looks at nothing below `value` has against it.
fn broken(keyword: &str, node: Node, value: &Value) -> Option<String> {
    let size = value.as_object().map(|object| u64::try_from(object.len()).unwrap());
    let count = value.as_array().map(|items| u64::try_from(items.len()).unwrap());
    let (fits, what) = match keyword {
        "type" => {
            let kinds = if node.value.is_array() { node.items() } else { vec![node] };
            (kinds.iter().any(|kind| is_of(value, kind.text())), "is not of type")
        }
        "enum" => (node.items().iter().any(|allowed| allowed.value == value), "is none of"),
        "format" => (is_formatted(value, node.text()), "has not the format"),
        "pattern" => (value.as_str().is_none_or(|text| is_match(node.text(), text)), "does not match"),
        "required" => {
            let there = |name: &Node| value.as_object().is_none_or(|object| object.contains_key(name.text()));
            (node.items().iter().all(there), "lacks one of")
        }
        "minProperties" => (size.is_none_or(|size| size >= node.value.as_u64().unwrap()), "has fewer properties than"),
        "minItems" => (count.is_none_or(|count| count >= node.value.as_u64().unwrap()), "has fewer items than"),
        "maxItems" => (count.is_none_or(|count| count <= node.value.as_u64().unwrap()), "has more items than"),
        "maxProperties" => (size.is_none_or(|size| size <= node.value.as_u64().unwrap()), "has more properties than"),
        // Alternatives in the data overlap, such as an event and any object: one has to fit, more may.
        "oneOf" | "anyOf" => {
            (node.items().into_iter().any(|alternative| alternative.faults(value).is_empty()), "fits none of")
        }
        _ if SAID_ONLY.contains(&keyword) => return None,
        other => panic!("the oracle does not know the keyword {other}"),
    };
    (!fits).then(|| format!("{what} {}", node.value))
}

fn is_of(value: &Value, kind: &str) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "number" => value.is_number(),
        // Matrix writes no integer with a fraction.
        "integer" => value.is_i64() || value.is_u64(),
        other => panic!("the oracle does not know the type {other}"),
    }
}

fn is_formatted(value: &Value, format: &str) -> bool {
    let begins = |sigil: &str| value.as_str().is_none_or(|text| text.starts_with(sigil));
    match format {
        "mx-user-id" => begins("@"),
        "mx-room-id" => begins("!"),
        "mx-room-alias" => begins("#"),
        "mx-event-id" => begins("$"),
        "mx-mxc-uri" => begins("mxc://"),
        "mx-server-name" => value.as_str() != Some(""),
        "int64" => !value.is_number() || value.is_i64(),
        // What users write as an address, such as that of their avatar, is not the server's to judge.
        "float" | "uri" | "email" => true,
        other => panic!("the oracle does not know the format {other}"),
    }
}

/// Whether a text matches a pattern. Nearly all patterns of the data say how the text begins.
fn is_match(pattern: &str, text: &str) -> bool {
    match pattern {
        "^turns?:" => text.starts_with("turn:") || text.starts_with("turns:"),
        PROFILE_FIELD => is_profile_field(text),
        _ => {
            let beginning = pattern.strip_prefix('^').unwrap_or_else(|| panic!("the oracle can't read {pattern}"));
            let mut literal = String::new();
            let mut characters = beginning.chars();
            while let Some(character) = characters.next() {
                match character {
                    '\\' => literal.extend(characters.next().filter(|next| !next.is_alphanumeric())),
                    '.' | '[' | ']' | '(' | ')' | '{' | '}' | '*' | '+' | '?' | '|' | '^' | '$' => {
                        panic!("the oracle can't read {pattern}")
                    }
                    plain => literal.push(plain),
                }
            }
            text.starts_with(&literal)
        }
    }
}

fn is_profile_field(name: &str) -> bool {
    let is_part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_lowercase())
            && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    name == "avatar_url" || name == "displayname" || (name.contains('.') && name.split('.').all(is_part))
}

mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::specification::data::Data;

    fn faults(schema: &str, value: &Value) -> Vec<String> {
        let data = Data::of(&[("schema.yaml", schema), ("other.yaml", "name: { type: string }")]);
        data.file(Path::new("schema.yaml")).faults(value)
    }

    #[track_caller]
    fn tells_apart(schema: &str, good: &[Value], bad: &[Value]) {
        for value in good {
            assert_eq!(faults(schema, value), Vec::<String>::new(), "{value}");
        }
        for value in bad {
            assert!(!faults(schema, value).is_empty(), "{value} fits {schema}");
        }
    }

    #[test]
    fn types() {
        tells_apart("type: integer", &[json!(1), json!(-1), json!(u64::MAX)], &[json!(1.0), json!("1"), json!(null)]);
        tells_apart("type: number", &[json!(1), json!(0.5)], &[json!("1"), json!(true)]);
        tells_apart("type: [string, 'null']", &[json!(""), json!(null)], &[json!(0), json!([])]);
        tells_apart("type: object", &[json!({})], &[json!([]), json!(null)]);
        tells_apart("enum: [a, 1]", &[json!("a"), json!(1)], &[json!("b"), json!("1")]);
    }

    #[test]
    fn formats_and_patterns_bind_only_what_they_are_for() {
        tells_apart("format: mx-user-id", &[json!("@a:b"), json!(7)], &[json!("a:b"), json!("")]);
        tells_apart("format: int64", &[json!(i64::MAX), json!("text")], &[json!(u64::MAX), json!(0.5)]);
        tells_apart(r"pattern: '^\$'", &[json!("$event"), json!(1)], &[json!("event")]);
        tells_apart(r"pattern: '^mxc:\/\/'", &[json!("mxc://a/b")], &[json!("https://a/b")]);
        tells_apart("pattern: '^turns?:'", &[json!("turns:a")], &[json!("stun:a")]);
        let profile_field = format!("pattern: '{PROFILE_FIELD}'");
        let good = ["displayname", "avatar_url", "m.tz", "org.example.x_1"].map(Value::from);
        tells_apart(&profile_field, &good, &["x", "m.", "M.tz", "m.1", "displayname.", ""].map(Value::from));
    }

    #[test]
    fn properties() {
        let schema = "properties: { a: { type: string } }\npatternProperties: { '^@': { type: integer } }\n\
                      additionalProperties: { type: boolean }\nrequired: [a]";
        let good = [json!({ "a": "" }), json!({ "a": "", "@u": 1, "other": true }), json!([])];
        let bad = [json!({}), json!({ "a": 1 }), json!({ "a": "", "@u": "" }), json!({ "a": "", "other": 1 })];
        tells_apart(schema, &good, &bad);
        tells_apart("additionalProperties: false", &[json!({})], &[json!({ "a": 1 })]);
        tells_apart("additionalProperties: true", &[json!({ "a": 1 })], &[]);
        tells_apart(
            "minProperties: 1\nmaxProperties: 1",
            &[json!({ "a": 1 })],
            &[json!({}), json!({ "a": 1, "b": 1 })],
        );
    }

    #[test]
    fn items() {
        tells_apart("minItems: 2\nmaxItems: 2", &[json!([1, 2]), json!("")], &[json!([1]), json!([1, 2, 3])]);
    }

    #[test]
    fn combinations_and_references() {
        tells_apart("items: { $ref: other.yaml#/name }", &[json!([]), json!(["a"])], &[json!(["a", 1])]);
        tells_apart("$ref: other.yaml#/name\nenum: [a]", &[json!("a")], &[json!("b"), json!(1)]);
        tells_apart("allOf: [{ type: object }, { required: [a] }]", &[json!({ "a": 1 })], &[json!({}), json!(1)]);
        tells_apart("oneOf: [{ type: object }, { type: object, required: [a] }]", &[json!({ "a": 1 })], &[json!(1)]);
        let recursive = "properties: { child: { $ref: '#' } }\nrequired: [name]";
        tells_apart(recursive, &[json!({ "name": 1 })], &[json!({ "name": 1, "child": {} })]);
    }

    #[test]
    fn a_fault_names_its_place() {
        let schema = "properties: { list: { items: { required: [name], type: object } } }";
        assert_eq!(faults(schema, &json!({ "list": [{ "name": 1 }, {}] })), [r#"body/list/1: lacks one of ["name"]"#]);
    }

    #[test]
    #[should_panic(expected = "does not know the keyword minimum")]
    fn unknown_keywords_are_refused() {
        faults("minimum: 1", &json!(1));
    }

    #[test]
    #[should_panic(expected = "does not know the format")]
    fn unknown_formats_are_refused() {
        faults("format: mx-something", &json!(1));
    }

    #[test]
    #[should_panic(expected = "can't read")]
    fn unknown_patterns_are_refused() {
        faults("pattern: '^[a-z]'", &json!("a"));
    }
}
