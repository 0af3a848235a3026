//! The words of the names that are there already, for `0007_user_directory` and, since they are other words than once,
//! for `0013_words`: SQL does not know where a word begins.
//!
//! Users are read 500 at a time and in the order of their identifiers, so that a large server needs no more memory for
//! it than a small one.

use futures_util::future::BoxFuture;
use ruma::OwnedUserId;

use crate::{
    db::{Column, ColumnType, DbResult, Insert, Row, Tx, args, statements},
    ground::words::{self, Word},
};

statements! {
    LIST_NAMES = "SELECT d.user_id, d.is_public, p.value FROM user_directory d
        LEFT JOIN profiles p ON p.user_id = d.user_id AND p.field = 'displayname'
        WHERE d.user_id > $1 ORDER BY d.user_id LIMIT 500";
}

static INSERT_FIRST_WORDS: Insert = Insert::new(
    "INSERT_FIRST_WORDS",
    "user_directory_words",
    &[
        ("user_id", ColumnType::Text),
        ("room_id", ColumnType::Text),
        ("word", ColumnType::Text),
        ("rank", ColumnType::Int),
        ("is_public", ColumnType::Bool),
    ],
    "",
);

struct NameWord {
    user_id: OwnedUserId,
    is_public: bool,
    word: Word,
}

pub(super) fn fill(tx: &mut Tx) -> BoxFuture<'_, DbResult<()>> {
    Box::pin(async move {
        let mut last = String::new();
        loop {
            let rows = tx.list(&LIST_NAMES, args![&last]).await?;
            let mut found = Vec::new();
            for row in &rows {
                found.extend(words_of(row)?);
            }
            let columns = [
                Column::texts(found.iter().map(|found| found.user_id.as_str())),
                Column::texts(found.iter().map(|_| "")),
                Column::texts(found.iter().map(|found| found.word.text.as_str())),
                Column::ints(found.iter().map(|found| found.word.rank.0)),
                Column::Bools(found.iter().map(|found| found.is_public).collect()),
            ];
            tx.insert(&INSERT_FIRST_WORDS, &columns).await?;
            match rows.last() {
                Some(row) => last = row.get(0)?,
                None => return Ok(()),
            }
        }
    })
}

fn words_of(row: &Row) -> DbResult<Vec<NameWord>> {
    let (user_id, is_public): (OwnedUserId, bool) = (row.get(0)?, row.get(1)?);
    let name: Option<String> = row.get(2)?;
    let name = name.and_then(|json| serde_json::from_str::<serde_json::Value>(&json).ok());
    let words = words::of_user(&user_id, name.as_ref().and_then(serde_json::Value::as_str));
    Ok(words.into_iter().map(|word| NameWord { user_id: user_id.clone(), is_public, word }).collect())
}
