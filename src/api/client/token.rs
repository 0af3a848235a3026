//! The tokens between which a client pages.
//!
//! One of another log, which a restored backup has replaced, names no place in this one. Whoever pages back with it
//! begins with the newest, and goes on until the end where it said how far: some of that they may have seen before, and
//! nothing is missing. Only whoever pages on from it is refused: what comes after what is gone is not known.

use ruma::api::Direction;

use crate::{
    api::own::given,
    app::App,
    error::{Error, Result},
    ground::position::{Order, PageToken, Position, Token},
};

/// The place in a room that a token names, if there is a token and it names one.
pub(super) async fn place(app: &App, token: Option<&str>) -> Result<Option<Order>> {
    match given(token).map(str::parse::<PageToken>).transpose()? {
        // As it stands, even if it lies beyond the end: nothing is there.
        Some(PageToken { order, mark: None }) => Ok(Some(order)),
        Some(PageToken { order, mark }) => {
            let of_log = Token { position: order.floor(), mark, catching_up: false, delivered: None };
            Ok(app.log.place(&of_log).await?.map(|_| order))
        }
        None => Ok(None),
    }
}

/// The place from which to page in some direction, if the client names one.
pub(super) async fn start(app: &App, token: Option<&str>, direction: Direction) -> Result<Option<Order>> {
    let token = given(token);
    match (place(app, token).await?, token, direction) {
        (None, Some(_), Direction::Forward) => Err(of_another_log()),
        // Before everything that is in the log is before everything.
        (Some(place), _, Direction::Forward) if place == Order::until(Position::START) => Ok(Some(Order::START)),
        (place, ..) => Ok(place),
    }
}

/// The place up to which to page in some direction, if the client names one. Back to a position of the log is back to
/// what it has there: what has been fetched since and stands just behind that is news to the client.
pub(super) async fn end(app: &App, token: Option<&str>, direction: Direction) -> Result<Option<Order>> {
    let place = place(app, token).await?;
    let is_of_log = |place: &Order| *place == Order::until(place.floor());
    Ok(match direction {
        Direction::Backward => place.map(|place| if is_of_log(&place) { Order::at(place.floor()) } else { place }),
        Direction::Forward => place,
    })
}

/// The place from which to listen to what is said, if the client names one. From beyond the end nothing would be heard
/// until the log has come so far.
pub(super) async fn listening_point(app: &App, token: Option<&str>) -> Result<Option<Position>> {
    let Some(token) = given(token) else { return Ok(None) };
    let place = app.log.place(&token.parse()?).await?;
    place.map(Some).ok_or_else(of_another_log)
}

/// The place up to which a client has synced, by a token that it must have been given.
pub(super) async fn synced_place(app: &App, token: &str) -> Result<Position> {
    app.log.place(&token.parse()?).await?.ok_or_else(of_another_log)
}

/// The refusal of a token with which nothing can be begun.
fn of_another_log() -> Error {
    let message = "This token is of a log that has been replaced by a restored backup: begin anew without one";
    Error::invalid_param(message)
}
