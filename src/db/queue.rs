//! Inserts that wait to be run together.
//!
//! `PostgreSQL` is a round trip away, and the tables that a batch writes don't look at each other. There the
//! inserts of a transaction are held back until it reads something or commits, and run as one statement:
//! `WITH i1 AS (INSERT …), i2 AS (INSERT …) INSERT …`.
//!
//! Values are added to the one list of arguments as they come, so nothing of the rows is kept but what goes to the
//! server. The order of the inserts does not matter: none reads what another writes, and two into one table are never
//! in the same statement.

use sqlx::{AssertSqlSafe, Executor as _, PgConnection, postgres::PgArguments};

use super::{
    error::{DbError, DbResult},
    insert::{Column, Insert, render_together},
};

/// The inserts that wait, with their values as the database reads them.
#[derive(Debug, Default)]
pub(super) struct InsertQueue {
    inserts: Vec<&'static Insert>,
    arguments: PgArguments,
}

impl InsertQueue {
    /// Whether an insert can join those that wait: one statement can't touch a row twice.
    pub(super) fn admits(&self, insert: &Insert) -> bool {
        self.inserts.iter().all(|waiting| waiting.table() != insert.table())
    }

    /// Only of an insert that [`Self::admits`] lets in. No rows are not queued.
    pub(super) fn push(&mut self, insert: &'static Insert, columns: &[Column<'_>]) -> DbResult<()> {
        if insert.check(columns) > 0 {
            insert.add_to_postgres(columns, &mut self.arguments)?;
            self.inserts.push(insert);
        }
        Ok(())
    }

    /// Runs what waits. The queue is empty afterwards, also where the statement has failed: the transaction is lost
    /// then.
    pub(super) async fn flush(&mut self, connection: &mut PgConnection) -> DbResult<()> {
        if self.inserts.is_empty() {
            return Ok(());
        }
        let Self { inserts, arguments } = std::mem::take(self);
        // The text is made of names in this program's source; what comes from outside is in the arguments. Each
        // combination of tables is prepared once for a connection, and there are few.
        let query = sqlx::query_with(AssertSqlSafe(render_together(&inserts)), arguments);
        connection.execute(query).await.map(drop).map_err(|e| {
            let names: Vec<&str> = inserts.iter().map(|insert| insert.name()).collect();
            DbError::new(names.join(" + "), e)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::{ColumnType, args, statements, testing};

    statements! {
        MAKE_ONE = "CREATE TABLE one (id BIGINT PRIMARY KEY, word TEXT)";
        MAKE_OTHER = "CREATE TABLE other (id BIGINT PRIMARY KEY)";
        COUNT = "SELECT (SELECT COUNT(*) FROM one), (SELECT COUNT(*) FROM other)";
    }
    static ONE: Insert = Insert::new("ONE", "one", &[("id", ColumnType::Int), ("word", ColumnType::Text)], "");
    static OTHER: Insert = Insert::new("OTHER", "other", &[("id", ColumnType::Int)], "ON CONFLICT DO NOTHING");

    #[tokio::test]
    async fn a_transaction_reads_its_own_inserts_and_keeps_them_when_it_commits() {
        for database in testing::databases().await {
            let db = database.db();
            let mut tx = db.begin().await.unwrap();
            tx.execute(&MAKE_ONE, args![]).await.unwrap();
            tx.execute(&MAKE_OTHER, args![]).await.unwrap();
            tx.insert(&ONE, &[Column::ints([1, 2]), Column::texts(["a", "b"])]).await.unwrap();
            tx.insert(&OTHER, &[Column::ints([1, 2, 3])]).await.unwrap();
            let row = tx.find(&COUNT, args![]).await.unwrap().unwrap();
            assert_eq!((row.get::<i64>(0).unwrap(), row.get::<i64>(1).unwrap()), (2, 3));
            // The same table twice, and rows that are there already.
            tx.insert(&OTHER, &[Column::ints([3, 4])]).await.unwrap();
            tx.insert(&OTHER, &[Column::ints([4, 5])]).await.unwrap();
            tx.insert(&ONE, &[Column::ints([]), Column::texts([])]).await.unwrap();
            tx.commit().await.unwrap();
            let mut conn = db.read().await.unwrap();
            let row = conn.find(&COUNT, args![]).await.unwrap().unwrap();
            assert_eq!((row.get::<i64>(0).unwrap(), row.get::<i64>(1).unwrap()), (2, 5));
            drop(conn);

            let mut tx = db.begin().await.unwrap();
            let refused = async {
                tx.insert(&OTHER, &[Column::ints([6])]).await?;
                tx.insert(&ONE, &[Column::ints([3, 1]), Column::texts(["c", "again"])]).await?;
                tx.commit().await
            };
            let refused = refused.await.unwrap_err();
            assert!(refused.is_conflict(), "{refused}");
            assert!(refused.to_string().contains("ONE"), "{refused}");
            let mut conn = db.read().await.unwrap();
            let row = conn.find(&COUNT, args![]).await.unwrap().unwrap();
            assert_eq!((row.get::<i64>(0).unwrap(), row.get::<i64>(1).unwrap()), (2, 5), "nothing of it is left");
            drop(conn);
            database.close().await;
        }
    }
}
