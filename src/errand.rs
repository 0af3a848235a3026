//! Errands: what the operator asks for on the command line and only a running node can do, because it takes the log.
//!
//! The command leaves them in the database, and the node whose duty it is does them: for several users at once, for each
//! of them one after the other. Each can be done twice without harm: by two nodes that both believe it is their duty, or
//! again after a crash.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, future::BoxFuture, stream};
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

/// Takes somebody out of every room that they are in, invited to or knocking on.
pub(crate) type LeaveRooms = Arc<dyn Fn(OwnedUserId) -> BoxFuture<'static, Result<()>> + Send + Sync>;

/// Who does the errands.
pub(crate) struct Errands {
    db: Db,
    accounts: Accounts,
    leave_rooms: LeaveRooms,
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
    pub(crate) fn new(
        db: Db,
        accounts: Accounts,
        leave_rooms: LeaveRooms,
        notices: Option<Notices>,
        duty: Duty,
    ) -> Self {
        Self { db, accounts, leave_rooms, notices, duty }
    }

    /// Does errands until the server stops. What is broken off then is done again after the next start.
    pub(crate) async fn run(self, shutdown: Shutdown) {
        // Side by side: leaving many rooms takes minutes, and a lock or a new password must not wait for that.
        let accounts = self.take_up_on(Kind::Account);
        let departures = self.take_up_on(Kind::Departure);
        let notices = async {
            self.introduce().await;
            self.take_up_on(Kind::Notice).await;
        };
        tokio::select! {
            biased;
            () = shutdown.started() => {}
            _ = futures_util::future::join3(accounts, departures, notices) => {}
        }
    }

    /// Gives the server's own user its name, and returns when that is done; never where there is none.
    async fn introduce(&self) {
        let Some(notices) = &self.notices else { return std::future::pending().await };
        while let Err(error) = notices.introduce().await {
            tracing::warn!(%error, "the sender of server notices got no name; it is tried again");
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Does errands of one kind whenever they are this node's.
    async fn take_up_on(&self, kind: Kind) {
        loop {
            let rest = match self.look(kind).await {
                Ok(true) => Duration::ZERO,
                Ok(false) => LOOK,
                Err(error) => {
                    tracing::warn!(%error, "errands could not be done; it is tried again");
                    PAUSE
                }
            };
            tokio::time::sleep(rest).await;
        }
    }

    /// Does what there is of a kind, up to a number, and tells whether there may be more.
    async fn look(&self, kind: Kind) -> Result<bool> {
        if self.duty.is_mine() { self.take_up(kind).await } else { Ok(false) }
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
            (Kind::Departure, _) => {
                // First of all, so that nobody comes back who is still remembered.
                self.accounts.changed_from_outside(&errand.user_id).await?;
                (self.leave_rooms)(errand.user_id.clone()).await
            }
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

    use parking_lot::Mutex;

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
        let departed: Arc<Mutex<Vec<OwnedUserId>>> = Arc::default();
        let leave_rooms: LeaveRooms = {
            let departed = Arc::clone(&departed);
            Arc::new(move |user_id| {
                departed.lock().push(user_id);
                Box::pin(std::future::ready(Ok(())))
            })
        };
        let duty = nodes.duty("errands").await.unwrap();
        let errands = Errands::new(db, house.accounts.clone(), leave_rooms, None, duty);
        let left = async |kind, user_id: &UserId| {
            errand::is_left(&mut errands.db.read().await.unwrap(), kind, user_id).await.unwrap()
        };

        let alice = house.accounts.create_user("alice", "secret", false).await.unwrap();
        house.accounts.restrict_from_outside(&alice, Restriction::Locked, true).await.unwrap();
        house.accounts.deactivate_from_outside(&alice, false).await.unwrap();
        house.changed.lock().clear();
        house.cut_off.store(true, Ordering::Relaxed);
        for kind in [Kind::Account, Kind::Departure] {
            assert!(matches!(errands.take_up(kind).await, Err(Error::Unavailable(_))));
            assert!(left(kind, &alice).await);
        }
        assert!(departed.lock().is_empty(), "whoever is remembered somewhere could come back");
        house.cut_off.store(false, Ordering::Relaxed);
        for kind in [Kind::Account, Kind::Departure] {
            assert!(!errands.take_up(kind).await.unwrap());
            assert!(!left(kind, &alice).await);
        }
        assert_eq!(*house.changed.lock(), [alice.clone(), alice.clone(), alice.clone()]);
        assert_eq!(*departed.lock(), [alice]);
        tasks.join_all(Duration::from_secs(5)).await;
        drop(errands);
        drop(house);
        database.close().await;
    }
}
