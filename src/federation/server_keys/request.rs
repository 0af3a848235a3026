//! Keys for the signatures of requests.

use ruma::{ServerName, ServerSigningKeyId, serde::Base64};

use super::{needs::Need, ring::ServerKeys, verify::VerifyError};

impl ServerKeys {
    /// A key with which a server may sign requests now.
    pub(crate) async fn request_key(
        &self,
        server: &ServerName,
        key_id: &ServerSigningKeyId,
    ) -> Result<Base64, VerifyError> {
        let need = Need { server: server.to_owned(), key_ids: vec![key_id.to_owned()], at: self.now() };
        let knowledge = Box::pin(self.know(&[need])).await?;
        let key = knowledge.keys.get(server).and_then(|keys| keys.find(key_id.as_str(), self.now()).cloned());
        key.ok_or_else(|| match knowledge.failures.get(server) {
            Some(reason) => VerifyError::KeysUnavailable(format!("the keys of {server} can't be had: {reason}")),
            None => VerifyError::Invalid(format!("{server} does not sign with the key {key_id}")),
        })
    }
}
