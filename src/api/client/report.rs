//! Reporting an event, a room or a user to the moderators.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#reporting-content>

use ruma::api::client::{
    reporting::report_user,
    room::{report_content, report_room},
};

use crate::{
    api::{error::ApiResult, extract::Call, route::Endpoints},
    app::App,
    people::report::Subject,
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint(event).endpoint(room).endpoint(user)
}

/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidreporteventid>
///
/// `M_NOT_FOUND` for an event that the reporter does not see, or in a room that they are not in.
async fn event(app: App, call: Call<report_content::v3::Request>) -> ApiResult<report_content::v3::Response> {
    let report_content::v3::Request { room_id, event_id, reason, .. } = call.request;
    let subject = Subject::Event(room_id, event_id);
    app.reports.add(&call.caller.user_id, subject, reason.unwrap_or_default()).await?;
    Ok(report_content::v3::Response::new())
}

/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidreport>
async fn room(app: App, call: Call<report_room::v3::Request>) -> ApiResult<report_room::v3::Response> {
    let report_room::v3::Request { room_id, reason, .. } = call.request;
    app.reports.add(&call.caller.user_id, Subject::Room(room_id), reason).await?;
    Ok(report_room::v3::Response::new())
}

/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3usersuseridreport>
///
/// Succeeds for a room or a user that does not exist, so that nobody finds out by reporting them.
async fn user(app: App, call: Call<report_user::v3::Request>) -> ApiResult<report_user::v3::Response> {
    let report_user::v3::Request { user_id, reason, .. } = call.request;
    app.reports.add(&call.caller.user_id, Subject::User(user_id), reason).await?;
    Ok(report_user::v3::Response::new())
}
