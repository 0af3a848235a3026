//! The tokens between which a client pages.
//!
//! One of another log, which a restored backup has replaced, names no place in this one. Whoever pages back with it
//! begins with the newest, and goes on until the end where it said how far: some of that they may have seen before, and
//! nothing is missing. Only whoever pages on from it is refused: what comes after what is gone can't be told.

use ruma::api::Direction;

use crate::{
    app::App,
    error::{Error, Result},
    position::{Position, Token},
};

/// The place that a token names, if there is a token and it names one.
pub(super) async fn place(app: &App, token: Option<&str>) -> Result<Option<Position>> {
    match token.filter(|token| !token.is_empty()).map(str::parse::<Token>).transpose()? {
        // As it stands, even if it lies beyond the end: nothing is there.
        Some(Token { position, mark: None, .. }) => Ok(Some(position)),
        Some(token) => app.log.place(&token).await,
        None => Ok(None),
    }
}

/// The place from which to page in some direction, if the client names one.
pub(super) async fn start(app: &App, token: Option<&str>, direction: Direction) -> Result<Option<Position>> {
    let token = token.filter(|token| !token.is_empty());
    match (place(app, token).await?, token, direction) {
        (None, Some(_), Direction::Forward) => Err(of_another_log()),
        (place, ..) => Ok(place),
    }
}

/// The place from which to listen to what is said, if the client names one. From beyond the end nothing would be heard
/// until the log has come so far.
pub(super) async fn listening_point(app: &App, token: Option<&str>) -> Result<Option<Position>> {
    let Some(token) = token.filter(|token| !token.is_empty()) else { return Ok(None) };
    let place = app.log.place(&token.parse()?).await?;
    place.map(Some).ok_or_else(of_another_log)
}

/// The refusal of a token with which nothing can be begun.
fn of_another_log() -> Error {
    let message = "This token is of a log that has been replaced by a restored backup: begin anew without one";
    Error::invalid_param(message)
}
