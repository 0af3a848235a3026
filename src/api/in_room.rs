//! Requests to read a room. Whoever may not read it is refused for that, whatever else is wrong with their request: so
//! the room is opened first, and the parameters are judged after that.

use ruma::{
    OwnedRoomId,
    api::{IncomingRequest, error::DeserializationError},
};

use super::{
    error::ApiResult,
    own::{metadata_of, read_path},
    read::named,
};

/// A request to endpoint `R`, whose path begins with a room.
pub(crate) struct InRoom<R> {
    pub(crate) room_id: OwnedRoomId,
    request: Result<R, DeserializationError>,
}

impl<R> InRoom<R> {
    /// The request itself, to be asked for once it is known that the caller may read the room.
    pub(crate) fn read(self) -> ApiResult<R> {
        self.request.map_err(|error| named(&error))
    }
}

metadata_of!(for R: InRoom<R>);

impl<R: IncomingRequest> IncomingRequest for InRoom<R> {
    type EndpointError = R::EndpointError;
    type OutgoingResponse = R::OutgoingResponse;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        let (room_id,) = read_path(path_args.get(..1).unwrap_or_default())?;
        Ok(Self { room_id, request: R::try_from_http_request_inner(request, path_args) })
    }
}
