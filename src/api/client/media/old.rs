//! Endpoints that ruma calls deprecated, because they were there before one needed a token to download something. Clients
//! of those years call them, and links of those years lead to them.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#content-repo-client-behaviour>

#![expect(deprecated, reason = "what is deprecated is still called")]

use ruma::api::client::media::{
    get_content, get_content_as_filename, get_content_thumbnail, get_media_config, get_media_preview,
};

pub(in crate::api) type GetContent = get_content::v3::Request;
pub(in crate::api) type GetContentAsFilename = get_content_as_filename::v3::Request;
pub(in crate::api) type GetContentThumbnail = get_content_thumbnail::v3::Request;
pub(in crate::api) type GetMediaConfig = get_media_config::v3::Request;
pub(in crate::api) type GetMediaPreview = get_media_preview::v3::Request;
