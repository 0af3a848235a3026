//! `hearth admin deactivate-account`: asks whether it is meant, and watches how a running server takes the user out of
//! their rooms.
//!
//! The account itself is ended by then, in one transaction. What is watched is only how the rooms follow, so breaking
//! off the command stops nothing.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use ruma::UserId;
use tokio::time::{Instant, sleep};

use super::{AdminContext, Failure, confirm, say};
use crate::config::cli::DeactivateAccount;

/// How often to look how far it has come.
const LOOK: Duration = Duration::from_millis(200);
/// Who has left no room for so long is left to the server.
const PATIENCE: Duration = Duration::from_secs(10);

impl AdminContext<'_> {
    pub(super) async fn deactivate(&self, deactivate: &DeactivateAccount) -> Result<(), Failure> {
        let name = &deactivate.account.name;
        // Before the question, which names the account and says how many rooms that is.
        let (user_id, rooms) = self.administration.look_at_departure(name).await.map_err(self.explain())?;
        if !deactivate.yes {
            confirm(&warning(&user_id, rooms, deactivate.erase), user_id.as_str()).await?;
        }
        // What was looked at may have changed meanwhile: the account is looked up again, under its lock.
        let user_id = self.administration.deactivate(name, deactivate.erase).await.map_err(self.explain())?;
        let erased = if deactivate.erase { " and erased" } else { "" };
        self.report_done(&user_id, &format!("{user_id} is deactivated{erased}.")).await?;
        self.watch(&user_id, rooms).await
    }

    /// Shows how many of their rooms somebody has left until that is all, or nothing goes on.
    async fn watch(&self, user_id: &UserId, rooms: i64) -> Result<(), Failure> {
        let administration = &self.administration;
        let (mut left, mut since) = (rooms, Instant::now());
        let mut progress = Progress { all: rooms, shown: None };
        loop {
            // By the errand, and not by the number of rooms: some may have been entered again, or can't be left.
            if administration.has_departed(user_id).await.map_err(self.explain())? {
                progress.complete()?;
                progress.end()?;
                return say("They have left all their rooms.\n");
            }
            // It may also grow, by invitations. What counts is whether anything goes on.
            let now_left = administration.count_rooms(user_id).await.map_err(self.explain())?;
            if now_left != left {
                (left, since) = (now_left, Instant::now());
            }
            progress.show(left)?;
            if since.elapsed() >= PATIENCE || !administration.may_run().await.map_err(self.explain())? {
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

/// What is said before it is done. Whoever types has to name whom they mean.
fn warning(user_id: &UserId, rooms: i64, erase: bool) -> String {
    let erased = if erase {
        " Their name, picture and password are forgotten, and what they said is hidden from whoever joins a room later."
    } else {
        ""
    };
    format!(
        "This ends the account {user_id} for good. It leaves its rooms, {rooms} of them, and nobody gets its name again.\
         {erased}"
    )
}

/// One line that changes on a terminal; elsewhere there is none.
struct Progress {
    /// How many rooms there were.
    all: i64,
    /// How many were left to leave when the line was last written; none before.
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

    /// Nobody shall wonder about a number that was the last to be looked at.
    fn complete(&mut self) -> Result<(), Failure> {
        if self.shown.is_some() { self.show(0) } else { Ok(()) }
    }

    /// Whatever comes next has a line of its own.
    fn end(&self) -> Result<(), Failure> {
        if self.shown.is_some() {
            writeln!(io::stderr())?;
        }
        Ok(())
    }
}
