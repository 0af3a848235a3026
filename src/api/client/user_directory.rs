//! Finding people.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#user-directory>

use axum::Router;
use ruma::api::client::user_directory::search_users::v3::{Request, Response, User};

use crate::{
    api::{error::ApiResult, extract::Call, route::Routes as _},
    app::App,
    rate_limit::Limit,
    user_directory::Person,
};

pub(super) fn routes(router: Router<App>) -> Router<App> {
    router.endpoint(search)
}

async fn search(app: App, call: Call<Request>) -> ApiResult<Response> {
    let Call { request, caller, .. } = call;
    app.rate_limits.check(Limit::Message, &caller).await?;
    let limit = usize::try_from(request.limit).unwrap_or(usize::MAX);
    let found = app.user_directory.search(&caller.user_id, &request.search_term, limit).await?;
    Ok(Response::new(found.people.into_iter().map(user).collect(), found.limited))
}

fn user(person: Person) -> User {
    let Person { user_id, display_name, avatar_url } = person;
    let mut user = User::new(user_id);
    user.display_name = display_name;
    user.avatar_url = avatar_url;
    user
}
