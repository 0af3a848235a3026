//! Smaller pictures of pictures.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediathumbnailservernamemediaid>

use http::HeaderValue;
use ruma::{UInt, api::client::authenticated_media::get_content_thumbnail::v1 as get_content_thumbnail, media::Method};

use super::{
    answer::{About, Begun, send},
    download::{By, Get, Taking, Wanted, about_as, answer_with, copies, find_item, find_redirect},
    old,
};
use crate::{
    api::{
        endpoint::RawAnswer,
        error::ApiResult,
        extract::Call,
        own::{Download, WithExtra},
        route::Endpoints,
    },
    app::App,
    error::{Error, Result},
    media::{
        kind::served_type,
        thumbnail::{self, Variant},
        thumbnails::Thumb,
    },
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints
        .endpoint::<Get<get_content_thumbnail::Request>, _, _>(thumbnail)
        .endpoint::<Get<old::GetContentThumbnail>, _, _>(thumbnail_of_old)
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediathumbnailservernamemediaid>
async fn thumbnail(app: App, call: Call<Get<get_content_thumbnail::Request>>) -> ApiResult<RawAnswer> {
    let Download(WithExtra { request, extra: taking }) = call.request;
    let variant = choose(request.width, request.height, request.method.as_ref(), request.animated)?;
    let (server_name, media_id, timeout) = (request.server_name, request.media_id, request.timeout_ms);
    answer(&app, &Wanted { server_name, media_id, timeout, by: By::Caller(call.caller) }, variant, &taking).await
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixmediav3thumbnailservernamemediaid>
#[expect(deprecated, reason = "so ruma calls what is still asked for")]
async fn thumbnail_of_old(app: App, call: Call<Get<old::GetContentThumbnail>>) -> ApiResult<RawAnswer> {
    let Download(WithExtra { request, extra: taking }) = call.request;
    let variant = choose(request.width, request.height, request.method.as_ref(), request.animated)?;
    let (server_name, media_id, timeout) = (request.server_name, request.media_id, request.timeout_ms);
    let by = By::Anybody { allow_remote: request.allow_remote };
    answer(&app, &Wanted { server_name, media_id, timeout, by }, variant, &taking).await
}

/// Which thumbnail comes nearest to what is asked for. `M_INVALID_PARAM` where that makes no sense.
fn choose(width: UInt, height: UInt, method: Option<&Method>, animated: Option<bool>) -> Result<Variant> {
    let method = match method {
        None => None,
        Some(Method::Crop) => Some(thumbnail::Method::Crop),
        Some(Method::Scale) => Some(thumbnail::Method::Scale),
        Some(_) => return Err(Error::invalid_param("A thumbnail is made by the method `crop` or `scale`")),
    };
    // Whatever is too large for a number is larger than every thumbnail.
    let pixels = |wanted: UInt| u32::try_from(u64::from(wanted)).unwrap_or(u32::MAX);
    let (width, height) = (pixels(width), pixels(height));
    if width == 0 || height == 0 {
        return Err(Error::invalid_param("A thumbnail is at least one pixel wide and high"));
    }
    Ok(thumbnail::choose(width, height, method, animated == Some(true)))
}

async fn answer(app: &App, wanted: &Wanted, variant: Variant, taking: &Taking) -> ApiResult<RawAnswer> {
    let item = find_item(app, wanted).await?;
    let copies = copies(app, &wanted.by, taking);
    let Thumb::Made(made) = app.thumbnails.find_or_make(&item, variant).await? else {
        // What it is called is of no matter: it is shown as a picture, so it is to be one.
        let about = about_as(served_type(None, &item.object.sniffed_type), &item, None, copies);
        let elsewhere = find_redirect(app, &wanted.by, taking, &item.object.place, &about).await?;
        return match elsewhere {
            Some(elsewhere) => Ok(elsewhere),
            None => answer_with(app, &item, &about, taking).await,
        };
    };
    let about = About {
        etag: format!("\"{}-{}\"", made.digest, made.variant),
        content_type: made.content_type.clone(),
        disposition: HeaderValue::from_static("inline"),
        bytes: made.bytes,
        copies,
    };
    if let Some(elsewhere) = find_redirect(app, &wanted.by, taking, &made.place, &about).await? {
        return Ok(elsewhere);
    }
    match taking.begin(&about) {
        Begun::Whole(answer) => Ok(answer),
        Begun::Needs(range, head) => {
            let bytes = app.thumbnails.open(&made, range).await?;
            Ok(send(head, bytes, item.uri.to_string()))
        }
    }
}
