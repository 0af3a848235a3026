//! What stands for places of the log in the hands of clients.
//!
//! A token is a place and the mark of the batch that holds it ([`super::marks`]). It says nothing of what its holder
//! has seen or may see, so anybody may make one up: it is only a number to begin at.

use std::collections::HashMap;

use super::commit::Log;
use crate::{
    error::Error,
    ground::position::{Mark, Order, PageToken, Position, Token},
    store,
};

/// What stands for some places of this log in the hands of a client. A place that is not in it, or of which the
/// database knew no batch, gets a token without a mark, which is taken as it stands when it comes back.
#[derive(Debug, Default)]
pub struct Tokens(HashMap<Position, Mark>);

impl Tokens {
    /// The token of one of the places.
    pub fn of(&self, position: Position) -> Token {
        Token { position, mark: self.0.get(&position).copied(), catching_up: false, delivered: None }
    }

    /// The token of a place in a room.
    pub fn of_page(&self, order: Order) -> PageToken {
        PageToken { order, mark: self.0.get(&order.floor()).copied() }
    }
}

impl Log {
    /// The token of a place that this node has read.
    pub async fn token(&self, position: Position) -> Result<Token, Error> {
        Ok(self.tokens([position]).await?.of(position))
    }

    /// The tokens of places that this node has read. One statement at most for all of them. The errors are the
    /// database's.
    pub async fn tokens(&self, places: impl IntoIterator<Item = Position>) -> Result<Tokens, Error> {
        let (mut marks, mut unknown) = (HashMap::new(), Vec::new());
        // Before everything every log is the same.
        for place in places.into_iter().filter(|place| *place > Position::START) {
            match self.tail().mark(place).or_else(|| self.older.find(place)) {
                Some(mark) => drop(marks.insert(place, mark)),
                None => unknown.push(place.0),
            }
        }
        if !unknown.is_empty() {
            let found = store::log::marks_at(&mut self.db.read().await?, &unknown).await?;
            let found: HashMap<_, _> = found.into_iter().collect();
            self.older.extend(&found);
            marks.extend(found);
        }
        Ok(Tokens(marks))
    }

    /// The tokens of places in rooms as this node has read them.
    pub async fn page_tokens(&self, places: impl IntoIterator<Item = Order>) -> Result<Tokens, Error> {
        self.tokens(places.into_iter().map(Order::floor)).await
    }

    /// The place that a token stands for. None for a token of another log: a backup has been restored since it was
    /// given out, from before its place. The errors are those of [`Log::refresh`] and of the database.
    pub async fn place(&self, token: &Token) -> Result<Option<Position>, Error> {
        let position = token.position;
        if position > self.tail().reached() {
            // One from another node may be ahead of this one.
            self.refresh().await?;
            if position > self.tail().reached() {
                return Ok(None);
            }
        }
        // Those that were given out before tokens had marks are taken as they stand.
        let is_ours = match token.mark {
            Some(mark) => self.tokens([position]).await?.of(position).mark == Some(mark),
            None => true,
        };
        Ok(is_ours.then_some(position))
    }
}
