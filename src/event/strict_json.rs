//! Reading what must be canonical JSON: whole numbers within ±(2^53 - 1) and no others, and no key twice in an object.
//!
//! White space, the order of keys and how texts are escaped are free: those are written anew before anything is hashed.
//! What is nested more than 127 deep is refused.
//!
//! <https://spec.matrix.org/v1.19/appendices/#canonical-json>

use std::{collections::btree_map::Entry, fmt};

use ruma::{CanonicalJsonObject, CanonicalJsonValue, Int};
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};

/// Reads an object.
pub(super) fn read(json: &str) -> Result<CanonicalJsonObject, serde_json::Error> {
    match serde_json::from_str(json)? {
        StrictValue(CanonicalJsonValue::Object(object)) => Ok(object),
        StrictValue(_) => Err(serde_json::Error::custom("it is no object")),
    }
}

struct StrictValue(CanonicalJsonValue);

impl<'de> Deserialize<'de> for StrictValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = CanonicalJsonValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("canonical JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(CanonicalJsonValue::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
        Ok(CanonicalJsonValue::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
        Int::try_from(value).map(CanonicalJsonValue::Integer).map_err(E::custom)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
        Int::try_from(value).map(CanonicalJsonValue::Integer).map_err(E::custom)
    }

    // Also of `1.0`, `1e3` and `-0`: none of these is how canonical JSON writes a whole number.
    fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
        Err(E::custom("a number is no integer"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Self::Value, E> {
        Ok(CanonicalJsonValue::String(value.to_owned()))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Self::Value, E> {
        Ok(CanonicalJsonValue::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        while let Some(StrictValue(value)) = seq.next_element()? {
            values.push(value);
        }
        Ok(CanonicalJsonValue::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut object = CanonicalJsonObject::new();
        while let Some(key) = map.next_key::<String>()? {
            let StrictValue(value) = map.next_value()?;
            match object.entry(key) {
                Entry::Vacant(place) => place.insert(value),
                Entry::Occupied(_) => return Err(A::Error::custom("a key comes twice")),
            };
        }
        Ok(CanonicalJsonValue::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(json: &str) -> Option<String> {
        Some(serde_json::to_string(&read(json).ok()?).unwrap())
    }

    #[test]
    fn canonical_json_is_read_however_it_is_written() {
        let cases = [
            (r#" { "b" : [ null , true ] , "a" : "\u65e5\/" } "#, r#"{"a":"日/","b":[null,true]}"#),
            (r#"{"n":9007199254740991,"m":-9007199254740991}"#, r#"{"m":-9007199254740991,"n":9007199254740991}"#),
            (r#"{"a":{"x":1},"b":{"x":1}}"#, r#"{"a":{"x":1},"b":{"x":1}}"#),
            ("{}", "{}"),
        ];
        for (json, canonical) in cases {
            assert_eq!(written(json).as_deref(), Some(canonical), "{json}");
        }
    }

    /// Trap: canonical JSON (floats, ±2^53, duplicate keys).
    #[test]
    fn floats_large_numbers_and_keys_that_come_twice_are_refused() {
        for json in [
            r#"{"n":1.5}"#,
            r#"{"n":1.0}"#,
            r#"{"n":1e3}"#,
            r#"{"n":-0}"#,
            r#"{"n":9007199254740992}"#,
            r#"{"n":-9007199254740992}"#,
            r#"{"n":18446744073709551616}"#,
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"x":[{"y":{"a":1,"b":2,"a":3}}]}"#,
            r#"{"a":"\ud800"}"#,
            r#"{"a":NaN}"#,
            "[]",
            "\"text\"",
            "7",
            "",
        ] {
            assert_eq!(written(json), None, "{json}");
        }
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(200), "]".repeat(200));
        assert_eq!(written(&deep), None);
    }
}
