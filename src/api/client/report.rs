//! Telling the moderators of an event, a room or a user.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#reporting-content>

use axum::Router;
use ruma::api::client::{
    reporting::report_user,
    room::{report_content, report_room},
};

use crate::{
    api::{error::ApiResult, extract::Call, route::Routes as _},
    app::App,
    rate_limit::Limit,
    report::Subject,
};

pub(super) fn routes(router: Router<App>) -> Router<App> {
    router.endpoint(event).endpoint(room).endpoint(user)
}

async fn event(app: App, call: Call<report_content::v3::Request>) -> ApiResult<report_content::v3::Response> {
    app.rate_limits.check(Limit::Message, &call.caller).await?;
    let report_content::v3::Request { room_id, event_id, reason, .. } = call.request;
    let subject = Subject::Event(room_id, event_id);
    app.reports.add(&call.caller.user_id, subject, reason.unwrap_or_default()).await?;
    Ok(report_content::v3::Response::new())
}

async fn room(app: App, call: Call<report_room::v3::Request>) -> ApiResult<report_room::v3::Response> {
    app.rate_limits.check(Limit::Message, &call.caller).await?;
    let report_room::v3::Request { room_id, reason, .. } = call.request;
    app.reports.add(&call.caller.user_id, Subject::Room(room_id), reason).await?;
    Ok(report_room::v3::Response::new())
}

async fn user(app: App, call: Call<report_user::v3::Request>) -> ApiResult<report_user::v3::Response> {
    app.rate_limits.check(Limit::Message, &call.caller).await?;
    let report_user::v3::Request { user_id, reason, .. } = call.request;
    app.reports.add(&call.caller.user_id, Subject::User(user_id), reason).await?;
    Ok(report_user::v3::Response::new())
}
