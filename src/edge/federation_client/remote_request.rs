//! Requests of ruma's that one server sends to another, written and signed.
//!
//! ruma signs with keys of its own make. This server's are of another, so the signature is made here of what ruma says is
//! to be signed.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#request-authentication>

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, header};
use ruma::{
    OwnedServerSigningKeyId, ServerName,
    api::{
        IncomingResponseExt as _, OutgoingBody as _, OutgoingRequest,
        auth_scheme::{AuthScheme, NoAuthentication},
        error::FromHttpResponseError,
        federation::authentication::{ServerSignatures, XMatrix},
        path_builder::SinglePath,
    },
    serde::Base64,
    signatures::KeyPair as _,
};

use super::remote_error::RemoteError;
use crate::event::SigningKey;

/// In whose name a request is signed, and for whom.
pub(crate) struct Signer<'a> {
    pub(super) origin: &'a ServerName,
    pub(super) destination: &'a ServerName,
    pub(super) key: &'a SigningKey,
}

/// Whether requests of a scheme are signed.
pub(crate) trait Proof: AuthScheme {
    const IS_SIGNED: bool;
}

impl Proof for ServerSignatures {
    const IS_SIGNED: bool = true;
}

impl Proof for NoAuthentication {
    const IS_SIGNED: bool = false;
}

/// What can be asked of another server: every request of ruma's federation API.
pub(crate) trait RemoteRequest: Send + 'static {
    type Answer: Send + 'static;

    /// With its variables, for logs.
    fn path() -> &'static str;

    /// `base`: the URL of the server.
    fn into_http(self, base: &str, signer: &Signer<'_>) -> Result<http::Request<Bytes>, RemoteError>;

    /// Reads an answer of success.
    fn read(answer: http::Response<&[u8]>) -> Result<Self::Answer, RemoteError>;
}

impl<R> RemoteRequest for R
where
    R: OutgoingRequest<PathBuilder = SinglePath> + Send + 'static,
    R::Authentication: Proof,
    R::IncomingResponse: Send + 'static,
{
    type Answer = R::IncomingResponse;

    fn path() -> &'static str {
        R::PATH_BUILDER.path()
    }

    fn into_http(self, base: &str, signer: &Signer<'_>) -> Result<http::Request<Bytes>, RemoteError> {
        let unwritable =
            || RemoteError::Malformed(format!("the request to {} can't be written", R::PATH_BUILDER.path()));
        let request = self.try_into_http_request_inner(base, ()).ok().ok_or_else(unwritable)?;
        let (mut parts, body) = request.into_parts();
        if let Some(content_type) = body.content_type() {
            parts.headers.entry(header::CONTENT_TYPE).or_insert(content_type);
        }
        let body = body.try_into_buf::<BytesMut>().ok().ok_or_else(unwritable)?.freeze();
        let mut request = http::Request::from_parts(parts, body);
        if R::Authentication::IS_SIGNED {
            let proof = sign(&request, signer).ok_or_else(unwritable)?;
            request.headers_mut().insert(header::AUTHORIZATION, proof);
        }
        Ok(request)
    }

    fn read(answer: http::Response<&[u8]>) -> Result<Self::Answer, RemoteError> {
        R::IncomingResponse::try_from_http_response(answer).map_err(|error| match error {
            FromHttpResponseError::Deserialization(error) => RemoteError::unreadable(R::PATH_BUILDER.path(), &error),
            _ => RemoteError::Malformed(format!("its answer to {} is an error", R::PATH_BUILDER.path())),
        })
    }
}

/// None where there is no canonical JSON of the body.
fn sign(request: &http::Request<Bytes>, signer: &Signer<'_>) -> Option<HeaderValue> {
    let object = XMatrix::request_object(request, signer.origin, signer.destination).ok()?;
    let (key_id, signature) = signer.key.sign(&serde_json::to_vec(&object).ok()?).into_parts();
    let key_id = OwnedServerSigningKeyId::try_from(key_id.as_str()).ok()?;
    let (origin, destination) = (signer.origin.to_owned(), signer.destination.to_owned());
    Some(HeaderValue::from(&XMatrix::new(origin, destination, key_id, Base64::new(signature))))
}

#[cfg(test)]
mod tests {
    use ruma::{
        api::federation::{discovery::get_server_version, query::get_profile_information},
        server_name,
        signatures::PublicKeyMap,
        user_id,
    };

    use super::*;

    fn key() -> SigningKey {
        SigningKey::from_pkcs8(&SigningKey::generate().unwrap(), "ed25519:a_1").unwrap()
    }

    #[test]
    fn what_is_signed_is_verified_as_ruma_does() {
        let (key, here, there) = (key(), server_name!("here.example"), server_name!("there.example:8448"));
        let signer = Signer { origin: here, destination: there, key: &key };
        let request = get_profile_information::v1::Request::new(user_id!("@a/b:there.example").to_owned());
        let request = request.into_http("https://there.example/", &signer).unwrap();
        let uri = request.uri().to_string();
        let expected = "https://there.example/_matrix/federation/v1/query/profile?user_id=%40a%2Fb%3Athere.example";
        assert_eq!(uri, expected);
        let proof = XMatrix::extract_from_http_headers(request.headers()).unwrap();
        assert_eq!((&*proof.origin, proof.destination.as_deref()), (here, Some(there)));
        let public = Base64::new(key.public_key().to_vec());
        let keys = PublicKeyMap::from([(here.to_string(), [("ed25519:a_1".to_owned(), public)].into())]);
        proof.verify_http_request(&request, there, &keys).unwrap();
        assert!(proof.verify_http_request(&request, here, &keys).is_err());
    }

    #[test]
    fn what_needs_no_proof_gets_none() {
        let (key, here) = (key(), server_name!("here.example"));
        let signer = Signer { origin: here, destination: server_name!("there.example"), key: &key };
        let request = get_server_version::v1::Request::new().into_http("https://there.example/", &signer).unwrap();
        assert!(!request.headers().contains_key(header::AUTHORIZATION));
        assert!(request.body().is_empty());
    }
}
