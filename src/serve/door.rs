//! What answers at the listeners: while the server starts one router, and then another.
//!
//! Whoever knocks early is told so at once, rather than left waiting for as long as a migration takes.

use std::{
    convert::Infallible,
    sync::{Arc, OnceLock},
};

use axum::{Router, body::Body};
use http::Request;
use tower::ServiceExt as _;

/// Answers with the first router until it is opened, from then on with the second. Cheap to clone.
#[derive(Clone, Default)]
pub struct Door(Arc<OnceLock<Router>>);

impl Door {
    /// Everything that comes in goes to `router` from now on. It is opened once.
    pub fn open(&self, router: Router) {
        if self.0.set(router).is_err() {
            tracing::error!("the door was opened twice; what came first stays");
        }
    }

    /// What the listeners serve; `closed` answers until the door is open.
    pub fn router(&self, closed: Router) -> Router {
        let Self(open) = self.clone();
        Router::new().fallback_service(tower::service_fn(move |request: Request<Body>| {
            let router = open.get().unwrap_or(&closed).clone();
            async move { Ok::<_, Infallible>(router.oneshot(request).await.unwrap_or_else(|never| match never {})) }
        }))
    }
}
