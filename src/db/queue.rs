//! Inserts that wait to be run together.
//!
//! `PostgreSQL` is a round trip away, and the tables that a batch writes don't look at each other. There the
//! inserts of a transaction are held back until it reads something or commits, and run as one statement:
//! `WITH i1 AS (INSERT …), i2 AS (INSERT …) INSERT …`.

use std::fmt::Write as _;

use sqlx::{AssertSqlSafe, Executor as _, PgConnection, postgres::PgArguments};

use super::{Column, DbError, DbResult, Insert};

/// The inserts that wait, with their values as the database reads them.
#[derive(Debug, Default)]
pub(super) struct Queue {
    inserts: Vec<&'static Insert>,
    arguments: PgArguments,
}

impl Queue {
    /// Whether an insert can join those that wait: one statement can't touch a row twice.
    pub(super) fn admits(&self, insert: &Insert) -> bool {
        self.inserts.iter().all(|waiting| waiting.table() != insert.table())
    }

    pub(super) fn push(&mut self, insert: &'static Insert, columns: &[Column<'_>]) -> DbResult<()> {
        if insert.check(columns) > 0 {
            insert.add_to_postgres(columns, &mut self.arguments)?;
            self.inserts.push(insert);
        }
        Ok(())
    }

    /// Runs what waits.
    pub(super) async fn flush(&mut self, connection: &mut PgConnection) -> DbResult<()> {
        if self.inserts.is_empty() {
            return Ok(());
        }
        let Self { inserts, arguments } = std::mem::take(self);
        let query = sqlx::query_with(AssertSqlSafe(render(&inserts)), arguments);
        connection.execute(query).await.map(drop).map_err(|e| {
            let names: Vec<&str> = inserts.iter().map(|insert| insert.name()).collect();
            DbError::new(names.join(" + "), e)
        })
    }
}

/// One statement for all of them, their parameters one after another.
pub(super) fn render(inserts: &[&Insert]) -> String {
    let mut sql = String::new();
    let mut parameters = 0;
    for (index, insert) in inserts.iter().enumerate() {
        let last = index + 1 == inserts.len();
        if !last {
            let opening = if index == 0 { "WITH " } else { "" };
            write!(sql, "{opening}i{index} AS (").unwrap_or_default();
        }
        parameters = insert.render_postgres(&mut sql, parameters);
        if !last {
            sql.push_str(if index + 2 == inserts.len() { ") " } else { "), " });
        }
    }
    sql
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::{Kind, args, statements, testing};

    statements! {
        MAKE_ONE = "CREATE TABLE one (id BIGINT PRIMARY KEY, word TEXT)";
        MAKE_OTHER = "CREATE TABLE other (id BIGINT PRIMARY KEY)";
        COUNT = "SELECT (SELECT COUNT(*) FROM one), (SELECT COUNT(*) FROM other)";
    }
    static ONE: Insert = Insert::new("ONE", "one", &[("id", Kind::Int), ("word", Kind::Text)], "");
    static OTHER: Insert = Insert::new("OTHER", "other", &[("id", Kind::Int)], "ON CONFLICT DO NOTHING");

    #[test]
    fn several_inserts_are_one_statement() {
        let sql = render(&[&ONE, &OTHER, &ONE]);
        let squeezed = sql.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(
            squeezed,
            "WITH i0 AS (INSERT INTO one (id, word) SELECT * FROM unnest($1::bigint[], $2::text[]) ), \
             i1 AS (INSERT INTO other (id) SELECT * FROM unnest($3::bigint[]) ON CONFLICT DO NOTHING) \
             INSERT INTO one (id, word) SELECT * FROM unnest($4::bigint[], $5::text[])"
        );
    }

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
