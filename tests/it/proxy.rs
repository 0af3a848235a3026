//! A load balancer: every request goes to the next node, and to the one after that where nobody answers.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use parking_lot::RwLock;
use tokio::net::TcpListener;

use crate::world::http_client;

/// Where it listens. Gone when dropped.
pub(crate) struct Proxy {
    pub(crate) url: String,
    nodes: Nodes,
    serving: tokio::task::AbortHandle,
}

/// The nodes' addresses.
#[derive(Clone, Default)]
struct Nodes(Arc<RwLock<Vec<String>>>);

#[derive(Clone)]
struct Balancer {
    nodes: Nodes,
    next: Arc<AtomicUsize>,
    http: reqwest::Client,
}

impl Proxy {
    pub(crate) async fn start(nodes: Vec<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let nodes = Nodes(Arc::new(RwLock::new(nodes)));
        let http = http_client(std::time::Duration::from_mins(3));
        let balancer = Balancer { nodes: nodes.clone(), next: Arc::default(), http };
        let router = Router::new().fallback(pass_on).with_state(balancer);
        #[expect(clippy::disallowed_methods, reason = "nobody waits for it: it ends with the test")]
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }).abort_handle();
        Self { url, nodes, serving }
    }

    /// Sends requests to these nodes from now on.
    pub(crate) fn set_nodes(&self, nodes: Vec<String>) {
        *self.nodes.0.write() = nodes;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn pass_on(State(balancer): State<Balancer>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 10 << 20).await.unwrap();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let nodes = balancer.nodes.0.read().clone();
    for _ in 0..nodes.len() {
        let node = &nodes[balancer.next.fetch_add(1, Ordering::Relaxed) % nodes.len()];
        let mut request = balancer.http.request(parts.method.clone(), format!("{node}{path}")).body(body.clone());
        for (name, value) in &parts.headers {
            if ![header::HOST, header::CONNECTION, header::CONTENT_LENGTH, header::TRANSFER_ENCODING].contains(name) {
                request = request.header(name, value);
            }
        }
        match request.send().await {
            Ok(answer) => {
                let mut response = Response::builder().status(answer.status());
                for (name, value) in answer.headers() {
                    if ![header::CONNECTION, header::CONTENT_LENGTH, header::TRANSFER_ENCODING].contains(name) {
                        response = response.header(name, value);
                    }
                }
                return match answer.bytes().await {
                    Ok(body) => response.body(Body::from(body)).unwrap(),
                    Err(_) => StatusCode::BAD_GATEWAY.into_response(),
                };
            }
            Err(error) if error.is_connect() => {}
            Err(_) => break,
        }
    }
    StatusCode::BAD_GATEWAY.into_response()
}
