//! What a scripted server is asked, and what it asks others: signed, or as if it did not know how.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#request-authentication>

use std::net::{Ipv4Addr, SocketAddr};

use axum::http::{header, request::Parts};
use hearth::event::SigningKey;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use ruma::signatures::KeyPair as _;
use serde_json::{Value, json};

use super::Scripted;
use crate::{
    federation::internet::Internet,
    world::{Reply, escape},
};

/// What somebody asked of a server.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// What comes behind the version, such as `make_join`; of requests about keys with `key/` before it.
    pub(crate) endpoint: String,
    /// What comes behind that.
    pub(crate) path: Vec<String>,
    pub(crate) query: Vec<(String, String)>,
    /// Path and query as they came.
    pub(crate) uri: String,
    pub(crate) authorization: String,
    /// Null if it is no JSON, or there is none.
    pub(crate) body: Value,
}

impl Asked {
    pub(super) fn read(parts: &Parts, body: &[u8]) -> Self {
        let mut segments = parts.uri.path().split('/').skip(1).map(unescape);
        // `_matrix`, or `.well-known`.
        segments.next();
        let api = segments.next().unwrap_or_default();
        // Of the API.
        segments.next();
        let name = segments.next().unwrap_or_default();
        let query = parts.uri.query().unwrap_or_default();
        let query = query.split('&').filter_map(|pair| pair.split_once('='));
        let authorization = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        Self {
            method: parts.method.to_string(),
            endpoint: if api == "key" { format!("key/{name}") } else { name },
            path: segments.collect(),
            query: query.map(|(name, value)| (unescape(name), unescape(value))).collect(),
            uri: parts.uri.path_and_query().map_or_else(String::new, ToString::to_string),
            authorization: authorization.unwrap_or_default().to_owned(),
            body: serde_json::from_slice(body).unwrap_or_default(),
        }
    }

    /// The values of a parameter of the query.
    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        self.query.iter().filter(|(other, _)| other == name).map(|(_, value)| value.clone()).collect()
    }

    /// The events of a transaction.
    pub(crate) fn pdus(&self) -> Vec<Value> {
        self.body["pdus"].as_array().cloned().unwrap_or_default()
    }
}

/// Every server is on this machine.
struct Loopback;

impl Resolve for Loopback {
    fn resolve(&self, _: Name) -> Resolving {
        // The port is that of the URL.
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Box::pin(async move {
            let addresses: Addrs = Box::new(std::iter::once(address));
            Ok(addresses)
        })
    }
}

/// An HTTP client that believes the internet's authority.
pub(super) fn client(internet: &Internet) -> reqwest::Client {
    let authority = std::fs::read(internet.authority()).unwrap();
    let authority = reqwest::Certificate::from_pem(&authority).unwrap();
    let client = reqwest::Client::builder().tls_certs_only([authority]).dns_resolver(Loopback);
    client.timeout(super::PATIENCE).build().unwrap()
}

impl Scripted {
    /// The proof of a request, of the form with a destination.
    pub(crate) fn proof(&self, to: &str, method: &str, uri: &str, content: Option<&Value>) -> String {
        let signature = self.sign_request(self.key(), to, method, uri, content);
        let name = self.name();
        format!(r#"X-Matrix origin="{name}",destination="{to}",key="ed25519:new",sig="{signature}""#)
    }

    /// The signature of a request.
    pub(crate) fn sign_request(
        &self,
        key: &SigningKey,
        to: &str,
        method: &str,
        uri: &str,
        content: Option<&Value>,
    ) -> String {
        let mut signed = json!({ "method": method, "uri": uri, "origin": self.name(), "destination": to });
        if let Some(content) = content {
            signed["content"] = content.clone();
        }
        // Objects are written in the order of their keys.
        key.sign(signed.to_string().as_bytes()).base64()
    }

    /// Asks another server, as a server should.
    pub(crate) async fn ask(&self, to: &str, method: &str, uri: &str, body: Option<&Value>) -> Reply {
        let proof = self.proof(to, method, uri, body);
        self.ask_with(to, method, uri, &[proof], body.map(Value::to_string)).await
    }

    /// Asks with these `Authorization` headers.
    pub(crate) async fn ask_with(
        &self,
        to: &str,
        method: &str,
        uri: &str,
        proofs: &[String],
        body: Option<String>,
    ) -> Reply {
        let body = body.map(|body| (body.into_bytes(), Some("application/json")));
        let response = self.ask_bytes(to, method, uri, proofs, body).await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Reply { status, body, headers }
    }

    /// Asks with any body, and says what type it is of, or does not.
    pub(crate) async fn ask_bytes(
        &self,
        to: &str,
        method: &str,
        uri: &str,
        proofs: &[String],
        body: Option<(Vec<u8>, Option<&str>)>,
    ) -> Result<reqwest::Response, reqwest::Error> {
        let port = self.internet().wire(self.name(), to);
        let mut request = self.0.http.request(method.parse().unwrap(), format!("https://{to}:{port}{uri}"));
        for proof in proofs {
            request = request.header(header::AUTHORIZATION, proof);
        }
        if let Some((body, content_type)) = body {
            if let Some(content_type) = content_type {
                request = request.header(header::CONTENT_TYPE, content_type);
            }
            request = request.body(body);
        }
        request.send().await
    }

    /// The proof of a request with any body. What is signed is what can be read of it, or it itself where that is nothing.
    pub(crate) fn proof_of_bytes(&self, to: &str, method: &str, uri: &str, body: &[u8]) -> String {
        if body.is_empty() {
            return self.proof(to, method, uri, None);
        }
        if let Ok(content) = serde_json::from_slice::<Value>(body) {
            return self.proof(to, method, uri, Some(&content));
        }
        let head = json!({ "destination": to, "method": method, "origin": self.name(), "uri": uri }).to_string();
        let signed = [br#"{"content":"#.as_slice(), body, b",", head.trim_start_matches('{').as_bytes()].concat();
        let (name, signature) = (self.name(), self.key().sign(&signed).base64());
        format!(r#"X-Matrix origin="{name}",destination="{to}",key="ed25519:new",sig="{signature}""#)
    }

    pub(crate) async fn get(&self, to: &str, uri: &str) -> Reply {
        self.ask(to, "GET", uri, None).await
    }

    pub(crate) async fn put(&self, to: &str, uri: &str, body: &Value) -> Reply {
        self.ask(to, "PUT", uri, Some(body)).await
    }

    /// A transaction, with another identifier than all before.
    pub(crate) async fn transaction(&self, to: &str, pdus: &[Value]) -> Reply {
        let body = self.transaction_of(pdus, &[]);
        self.put(to, &format!("/_matrix/federation/v1/send/{}", self.number()), &body).await
    }

    /// The body of a transaction.
    pub(crate) fn transaction_of(&self, pdus: &[Value], edus: &[Value]) -> Value {
        json!({ "origin": self.name(), "origin_server_ts": self.now(), "pdus": pdus, "edus": edus })
    }

    /// Sends a body as it stands.
    pub(crate) async fn transaction_of_text(&self, to: &str, body: String) -> Reply {
        let uri = format!("/_matrix/federation/v1/send/{}", self.number());
        let proof = self.proof_of_bytes(to, "PUT", &uri, body.as_bytes());
        self.ask_with(to, "PUT", &uri, &[proof], Some(body)).await
    }
}

/// A path of the federation API: its name, and what comes behind that.
pub(crate) fn federation(name: &str, rest: &[&str]) -> String {
    let rest = rest.iter().fold(String::new(), |path, part| path + "/" + &escape(part));
    format!("/_matrix/federation/{name}{rest}")
}

/// A part of a URL as it was before it became one.
fn unescape(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, tail @ ..] = rest {
        let code = (*first == b'%').then(|| tail.get(..2)).flatten();
        let code = code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
