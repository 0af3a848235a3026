//! Files that come in: at once, or to a URI that was made before.
//!
//! The file is read as it comes, so memory holds a part of it, and what its client says of it is not believed: neither how
//! long it is nor what.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixmediav3upload>

use http::header;
use ruma::{
    MilliSecondsSinceUnixEpoch, UInt,
    api::{
        client::media::{
            create_content::v3 as create_content, create_content_async::v3 as create_content_async,
            create_mxc_uri::v1 as create_mxc_uri,
        },
        error::DeserializationError,
    },
};
use serde_json::json;

use crate::{
    api::{
        body::BodyStream,
        error::ApiResult,
        extract::Call,
        json::{AsJson, Json},
        own::{Extra, Upload, WithExtra},
        route::Endpoints,
    },
    app::App,
    error::{Error, Result},
    media::{
        library::{MediaId, MediaUri},
        upload::Uploading,
    },
    people::{
        account::{Caller, User},
        rate_limit::Limit,
    },
};

const MIB: u64 = 1024 * 1024;

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints
        .endpoint::<Sent<create_content::Request>, _, _>(upload)
        .endpoint::<Sent<AsJson<create_content_async::Request>>, _, _>(upload_to)
        .endpoint::<create_mxc_uri::Request, _, _>(create)
}

/// A request with a file. Its `file` is empty.
type Sent<R> = Upload<WithExtra<R, Length>>;

/// How many bytes follow, as far as the client says.
struct Length(Option<u64>);

impl Extra for Length {
    fn read(request: &http::Request<&[u8]>) -> Result<Self, DeserializationError> {
        let length = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
        Ok(Self(length.and_then(|length| length.parse().ok())))
    }
}

/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixmediav3upload>
async fn upload(app: App, call: Call<Sent<create_content::Request>>) -> ApiResult<create_content::Response> {
    let Upload { request: WithExtra { request, extra: Length(declared) }, body } = call.request;
    count(&app, &call.caller, declared).await?;
    let uploading = app.uploads.begin(&call.caller.user_id, declared).await?;
    let said = (request.content_type.as_deref(), request.filename.as_deref());
    let uri = receive(&app, call.caller, uploading, (body, declared), said).await?;
    Ok(create_content::Response::new(uri.to_string().into()))
}

/// <https://spec.matrix.org/v1.19/client-server-api/#put_matrixmediav3uploadservernamemediaid>
async fn upload_to(app: App, call: Call<Sent<AsJson<create_content_async::Request>>>) -> ApiResult<Json> {
    let Upload { request: WithExtra { request: AsJson(request), extra: Length(declared) }, body } = call.request;
    count(&app, &call.caller, declared).await?;
    let media_id = MediaId::parse(&request.media_id).ok_or_else(|| Error::not_found("There is no such URI"))?;
    let uri = MediaUri { server_name: request.server_name, media_id };
    let uploading = app.uploads.begin_into(&call.caller.user_id, &uri, declared).await?;
    let said = (request.content_type.as_deref(), request.filename.as_deref());
    receive(&app, call.caller, uploading, (body, declared), said).await?;
    // Of ruma's answer none can be made.
    Ok(json!({}).into())
}

/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixmediav1create>
async fn create(app: App, call: Call<create_mxc_uri::Request>) -> ApiResult<create_mxc_uri::Response> {
    let created = app.uploads.create(&call.caller.user_id).await?;
    let mut response = create_mxc_uri::Response::new(created.uri.to_string().into());
    response.unused_expires_at = UInt::try_from(created.unused_expires_at).ok().map(MilliSecondsSinceUnixEpoch);
    Ok(response)
}

/// Counts a file as long as it is said to be. One that is too long is refused before any of it comes, so it counts for
/// little: who has tried would else wait for hours.
async fn count(app: &App, user: &User, declared: Option<u64>) -> Result<()> {
    let comes = declared.filter(|bytes| *bytes <= app.uploads.max_bytes());
    app.rate_limits.check(Limit::Media, units(comes.unwrap_or(0)), &user.user_id, user.pace).await
}

/// Reads a file to its end and keeps it. `said`: which type it is of and what it is called, as the client says.
async fn receive(
    app: &App,
    user: User,
    mut uploading: Uploading,
    (mut body, declared): (BodyStream, Option<u64>),
    said: (Option<&str>, Option<&str>),
) -> ApiResult<MediaUri> {
    let mut bytes = 0_u64;
    while let Some(part) = body.next().await? {
        bytes = bytes.saturating_add(u64::try_from(part.len()).unwrap_or(u64::MAX));
        uploading.write(part).await?;
    }
    let more = units(bytes).saturating_sub(units(declared.unwrap_or(0)));
    app.rate_limits.owe(Limit::Media, more, &user.user_id, user.pace).await?;
    // It may have taken hours to come.
    app.accounts.check_still_logged_in(&Caller::User(user)).await?;
    let (content_type, name) = said;
    Ok(uploading.finish(content_type, name).await?)
}

/// What so many bytes cost.
fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(MIB)).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mebibyte_that_is_begun_counts() {
        for (bytes, cost) in [(0, 1), (1, 1), (MIB, 1), (MIB + 1, 2), (50 * MIB, 50), (u64::MAX, u32::MAX)] {
            assert_eq!(units(bytes), cost, "{bytes}");
        }
    }
}
