//! `hearth admin deactivate-account`: asks whether it is meant, and watches how a running server takes the user out of
//! their rooms.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use ruma::UserId;
use tokio::time::{Instant, sleep};

use super::{Desk, Failure, password::read_line, say};
use crate::cli::DeactivateAccount;

/// How often to look how far it has come.
const LOOK: Duration = Duration::from_millis(200);
/// Who has left no room for so long is left to the server.
const PATIENCE: Duration = Duration::from_secs(10);

impl Desk<'_> {
    pub(super) async fn deactivate(&self, deactivate: &DeactivateAccount) -> Result<(), Failure> {
        let name = &deactivate.account.name;
        let (user_id, rooms) = self.administration.look_at_departure(name).await.map_err(self.broke())?;
        if !deactivate.yes {
            confirm(&user_id, rooms, deactivate.erase)?;
        }
        let user_id = self.administration.deactivate(name, deactivate.erase).await.map_err(self.broke())?;
        let erased = if deactivate.erase { " and erased" } else { "" };
        self.told(&user_id, &format!("{user_id} is deactivated{erased}.")).await?;
        self.watch(&user_id).await
    }

    /// Shows how many rooms are left until none are, or nothing goes on.
    async fn watch(&self, user_id: &UserId) -> Result<(), Failure> {
        let administration = &self.administration;
        let rooms = administration.count_rooms(user_id).await.map_err(self.broke())?;
        let (mut left, mut since) = (rooms, Instant::now());
        let mut progress = Progress { all: rooms, shown: None };
        loop {
            if administration.has_departed(user_id).await.map_err(self.broke())? {
                progress.end()?;
                return say("They have left all their rooms.\n");
            }
            let now_left = administration.count_rooms(user_id).await.map_err(self.broke())?;
            if now_left != left {
                (left, since) = (now_left, Instant::now());
            }
            progress.show(left)?;
            if since.elapsed() >= PATIENCE || !administration.may_run().await.map_err(self.broke())? {
                progress.end()?;
                let rooms = if left == 1 { "one room".to_owned() } else { format!("{left} rooms") };
                return say(&format!(
                    "They are in {rooms} still: a running server goes on with that, one that is stopped when it starts.\n"
                ));
            }
            sleep(LOOK).await;
        }
    }
}

/// Nothing of it can be undone, so whoever types has to name whom they mean.
fn confirm(user_id: &UserId, rooms: i64, erase: bool) -> Result<(), Failure> {
    let erased = if erase { " Their name, picture and password are forgotten." } else { "" };
    let warning = format!(
        "This ends the account {user_id} for good. It leaves its rooms, {rooms} of them, and nobody gets its name again.\
         {erased}"
    );
    if !io::stdin().is_terminal() {
        return Err(Failure::new(format!("{warning} If that is meant, add --yes")));
    }
    write!(io::stderr(), "{warning}\nType {user_id} if that is meant: ")?;
    if read_line()?.trim() != user_id.as_str() {
        return Err(Failure::new("nothing was done"));
    }
    Ok(())
}

/// One line that changes on a terminal; elsewhere there is none.
struct Progress {
    all: i64,
    shown: Option<i64>,
}

impl Progress {
    fn show(&mut self, left: i64) -> Result<(), Failure> {
        if self.shown != Some(left) && self.all > 0 && io::stderr().is_terminal() {
            self.shown = Some(left);
            write!(io::stderr(), "\rLeaving rooms: {} of {} ", self.all.saturating_sub(left), self.all)?;
        }
        Ok(())
    }

    fn end(&self) -> Result<(), Failure> {
        if self.shown.is_some() {
            writeln!(io::stderr())?;
        }
        Ok(())
    }
}
