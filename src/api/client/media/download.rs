//! Files, for whoever has a token, and those of old for whoever has their URI.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediadownloadservernamemediaid>

use std::time::Duration;

use http::{Method, StatusCode};
use ruma::{
    OwnedServerName,
    api::{
        client::authenticated_media::{
            get_content::v1 as get_content, get_content_as_filename::v1 as get_content_as_filename,
        },
        error::{DeserializationError, ErrorKind},
    },
};
use serde::Deserialize;

use super::{
    answer::{About, Begun, Copies, redirect, send},
    old,
    range::Conditions,
};
use crate::{
    api::{
        endpoint::RawAnswer,
        error::{ApiError, ApiResult},
        extract::Call,
        own::{Download, Extra, WithExtra, read_query},
        route::Endpoints,
    },
    app::App,
    config::MediaRedirect,
    error::Error,
    media::{
        file_name::{Disposition, disposition},
        kind::{served_type, serves_inline},
        library::{Found, Item, MediaId, MediaUri},
        objects::Place,
    },
    people::account::Caller,
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints
        .endpoint::<Get<get_content::Request>, _, _>(content)
        .endpoint::<Get<get_content_as_filename::Request>, _, _>(content_as_filename)
        .endpoint::<Get<old::GetContent>, _, _>(content_of_old)
        .endpoint::<Get<old::GetContentAsFilename>, _, _>(content_as_filename_of_old)
}

/// A request for a file, with what HTTP has to say of it.
pub(super) type Get<R> = Download<WithExtra<R, Taking>>;

/// How a client takes a file.
pub(super) struct Taking {
    is_head: bool,
    conditions: Conditions,
    /// None where it says nothing of them. Who has a token is sent elsewhere unless they don't want to be, such as a CDN
    /// that fetches here what it lacks.
    allow_redirect: Option<bool>,
}

impl Extra for Taking {
    fn read(request: &http::Request<&[u8]>) -> Result<Self, DeserializationError> {
        #[derive(Deserialize)]
        struct RedirectQuery {
            allow_redirect: Option<bool>,
        }
        let RedirectQuery { allow_redirect } = read_query(request)?;
        let conditions = Conditions::read(request.headers());
        Ok(Self { is_head: request.method() == Method::HEAD, conditions, allow_redirect })
    }
}

/// Which file is asked for.
pub(super) struct Wanted {
    pub(super) server_name: OwnedServerName,
    /// As it stands in the path.
    pub(super) media_id: String,
    pub(super) timeout: Duration,
    pub(super) by: By,
}

/// Who asks for it.
pub(super) enum By {
    Caller(Caller),
    /// Whoever has the URI. `allow_remote`: whether it may be fetched for them.
    Anybody {
        allow_remote: bool,
    },
}

impl By {
    /// Whether they may have what was uploaded at a time. Both are in milliseconds since the Unix epoch.
    fn may_have(&self, created_at: i64, open_until: i64) -> bool {
        matches!(self, Self::Caller(_)) || created_at < open_until
    }
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediadownloadservernamemediaid>
async fn content(app: App, call: Call<Get<get_content::Request>>) -> ApiResult<RawAnswer> {
    let Download(WithExtra { request, extra: taking }) = call.request;
    let get_content::Request { server_name, media_id, timeout_ms: timeout, .. } = request;
    let wanted = Wanted { server_name, media_id, timeout, by: By::Caller(call.caller) };
    download(&app, &wanted, None, &taking).await
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediadownloadservernamemediaidfilename>
async fn content_as_filename(app: App, call: Call<Get<get_content_as_filename::Request>>) -> ApiResult<RawAnswer> {
    let Download(WithExtra { request, extra: taking }) = call.request;
    let get_content_as_filename::Request { server_name, media_id, filename, timeout_ms: timeout, .. } = request;
    let wanted = Wanted { server_name, media_id, timeout, by: By::Caller(call.caller) };
    download(&app, &wanted, Some(&filename), &taking).await
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixmediav3downloadservernamemediaid>
#[expect(deprecated, reason = "so ruma calls what is still asked for")]
async fn content_of_old(app: App, call: Call<Get<old::GetContent>>) -> ApiResult<RawAnswer> {
    let Download(WithExtra { request, extra: taking }) = call.request;
    let by = By::Anybody { allow_remote: request.allow_remote };
    let wanted =
        Wanted { server_name: request.server_name, media_id: request.media_id, timeout: request.timeout_ms, by };
    download(&app, &wanted, None, &taking).await
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixmediav3downloadservernamemediaidfilename>
#[expect(deprecated, reason = "so ruma calls what is still asked for")]
async fn content_as_filename_of_old(app: App, call: Call<Get<old::GetContentAsFilename>>) -> ApiResult<RawAnswer> {
    let Download(WithExtra { request, extra: taking }) = call.request;
    let by = By::Anybody { allow_remote: request.allow_remote };
    let wanted =
        Wanted { server_name: request.server_name, media_id: request.media_id, timeout: request.timeout_ms, by };
    download(&app, &wanted, Some(&request.filename), &taking).await
}

/// `name`: what the client wants it to be called.
async fn download(app: &App, wanted: &Wanted, name: Option<&str>, taking: &Taking) -> ApiResult<RawAnswer> {
    let item = find_item(app, wanted).await?;
    let about = about(&item, name, copies(app, &wanted.by, taking));
    if let Some(elsewhere) = find_redirect(app, &wanted.by, taking, &item.object.place, &about).await? {
        return Ok(elsewhere);
    }
    // A CDN has one name for each file.
    if name.is_none()
        && let Some(elsewhere) = find_cdn(app, &wanted.by, taking, &item.uri)
    {
        return Ok(elsewhere);
    }
    answer_with(app, &item, &about, taking).await
}

/// Finds what a URI names, where the bytes of it may be had now. `M_NOT_FOUND` also for what nobody may have, and for what
/// only those with a token may; `M_NOT_YET_UPLOADED` with 504 where the client has waited in vain.
pub(super) async fn find_item(app: &App, wanted: &Wanted) -> ApiResult<Box<Item>> {
    let media_id = MediaId::parse(&wanted.media_id).ok_or_else(absent)?;
    let uri = MediaUri { server_name: wanted.server_name.clone(), media_id };
    let open_until = i64::try_from(app.config.media.open_until).unwrap_or(i64::MAX);
    let now: i64 = app.clock.now().get().into();
    let (allow_remote, timeout) = match wanted.by {
        By::Caller(_) => (true, wanted.timeout),
        By::Anybody { .. } if open_until == 0 => return Err(absent().into()),
        // What comes in from now on would be closed to them.
        By::Anybody { .. } if !wanted.by.may_have(now, open_until) => (false, Duration::ZERO),
        By::Anybody { allow_remote } => (allow_remote, wanted.timeout),
    };
    let found = if uri.server_name == app.server_name {
        app.library.wait_for(&uri, timeout).await?
    } else {
        app.remote_library.find(&uri, timeout, allow_remote).await?
    };
    let item = match found {
        Found::Item(item) => item,
        // Nor is it said what will be closed to them.
        Found::NotYet if !wanted.by.may_have(now, open_until) => return Err(absent().into()),
        Found::NotYet => {
            let message = "Nothing has been uploaded to this URI yet: try again later".to_owned();
            return Err(ApiError::Status(StatusCode::GATEWAY_TIMEOUT, ErrorKind::NotYetUploaded, message));
        }
        Found::Absent | Found::Quarantined => return Err(absent().into()),
    };
    match &wanted.by {
        // They may have waited for a minute.
        By::Caller(caller) => app.accounts.check_still_logged_in(caller).await?,
        By::Anybody { .. } if !wanted.by.may_have(item.created_at, open_until) => return Err(absent().into()),
        By::Anybody { .. } => {}
    }
    app.scanner.ensure_clean(&item.object).await?;
    Ok(item)
}

/// The file itself.
pub(super) async fn answer_with(app: &App, item: &Item, about: &About, taking: &Taking) -> ApiResult<RawAnswer> {
    match taking.begin(about) {
        Begun::Whole(answer) => Ok(answer),
        Begun::Needs(range, head) => {
            let bytes = app.library.open(item, range).await?;
            Ok(send(head, bytes, item.uri.to_string()))
        }
    }
}

/// What a file says of itself.
pub(super) fn about(item: &Item, name: Option<&str>, copies: Copies) -> About {
    about_as(served_type(item.content_type.as_deref(), &item.object.sniffed_type), item, name, copies)
}

/// As [`about`], with the type that it goes out with: what is shown in place depends on it.
pub(super) fn about_as(content_type: String, item: &Item, name: Option<&str>, copies: Copies) -> About {
    let shown = if serves_inline(&content_type) { Disposition::Inline } else { Disposition::Attachment };
    let disposition = disposition(shown, name.or(item.file_name.as_deref()));
    About { etag: format!("\"{}\"", item.object.digest), content_type, disposition, bytes: item.object.bytes, copies }
}

/// Who may keep an answer on the way: whoever passes on what is open to all, and the operator's own CDN, which alone has a
/// reason to ask for what a redirect would lead back to it.
pub(super) fn copies(app: &App, by: &By, taking: &Taking) -> Copies {
    let is_for_cdn = app.config.media.redirect == MediaRedirect::Cdn && taking.allow_redirect == Some(false);
    if is_for_cdn || matches!(by, By::Anybody { .. }) { Copies::Public } else { Copies::Private }
}

impl Taking {
    pub(super) fn begin(&self, about: &About) -> Begun {
        about.begin(&self.conditions, self.is_head)
    }

    /// Whether a client may be sent elsewhere. With the endpoints of old they have to say so.
    fn may_be_redirected(&self, by: &By) -> bool {
        match by {
            By::Caller(_) => self.allow_redirect != Some(false),
            By::Anybody { .. } => self.allow_redirect == Some(true),
        }
    }
}

/// To the object store itself, by a URL that is signed for a while. None where the bytes are in no such store, or are
/// encrypted there.
pub(super) async fn find_redirect(
    app: &App,
    by: &By,
    taking: &Taking,
    place: &Place,
    about: &About,
) -> ApiResult<Option<RawAnswer>> {
    let config = &app.config.media;
    // The URL is signed for a GET: the store would refuse a HEAD.
    let is_possible = config.redirect == MediaRedirect::Signed && place.sealed.is_none() && !taking.is_head;
    if !is_possible || !taking.may_be_redirected(by) {
        return Ok(None);
    }
    let stores = app.library.objects().stores();
    let (lifetime, shown) =
        (Duration::from_secs(config.redirect_seconds), about.disposition.to_str().unwrap_or("attachment"));
    let signed = stores.signed_url(&place.store, &place.location, lifetime, &about.content_type, shown).await;
    Ok(signed.map_err(Error::from)?.as_deref().and_then(redirect))
}

/// To the operator's CDN.
fn find_cdn(app: &App, by: &By, taking: &Taking, uri: &MediaUri) -> Option<RawAnswer> {
    let config = &app.config.media;
    if config.redirect != MediaRedirect::Cdn || !taking.may_be_redirected(by) {
        return None;
    }
    let base = config.cdn_url.as_ref()?.as_str();
    // Server names have no character that needs an escape in a path, but for the brackets of IPv6 addresses.
    let server_name = uri.server_name.as_str().replace('[', "%5B").replace(']', "%5D");
    redirect(&format!("{base}/{server_name}/{}", uri.media_id.as_str()))
}

fn absent() -> Error {
    Error::not_found("There is no such file on this server, or you may not have it")
}
