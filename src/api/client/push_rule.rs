//! <https://spec.matrix.org/v1.19/client-server-api/#push-rules-api>

use axum::Router;
use ruma::api::client::push::{
    get_pushrules_all::v3 as get_pushrules_all, get_pushrules_global_scope::v3 as get_pushrules_global_scope,
};

use crate::{
    account_data::push_rules,
    api::{error::ApiResult, extract::Call, route::Routes as _},
    app::App,
};

pub(super) fn routes(router: Router<App>) -> Router<App> {
    router
        .endpoint::<get_pushrules_all::Request, _, _>(all)
        .endpoint::<get_pushrules_global_scope::Request, _, _>(global)
}

async fn all(_: App, call: Call<get_pushrules_all::Request>) -> ApiResult<get_pushrules_all::Response> {
    Ok(get_pushrules_all::Response::new(push_rules(&call.caller.user_id)))
}

async fn global(
    _: App,
    call: Call<get_pushrules_global_scope::Request>,
) -> ApiResult<get_pushrules_global_scope::Response> {
    Ok(get_pushrules_global_scope::Response::new(push_rules(&call.caller.user_id)))
}
