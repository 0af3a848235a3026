//! The content repository: pictures, videos and files that `mxc:` URIs name.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#content-repository>

mod answer;
mod download;
pub(in crate::api) mod old;
mod preview;
mod range;
mod thumbnail;
mod upload;

use ruma::{
    UInt,
    api::client::{
        authenticated_media::get_media_config::v1 as get_media_config, media::get_media_config::v3 as get_config_of_old,
    },
};

use crate::{
    api::{error::ApiResult, extract::Call, route::Endpoints},
    app::App,
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    let sections = [upload::routes, download::routes, thumbnail::routes, preview::routes];
    let endpoints = sections.into_iter().fold(endpoints, |endpoints, section| section(endpoints));
    endpoints.endpoint::<get_media_config::Request, _, _>(config).endpoint::<old::GetMediaConfig, _, _>(config_of_old)
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediaconfig>
async fn config(app: App, _: Call<get_media_config::Request>) -> ApiResult<get_media_config::Response> {
    Ok(get_media_config::Response::new(max_upload(&app)))
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixmediav3config>
async fn config_of_old(app: App, _: Call<old::GetMediaConfig>) -> ApiResult<get_config_of_old::Response> {
    Ok(get_config_of_old::Response::new(max_upload(&app)))
}

/// In bytes.
fn max_upload(app: &App) -> UInt {
    UInt::try_from(app.uploads.max_bytes()).unwrap_or(UInt::MAX)
}
