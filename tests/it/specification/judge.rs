//! Whether an answer keeps to the specification.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#standard-error-response>

use serde_json::Value;

use super::data::Operation;

/// What the server said.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) content_type: String,
    pub(super) body: Vec<u8>,
}

/// What a request should lead to, beside an answer that keeps to the specification.
#[derive(Clone, Copy)]
pub(super) enum Expect {
    Anything,
    /// What the valid request leads to.
    AsValid,
    Success,
    Refusal(u16, &'static str),
    /// With whatever the client did wrong.
    Refused,
    OneOf(&'static [u16]),
    Not(u16),
}

/// Error codes and the statuses that they usually have. An endpoint may name another one.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#common-error-codes> and
/// <https://spec.matrix.org/v1.19/client-server-api/#other-error-codes>
const USUAL: [(&str, &[u16]); 27] = [
    ("M_BAD_ALIAS", &[400]),
    ("M_BAD_JSON", &[400]),
    ("M_CANNOT_LEAVE_SERVER_NOTICE_ROOM", &[403]),
    ("M_DUPLICATE_ANNOTATION", &[400]),
    ("M_EXCLUSIVE", &[400]),
    ("M_FORBIDDEN", &[403]),
    ("M_GUEST_ACCESS_FORBIDDEN", &[403]),
    ("M_INVALID_PARAM", &[400]),
    ("M_INVALID_ROOM_STATE", &[400]),
    ("M_INVALID_USERNAME", &[400]),
    ("M_LIMIT_EXCEEDED", &[429]),
    ("M_MISSING_PARAM", &[400]),
    ("M_MISSING_TOKEN", &[401]),
    ("M_NOT_FOUND", &[404]),
    ("M_NOT_JSON", &[400]),
    ("M_PROFILE_TOO_LARGE", &[400]),
    ("M_ROOM_IN_USE", &[400]),
    ("M_TOO_LARGE", &[413]),
    ("M_UNKNOWN", &[400]),
    ("M_UNKNOWN_TOKEN", &[401]),
    ("M_UNRECOGNIZED", &[404, 405]),
    ("M_UNSUPPORTED_ROOM_VERSION", &[400]),
    ("M_USER_DEACTIVATED", &[403]),
    ("M_USER_IN_USE", &[400]),
    ("M_USER_LOCKED", &[401]),
    ("M_USER_SUSPENDED", &[403]),
    ("M_WEAK_PASSWORD", &[400]),
];

/// Where a deployed client wants `null` for what the specification leaves out (matrix-nio, of devices; older ones, of
/// the members of a room).
const WITH_NULL: [&str; 3] = ["getDevice", "getDevices", "getJoinedMembersByRoom"];

fn without_null(body: Value) -> Value {
    match body {
        Value::Object(entries) => entries
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key, without_null(value)))
            .collect(),
        Value::Array(items) => items.into_iter().map(without_null).collect(),
        other => other,
    }
}

impl Answer {
    pub(super) fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }

    pub(super) fn errcode(&self) -> Option<String> {
        self.json()?["errcode"].as_str().map(ToOwned::to_owned)
    }

    /// The beginning of the body.
    pub(super) fn excerpt(&self) -> String {
        String::from_utf8_lossy(&self.body).chars().take(200).collect()
    }

    /// What is wrong with this as an answer of an endpoint.
    pub(super) fn faults(&self, operation: &Operation) -> Vec<String> {
        match self.status {
            500.. => vec!["the server has failed".to_owned()],
            400..=499 => self.faults_of_refusal(operation),
            status => match operation.responses.get(&status).map(|response| response.schema) {
                Some(Some(schema)) => match self.read() {
                    Ok(body) if WITH_NULL.contains(&operation.id) => schema.faults(&without_null(body)),
                    Ok(body) => schema.faults(&body),
                    Err(fault) => vec![fault],
                },
                Some(None) => Vec::new(),
                None => vec!["the specification has no such status here".to_owned()],
            },
        }
    }

    fn faults_of_refusal(&self, operation: &Operation) -> Vec<String> {
        let body = match self.read() {
            Ok(body) => body,
            Err(fault) => return vec![fault],
        };
        if self.status == 401 && body.get("flows").is_some() {
            // The endpoint wants to see the password, or whatever shows who is there.
            let schema = operation.responses.get(&401).and_then(|response| response.schema);
            return schema
                .map_or_else(|| vec!["no authentication is due here".to_owned()], |schema| schema.faults(&body));
        }
        let mut faults = Vec::new();
        if body["error"].as_str().is_none_or(str::is_empty) {
            faults.push("there is no `error`".to_owned());
        }
        match body["errcode"].as_str() {
            Some(code) if code.starts_with("M_") => {
                let statuses = statuses(operation, code);
                if !statuses.is_empty() && !statuses.contains(&self.status) {
                    faults.push(format!("{code} has the status {statuses:?}"));
                }
            }
            code => faults.push(format!("the `errcode` is {code:?}")),
        }
        faults
    }

    fn read(&self) -> Result<Value, String> {
        if self.content_type != "application/json" {
            return Err(format!("the content type is {:?}", self.content_type));
        }
        serde_json::from_slice(&self.body).map_err(|error| format!("the body can't be read: {error}"))
    }
}

/// The statuses that an error code may have: the usual ones, and those in the examples of the endpoint. None where
/// nothing is said.
fn statuses(operation: &Operation, code: &str) -> Vec<u16> {
    let usual = USUAL.iter().find(|(usual, _)| *usual == code).map_or(&[][..], |(_, statuses)| statuses);
    let shows = |examples: &[Value]| examples.iter().any(|example| example["errcode"] == code);
    let shown = operation.responses.iter().filter(|(_, response)| shows(&response.examples)).map(|(status, _)| *status);
    usual.iter().copied().chain(shown).collect()
}

impl Expect {
    /// How an answer falls short of this.
    pub(super) fn unmet(self, answer: &Answer, valid: Self) -> Option<String> {
        let status = answer.status;
        let (met, what) = match self {
            Self::Anything => return None,
            Self::AsValid => return valid.unmet(answer, Self::Anything),
            Self::Success => (status == 200, "should be a success".to_owned()),
            Self::Refusal(expected, code) => {
                let is_it = status == expected && answer.errcode().as_deref() == Some(code);
                (is_it, format!("should be {expected} {code}"))
            }
            Self::Refused => ((400..500).contains(&status), "should be refused".to_owned()),
            Self::OneOf(statuses) => (statuses.contains(&status), format!("should be one of {statuses:?}")),
            Self::Not(unexpected) => (status != unexpected, format!("should not be {unexpected}")),
        };
        (!met).then_some(what)
    }
}

mod tests {
    use std::path::Path;

    use super::*;
    use crate::specification::data::{self, Data};

    fn operation() -> Operation {
        let text = r"
            servers: [{ variables: { basePath: { default: /_matrix } } }]
            paths:
              /thing:
                post:
                  operationId: makeThing
                  responses:
                    '200': { content: { application/json: { schema: { type: object, required: [id] } } } }
                    '401': { content: { application/json: { schema: { required: [flows] } } } }
                    '409':
                      content:
                        application/json: { schema: {}, examples: { one: { value: { errcode: M_UNKNOWN } } } }
        ";
        data::operations(Data::of(&[("thing.yaml", text)]).file(Path::new("thing.yaml"))).remove(0)
    }

    fn faults(status: u16, body: &str) -> usize {
        let answer = Answer { status, content_type: "application/json".to_owned(), body: body.as_bytes().to_vec() };
        answer.faults(&operation()).len()
    }

    #[test]
    fn successes_match_their_schema() {
        assert_eq!(faults(200, r#"{"id":1}"#), 0);
        for body in ["{}", "[]", "", "{"] {
            assert_eq!(faults(200, body), 1, "{body}");
        }
        assert_eq!(faults(201, r#"{"id":1}"#), 1);
        assert_eq!(faults(500, r#"{"errcode":"M_UNKNOWN","error":"Broken"}"#), 1);
    }

    #[test]
    fn refusals_have_a_code_a_message_and_the_status_of_the_code() {
        assert_eq!(faults(404, r#"{"errcode":"M_NOT_FOUND","error":"No such thing"}"#), 0);
        assert_eq!(faults(403, r#"{"errcode":"M_NOT_FOUND","error":"No such thing"}"#), 1);
        assert_eq!(faults(404, r#"{"errcode":"M_NOT_FOUND"}"#), 1);
        assert_eq!(faults(404, r#"{"errcode":"NOT_FOUND","error":"No such thing"}"#), 1);
        assert_eq!(faults(404, "not found"), 1);
        for status in [400, 409] {
            assert_eq!(faults(status, r#"{"errcode":"M_UNKNOWN","error":"No"}"#), 0);
        }
        assert_eq!(faults(418, r#"{"errcode":"M_SOMETHING_ELSE","error":"No"}"#), 0);
        assert_eq!(faults(401, r#"{"flows":[]}"#), 0);
    }

    #[test]
    fn expectations() {
        let json = |status, body: &str| Answer { status, content_type: String::new(), body: body.as_bytes().to_vec() };
        let refusal = json(403, r#"{"errcode":"M_FORBIDDEN","error":"No"}"#);
        let unmet = |expect: Expect| expect.unmet(&refusal, Expect::Refusal(403, "M_FORBIDDEN")).is_some();
        assert!(!unmet(Expect::AsValid) && !unmet(Expect::Refused) && !unmet(Expect::OneOf(&[403, 404])));
        assert!(unmet(Expect::Success) && unmet(Expect::Refusal(403, "M_NOT_FOUND")) && unmet(Expect::Not(403)));
        assert!(unmet(Expect::OneOf(&[404])));
    }
}
