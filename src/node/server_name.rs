//! Whose the database is. A server's name is part of every user id and every event, so it stays for ever: the first start
//! writes it down, and whoever comes with another one is refused before anything is done.
//!
//! <https://spec.matrix.org/v1.19/appendices/#server-name>

use ruma::ServerName;

use crate::{
    db::{Conn, Db},
    error::{Error, Result},
    store::server,
};

/// Refuses where the database is another server's. Nothing is written, and the schema may be of any release, or missing.
pub async fn check(db: &Db, name: &ServerName) -> Result<()> {
    match find_owner(&mut db.read().await?, name).await? {
        Some(owner) if owner != name.as_str() => Err(refusal(&owner, name)),
        _ => Ok(()),
    }
}

/// Takes the database for this server if it is nobody's, and refuses where it is another's. It has been checked and
/// migrated before.
pub(crate) async fn claim(db: &Db, name: &ServerName) -> Result<()> {
    let mut tx = db.begin().await?;
    server::insert_name(&mut tx, name.as_str()).await?;
    match server::find_name(&mut tx).await? {
        Some(owner) if owner != name.as_str() => return Err(refusal(&owner, name)),
        _ => {}
    }
    Ok(tx.commit().await?)
}

/// The name that is written down. Servers of before wrote down none: it is that of their accounts, and if they were
/// tried out under another name first, whichever of these comes again.
async fn find_owner(conn: &mut Conn, wanted: &ServerName) -> Result<Option<String>> {
    if let Some(owner) = server::find_name(conn).await? {
        return Ok(Some(owner));
    }
    let mut names = server::list_names_of_accounts(conn).await?;
    let wanted = names.iter().position(|name| name == wanted.as_str()).unwrap_or_default();
    Ok((wanted < names.len()).then(|| names.swap_remove(wanted)))
}

fn refusal(owner: &str, name: &ServerName) -> Error {
    let elsewhere = "another database (`data_dir` or `database.url`)";
    if owner.eq_ignore_ascii_case(name.as_str()) {
        return Error::forbidden(format!(
            "the database belongs to the server `{owner}`. Names with capitals are refused, and its accounts can't get \
             another: give `{name}` {elsewhere}"
        ));
    }
    Error::forbidden(format!(
        "the database belongs to the server `{owner}`, and `server_name` is `{name}`. A server keeps its name for ever, \
         because every user id ends with it: set `server_name` to \"{owner}\", or give `{name}` {elsewhere}"
    ))
}

#[cfg(test)]
mod tests {
    use ruma::server_name;

    use super::*;
    use crate::{config::RegistrationMode, db::testing, people::account::tests::house};

    fn refused(result: Result<()>) -> String {
        match result {
            Err(Error::Refused { message, .. }) => message,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn of_nodes_that_start_together_the_first_gives_the_name() {
        for database in testing::databases().await {
            let db = database.db();
            let (a, b) = (server_name!("a.example.org"), server_name!("b.example.org"));
            for name in [a, b] {
                check(db, name).await.unwrap();
            }
            let results = tokio::join!(claim(db, a), claim(db, b), claim(db, a), claim(db, b));
            let (first, second) = if results.0.is_ok() { (a, b) } else { (b, a) };
            for (name, result) in [(a, results.0), (b, results.1), (a, results.2), (b, results.3)] {
                assert_eq!(result.is_ok(), name == first);
            }
            check(db, first).await.unwrap();
            claim(db, first).await.unwrap();
            for message in [refused(check(db, second).await), refused(claim(db, second).await)] {
                assert!(message.contains(first.as_str()) && message.contains("`server_name`"), "{message}");
            }
            database.close().await;
        }
    }

    #[tokio::test]
    async fn accounts_say_whose_the_database_is_where_nothing_was_written_down() {
        for database in testing::databases().await {
            let (db, name, trial) = (database.db(), server_name!("example.org"), server_name!("localhost"));
            let house = house(&database, RegistrationMode::Closed).await;
            house.accounts.create_user("alice", "secret", false).await.unwrap();
            check(db, name).await.unwrap();
            let message = refused(check(db, trial).await);
            assert!(message.contains("`example.org`"), "{message}");
            let message = refused(check(db, server_name!("Example.org")).await);
            assert!(message.contains("capitals"), "{message}");

            let mut tx = db.begin().await.unwrap();
            for user in ["@alice:localhost", "@bob:localhost"] {
                let user = ruma::UserId::parse(user).unwrap();
                crate::store::account::insert(&mut tx, &user, None, false, 0).await.unwrap();
            }
            tx.commit().await.unwrap();
            for known in [name, trial] {
                check(db, known).await.unwrap();
            }
            assert!(refused(check(db, server_name!("elsewhere.org")).await).contains("`localhost`"));
            claim(db, name).await.unwrap();
            refused(check(db, trial).await);
            drop(house);
            database.close().await;
        }
    }
}
