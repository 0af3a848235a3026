//! Identity servers: who is behind an e-mail address or a telephone number, as far as they want that to be known.
//!
//! A client names the server, so it is an address from outside. Only those are asked that the operator trusts, with
//! little time for the answer and a small one, and they send nobody elsewhere.
//!
//! No database transaction is open while one is asked. Errors that a server answers with go to the client as far as
//! they are a Matrix error; whatever else goes wrong is `M_UNKNOWN` with 502, and logged.
//!
//! <https://spec.matrix.org/v1.19/identity-service-api/>

use std::{collections::HashMap, sync::Arc, time::Duration};

use aws_lc_rs::digest;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::StatusCode;
use reqwest::{Client, RequestBuilder, Url};
use ruma::{
    CanonicalJsonObject, OwnedServerName, OwnedUserId, UserId,
    api::error::ErrorKind,
    signatures::{KeyPair as _, to_canonical_json_string_for_signing},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{
    config::{self, IdentityServerUrl},
    edge::http_client::{self, Certificates, ClientOptions},
    error::{Error, Result},
    event::SigningKeys,
};

/// A user waits for these servers, so both are far below what clients wait themselves.
const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(10);
/// The longest answer that is read, in bytes.
const MAX_ANSWER: usize = 64 * 1024;
/// The longest text in an answer that is kept, in bytes.
const MAX_TEXT: usize = 2_048;
/// A server has two: one of its own, and one for this invitation.
const MAX_KEYS: usize = 10;

/// The identity servers that the operator trusts. Cheap to clone.
#[derive(Clone)]
pub(crate) struct IdentityServers(Arc<Inner>);

struct Inner {
    /// `https://`, or `http://` where they are on this machine.
    trusted: Vec<IdentityServerUrl>,
    http: Client,
    server_name: OwnedServerName,
    /// Signs requests to unbind, in this server's name.
    key: SigningKeys,
}

/// One that may be asked.
pub(crate) struct IdentityServer<'a> {
    url: &'a IdentityServerUrl,
    inner: &'a Inner,
}

/// An address that is bound to a user. The medium is `email` or `msisdn`; the address is as the server has normalised
/// it.
#[derive(Debug, Deserialize)]
pub(crate) struct BoundThreepid {
    pub(crate) medium: String,
    pub(crate) address: String,
}

/// An invitation that waits for whoever proves that an address is theirs.
///
/// <https://spec.matrix.org/v1.19/identity-service-api/#post_matrixidentityv2store-invite>
#[derive(Debug, Deserialize)]
pub(crate) struct StoredInvite {
    /// What the invited person presents to join; it goes into the room's `m.room.third_party_invite` as its state key.
    pub(crate) token: String,
    /// Between one and [`MAX_KEYS`], which is checked.
    pub(crate) public_keys: Vec<InviteKey>,
    /// What others may read of the address.
    pub(crate) display_name: String,
}

/// A key whose signature proves that an address is somebody's, unpadded base64.
#[derive(Debug, Deserialize)]
pub(crate) struct InviteKey {
    pub(crate) public_key: String,
    /// Where whoever checks such a signature asks whether the key has been revoked.
    pub(crate) key_validity_url: String,
}

impl IdentityServers {
    /// Fails where a trusted server is `https://` and the machine has no certificates of authorities.
    pub(crate) fn new(config: &config::IdentityConfig, server_name: OwnedServerName, key: SigningKeys) -> Result<Self> {
        let trusted = config.servers.clone();
        let plain = trusted.iter().all(|url| url.as_str().starts_with("http://"));
        let http = http_client::new(ClientOptions {
            whom: "identity servers",
            connect: CONNECT,
            answer: ANSWER,
            // They are out in the world, which some networks reach only so.
            proxy: true,
            certificates: if plain { Certificates::Unused } else { Certificates::Required },
        });
        Ok(Self(Arc::new(Inner { http: http.map_err(Error::broken)?, trusted, server_name, key })))
    }

    /// The server that a client names, if it may be asked. `M_SERVER_NOT_TRUSTED` for any other: a client must not be
    /// able to make this server ask whom it likes.
    pub(crate) fn get(&self, name: &str) -> Result<IdentityServer<'_>> {
        let url = self.0.trusted.iter().find(|url| url.name().eq_ignore_ascii_case(name));
        let url = url.ok_or_else(|| {
            let known: Vec<&str> = self.0.trusted.iter().map(IdentityServerUrl::name).collect();
            let message = match &*known {
                [] => "This server asks no identity server".to_owned(),
                known => format!("This server asks no other identity server than {}", known.join(", ")),
            };
            Error::refused(ErrorKind::ServerNotTrusted, message)
        })?;
        Ok(IdentityServer { url, inner: &self.0 })
    }

    /// Whether a key is still good, says the server that it came from. The URL comes from a room's state, which a
    /// stranger may have written: it must lie under that of a trusted server.
    ///
    /// <https://spec.matrix.org/v1.19/identity-service-api/#get_matrixidentityv2pubkeyisvalid>
    pub(crate) async fn is_key_valid(&self, validity_url: &str, public_key: &str) -> Result<bool> {
        #[derive(Deserialize)]
        struct Validity {
            valid: bool,
        }
        let url = self.0.trusted.iter().find(|url| is_own(url, validity_url)).ok_or_else(|| {
            let message = "The invitation was signed with a key of an identity server that this server does not trust";
            Error::refused(ErrorKind::ServerNotTrusted, message)
        })?;
        let server = IdentityServer { url, inner: &self.0 };
        let mut validity_url = Url::parse(validity_url).map_err(|e| server.makes_no_sense(&e))?;
        validity_url.query_pairs_mut().append_pair("public_key", public_key);
        let validity: Validity = server.ask(self.0.http.get(validity_url)).await?;
        Ok(validity.valid)
    }
}

/// Whether an identity server is asked itself at a URL, by its scheme, host and port, and nothing is asked there but
/// what is added.
fn is_own(server: &IdentityServerUrl, validity_url: &str) -> bool {
    // The rest has to begin with a slash, or `https://id.example` would vouch for `https://id.example.net` too.
    let rest = validity_url.strip_prefix(server.as_str()).filter(|rest| rest.starts_with('/'));
    rest.is_some_and(|rest| !rest.contains(['?', '#']))
}

impl IdentityServer<'_> {
    /// Host and port, as clients call it.
    pub(crate) fn name(&self) -> &str {
        self.url.name()
    }

    /// Publishes whose address it is that was proved to this server. `token` is the user's at the identity server,
    /// `sid` and `client_secret` name the session in which they proved the address there.
    ///
    /// <https://spec.matrix.org/v1.19/identity-service-api/#post_matrixidentityv23pidbind>
    pub(crate) async fn bind(
        &self,
        token: &str,
        sid: &str,
        client_secret: &str,
        user_id: &UserId,
    ) -> Result<BoundThreepid> {
        let body = json!({ "sid": sid, "client_secret": client_secret, "mxid": user_id });
        let bound: BoundThreepid = self.ask(self.post("3pid/bind", &body).bearer_auth(check_token(token)?)).await?;
        self.check_texts([&bound.medium, &bound.address])?;
        Ok(bound)
    }

    /// Has it forget whose address this is, and returns whether it knows how to forget. The request is signed as those
    /// between homeservers are, but identity servers look for `destination_is` where those say `destination`. This
    /// server vouches for the user by its signature: nobody needs a session or a token there.
    ///
    /// <https://spec.matrix.org/v1.19/identity-service-api/#post_matrixidentityv23pidunbind>
    pub(crate) async fn unbind(&self, user_id: &UserId, medium: &str, address: &str) -> Result<bool> {
        let body = json!({ "mxid": user_id, "threepid": { "medium": medium, "address": address } });
        let signed = json!({
            "method": "POST",
            "uri": path("3pid/unbind"),
            "origin": self.inner.server_name,
            "destination_is": self.name(),
            "content": body,
        });
        let signed: CanonicalJsonObject = serde_json::from_value(signed).map_err(Error::broken)?;
        let signed = to_canonical_json_string_for_signing(&signed).map_err(Error::broken)?;
        let key = self.inner.key.current();
        let signature = key.sign(signed.as_bytes()).base64();
        let authorization = format!(
            "X-Matrix origin=\"{}\",key=\"{}\",sig=\"{signature}\",destination=\"{}\"",
            self.inner.server_name,
            key.id(),
            self.name(),
        );
        let request = self.post("3pid/unbind", &body).header(http::header::AUTHORIZATION, authorization);
        let (status, body) = self.send(request).await?;
        // Answers of a server that has no such endpoint. One that has it and refuses says so with a Matrix error.
        let is_unsupported = matches!(
            status,
            StatusCode::BAD_REQUEST
                | StatusCode::NOT_FOUND
                | StatusCode::METHOD_NOT_ALLOWED
                | StatusCode::NOT_IMPLEMENTED
        ) && RelayedError::read(&body).is_none();
        if status.is_success() {
            Ok(true)
        } else if is_unsupported {
            Ok(false)
        } else {
            Err(self.refused(status, &body))
        }
    }

    /// The users who are known by these addresses, each given with its medium. The server gets salted hashes and not
    /// the addresses themselves, so that it learns only those that it knows.
    ///
    /// <https://spec.matrix.org/v1.19/identity-service-api/#association-lookup>
    pub(crate) async fn lookup(&self, token: &str, addresses: &[(&str, &str)]) -> Result<Vec<Option<OwnedUserId>>> {
        #[derive(Deserialize)]
        struct HashDetails {
            lookup_pepper: String,
            algorithms: Vec<String>,
        }
        #[derive(Deserialize)]
        struct LookupResponse {
            mappings: HashMap<String, String>,
        }
        let token = check_token(token)?;
        let url = format!("{}{}", self.url.as_str(), path("hash_details"));
        let details: HashDetails = self.ask(self.inner.http.get(url).bearer_auth(token)).await?;
        if !details.algorithms.iter().any(|algorithm| algorithm == "sha256") {
            return Err(self.makes_no_sense(&"it does not know sha256"));
        }
        let hash = |(medium, address): &(&str, &str)| {
            let asked = format!("{address} {medium} {}", details.lookup_pepper);
            URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, asked.as_bytes()))
        };
        let hashes: Vec<String> = addresses.iter().map(hash).collect();
        // One question for all addresses. The pepper is the server's, so hashes of another server are of no use here.
        let body = json!({ "algorithm": "sha256", "pepper": details.lookup_pepper, "addresses": hashes });
        let found: LookupResponse = self.ask(self.post("lookup", &body).bearer_auth(token)).await?;
        let user_ids =
            hashes.iter().map(|hash| found.mappings.get(hash).map(|user_id| OwnedUserId::try_from(user_id.as_str())));
        user_ids.map(Option::transpose).collect::<Result<_, _>>().map_err(|e| self.makes_no_sense(&e))
    }

    /// Leaves an invitation for whoever proves that an address is theirs. The server writes to it. `invitation` is what
    /// goes into the letter: something of the room and of who invites.
    ///
    /// What comes back is written into a room, for all its servers to read, so it is checked: the token's characters,
    /// the number of keys and the length of texts.
    pub(crate) async fn store_invite(
        &self,
        token: &str,
        medium: &str,
        address: &str,
        invitation: &impl Serialize,
    ) -> Result<StoredInvite> {
        let mut body = serde_json::to_value(invitation).map_err(Error::broken)?;
        if let Value::Object(body) = &mut body {
            body.extend([("medium".to_owned(), json!(medium)), ("address".to_owned(), json!(address))]);
        }
        let request = self.post("store-invite", &body).bearer_auth(check_token(token)?);
        let stored: StoredInvite = self.ask(request).await?;
        let of_token = |byte: u8| byte.is_ascii_alphanumeric() || b".=_-".contains(&byte);
        if stored.token.is_empty() || stored.token.len() > 255 || !stored.token.bytes().all(of_token) {
            return Err(self.makes_no_sense(&"the token has other characters than it may have"));
        }
        if stored.public_keys.is_empty() || stored.public_keys.len() > MAX_KEYS {
            return Err(self.makes_no_sense(&"there are no public keys, or too many"));
        }
        if !stored.public_keys.iter().all(|key| is_own(self.url, &key.key_validity_url)) {
            return Err(self.makes_no_sense(&"it has another server say whether its keys are good"));
        }
        let keys = stored.public_keys.iter().flat_map(|key| [&key.public_key, &key.key_validity_url]);
        self.check_texts(keys.chain([&stored.display_name]))?;
        Ok(stored)
    }

    fn post(&self, endpoint: &str, body: &Value) -> RequestBuilder {
        self.inner.http.post(format!("{}{}", self.url.as_str(), path(endpoint))).json(body)
    }

    /// Asks and reads the answer as `T`. Only 200 is an answer; what else the server says goes through
    /// [`Self::refused`].
    async fn ask<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T> {
        let (status, body) = self.send(request).await?;
        if status != StatusCode::OK {
            return Err(self.refused(status, &body));
        }
        serde_json::from_slice(&body).map_err(|e| self.makes_no_sense(&e))
    }

    /// The answer's status and body. The body is read up to [`MAX_ANSWER`], whatever length it is announced with.
    async fn send(&self, request: RequestBuilder) -> Result<(StatusCode, Vec<u8>)> {
        // Without the URL: its query may hold what is nobody's business in a log.
        let silent = |error: reqwest::Error| self.makes_no_sense(&error.without_url());
        let mut response = request.send().await.map_err(silent)?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(silent)? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(self.makes_no_sense(&format!("its answer is longer than {MAX_ANSWER} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok((response.status(), body))
    }

    /// What the server says against it is for the client to read.
    fn refused(&self, status: StatusCode, body: &[u8]) -> Error {
        // A server error is not the client's doing, so what it says is not for them.
        let Some(refusal) = RelayedError::read(body).filter(|_| status.is_client_error()) else {
            return self.makes_no_sense(&format!("it answered {status}"));
        };
        Error::Relayed { status: status.as_u16(), errcode: refusal.errcode, message: refusal.error }
    }

    /// NUL is refused as well: `PostgreSQL` can't store it in a text.
    fn check_texts<'t>(&self, texts: impl IntoIterator<Item = &'t String>) -> Result<()> {
        let bad = |text: &String| text.len() > MAX_TEXT || text.contains('\0');
        if texts.into_iter().any(bad) { Err(self.makes_no_sense(&"a text in its answer is too long")) } else { Ok(()) }
    }

    /// 502 with `M_UNKNOWN`, and a line in the log. The reason stays there: it may quote what the server sent.
    fn makes_no_sense(&self, reason: &dyn std::fmt::Display) -> Error {
        tracing::warn!(identity_server = self.name(), %reason, "an identity server gave no answer of any use");
        let message = format!("The identity server {} gave no answer of any use: try again later", self.name());
        Error::Relayed { status: StatusCode::BAD_GATEWAY.as_u16(), errcode: "M_UNKNOWN".to_owned(), message }
    }
}

/// A Matrix error of another server, made fit to be passed on.
#[derive(Deserialize)]
struct RelayedError {
    errcode: String,
    #[serde(default)]
    error: String,
}

impl RelayedError {
    /// None where the body is no Matrix error. Codes have 64 characters at most and messages 500, without control
    /// characters.
    fn read(body: &[u8]) -> Option<Self> {
        let Self { errcode, error } = serde_json::from_slice(body).ok()?;
        let of_code = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b"_.".contains(&byte);
        let errcode = match &*errcode {
            // Clients would take these to be about their session here, and end it.
            "M_UNKNOWN_TOKEN" | "M_MISSING_TOKEN" | "M_USER_LOCKED" => "M_UNAUTHORIZED".to_owned(),
            code if code.len() > 64 || !code.bytes().all(of_code) => "M_UNKNOWN".to_owned(),
            _ => errcode,
        };
        let error: String = error.chars().filter(|c| !c.is_control()).take(500).collect();
        let error = if error.is_empty() { "The identity server refused it".to_owned() } else { error };
        Some(Self { errcode, error })
    }
}

fn path(endpoint: &str) -> String {
    format!("/_matrix/identity/v2/{endpoint}")
}

/// A token goes into a header, where a line break would begin another one.
fn check_token(token: &str) -> Result<&str> {
    if token.is_empty() || token.len() > MAX_TEXT || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Error::invalid_param("`id_access_token` is not a token of an identity server"));
    }
    Ok(token)
}

#[cfg(test)]
mod tests {
    use ruma::server_name;

    use super::*;
    use crate::event::SigningKey;

    #[test]
    fn a_refusal_is_passed_on_only_if_it_does_no_harm() {
        let read = |body: &str| RelayedError::read(body.as_bytes()).map(|refusal| (refusal.errcode, refusal.error));
        let said = |errcode: &str, error: &str| Some((errcode.to_owned(), error.to_owned()));
        let terms = r#"{"errcode":"M_TERMS_NOT_SIGNED","error":"Sign\u0000 them"}"#;
        assert_eq!(read(terms), said("M_TERMS_NOT_SIGNED", "Sign them"));
        let logs_out = r#"{"errcode":"M_UNKNOWN_TOKEN","error":"x"}"#;
        assert_eq!(read(logs_out), said("M_UNAUTHORIZED", "x"));
        assert_eq!(read(r#"{"errcode":"<b>"}"#), said("M_UNKNOWN", "The identity server refused it"));
        for nothing in ["", "<html>", "{}", r#"{"errcode":1}"#] {
            assert_eq!(read(nothing), None, "{nothing}");
        }
    }

    #[tokio::test]
    async fn nobody_is_asked_whom_the_operator_does_not_trust() {
        let key = SigningKey::from_pkcs8(&SigningKey::generate().unwrap(), "ed25519:a").unwrap();
        let config = config::IdentityConfig { servers: vec!["id.example.org".to_owned().try_into().unwrap()] };
        let servers = IdentityServers::new(&config, server_name!("here").to_owned(), SigningKeys::of(key)).unwrap();
        assert_eq!(servers.get("ID.example.org").unwrap().name(), "id.example.org");
        for name in ["", "example.org", "id.example.org:8090", "id.example.org/x", "https://id.example.org"] {
            assert!(
                matches!(servers.get(name), Err(Error::Refused { kind: ErrorKind::ServerNotTrusted, .. })),
                "{name}"
            );
        }
        for url in [
            "https://id.example.org.evil.org/valid",
            "http://id.example.org/valid",
            "https://id.example.org@evil.org/",
            "https://id.example.org",
        ] {
            let asked = servers.is_key_valid(url, "key").await;
            assert!(matches!(asked, Err(Error::Refused { kind: ErrorKind::ServerNotTrusted, .. })), "{url}");
        }
    }
}
