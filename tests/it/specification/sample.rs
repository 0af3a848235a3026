//! Bodies of requests as their schemas want them, and the places in them where something else can be put.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::data::Node;

/// Stands in a body where something is put that a [`Value`] can't hold.
const MARK: &str = "\u{1F4CD} here";

/// A place in a body: a property, or an item of a list.
#[derive(Clone)]
pub(super) struct Place {
    /// Each step with the schema of what it leads out of. None where the schema leaves open what is there.
    steps: Vec<(Step, Option<Node>)>,
    /// The schema does not let it be absent.
    pub(super) required: bool,
    /// Text belongs here.
    pub(super) is_text: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Property(String),
    Item,
}

impl Node {
    /// JSON that fits this schema: its example, or the least that it asks for.
    pub(super) fn sample(self) -> Value {
        if let Some(example) = self.find("example") {
            return example.value.clone();
        }
        if let Some(reference) = self.find("$ref") {
            return self.resolve(reference.text()).sample();
        }
        if let Some(first) = ["oneOf", "anyOf", "enum"].into_iter().find_map(|keyword| self.find(keyword)?.find("0")) {
            return if first.value.is_object() { first.sample() } else { first.value.clone() };
        }
        let mut object = Map::new();
        for part in self.find("allOf").map_or_else(Vec::new, Node::items) {
            object.extend(part.sample().as_object().cloned().unwrap_or_default());
        }
        let kind = self.find("type").map_or("object", |kind| kind.value.as_str().unwrap_or("string"));
        match kind {
            "object" => {
                for name in self.find("required").map_or_else(Vec::new, Node::items) {
                    let property = self.find("properties").and_then(|properties| properties.find(name.text()));
                    object.entry(name.text()).or_insert_with(|| property.map_or(Value::Null, Node::sample));
                }
                object.into()
            }
            "array" => self.find("items").map_or_else(|| json!([]), |item| json!([item.sample()])),
            "string" => match self.find("format").map_or("", Node::text) {
                "mx-user-id" => json!("@somebody:localhost"),
                "mx-room-id" => json!("!somewhere:localhost"),
                "mx-room-alias" => json!("#somewhere:localhost"),
                "mx-event-id" => json!("$something"),
                _ => json!("something"),
            },
            "boolean" => json!(true),
            "null" => Value::Null,
            _ => json!(1),
        }
    }

    /// Every place that the schema describes, and every one that `body` has beside.
    pub(super) fn places(self, body: &Value) -> Vec<Place> {
        let mut places = BTreeMap::new();
        let top = Place { steps: Vec::new(), required: false, is_text: false };
        self.describe(self, &top, &mut places);
        top.discover(body, &mut places);
        places.into_values().collect()
    }

    /// Adds what this says of the inside of `place`, whose schema is `whole`.
    fn describe(self, whole: Self, place: &Place, places: &mut BTreeMap<Vec<Step>, Place>) {
        for (keyword, node) in self.entries() {
            match keyword {
                "$ref" => self.resolve(node.text()).describe(whole, place, places),
                "allOf" | "oneOf" | "anyOf" => {
                    node.items().into_iter().for_each(|part| part.describe(whole, place, places));
                }
                "properties" => {
                    let required = self.find("required").map_or_else(Vec::new, Node::items);
                    for (name, property) in node.entries() {
                        let required = required.iter().any(|required| required.text() == name);
                        place.step(Step::Property(name.to_owned()), Some(whole)).add(required, property, places);
                    }
                }
                "additionalProperties" if node.find("type").is_some() => {
                    place.step(Step::Property("somebody".to_owned()), Some(whole)).add(false, node, places);
                }
                "items" => place.step(Step::Item, Some(whole)).add(false, node, places),
                _ => {}
            }
        }
    }
}

impl Place {
    fn step(&self, step: Step, whole: Option<Node>) -> Self {
        let steps = self.steps.iter().cloned().chain([(step, whole)]).collect::<Vec<_>>();
        assert!(steps.len() < 20, "the schema of a body never ends");
        Self { steps, required: false, is_text: false }
    }

    /// Adds this place, which has a schema, and those within.
    fn add(mut self, required: bool, schema: Node, places: &mut BTreeMap<Vec<Step>, Self>) {
        self.required = required;
        self.is_text = schema.find("type").is_some_and(|kind| *kind.value == "string");
        places.entry(self.names()).or_insert_with(|| self.clone());
        schema.describe(schema, &self, places);
    }

    /// Adds the places within `value` that are not known yet.
    fn discover(&self, value: &Value, places: &mut BTreeMap<Vec<Step>, Self>) {
        let inside: Vec<(Step, &Value)> = match value {
            Value::Object(object) => object.iter().map(|(name, value)| (Step::Property(name.clone()), value)).collect(),
            Value::Array(items) => items.first().map(|item| (Step::Item, item)).into_iter().collect(),
            _ => Vec::new(),
        };
        for (step, value) in inside {
            let place = Self { is_text: value.is_string(), ..self.step(step, None) };
            places.entry(place.names()).or_insert_with(|| place.clone());
            place.discover(value, places);
        }
    }

    fn names(&self) -> Vec<Step> {
        self.steps.iter().map(|(step, _)| step.clone()).collect()
    }

    pub(super) fn depth(&self) -> usize {
        self.steps.len()
    }

    /// `body` with some JSON at this place.
    pub(super) fn put(&self, body: &Value, json: &str) -> Vec<u8> {
        let mut body = body.clone();
        *reach(&mut body, &self.steps) = MARK.into();
        body.to_string().replace(&format!("\"{MARK}\""), json).into_bytes()
    }

    /// `body` with nothing at this place. A list keeps its items.
    pub(super) fn remove(&self, body: &Value) -> Vec<u8> {
        let mut body = body.clone();
        if let Some(((Step::Property(name), _), before)) = self.steps.split_last() {
            // Whoever holds the property has to be there for it to be missing.
            reach(&mut body, &self.steps);
            let holder = reach(&mut body, before);
            holder.as_object_mut().unwrap().remove(name);
        }
        body.to_string().into_bytes()
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (place, (step, _)) in self.steps.iter().enumerate() {
            match step {
                Step::Property(name) if place == 0 => f.write_str(name)?,
                Step::Property(name) => write!(f, "/{name}")?,
                Step::Item => f.write_str("[]")?,
            }
        }
        Ok(())
    }
}

/// What is at the end of some steps into `body`; what is not there on the way is made as its schema wants it.
fn reach<'a>(body: &'a mut Value, steps: &[(Step, Option<Node>)]) -> &'a mut Value {
    steps.iter().fold(body, |here, (step, whole)| {
        let sample = || whole.map_or(Value::Null, Node::sample);
        match step {
            Step::Property(name) => {
                if !here.is_object() {
                    *here = Some(sample()).filter(Value::is_object).unwrap_or_else(|| json!({}));
                }
                here.as_object_mut().unwrap().entry(name).or_insert(Value::Null)
            }
            Step::Item => {
                if here.get(0).is_none() {
                    *here = Some(sample()).filter(|list| list.get(0).is_some()).unwrap_or_else(|| json!([null]));
                }
                here.get_mut(0).unwrap()
            }
        }
    })
}

mod tests {
    use std::path::Path;

    use super::*;
    use crate::specification::data::Data;

    fn schema() -> Node {
        let whole = r"
            required: [name, list]
            properties:
              name: { type: string, example: Ada }
              list: { type: array, items: { $ref: item.yaml } }
              count: { type: integer }
        ";
        let item = r"
            allOf:
              - { required: [id], properties: { id: { type: string } } }
              - { properties: { on: { type: boolean } } }
        ";
        Data::of(&[("whole.yaml", whole), ("item.yaml", item)]).file(Path::new("whole.yaml"))
    }

    #[test]
    fn a_sample_has_what_is_required_as_the_examples_show_it() {
        let sample = schema().sample();
        assert_eq!(sample, json!({ "name": "Ada", "list": [{ "id": "something" }] }));
        assert_eq!(schema().faults(&sample), Vec::<String>::new());
    }

    #[test]
    fn places_are_those_of_the_schema_and_those_of_the_body() {
        let places = schema().places(&json!({ "name": "x", "free": { "form": 1 } }));
        let names: Vec<String> = places.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["count", "free", "free/form", "list", "list[]", "list[]/id", "list[]/on", "name"]);
        let required: Vec<_> = places.iter().filter(|place| place.required).map(ToString::to_string).collect();
        assert_eq!(required, ["list", "list[]/id", "name"]);
    }

    #[test]
    fn something_is_put_at_a_place_or_taken_from_it() {
        let places = schema().places(&json!({}));
        let place = |name: &str| places.iter().find(|place| place.to_string() == name).unwrap();
        let put = |name, json| String::from_utf8(place(name).put(&json!({ "name": "x" }), json)).unwrap();
        assert_eq!(put("count", "1e400"), r#"{"count":1e400,"name":"x"}"#);
        assert_eq!(put("list[]/on", "null"), r#"{"list":[{"id":"something","on":null}],"name":"x"}"#);
        assert_eq!(place("list[]/id").remove(&json!({})), br#"{"list":[{}]}"#);
        assert_eq!(place("name").remove(&json!({ "name": "x" })), b"{}");
    }
}
