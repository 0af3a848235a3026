//! Errands: what the operator asks for on the command line and only a running node can do, because it takes the log.
//!
//! The command leaves them in the database, and the node whose duty it is does them: for several users at once, for each
//! of them one after the other. Each can be done twice without harm: by two nodes that both believe it is their duty, or
//! again after a crash.

use std::{collections::BTreeMap, time::Duration};

use futures_util::{StreamExt as _, stream};
use ruma::{OwnedUserId, UserId};

use crate::{
    account::Accounts,
    db::Db,
    error::{Error, Result},
    node::Duty,
    notice::{self, Notices},
    store::errand::{self, Errand, Kind},
    tasks::Shutdown,
};

/// How often a node looks for errands.
const LOOK: Duration = Duration::from_millis(500);
/// How long to wait after something has failed.
const PAUSE: Duration = Duration::from_secs(2);
/// How many errands are taken up together.
const TOGETHER: i64 = 200;
/// To how many users something is done at once: enough to share commits, few enough to leave room for others.
const USERS_AT_ONCE: usize = 16;

/// Who does the errands.
pub(crate) struct Errands {
    db: Db,
    accounts: Accounts,
    /// None where no server notices are configured; they wait then.
    notices: Option<Notices>,
    duty: Duty,
}

/// Leaves word to send a notice to a user, or to everybody but `sender`. Tells to how many that is.
pub(crate) async fn leave_notice(
    db: &Db,
    to: Option<&UserId>,
    sender: &UserId,
    text: &str,
    id: String,
    now: i64,
) -> Result<u64> {
    notice::check_text(text)?;
    let mut tx = db.begin().await?;
    let count = match to {
        Some(user_id) => {
            let errand = Errand { id, user_id: user_id.to_owned(), body: Some(text.to_owned()) };
            errand::insert(&mut tx, Kind::Notice, &errand, now).await?;
            1
        }
        None => errand::insert_for_all(&mut tx, Kind::Notice, &id, text, sender, now).await?,
    };
    tx.commit().await?;
    Ok(count)
}

impl Errands {
    pub(crate) fn new(db: Db, accounts: Accounts, notices: Option<Notices>, duty: Duty) -> Self {
        Self { db, accounts, notices, duty }
    }

    /// Does errands until the server stops.
    pub(crate) async fn run(self, shutdown: Shutdown) {
        let mut introduced = false;
        loop {
            let rest = match self.look(&mut introduced).await {
                Ok(true) => Duration::ZERO,
                Ok(false) => LOOK,
                Err(error) => {
                    tracing::warn!(%error, "errands could not be done; it is tried again");
                    PAUSE
                }
            };
            tokio::select! {
                biased;
                () = shutdown.started() => break,
                () = tokio::time::sleep(rest) => {}
            }
        }
    }

    /// Does what there is, up to a number, and tells whether there may be more.
    async fn look(&self, introduced: &mut bool) -> Result<bool> {
        let mut more = self.duty.is_mine() && self.take_up(Kind::Account).await?;
        if let Some(notices) = &self.notices {
            if !*introduced {
                notices.introduce().await?;
                *introduced = true;
            }
            more |= self.duty.is_mine() && self.take_up(Kind::Notice).await?;
        }
        Ok(more)
    }

    async fn take_up(&self, kind: Kind) -> Result<bool> {
        let errands = errand::list(&mut self.db.read().await?, kind, TOGETHER).await?;
        let more = i64::try_from(errands.len()).is_ok_and(|count| count == TOGETHER);
        // What one user is told, they are told in order.
        let mut by_user: BTreeMap<OwnedUserId, Vec<Errand>> = BTreeMap::new();
        for errand in errands {
            by_user.entry(errand.user_id.clone()).or_default().push(errand);
        }
        let done = stream::iter(by_user.into_values())
            .map(|errands| async move { self.take_in_order(kind, &errands).await })
            .buffer_unordered(USERS_AT_ONCE);
        done.fold(Ok(()), |so_far, done| async { so_far.and(done) }).await?;
        Ok(more)
    }

    async fn take_in_order(&self, kind: Kind, errands: &[Errand]) -> Result<()> {
        for errand in errands {
            self.take(kind, errand).await?;
        }
        Ok(())
    }

    async fn take(&self, kind: Kind, errand: &Errand) -> Result<()> {
        match self.carry_out(kind, errand).await {
            Err(Error::Refused { message, .. }) => {
                tracing::warn!(user_id = %errand.user_id, reason = message, "an errand can't be done and is dropped");
            }
            done => done?,
        }
        let mut tx = self.db.begin().await?;
        errand::delete(&mut tx, errand).await?;
        Ok(tx.commit().await?)
    }

    async fn carry_out(&self, kind: Kind, errand: &Errand) -> Result<()> {
        match (kind, &self.notices) {
            (Kind::Account, _) => self.accounts.changed_from_outside(&errand.user_id).await,
            (Kind::Notice, Some(notices)) => {
                notices.send(&errand.user_id, errand.body.as_deref().unwrap_or_default(), &errand.id).await
            }
            (Kind::Notice, None) => Err(Error::broken("nobody is there to send a notice")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::{
        account::{Restriction, tests::house},
        config::RegistrationMode,
        db::testing,
        hub::Hub,
        metrics::Metrics,
        node::Nodes,
        random::Random,
        tasks::Tasks,
    };

    #[tokio::test]
    async fn an_errand_stays_until_the_other_nodes_could_be_told() {
        let database = testing::sqlite().await;
        let house = house(&database, RegistrationMode::Closed);
        let (db, tasks, hub) = (database.db().clone(), Tasks::new(), Hub::silent());
        let (clock, random) = (house.clock.clone(), Random::system());
        let nodes = Nodes::enter(db.clone(), clock, &random, hub, None, Metrics::new(), &tasks).await.unwrap();
        let errands = Errands::new(db, house.accounts.clone(), None, nodes.duty("errands").await.unwrap());
        let left = async || errand::list(&mut errands.db.read().await.unwrap(), Kind::Account, 10).await.unwrap().len();

        let alice = house.accounts.create_user("alice", "secret", false).await.unwrap();
        house.accounts.restrict_from_outside("alice", Restriction::Locked, true).await.unwrap();
        house.changed.lock().clear();
        house.cut_off.store(true, Ordering::Relaxed);
        assert!(matches!(errands.take_up(Kind::Account).await, Err(Error::Unavailable(_))));
        assert_eq!(left().await, 1);
        house.cut_off.store(false, Ordering::Relaxed);
        assert!(!errands.take_up(Kind::Account).await.unwrap());
        assert_eq!(left().await, 0);
        assert_eq!(*house.changed.lock(), [alice]);
        tasks.join_all(Duration::from_secs(5)).await;
        drop(errands);
        drop(house);
        database.close().await;
    }
}
