//! Why another server has not done what it was asked to: what its operator has to know, and what a client may.
//!
//! No error of another server reaches a client as its own. One that said that the token is not known would log the client
//! out. Those codes are passed on that mean the same wherever they come from, with the status that goes with them here.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#standard-error-response>

use std::{error::Error as _, io};

use http::StatusCode;
use ruma::{ServerName, api::error::DeserializationError};
use serde_json::Value;

use crate::{
    edge::{
        discovery::{NameError, NoRoute},
        outside_client::NothingOutside,
    },
    error::Error,
    ground::cause,
};

/// How much is kept of what another server says, in characters.
const MAX_MESSAGE: usize = 300;
const MAX_CODE: usize = 100;

/// What clients may read of others' refusals: the code, its status, and the code that it has here.
const PASSED_ON: [(&str, u16, &str); 9] = [
    ("M_FORBIDDEN", 403, "M_FORBIDDEN"),
    ("M_NOT_FOUND", 404, "M_NOT_FOUND"),
    ("M_UNABLE_TO_AUTHORISE_JOIN", 400, "M_UNABLE_TO_AUTHORISE_JOIN"),
    ("M_UNABLE_TO_GRANT_JOIN", 400, "M_UNABLE_TO_GRANT_JOIN"),
    // To this server the room's version is named, which is for no client.
    ("M_INCOMPATIBLE_ROOM_VERSION", 400, "M_UNSUPPORTED_ROOM_VERSION"),
    ("M_UNSUPPORTED_ROOM_VERSION", 400, "M_UNSUPPORTED_ROOM_VERSION"),
    ("M_INVITE_BLOCKED", 403, "M_INVITE_BLOCKED"),
    ("M_BAD_STATE", 400, "M_BAD_STATE"),
    ("M_TOO_LARGE", 413, "M_TOO_LARGE"),
];

/// Why there is no answer to what another server was asked. Its text is for operators.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RemoteError {
    /// This server asks no others.
    #[error("this server does not federate")]
    Off,
    /// By the operator's lists, or because its address is in a network that is not public.
    #[error(
        "this server may have nothing to do with it: see `allowed_servers`, `denied_servers` and `allowed_networks`"
    )]
    NotAllowed,
    /// It was not found, does not listen, has no good certificate, or does not answer in time.
    #[error("it can't be reached: {0}")]
    Unreachable(String),
    /// It has answered that it does not do it. A code is there if it was one of Matrix.
    #[error("it refuses with {status} {}: {message}", errcode.as_deref().unwrap_or("and no code"))]
    Refused { status: u16, errcode: Option<String>, message: String },
    /// Its answer is not what the specification says, or is too long.
    #[error("{0}")]
    Malformed(String),
}

impl RemoteError {
    pub(super) fn slow() -> Self {
        Self::Unreachable("it takes too long to answer".to_owned())
    }

    /// What a library says.
    pub(super) fn of(error: &reqwest::Error) -> Self {
        if error.is_timeout() {
            return Self::slow();
        }
        // The outermost ones name the address and say that something has failed, the innermost says what.
        let mut reason = None;
        let mut next = error.source();
        while let Some(inner) = next {
            if inner.is::<NothingOutside>() {
                return Self::NotAllowed;
            }
            reason = Some(inner.downcast_ref::<io::Error>().map_or_else(|| inner.to_string(), cause::in_words));
            if inner.is::<NameError>() {
                break;
            }
            next = inner.source();
        }
        Self::Unreachable(shorten(&reason.unwrap_or_else(|| "the connection has failed".to_owned())))
    }

    /// What an answer says that is no success.
    pub(super) fn refused(status: StatusCode, body: &[u8]) -> Self {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |key: &str| body.get(key).and_then(Value::as_str);
        let is_code = |code: &&str| {
            let fits = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
            (1..=MAX_CODE).contains(&code.len()) && code.bytes().all(fits)
        };
        let errcode = text("errcode").filter(is_code).map(ToOwned::to_owned);
        let message = text("error").map_or_else(|| "it gives no reason".to_owned(), shorten);
        Self::Refused { status: status.as_u16(), errcode, message }
    }

    /// An answer that can't be read, without what it says: that may be somebody's message.
    pub(super) fn unreadable(path: &str, error: &DeserializationError) -> Self {
        let what = match error {
            DeserializationError::Json(error) => {
                let kind = if error.is_data() { "has another shape" } else { "is no JSON" };
                format!("{kind}, at line {} and column {}", error.line(), error.column())
            }
            DeserializationError::Header(_) => "has other headers".to_owned(),
            _ => "can't be read".to_owned(),
        };
        Self::Malformed(format!("its answer to {path} is not as specified: it {what}"))
    }

    /// For the metrics.
    pub(super) fn outcome(&self) -> &'static str {
        match self {
            Self::Off | Self::NotAllowed => "not_allowed",
            Self::Unreachable(_) => "unreachable",
            Self::Refused { .. } => "refused",
            Self::Malformed(_) => "malformed",
        }
    }

    /// What a client is told on whose behalf the server was asked. It names the server.
    pub(crate) fn for_client(&self, server: &ServerName) -> Error {
        let relayed = |status: StatusCode, errcode: &str, message: String| Error::Relayed {
            status: status.as_u16(),
            errcode: errcode.to_owned(),
            message,
        };
        match self {
            Self::Off => Error::forbidden("This server does not federate"),
            Self::NotAllowed => Error::forbidden(format!("This server may have nothing to do with {server}")),
            Self::Unreachable(_) => {
                relayed(StatusCode::GATEWAY_TIMEOUT, "M_UNKNOWN", format!("{server} can't be reached. Try again later"))
            }
            Self::Refused { errcode, message, .. } => {
                let known = PASSED_ON.iter().find(|(code, ..)| errcode.as_deref() == Some(*code));
                let (status, errcode) = known.map_or((502, "M_UNKNOWN"), |(_, status, errcode)| (*status, *errcode));
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
                relayed(status, errcode, format!("{server} refuses: {message}"))
            }
            Self::Malformed(_) => {
                relayed(StatusCode::BAD_GATEWAY, "M_UNKNOWN", format!("The answer of {server} makes no sense"))
            }
        }
    }
}

impl From<NoRoute> for RemoteError {
    fn from(error: NoRoute) -> Self {
        match error {
            NoRoute::Inside => Self::NotAllowed,
            NoRoute::NotAName(_) | NoRoute::Port(_) => Self::Unreachable(error.to_string()),
        }
    }
}

/// One line of what another server says, and not much of it.
fn shorten(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).take(MAX_MESSAGE).collect()
}

#[cfg(test)]
mod tests {
    use ruma::server_name;
    use serde_json::json;

    use super::*;

    fn refused(status: u16, body: &Value) -> RemoteError {
        RemoteError::refused(StatusCode::from_u16(status).unwrap(), body.to_string().as_bytes())
    }

    fn to_client(error: &RemoteError) -> (u16, String, String) {
        match error.for_client(server_name!("far.example")) {
            Error::Relayed { status, errcode, message } => (status, errcode, message),
            Error::Refused { kind, message } => (403, kind.errcode().to_string(), message),
            other => panic!("{other:?}"),
        }
    }

    /// Another server's `M_UNKNOWN_TOKEN` or 401 logs the client out (Synapse 1.157.2).
    #[test]
    fn no_error_code_of_another_server_reaches_a_client_as_such() {
        for status in [400, 401, 403, 404, 429, 500, 502] {
            for code in [
                "M_UNKNOWN_TOKEN",
                "M_MISSING_TOKEN",
                "M_UNAUTHORIZED",
                "M_USER_DEACTIVATED",
                "M_USER_LOCKED",
                "M_USER_SUSPENDED",
                "M_LIMIT_EXCEEDED",
                "M_CONSENT_NOT_GIVEN",
                "M_UNRECOGNIZED",
                "ORG.EXAMPLE.MADE_UP",
            ] {
                let (status, errcode, message) =
                    to_client(&refused(status, &json!({ "errcode": code, "error": "no" })));
                assert_eq!((status, errcode.as_str()), (502, "M_UNKNOWN"), "{code}");
                assert_eq!(message, "far.example refuses: no");
            }
            for (code, expected, ours) in PASSED_ON {
                let (seen, errcode, _) = to_client(&refused(status, &json!({ "errcode": code, "error": "no" })));
                assert_eq!((seen, errcode.as_str()), (expected, ours), "whatever status it came with");
            }
        }
        for error in [
            RemoteError::Off,
            RemoteError::NotAllowed,
            RemoteError::Unreachable("10.0.0.1 refuses".to_owned()),
            RemoteError::Malformed("garbage".to_owned()),
        ] {
            let (status, errcode, message) = to_client(&error);
            assert!(matches!(status, 403 | 502 | 504), "{status}");
            assert!(matches!(&*errcode, "M_FORBIDDEN" | "M_UNKNOWN"), "{errcode}");
            assert!(!message.contains("10.0.0.1") && !message.contains("garbage"), "{message}");
            assert!(error == RemoteError::Off || message.contains("far.example"), "{message}");
        }
    }

    #[test]
    fn of_an_error_only_what_makes_sense_is_kept() {
        let code = |body: Value| match refused(403, &body) {
            RemoteError::Refused { errcode, .. } => errcode,
            other => panic!("{other:?}"),
        };
        assert_eq!(code(json!({ "errcode": "M_FORBIDDEN" })).as_deref(), Some("M_FORBIDDEN"));
        for body in [json!({}), json!([]), json!({ "errcode": 5 }), json!({ "errcode": "" }), json!("M_FORBIDDEN")] {
            assert_eq!(code(body.clone()), None, "{body}");
        }
        assert_eq!(code(json!({ "errcode": "A\nB" })), None);
        assert_eq!(code(json!({ "errcode": "A".repeat(101) })), None);
        let RemoteError::Refused { message, .. } = refused(403, &json!({ "error": "a\nb\u{1b}[31m".repeat(1_000) }))
        else {
            panic!("it is a refusal");
        };
        assert_eq!(message.chars().count(), MAX_MESSAGE);
        assert!(!message.contains(char::is_control), "{message:?}");
        let page = RemoteError::refused(StatusCode::BAD_GATEWAY, b"<html>nginx</html>");
        assert_eq!(page.to_string(), "it refuses with 502 and no code: it gives no reason");
    }

    /// Secrets and messages never reach a log.
    #[test]
    fn what_an_unreadable_answer_holds_is_not_repeated() {
        for text in [r#"{"content":"secret"}"#, r#"{"origin_server_ts":"secret"}"#, "secret"] {
            let error = serde_json::from_str::<u32>(text).unwrap_err();
            let said = RemoteError::unreadable("/path", &DeserializationError::Json(error)).to_string();
            assert!(!said.contains("secret") && said.contains("line 1"), "{said}");
        }
    }
}
