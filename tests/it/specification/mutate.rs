//! Requests, and what is done to them: a token that is missing or somebody else's, identifiers that name nothing or
//! are too long, bodies that are not what they should be.

use std::collections::BTreeMap;

use hearth::ground::random::Random;
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    data::{Auth, Node, Operation},
    fixture::Scene,
    judge::Expect,
    sample::Place,
};
use crate::world::escape;

/// A request as it will be sent. Values in path and query are encoded already.
pub(super) struct Draft {
    method: Method,
    template: String,
    path: BTreeMap<&'static str, String>,
    query: Vec<(&'static str, String)>,
    pub(super) authorization: Option<String>,
    pub(super) content_type: Option<&'static str>,
    /// The body as it should be.
    valid: Value,
    pub(super) body: Option<Vec<u8>>,
}

/// Something that is done to a valid request, and what should come of it.
pub(super) struct Mutation {
    pub(super) name: String,
    pub(super) expect: Expect,
    change: Change,
}

type Change = Box<dyn Fn(&mut Draft) + Send + Sync>;

/// Tokens of people who have no business in the scenes of others, or names of servers.
pub(super) struct Others<'a> {
    pub(super) stranger: &'a str,
    /// Somebody who was in the room and has left. Where servers call, a user.
    pub(super) former: &'a str,
}

/// Which mutations are tried. There are more than a test has time for, but the same ones in each run.
pub(super) struct Share {
    /// One in so many of those that have found faults elsewhere.
    pub(super) important: u32,
    /// One in so many of the others.
    pub(super) other: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Weight {
    Important,
    Other,
    /// One of very many alike.
    Rare,
}

/// What an endpoint gets that takes a file.
const FILE: &[u8] = b"%PDF-1.7 and so on";

/// Bodies whose properties are identifiers: what is called otherwise is wrong.
const KEYED: [&str; 1] = ["uploadCrossSigningSignatures"];
/// Bodies that are events, which are signed with all that is in them.
const SIGNED: [&str; 3] = ["sendJoinV2", "sendKnock", "sendLeaveV2"];
/// Endpoints that read a room for servers that are in it.
const READ_BY_SERVERS: [&str; 7] = [
    "backfillRoom",
    "getEvent",
    "getEventAuth",
    "getEventByTimestamp",
    "getMissingPreviousEvents",
    "getRoomState",
    "getRoomStateIds",
];

/// Endpoints about a room that answer those outside it as well: who may come in, and reports, from which nobody learns
/// what there is.
const OPEN_TO_STRANGERS: [&str; 4] = ["joinRoom", "joinRoomById", "knockRoom", "reportRoom"];
/// Needs no token, and tells of a hidden room whoever shows that they may know of it.
const TELLS_MEMBERS: &str = "getRoomVisibilityOnDirectory";
/// Endpoints that keep something for the user under the identifier of any room, or take one down.
const ANY_ROOM: [&str; 11] = [
    "deleteRoomKeyBySessionId",
    "deleteRoomKeysByRoomId",
    "deleteRoomTag",
    "getAccountDataPerRoom",
    "getRoomKeysByRoomId",
    "getRoomTags",
    "putRoomKeyBySessionId",
    "putRoomKeysByRoomId",
    "reportRoom",
    "setAccountDataPerRoom",
    "setRoomTag",
];
/// Endpoints that need not tell whether what is reported is there.
const SILENT: [&str; 2] = ["reportEvent", "reportUser"];
/// Endpoints about the user in their path, for that user alone.
const FOR_ONESELF: [&str; 8] = [
    "defineFilter",
    "deleteProfileField",
    "getAccountData",
    "getFilter",
    "requestOpenIdToken",
    "setAccountData",
    "setPresence",
    "setProfileField",
];
/// `reason` could be left out before v1.14; without `room_id` it is another endpoint at the same path, or other servers leave
/// it out; and each event of a transaction is looked at by itself.
const LENIENT: [&str; 4] = ["exchangeThirdPartyInvite", "peekEvents", "reportRoom", "sendTransaction"];
/// Whoever may not call them is told so before what they say is read. An invitation of the first version is to a room of a
/// version that this server does not speak.
const CLOSED: [&str; 3] = ["pingAppservice", "sendInviteV1", "updateAppserviceRoomDirectoryVisibility"];
/// What only the server that gave it away can read: no example would do.
const TOKENS: [&str; 5] = ["at", "from", "next_batch", "since", "to"];
/// Parameters with an identifier of the specification's grammar.
const IDENTIFIERS: [(&str, char); 5] =
    [("eventId", '$'), ("roomAlias", '#'), ("roomId", '!'), ("roomIdOrAlias", '!'), ("userId", '@')];

impl Draft {
    /// The valid request. `number` makes its transaction a new one.
    pub(super) fn new(operation: &Operation, scene: &Scene, number: u64) -> Self {
        let (mut path, mut query) = (BTreeMap::new(), Vec::new());
        for parameter in &operation.parameters {
            let name = parameter.name;
            let set = if name == "txnId" { Some(format!("t{number}")) } else { scene.values.get(name).cloned() };
            let by_example = || parameter.example.map_or_else(Vec::new, texts);
            match parameter.place {
                "path" => {
                    let value = set.or_else(|| by_example().pop()).unwrap_or_else(|| "something".to_owned());
                    path.insert(name, escape(&value));
                }
                "query" => {
                    let can_be_shown = parameter.required || !TOKENS.contains(&name);
                    let values =
                        set.map_or_else(|| if can_be_shown { by_example() } else { Vec::new() }, |set| vec![set]);
                    query.extend(values.iter().map(|value| (name, escape(value))));
                }
                _ => {}
            }
        }
        let valid = operation.body.map(|schema| scene.body.clone().unwrap_or_else(|| schema.sample()));
        let json = valid.as_ref().map(|valid| (valid.to_string().into_bytes(), "application/json"));
        let sent = json.or_else(|| operation.takes_bytes.then(|| (FILE.to_vec(), "application/pdf")));
        Self {
            method: operation.method.clone(),
            template: operation.path.clone(),
            path,
            query,
            authorization: (operation.auth != Auth::Nobodys || TELLS_MEMBERS == operation.id)
                .then(|| format!("Bearer {}", scene.token)),
            content_type: sent.as_ref().map(|(_, content_type)| *content_type),
            body: sent.map(|(body, _)| body),
            valid: valid.unwrap_or(Value::Null),
        }
    }

    pub(super) fn method(&self) -> &Method {
        &self.method
    }

    pub(super) fn path_and_query(&self) -> String {
        let path = self
            .path
            .iter()
            .fold(self.template.clone(), |path, (name, value)| path.replace(&format!("{{{name}}}"), value));
        let query: Vec<String> = self.query.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if query.is_empty() { path } else { format!("{path}?{}", query.join("&")) }
    }

    /// Adds some JSON before the first property of the body.
    fn add_to_body(&mut self, text: &[u8]) {
        let rest = self.valid.to_string().into_bytes();
        let comma: &[u8] = if rest == b"{}" { b"" } else { b"," };
        self.body = Some([&b"{"[..], text, comma, &rest[1..]].concat());
    }
}

impl Mutation {
    /// The valid request itself, under a name.
    pub(super) fn none(name: impl Into<String>) -> Self {
        Self { name: name.into(), expect: Expect::AsValid, change: Box::new(|_| {}) }
    }

    pub(super) fn apply(&self, draft: &mut Draft) {
        (self.change)(draft);
    }
}

/// Everything that is done to the requests of an endpoint.
pub(super) fn mutations(
    operation: &Operation,
    scene: &Scene,
    others: &Others<'_>,
    share: &Share,
    seed: u64,
) -> Vec<Mutation> {
    let cost = if scene.costly { 4 } else { 1 };
    let mut list = List { mutations: Vec::new(), share, cost, dice: Random::seeded(seed) };
    list.of_authorization(operation, others);
    for parameter in operation.parameters.iter().filter(|parameter| parameter.place == "path") {
        list.of_path(operation, parameter.name);
    }
    for parameter in operation.parameters.iter().filter(|parameter| parameter.place == "query") {
        list.of_query(parameter.name, parameter.required && !LENIENT.contains(&operation.id));
    }
    list.add(Weight::Important, "a parameter of a later version", Expect::AsValid, |draft| {
        draft.query.push(("org.example.later", "1".to_owned()));
    });
    if let Some(schema) = operation.body {
        let valid = scene.body.clone().unwrap_or_else(|| schema.sample());
        list.of_whole_body(operation, schema);
        for place in schema.places(&valid) {
            list.of_place(operation, &place);
        }
    }
    if operation.takes_bytes {
        list.of_bytes();
    }
    list.mutations
}

struct List<'a> {
    mutations: Vec<Mutation>,
    share: &'a Share,
    cost: u32,
    dice: Random,
}

impl List<'_> {
    fn add(
        &mut self,
        weight: Weight,
        name: impl Into<String>,
        expect: Expect,
        change: impl Fn(&mut Draft) + Send + Sync + 'static,
    ) {
        let one_in = match weight {
            Weight::Important => self.share.important,
            Weight::Other => self.share.other * self.cost,
            Weight::Rare => self.share.other * self.cost * 3,
        };
        if u32::from_le_bytes(self.dice.bytes::<4>()).is_multiple_of(one_in) {
            self.mutations.push(Mutation { name: name.into(), expect, change: Box::new(change) });
        }
    }

    fn of_authorization(&mut self, operation: &Operation, others: &Others<'_>) {
        let with = |header: Option<String>| move |draft: &mut Draft| draft.authorization.clone_from(&header);
        let (missing, unknown) = match operation.auth {
            Auth::Users => (Expect::Refusal(401, "M_MISSING_TOKEN"), Expect::Refusal(401, "M_UNKNOWN_TOKEN")),
            _ => (Expect::Anything, Expect::Anything),
        };
        if operation.auth == Auth::Nobodys {
            return;
        }
        if operation.auth == Auth::Servers {
            let unproved = Expect::Refusal(401, "M_UNAUTHORIZED");
            self.add(Weight::Important, "no proof", unproved, with(None));
            let token = Some(format!("Bearer {}", others.former));
            self.add(Weight::Important, "the token of a user", unproved, with(token));
            let forged = r#"X-Matrix origin="far.test",destination="one.test",key="ed25519:new",sig="Zm9yZ2Vk""#;
            self.add(Weight::Important, "a forged proof", unproved, with(Some(forged.to_owned())));
            let hidden = if READ_BY_SERVERS.contains(&operation.id) {
                Expect::Refusal(403, "M_FORBIDDEN")
            } else {
                Expect::Anything
            };
            self.add(Weight::Important, "a stranger", hidden, with(Some(format!("Bearer {}", others.stranger))));
            return;
        }
        self.add(Weight::Important, "no token", missing, with(None));
        self.add(Weight::Important, "nobody's token", unknown, with(Some("Bearer nobodys".to_owned())));
        self.add(Weight::Other, "a long token", unknown, with(Some(format!("Bearer {}", "x".repeat(8_000)))));
        self.add(Weight::Other, "another scheme", missing, with(Some("Basic YWxpY2U6eA==".to_owned())));
        self.add(Weight::Other, "the token in the query", Expect::Not(401), |draft| {
            let token = draft.authorization.take().unwrap_or_default();
            draft.query.push(("access_token", escape(token.trim_start_matches("Bearer "))));
        });
        let in_room = operation.path.contains("{roomId}") || operation.path.contains("{roomIdOrAlias}");
        let hidden = if in_room && !OPEN_TO_STRANGERS.contains(&operation.id) {
            Expect::OneOf(&[403, 404])
        } else if FOR_ONESELF.contains(&operation.id) {
            Expect::Refusal(403, "M_FORBIDDEN")
        } else {
            Expect::Anything
        };
        // Where the path names nothing of anybody's, a stranger does what they may do, such as to log out.
        if operation.path.contains('{') {
            self.add(Weight::Important, "a stranger", hidden, with(Some(format!("Bearer {}", others.stranger))));
        }
        if in_room {
            let left = with(Some(format!("Bearer {}", others.former)));
            self.add(Weight::Important, "somebody who has left", Expect::Anything, left);
        }
    }

    fn of_path(&mut self, operation: &Operation, name: &'static str) {
        let sigil = IDENTIFIERS.iter().find(|(identifier, _)| *identifier == name).map(|(_, sigil)| *sigil);
        let begin = sigil.map(String::from).unwrap_or_default();
        let unreadable = if sigil.is_some() { Expect::Refused } else { Expect::Anything };
        // Events, and rooms of late versions, have no server in their names.
        let server = if matches!(sigil, Some('$' | '!')) { "" } else { ":localhost" };
        let long = |length: usize| escape(&format!("{begin}{}{server}", "x".repeat(length)));
        if let Some((unknown, expect)) = unknown(operation, name) {
            self.put_in_path(Weight::Important, name, "unknown", expect, escape(unknown));
        }
        self.put_in_path(Weight::Important, name, "300 bytes", unreadable, long(300));
        self.put_in_path(Weight::Other, name, "20,000 bytes", unreadable, long(20_000));
        self.put_in_path(Weight::Important, name, "NUL", unreadable, escape(&format!("{begin}a\0b:localhost")));
        self.put_in_path(Weight::Important, name, "not UTF-8", Expect::Refused, format!("{}%FF", escape(&begin)));
        if sigil.is_some() {
            self.put_in_path(Weight::Other, name, "no sigil", unreadable, "x".to_owned());
            let elsewhere = escape(&format!("{begin}a:elsewhere.example"));
            self.put_in_path(Weight::Other, name, "of another server", Expect::Anything, elsewhere);
        }
        for (what, value) in [("a slash", "a/b"), ("a space", " "), ("a percent sign", "%"), ("a crab", "\u{1F980}")] {
            self.put_in_path(Weight::Other, name, what, Expect::Anything, escape(&format!("{begin}{value}")));
        }
        self.put_in_path(Weight::Other, name, "empty", Expect::Anything, String::new());
    }

    fn put_in_path(&mut self, weight: Weight, name: &'static str, what: &str, expect: Expect, value: String) {
        self.add(weight, format!("{{{name}}}: {what}"), expect, move |draft| {
            draft.path.insert(name, value.clone());
        });
    }

    fn of_query(&mut self, name: &'static str, required: bool) {
        let (weight, expect) =
            if required { (Weight::Important, Expect::Refused) } else { (Weight::Other, Expect::Anything) };
        self.add(weight, format!("?{name}: missing"), expect, move |draft| {
            draft.query.retain(|(other, _)| *other != name);
        });
        self.add(Weight::Other, format!("?{name}: twice"), Expect::Anything, move |draft| {
            let once: Vec<_> = draft.query.iter().filter(|(other, _)| *other == name).cloned().collect();
            draft.query.extend(once);
        });
        let values = [
            ("NUL", Weight::Important, "a%00b".to_owned()),
            ("not UTF-8", Weight::Other, "%FF".to_owned()),
            ("empty", Weight::Other, String::new()),
            ("a word", Weight::Other, "x".to_owned()),
            ("true", Weight::Other, "true".to_owned()),
            ("zero", Weight::Other, "0".to_owned()),
            ("negative", Weight::Other, "-1".to_owned()),
            ("a fraction", Weight::Other, "1.5".to_owned()),
            ("2^53 and more", Weight::Other, "9007199254740993".to_owned()),
            ("30 digits", Weight::Other, "9".repeat(30)),
            ("an object", Weight::Other, escape("{\"a\":[null]}")),
            ("300 bytes", Weight::Other, "x".repeat(300)),
            ("20,000 bytes", Weight::Rare, "x".repeat(20_000)),
        ];
        let tokens = [
            ("the last token", Weight::Important, format!("s{}", i64::MAX)),
            ("the first token", Weight::Important, "s0".to_owned()),
        ];
        let tokens = tokens.into_iter().filter(|_| TOKENS.contains(&name));
        for (what, weight, value) in values.into_iter().chain(tokens) {
            self.add(weight, format!("?{name}: {what}"), Expect::Anything, move |draft| {
                draft.query.retain(|(other, _)| *other != name);
                draft.query.push((name, value.clone()));
            });
        }
    }

    fn of_whole_body(&mut self, operation: &Operation, schema: Node) {
        let whole = |text: String| move |draft: &mut Draft| draft.body = Some(text.clone().into_bytes());
        let asks = schema.places(&json!({})).iter().any(|place| place.required && place.depth() == 1);
        let empty = if asks && !LENIENT.contains(&operation.id) { Expect::Refused } else { Expect::Anything };
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        let is_closed = CLOSED.contains(&operation.id);
        let not_json = if is_closed { Expect::Refused } else { Expect::Refusal(400, "M_NOT_JSON") };
        self.add(Weight::Important, "no body", empty, |draft| (draft.body, draft.content_type) = (None, None));
        for text in ["[]", "null", "7", "\"text\"", "[{}]"] {
            self.add(Weight::Other, format!("the body is {text}"), Expect::Anything, whole(text.to_owned()));
        }
        self.add(Weight::Important, "10,000 levels", Expect::Anything, whole(deep.clone()));
        self.add(Weight::Important, "10,000 levels in a property", Expect::Anything, move |draft| {
            draft.add_to_body(format!("\"deep\":{deep}").as_bytes());
        });
        self.add(Weight::Important, "cut short", not_json, |draft| {
            draft.body.as_mut().unwrap().pop();
        });
        self.add(Weight::Other, "two bodies", not_json, |draft| draft.body.as_mut().unwrap().extend(b"{}"));
        self.add(Weight::Important, "not UTF-8", not_json, |draft| draft.add_to_body(b"\"text\":\"\xFF\""));
        let is_closed = KEYED.contains(&operation.id) || SIGNED.contains(&operation.id);
        let later = if is_closed { Expect::Anything } else { Expect::AsValid };
        self.add(Weight::Important, "a property of a later version", later, |draft| {
            draft.add_to_body(b"\"org.example.later\":{\"a\":[1]}");
        });
        self.add(Weight::Important, "a property twice", Expect::Anything, |draft| {
            let first = draft.valid.as_object().and_then(|object| object.iter().next());
            let first =
                first.map_or_else(|| "\"x\":1,\"x\":2".to_owned(), |(name, value)| format!("{}:{value}", json!(name)));
            draft.add_to_body(first.as_bytes());
        });
        self.add(Weight::Other, "a character set", Expect::AsValid, |draft| {
            draft.content_type = Some("application/json; charset=utf-8");
        });
        for content_type in
            [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("multipart/form-data")]
        {
            let name = format!("content type {}", content_type.unwrap_or("missing"));
            self.add(Weight::Other, name, Expect::Anything, move |draft| draft.content_type = content_type);
        }
    }

    /// Whatever a file is and is called, it is taken.
    fn of_bytes(&mut self) {
        for (what, body) in [("no body", None), ("one byte", Some(vec![0])), ("a page", Some(b"<script>".to_vec()))] {
            self.add(Weight::Important, what, Expect::AsValid, move |draft| draft.body.clone_from(&body));
        }
        for content_type in [None, Some("text/html"), Some("nothing like a type"), Some("image/svg+xml; a=\"b\"")] {
            let name = format!("content type {}", content_type.unwrap_or("missing"));
            self.add(Weight::Important, name, Expect::AsValid, move |draft| draft.content_type = content_type);
        }
    }

    fn of_place(&mut self, operation: &Operation, place: &Place) {
        if place.required {
            let expect = if LENIENT.contains(&operation.id) { Expect::Anything } else { Expect::Refused };
            let missing = place.clone();
            self.add(Weight::Important, format!("{place}: missing"), expect, move |draft| {
                draft.body = Some(missing.remove(&draft.valid));
            });
        }
        let mut put = |weight: Weight, what: &str, json: String| {
            let at = place.clone();
            self.add(weight, format!("{place}: {what}"), Expect::Anything, move |draft| {
                draft.body = Some(at.put(&draft.valid, &json));
            });
        };
        let (texts, kinds) = match (place.is_text, place.depth()) {
            (true, 0..=2) => (Weight::Important, Weight::Other),
            (true, _) => (Weight::Other, Weight::Rare),
            (false, 0..=2) => (Weight::Other, Weight::Other),
            (false, _) => (Weight::Rare, Weight::Rare),
        };
        put(texts, "NUL", r#""a\u0000b""#.to_owned());
        put(texts, "half a surrogate pair", r#""\ud800""#.to_owned());
        put(texts, "300 characters", format!("\"{}\"", "x".repeat(300)));
        put(texts, "70,000 characters", format!("\"{}\"", "x".repeat(70_000)));
        for json in ["null", "\"x\"", "\"\"", "0", "7", "-1", "1.5", "true", "[]", "[null]", "{}", "{\"a\":[{}]}"] {
            put(kinds, json, json.to_owned());
        }
        for number in ["9007199254740993", "1e400", "123456789012345678901234567890", "-9223372036854775808"] {
            put(kinds, number, number.to_owned());
        }
    }
}

/// Something of the right form that is not there, and what is said of it.
fn unknown(operation: &Operation, name: &str) -> Option<(&'static str, Expect)> {
    let declared = operation.responses.contains_key(&403) || operation.responses.contains_key(&404);
    let expect_if = |told: bool| if told { Expect::OneOf(&[403, 404]) } else { Expect::Anything };
    let told = expect_if(declared && !SILENT.contains(&operation.id));
    if operation.auth == Auth::Servers {
        // What the body says is held against the path, which may be wrong in that.
        return match name {
            "roomId" => Some(("!31hneApxJ_1o-63DmFrpeqnkFfWppnzWso1JvH3ogLM", Expect::Refused)),
            "eventId" => Some(("$31hneApxJ_1o-63DmFrpeqnkFfWppnzWso1JvH3ogLM", Expect::Refused)),
            "userId" => Some(("@nobody:localhost", Expect::Refused)),
            _ => None,
        };
    }
    match name {
        "roomId" | "roomIdOrAlias" => {
            Some(("!31hneApxJ_1o-63DmFrpeqnkFfWppnzWso1JvH3ogLM", expect_if(!ANY_ROOM.contains(&operation.id))))
        }
        // Whoever makes an alias names one that is not there.
        "roomAlias" if operation.id == "setRoomAlias" => None,
        "roomAlias" => Some(("#nowhere:localhost", told)),
        "userId" => Some(("@nobody:localhost", told)),
        "eventId" => Some(("$31hneApxJ_1o-63DmFrpeqnkFfWppnzWso1JvH3ogLM", told)),
        "deviceId" => Some(("NONESUCH", told)),
        "filterId" => Some(("nonesuch", told)),
        "mediaId" => Some(("nonesuch", expect_if(true))),
        _ => None,
    }
}

/// An example as the texts that a parameter takes: several, if it is a list.
fn texts(example: &Value) -> Vec<String> {
    match example {
        Value::String(text) => vec![text.clone()],
        Value::Array(items) => items.iter().flat_map(texts).collect(),
        Value::Object(_) | Value::Null => Vec::new(),
        plain => vec![plain.to_string()],
    }
}
