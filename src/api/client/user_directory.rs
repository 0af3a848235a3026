//! Finding people.
//!
//! Who is found by whom is `reader/user_directory.rs`'s. An answer that is `limited` has been cut off by the number or
//! by the work that a search may take.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#user-directory>

use ruma::api::client::user_directory::search_users::v3::{Request, Response, User};

use crate::{
    api::{error::ApiResult, extract::Call, route::Endpoints},
    app::App,
    reader::user_directory::Person,
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint(search)
}

async fn search(app: App, call: Call<Request>) -> ApiResult<Response> {
    let Call { request, caller, .. } = call;
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
