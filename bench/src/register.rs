//! How the generator gets its users.
//!
//! Either as any client does, through user-interactive authentication
//! (<https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3register>), or with the shared secret
//! of Synapse's administration API, where registration is closed.

use anyhow::{Context as _, Result, bail};
use aws_lc_rs::hmac;
use bytes::Bytes;
use hyper::header::HeaderValue;
use hyper::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use crate::client::{Client, User, success};

const REGISTER: &str = "/_matrix/client/v3/register";
const LOGIN: &str = "/_matrix/client/v3/login";
const SHARED_SECRET_REGISTER: &str = "/_synapse/admin/v1/register";
/// More steps than a registration of the two known stages ever takes.
const STEPS: usize = 4;

/// The way in.
#[derive(Debug, Clone)]
pub(crate) enum Registrar {
    /// `m.login.dummy`, after `m.login.registration_token` where there is a token.
    Interactive {
        token: Option<String>,
    },
    SharedSecret(String),
}

#[derive(Deserialize)]
struct Registered {
    user_id: String,
    device_id: String,
    access_token: String,
}

impl Registrar {
    /// Registers one user and keeps the device it comes with.
    pub(crate) async fn register(&self, client: &mut Client, username: &str, password: &str) -> Result<User> {
        let registered = match self {
            Self::Interactive { token } => interactive(client, username, password, token.as_deref()).await,
            Self::SharedSecret(secret) => with_secret(client, username, password, secret).await,
        };
        registered.context("a user could not be registered")?.user()
    }
}

impl Registered {
    fn user(self) -> Result<User> {
        let mut authorization = HeaderValue::from_str(&format!("Bearer {}", self.access_token))
            .context("the access token does not fit into a header")?;
        authorization.set_sensitive(true);
        Ok(User { id: self.user_id, device_id: self.device_id, authorization })
    }
}

/// Logs a user in on one more device (<https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3login>).
pub(crate) async fn log_in(client: &mut Client, user_id: &str, password: &str) -> Result<User> {
    #[derive(Serialize)]
    struct Request<'a> {
        r#type: &'static str,
        identifier: Identifier<'a>,
        password: &'a str,
    }
    #[derive(Serialize)]
    struct Identifier<'a> {
        r#type: &'static str,
        user: &'a str,
    }
    let identifier = Identifier { r#type: "m.id.user", user: user_id };
    let request = Request { r#type: "m.login.password", identifier, password };
    let logged_in: Registered = client.post(LOGIN, &request).await.context("a user could not log in")?;
    logged_in.user()
}

/// A 401 of user-interactive authentication: what may be done next.
#[derive(Deserialize)]
struct Challenge {
    flows: Vec<Flow>,
    #[serde(default)]
    completed: Vec<String>,
    session: Option<String>,
    /// Why the last stage was not accepted.
    error: Option<String>,
}

#[derive(Deserialize)]
struct Flow {
    stages: Vec<String>,
}

#[derive(Serialize)]
struct Stage<'a> {
    r#type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
}

async fn interactive(client: &mut Client, username: &str, password: &str, token: Option<&str>) -> Result<Registered> {
    #[derive(Serialize)]
    struct Request<'a> {
        username: &'a str,
        password: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        auth: Option<Stage<'a>>,
    }
    let mut auth = None;
    for _ in 0..STEPS {
        let body = serde_json::to_vec(&Request { username, password, auth })?;
        let answer = client.exchange(&Method::POST, REGISTER, body.into()).await?;
        if answer.status != StatusCode::UNAUTHORIZED {
            let body = success(&Method::POST, REGISTER, answer)?;
            return serde_json::from_slice(&body).context("unexpected JSON in answer to a registration");
        }
        let challenge: Challenge = serde_json::from_slice(&answer.body)
            .context("the server asks for authentication but names no flows: is registration open?")?;
        auth = Some(next_stage(challenge, token)?);
    }
    bail!("registration is not complete after {STEPS} stages");
}

/// The first open stage of a flow that the generator can complete.
fn next_stage(challenge: Challenge, token: Option<&str>) -> Result<Stage<'_>> {
    if let Some(error) = challenge.error {
        bail!("the server did not accept a stage of registration: {error}");
    }
    let known = |stage: &String| match stage.as_str() {
        "m.login.dummy" => true,
        "m.login.registration_token" => token.is_some(),
        _ => false,
    };
    let Some(flow) = challenge.flows.into_iter().find(|flow| flow.stages.iter().all(known)) else {
        bail!(
            "no registration flow consists of m.login.dummy (and m.login.registration_token, given \
             --registration-token): open the server's registration or use --shared-secret"
        );
    };
    let Some(stage) = flow.stages.into_iter().find(|stage| !challenge.completed.contains(stage)) else {
        bail!("every stage of registration is complete, yet the server asks for more");
    };
    let token = token.filter(|_| stage == "m.login.registration_token");
    Ok(Stage { r#type: stage, session: challenge.session, token })
}

async fn with_secret(client: &mut Client, username: &str, password: &str, secret: &str) -> Result<Registered> {
    #[derive(Deserialize)]
    struct Nonce {
        nonce: String,
    }
    #[derive(Serialize)]
    struct Request<'a> {
        nonce: &'a str,
        username: &'a str,
        password: &'a str,
        admin: bool,
        mac: String,
    }
    let answer = client.call(&Method::GET, SHARED_SECRET_REGISTER, Bytes::new()).await?;
    let Nonce { nonce } = serde_json::from_slice(&answer).context("no nonce for the shared secret")?;
    let mac = mac(secret, &[nonce.as_str(), username, password, "notadmin"]);
    client.post(SHARED_SECRET_REGISTER, &Request { nonce: &nonce, username, password, admin: false, mac }).await
}

/// HMAC-SHA1 in hexadecimal over the parts, with a NUL byte between them.
fn mac(secret: &str, parts: &[&str]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
    let tag = hmac::sign(&key, parts.join("\0").as_bytes());
    let hex: Vec<String> = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    hex.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(flows: &[&[&str]], completed: &[&str]) -> Challenge {
        let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        Challenge {
            flows: flows.iter().map(|stages| Flow { stages: owned(stages) }).collect(),
            completed: owned(completed),
            session: Some("s".to_owned()),
            error: None,
        }
    }

    #[test]
    fn the_first_flow_of_known_stages_is_taken() {
        let stage = next_stage(challenge(&[&["m.login.email.identity"], &["m.login.dummy"]], &[]), None).unwrap();
        assert_eq!(stage.r#type, "m.login.dummy");
        assert_eq!(stage.session.as_deref(), Some("s"));
    }

    #[test]
    fn the_token_goes_only_with_its_stage() {
        let flow: &[&[&str]] = &[&["m.login.registration_token", "m.login.dummy"]];
        assert!(next_stage(challenge(flow, &[]), None).is_err());
        assert_eq!(next_stage(challenge(flow, &[]), Some("t")).unwrap().token, Some("t"));
        let second = next_stage(challenge(flow, &["m.login.registration_token"]), Some("t")).unwrap();
        assert_eq!((second.r#type.as_str(), second.token), ("m.login.dummy", None));
    }

    #[test]
    fn mac_is_that_of_the_rfc() {
        // RFC 2202, test case 2.
        assert_eq!(mac("Jefe", &["what do ya want for nothing?"]), "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79");
    }
}
