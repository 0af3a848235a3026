//! Only some fields of an event, where a filter asks for no more.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#filtering> (`event_fields`)

use ruma::serde::Raw;
use serde_json::{Map, Value};

/// An event with only the fields named by `paths`: names joined by dots, a dot in a name written `\.`. A path that
/// leads nowhere, or through what is no object, is passed over. Without paths nothing is left.
pub fn only_fields<T>(event: &Raw<T>, paths: &[String]) -> Result<Raw<T>, serde_json::Error> {
    let event: Value = serde_json::from_str(event.json().get())?;
    let mut kept = Value::Object(Map::new());
    for path in paths {
        copy(&event, &mut kept, &names(path));
    }
    serde_json::value::to_raw_value(&kept).map(Raw::from_json)
}

/// Copies what lies at a path, with the objects on the way to it.
fn copy(from: &Value, to: &mut Value, path: &[String]) {
    let (Some((name, rest)), Some(to)) = (path.split_first(), to.as_object_mut()) else { return };
    let Some(value) = from.get(name) else { return };
    if rest.is_empty() {
        to.insert(name.clone(), value.clone());
    } else if value.is_object() {
        copy(value, to.entry(name.clone()).or_insert_with(|| Value::Object(Map::new())), rest);
    }
}

/// The names of a path. A backslash at its end stands for nothing.
fn names(path: &str) -> Vec<String> {
    let mut names = vec![String::new()];
    let mut characters = path.chars();
    while let Some(character) = characters.next() {
        let name = match (character, names.last_mut()) {
            ('.', _) => {
                names.push(String::new());
                continue;
            }
            ('\\', Some(name)) => {
                name.extend(characters.next());
                continue;
            }
            (_, Some(name)) => name,
            (_, None) => continue,
        };
        name.push(character);
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_named_fields_are_kept_and_a_dot_can_be_part_of_a_name() {
        let event: Raw<Value> =
            serde_json::from_str(r#"{"type":"t","content":{"body":"b","m.x":1,"y":{"z":2}},"sender":"@a:b"}"#).unwrap();
        let kept = only_fields(&event, &["type".into(), r"content.m\.x".into(), "content.y.z".into(), "no".into()]);
        let kept: Value = serde_json::from_str(kept.unwrap().json().get()).unwrap();
        assert_eq!(kept, serde_json::json!({"type": "t", "content": {"m.x": 1, "y": {"z": 2}}}));
    }
}
