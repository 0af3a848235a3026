//! A row as it came from either engine.
//!
//! Identifiers are checked when they are read, so that what has an identifier's type is one. Reading fails where
//! somebody else has written to the database.
//!
//! NULL is read only as an `Option`; as anything else it is an error.

use sqlx::{ColumnIndex, Decode, Type, postgres::PgRow, sqlite::SqliteRow};

use super::error::{DbError, DbResult};

/// A row of a statement's answer; columns are read by their place.
pub(crate) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

/// What a column can be read as.
pub(crate) trait FromColumn: Sized {
    fn from_column(row: &Row, index: usize) -> Result<Self, sqlx::Error>;
}

fn read<'r, R, T>(row: &'r R, index: usize) -> Result<T, sqlx::Error>
where
    R: sqlx::Row,
    usize: ColumnIndex<R>,
    T: Decode<'r, R::Database> + Type<R::Database>,
{
    row.try_get(index)
}

macro_rules! from_column {
    ($($type:ty),*) => {$(
        impl FromColumn for $type {
            fn from_column(row: &Row, index: usize) -> Result<Self, sqlx::Error> {
                match row {
                    Row::Sqlite(row) => read(row, index),
                    Row::Postgres(row) => read(row, index),
                }
            }
        }
    )*};
}

from_column!(i64, Option<i64>, String, Option<String>, Vec<u8>, Option<Vec<u8>>, bool, Option<bool>);

macro_rules! identifier_column {
    ($($type:ty),*) => {$(
        impl FromColumn for $type {
            fn from_column(row: &Row, index: usize) -> Result<Self, sqlx::Error> {
                let text = String::from_column(row, index)?;
                <$type>::try_from(text).map_err(|e| sqlx::Error::Decode(Box::new(e)))
            }
        }
        impl FromColumn for Option<$type> {
            fn from_column(row: &Row, index: usize) -> Result<Self, sqlx::Error> {
                let Some(text) = Option::<String>::from_column(row, index)? else { return Ok(None) };
                <$type>::try_from(text).map(Some).map_err(|e| sqlx::Error::Decode(Box::new(e)))
            }
        }
    )*};
}

identifier_column!(
    ruma::OwnedUserId,
    ruma::OwnedRoomId,
    ruma::OwnedEventId,
    ruma::OwnedRoomAliasId,
    ruma::OwnedServerName,
    ruma::RoomVersionId
);

impl FromColumn for ruma::OwnedDeviceId {
    fn from_column(row: &Row, index: usize) -> Result<Self, sqlx::Error> {
        String::from_column(row, index).map(Self::from)
    }
}

impl Row {
    /// Reads the column at `index`, counted from 0 in the order of the statement.
    pub(crate) fn get<T: FromColumn>(&self, index: usize) -> DbResult<T> {
        T::from_column(self, index).map_err(|e| DbError::new("reading a column", e))
    }

    /// Reads a column that holds JSON.
    pub(crate) fn json<T: serde::de::DeserializeOwned>(&self, index: usize) -> DbResult<T> {
        serde_json::from_str(&self.get::<String>(index)?).map_err(DbError::decode)
    }
}
