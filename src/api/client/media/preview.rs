//! What pages say of themselves.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediapreview_url>

use http::header;
use ruma::{
    UserId,
    api::{
        client::{
            authenticated_media::get_media_preview::v1 as get_media_preview,
            media::get_media_preview::v3 as get_preview_of_old,
        },
        error::{DeserializationError, ErrorKind},
    },
};
use serde_json::{Map, Value};

use super::old;
use crate::{
    api::{
        error::ApiResult,
        extract::Call,
        own::{Extra, WithExtra},
        route::Endpoints,
    },
    app::App,
    error::{Error, Result},
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints
        .endpoint::<WithExtra<get_media_preview::Request, Languages>, _, _>(preview)
        .endpoint::<WithExtra<old::GetMediaPreview, Languages>, _, _>(preview_of_old)
}

/// Those that somebody reads, as their client says.
struct Languages(Option<String>);

impl Extra for Languages {
    fn read(request: &http::Request<&[u8]>) -> Result<Self, DeserializationError> {
        let languages = request.headers().get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
        Ok(Self(languages.map(ToOwned::to_owned)))
    }
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediapreview_url>
async fn preview(
    app: App,
    call: Call<WithExtra<get_media_preview::Request, Languages>>,
) -> ApiResult<get_media_preview::Response> {
    let WithExtra { request, extra: languages } = call.request;
    let preview = look(&app, &call.caller.user_id, &request.url, &languages).await?;
    Ok(get_media_preview::Response::from_serialize(&preview).map_err(Error::broken)?)
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixmediav3preview_url>
#[expect(deprecated, reason = "so ruma calls what is still asked for")]
async fn preview_of_old(
    app: App,
    call: Call<WithExtra<old::GetMediaPreview, Languages>>,
) -> ApiResult<get_preview_of_old::Response> {
    let WithExtra { request, extra: languages } = call.request;
    let preview = look(&app, &call.caller.user_id, &request.url, &languages).await?;
    Ok(get_preview_of_old::Response::from_serialize(&preview).map_err(Error::broken)?)
}

/// `M_UNRECOGNIZED` where the operator has switched them off, from which clients learn that they need not ask.
async fn look(app: &App, user_id: &UserId, url: &str, languages: &Languages) -> Result<Map<String, Value>> {
    let Some(previews) = &app.previews else {
        return Err(Error::refused(ErrorKind::Unrecognized, "This server shows no previews of pages"));
    };
    previews.preview(user_id, url, languages.0.as_deref()).await
}
