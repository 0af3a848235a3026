//! `server`: what the server is called.

use crate::db::{Conn, DbResult, args, statements};

statements! {
    FIND_SERVER_NAME = "SELECT server_name FROM server";
    /// Of several nodes that start together, the first gives the name.
    INSERT_SERVER_NAME = "INSERT INTO server (only_row, server_name) VALUES (1, $1) ON CONFLICT (only_row) DO NOTHING";
    LIST_SERVER_NAMES_OF_ACCOUNTS = "SELECT substr(user_id, instr(user_id, ':') + 1), COUNT(*) FROM accounts
            GROUP BY 1 ORDER BY 2 DESC, 1"
        | "SELECT substr(user_id, strpos(user_id, ':') + 1), COUNT(*) FROM accounts GROUP BY 1 ORDER BY 2 DESC, 1";
}

/// None where no server has started yet, or only one that did not write down what it was called.
pub(crate) async fn find_name(conn: &mut Conn) -> DbResult<Option<String>> {
    if !conn.has_table("server").await? {
        return Ok(None);
    }
    conn.find(&FIND_SERVER_NAME, args![]).await?.map(|row| row.get(0)).transpose()
}

/// Gives the server its name, if it has none.
pub(crate) async fn insert_name(conn: &mut Conn, name: &str) -> DbResult<()> {
    conn.execute(&INSERT_SERVER_NAME, args![name]).await.map(drop)
}

/// The servers that accounts here belong to by their user ids, that of most of them first.
pub(crate) async fn list_names_of_accounts(conn: &mut Conn) -> DbResult<Vec<String>> {
    if !conn.has_table("accounts").await? {
        return Ok(Vec::new());
    }
    conn.list(&LIST_SERVER_NAMES_OF_ACCOUNTS, args![]).await?.iter().map(|row| row.get(0)).collect()
}
