//! Texts, bytes and JSON, a little or very different from what they should be.

use serde_json::{Map, Value, json};

use super::dice::Dice;

/// What has broken programs before.
const NASTY: &[&str] = &[
    "",
    " ",
    "\0",
    "a\0b",
    "\r\n",
    "..",
    ".",
    "../..",
    "\\..\\",
    "/",
    "//",
    "%",
    "%00",
    "%FF",
    "%2e%2e",
    "%25",
    "?",
    "#",
    "+",
    "&=",
    "'",
    "\"",
    "\\",
    "`",
    "{}",
    "[]",
    "null",
    "true",
    "0",
    "-0",
    "+7",
    "007",
    "-1",
    "1.5",
    "1e400",
    "NaN",
    "9007199254740991",
    "9007199254740993",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551616",
    "s0",
    "s1",
    "s9223372036854775807",
    "s7_aB3-x9~",
    "s7d5_aB3-x9",
    "s7.5",
    "s-3.12",
    "t1",
    "@",
    "@:",
    "@a:b",
    "@alice:localhost",
    "@\u{fc}:localhost",
    "!",
    "!r:localhost",
    "$e",
    "#a:localhost",
    "a:b:c",
    "localhost",
    "[::1]:8448",
    "m.room.message",
    "m.room.member",
    "m.room.power_levels",
    "m.room.create",
    "m.thread",
    "m.annotation",
    "m.replace",
    "join",
    "ban",
    "public",
    "*",
    "m.*",
    "%_",
    "a* OR b",
    "NEAR(",
    "\u{feff}",
    "\u{202e}abc",
    "\u{200d}",
    "e\u{301}\u{301}\u{301}",
    "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}",
    "\u{1f980}",
    "\u{fdfa}",
    "\u{130}",
    "\u{df}\u{1e9e}",
    "\u{3a3}\u{3c2}",
    "\u{ac00}\u{1112}\u{1161}\u{11ab}",
    "\u{e33}",
    "\u{4f60}\u{597d}",
    "\u{fb03}",
    "\u{10ffff}",
    "\u{fffd}",
    "https://example.org",
    "mxc://example.org/a",
];

/// JSON that a [`Value`] can't hold.
const RAW: &[&str] = &[
    "1e400",
    "-1e400",
    "123456789012345678901234567890",
    "1.0",
    "-0",
    "0.1",
    r#""\ud800""#,
    r#""\u0000""#,
    r#"{"a":1,"a":2}"#,
    "01",
    "NaN",
    "'a'",
    "",
    "[1,]",
    "\u{feff}{}",
];

/// Stands where one of these goes.
const MARK: &str = "\u{1f4cd}";

/// Some text that nobody expects.
pub(crate) fn junk(dice: &mut Dice) -> String {
    match dice.below(12) {
        0..=5 => dice.pick(NASTY).to_owned(),
        6 => format!("{}{}", dice.pick(NASTY), dice.pick(NASTY)),
        7 => dice.pick(NASTY).repeat(dice.small(300)),
        8 => dice.number().to_string(),
        _ => {
            let length = dice.small(40);
            (0..length).map(|_| character(dice)).collect()
        }
    }
}

fn character(dice: &mut Dice) -> char {
    let end = *dice.of(&[0x80, 0x80, 0x80, 0x250, 0x3000, 0x11_0000]);
    u32::try_from(dice.below(end)).ok().and_then(char::from_u32).unwrap_or('\u{fffd}')
}

/// A text with something changed, and sometimes another one.
pub(crate) fn text(dice: &mut Dice, from: &str) -> String {
    let mut characters: Vec<char> = from.chars().collect();
    for _ in 0..=dice.small(4) {
        let place = dice.below(characters.len() + 1);
        let end = (place + dice.small(8)).min(characters.len());
        match dice.below(8) {
            0 => return junk(dice),
            1 => characters.truncate(place),
            2 => drop(characters.drain(place..end)),
            3 => characters.insert(place, character(dice)),
            4 => drop(characters.splice(place..end, dice.pick(NASTY).chars())),
            5 => {
                let again = characters[place..end].repeat(dice.small(200));
                characters.splice(place..place, again);
            }
            6 => {
                if let Some(one) = characters.get_mut(place) {
                    *one = if one.is_lowercase() { one.to_ascii_uppercase() } else { one.to_ascii_lowercase() };
                }
            }
            _ => {
                if let Some(one) = characters.get_mut(place) {
                    *one = character(dice);
                }
            }
        }
    }
    characters.into_iter().collect()
}

/// Bytes with something changed.
pub(crate) fn bytes(dice: &mut Dice, mut from: Vec<u8>) -> Vec<u8> {
    for _ in 0..=dice.small(4) {
        let place = dice.below(from.len() + 1);
        let end = (place + dice.small(20)).min(from.len());
        let byte = u8::try_from(dice.below(256)).unwrap();
        match dice.below(6) {
            0 => from.truncate(place),
            1 => drop(from.drain(place..end)),
            2 => from.insert(place, byte),
            3 => drop(from.splice(place..end, dice.pick(NASTY).bytes())),
            4 => {
                let again = from[place..end].repeat(dice.small(50));
                from.splice(place..place, again);
            }
            _ => {
                if let Some(one) = from.get_mut(place) {
                    *one = byte;
                }
            }
        }
    }
    from
}

/// A value with something in it changed, as it is written.
pub(crate) fn written(dice: &mut Dice, mut value: Value) -> Vec<u8> {
    for _ in 0..=dice.small(3) {
        json(dice, &mut value);
    }
    let mut raw = None;
    if dice.one_in(8) {
        let place = dice.below(size(&value));
        *nth(&mut value, &mut { place }).unwrap() = MARK.into();
        raw = Some(if dice.one_in(4) { deep(dice) } else { dice.pick(RAW).to_owned() });
    }
    let text = value.to_string();
    let text = raw.map_or_else(|| text.clone(), |raw| text.replace(&format!("\"{MARK}\""), &raw));
    if dice.one_in(8) { bytes(dice, text.into_bytes()) } else { text.into_bytes() }
}

fn deep(dice: &mut Dice) -> String {
    let levels = dice.small(20_000);
    let (open, close) = *dice.of(&[("[", "]"), ("{\"a\":", "}")]);
    format!("{}1{}", open.repeat(levels), close.repeat(levels))
}

/// Changes something somewhere in a value.
pub(crate) fn json(dice: &mut Dice, value: &mut Value) {
    let (place, donor) = (dice.below(size(value)), dice.below(size(value)));
    let donor = nth(value, &mut { donor }).cloned().unwrap_or_default();
    let place = nth(value, &mut { place }).unwrap();
    match (dice.below(10), place) {
        (0 | 1, Value::String(words)) => *words = text(dice, words),
        (2 | 3, Value::Object(object)) => change_key(dice, object, donor),
        (2 | 3, Value::Array(items)) => change_items(dice, items, donor),
        (4, place) => *place = donor,
        (5, place) => *place = json!({ dice.pick(NASTY): place.take() }),
        (6, place) => *place = json!([place.take()]),
        (7, place) => *place = Value::String(junk(dice)),
        (_, place) => *place = plain(dice),
    }
}

fn change_key(dice: &mut Dice, object: &mut Map<String, Value>, donor: Value) {
    let key = object.keys().nth(dice.below(object.len())).cloned().unwrap_or_default();
    match dice.below(4) {
        0 => drop(object.remove(&key)),
        1 => drop(object.insert(text(dice, &key), donor)),
        2 => drop(object.insert(junk(dice), donor)),
        _ => drop(object.insert(key, plain(dice))),
    }
}

fn change_items(dice: &mut Dice, items: &mut Vec<Value>, donor: Value) {
    match dice.below(4) {
        0 => drop(items.pop()),
        1 => items.push(donor),
        2 => items.push(plain(dice)),
        _ => items.extend(vec![donor; dice.small(300)]),
    }
}

fn plain(dice: &mut Dice) -> Value {
    match dice.below(10) {
        0 => Value::Null,
        1 => true.into(),
        2 => false.into(),
        3 => 0.into(),
        4 => (-1).into(),
        5 => i64::MAX.into(),
        6 => 9_007_199_254_740_991_i64.into(),
        7 => json!([]),
        8 => json!({}),
        _ => junk(dice).into(),
    }
}

/// How many values there are in a value, itself included.
fn size(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(size).sum(),
        Value::Object(object) => object.values().map(size).sum(),
        _ => 0,
    }
}

/// One of these, counted from 0.
fn nth<'a>(value: &'a mut Value, left: &mut usize) -> Option<&'a mut Value> {
    if *left == 0 {
        return Some(value);
    }
    *left -= 1;
    match value {
        Value::Array(items) => items.iter_mut().find_map(|item| nth(item, left)),
        Value::Object(object) => object.values_mut().find_map(|item| nth(item, left)),
        _ => None,
    }
}

#[test]
fn each_value_within_is_found() {
    let mut value = json!({ "a": [1, { "b": 2 }], "c": "x" });
    assert_eq!(size(&value), 6);
    let found: Vec<Value> = (0..6).map(|place| nth(&mut value, &mut { place }).unwrap().clone()).collect();
    assert_eq!(found[1..], [json!([1, { "b": 2 }]), json!(1), json!({ "b": 2 }), json!(2), json!("x")]);
    assert!(nth(&mut value, &mut 6).is_none());
}
