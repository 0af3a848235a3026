//! What other servers are asked, by whichever module asks: one client for all, which also notes who is alive.
//!
//! Whoever has answered has come back, if they were away: that is news for those that wait to send them something.

use std::sync::{Arc, OnceLock};

use ruma::{OwnedServerName, ServerName};

use crate::{
    edge::federation_client::{Bounds, FederationClient, RemoteBody, RemoteError, RemoteRequest, Step},
    ground::weighed::Weighed,
};

/// Is told of each server that has answered. Called often and by those who wait for something else, so it is quick.
pub(crate) type Heard = Arc<dyn Fn(&ServerName) + Send + Sync>;

/// Asks other servers. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Remote {
    client: FederationClient,
    /// Set once, when those are there who want to know.
    heard: Arc<OnceLock<Heard>>,
}

impl Remote {
    pub(crate) fn new(client: FederationClient) -> Self {
        Self { client, heard: Arc::default() }
    }

    /// Has `heard` told of servers that answer. A second call changes nothing.
    pub(crate) fn tell(&self, heard: Heard) {
        self.heard.get_or_init(|| heard);
    }

    /// Asks, and reads the answer whole.
    pub(crate) async fn call<R: RemoteRequest>(
        &self,
        to: &ServerName,
        request: R,
        bounds: Bounds,
    ) -> Result<R::Answer, RemoteError> {
        let answer = self.client.send(to, request, bounds).await?;
        self.note(to);
        Ok(answer)
    }

    /// Asks, and leaves the body to the caller. It is an answer of success: what is refused is an error.
    pub(crate) async fn open<R: RemoteRequest>(
        &self,
        to: &ServerName,
        request: R,
        bounds: Bounds,
    ) -> Result<RemoteBody, RemoteError> {
        let body = self.client.open(to, request, bounds).await?;
        self.note(to);
        Ok(body)
    }

    /// Each step of reaching a server, in words.
    pub(crate) async fn explain(&self, to: &ServerName) -> Vec<Step> {
        self.client.explain(to).await
    }

    /// To whom a host leaves the answering, or why nobody is named. Whatever is remembered is not looked at.
    pub(crate) async fn find_delegate(&self, host: &ServerName) -> Result<OwnedServerName, String> {
        self.client.find_delegate(host).await
    }

    /// What is remembered of where servers are. None where the server does not federate.
    pub(crate) fn cache(&self) -> Option<Arc<dyn Weighed>> {
        self.client.cache()
    }

    fn note(&self, server: &ServerName) {
        if let Some(heard) = self.heard.get() {
            heard(server);
        }
    }
}
