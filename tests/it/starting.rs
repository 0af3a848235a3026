//! Whoever comes while the server starts gets an answer, and not the wait for a migration.

use axum::{Router, routing::get};
use hearth::{
    api,
    config::Config,
    serve::{Door, Listeners},
    tasks::Tasks,
};
use serde_json::Value;

#[tokio::test]
async fn a_server_that_starts_is_alive_and_not_ready_until_it_is() {
    let config = Config { listen: vec!["127.0.0.1:0".parse().unwrap()], ..Config::default() };
    let listeners = Listeners::bind(&config.listen, &config).unwrap();
    let url = listeners.urls().remove(0);
    let (door, tasks) = (Door::default(), Tasks::new());
    let (router, serving) = (door.router(api::starting()), tasks.clone());
    tasks.spawn("listeners", async move { listeners.serve(router, &serving).await });

    assert_eq!(reqwest::get(format!("{url}/health")).await.unwrap().status(), 200);
    assert_eq!(reqwest::get(format!("{url}/ready")).await.unwrap().status(), 503);
    let early = reqwest::get(format!("{url}/_matrix/client/versions")).await.unwrap();
    assert_eq!(early.status(), 503);
    assert_eq!(early.headers()["retry-after"], "2");
    assert_eq!(early.headers()["access-control-allow-origin"], "*");
    assert_eq!(early.json::<Value>().await.unwrap()["errcode"], "M_UNKNOWN");

    door.open(Router::new().route("/ready", get(|| async { "now" })));
    assert_eq!(reqwest::get(format!("{url}/ready")).await.unwrap().text().await.unwrap(), "now");
    tasks.shutdown().start("the test is over");
}
