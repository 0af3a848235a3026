//! Errands: what only a running node can do, because it takes the log, and the operator asks for on the command line;
//! and what follows in many rooms from a change of an account, should whoever changed it not get to its end; and mails to
//! an account's owner.
//!
//! They are left in the database, in the transaction from which they follow, and the node whose duty it is does them:
//! for several users at once, for each of them one after the other. Each can be done twice without harm: by two nodes
//! that both believe it is their duty, again after a crash, or beside the request that has left it.
//!
//! An errand that is refused, because the room or the account is gone, is dropped; one that fails otherwise stays and
//! is done again. They are done in the order in which they were left, by kind.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, future::BoxFuture, stream};
use ruma::{OwnedUserId, UserId};

use crate::{
    db::Db,
    error::{Error, Result},
    ground::tasks::Shutdown,
    node::Duty,
    people::{
        account::Accounts,
        notice::{self, Notices},
        threepid::Threepids,
    },
    store::errand::{self, Errand, ErrandKind},
};

/// How often a node looks for errands.
const LOOK: Duration = Duration::from_millis(500);
/// How long to wait after something has failed.
const PAUSE: Duration = Duration::from_secs(2);
/// How long to wait after the mail server has not taken a mail: it may be away for long.
const MAIL_PAUSE: Duration = Duration::from_secs(10);
/// How many errands are taken up together.
const TOGETHER: i64 = 200;
/// To how many users something is done at once: enough to share commits, few enough to hold nobody else up.
const USERS_AT_ONCE: usize = 16;

/// Something that is done for a user in every room that concerns them.
pub(crate) type InRooms = Arc<dyn Fn(OwnedUserId) -> BoxFuture<'static, Result<()>> + Send + Sync>;

/// What follows in rooms from changes of accounts.
#[derive(Clone)]
pub(crate) struct Aftermath {
    /// Takes somebody out of every room that they are in, invited to or knocking on.
    pub(crate) leave_rooms: InRooms,
    /// Has the rooms that somebody is in say what they are called and look like.
    pub(crate) update_profile: InRooms,
}

/// The reason that other members of a room read of whoever was deactivated.
pub(crate) const DEPARTURE: &str = "The account was deactivated";

/// Who does the errands.
pub(crate) struct Errands {
    db: Db,
    accounts: Accounts,
    aftermath: Aftermath,
    /// None where no server notices are configured; they wait then.
    notices: Option<Notices>,
    /// By which mails are sent. None in tests that have none.
    threepids: Option<Threepids>,
    /// For errands of every kind.
    duty: Duty,
}

/// Leaves word to send a notice to a user, or to everybody but `sender`. Returns to how many that is.
pub(crate) async fn leave_notice(
    db: &Db,
    to: Option<&UserId>,
    sender: &UserId,
    text: &str,
    id: String,
    now: i64,
) -> Result<u64> {
    // Here, where the operator can be told; a node could only drop it.
    notice::check_text(text)?;
    let mut tx = db.begin().await?;
    let count = match to {
        Some(user_id) => {
            let errand = Errand { id, user_id: user_id.to_owned(), body: Some(text.to_owned()) };
            errand::insert(&mut tx, ErrandKind::Notice, &errand, now).await?;
            1
        }
        None => errand::insert_for_all(&mut tx, ErrandKind::Notice, &id, text, sender, now).await?,
    };
    tx.commit().await?;
    Ok(count)
}

impl Errands {
    pub(crate) fn new(
        db: Db,
        accounts: Accounts,
        aftermath: Aftermath,
        (notices, threepids): (Option<Notices>, Option<Threepids>),
        duty: Duty,
    ) -> Self {
        Self { db, accounts, aftermath, notices, threepids, duty }
    }

    /// Does errands until the server stops. What is broken off then is done again after the next start.
    ///
    /// Each kind has its own loop, and none waits for another.
    pub(crate) async fn run(self, shutdown: Shutdown) {
        // Side by side: leaving many rooms takes minutes, and a lock or a new password must not wait for that.
        let accounts = self.take_up_on(ErrandKind::Account);
        let departures = self.take_up_on(ErrandKind::Departure);
        let profiles = self.take_up_on(ErrandKind::Profile);
        let mails = self.take_up_on(ErrandKind::Mail);
        let notices = async {
            self.set_sender_profile().await;
            self.take_up_on(ErrandKind::Notice).await;
        };
        tokio::select! {
            // A stop comes first: what is under way is dropped at its next await, and done again.
            biased;
            () = shutdown.started() => {}
            _ = futures_util::future::join5(accounts, departures, profiles, mails, notices) => {}
        }
    }

    /// Gives the server's own user its name, and returns when that is done; never where there is none.
    async fn set_sender_profile(&self) {
        // Where no notices are configured, they wait in the table until they are.
        let Some(notices) = &self.notices else { return std::future::pending().await };
        while let Err(error) = notices.set_sender_profile().await {
            tracing::warn!(%error, "the sender of server notices got no name; it is tried again");
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Does errands of one kind whenever they are this node's.
    async fn take_up_on(&self, kind: ErrandKind) {
        // What has failed is still there, so the next look finds it.
        loop {
            let rest = match self.look(kind).await {
                Ok(true) => Duration::ZERO,
                Ok(false) => LOOK,
                Err(error) => {
                    tracing::warn!(%error, "errands could not be done; it is tried again");
                    if kind == ErrandKind::Mail { MAIL_PAUSE } else { PAUSE }
                }
            };
            tokio::time::sleep(rest).await;
        }
    }

    /// Does what there is of a kind, up to a number, and returns whether there may be more.
    async fn look(&self, kind: ErrandKind) -> Result<bool> {
        if self.duty.is_mine() { self.take_up(kind).await } else { Ok(false) }
    }

    /// Takes up to [`TOGETHER`] errands, the oldest first.
    async fn take_up(&self, kind: ErrandKind) -> Result<bool> {
        let errands = errand::list(&mut self.db.read().await?, kind, TOGETHER).await?;
        let more = i64::try_from(errands.len()).is_ok_and(|count| count == TOGETHER);
        // One user's errands are done in their order: notices are read in the order in which they were written.
        let mut by_user: BTreeMap<OwnedUserId, Vec<Errand>> = BTreeMap::new();
        for errand in errands {
            by_user.entry(errand.user_id.clone()).or_default().push(errand);
        }
        let done = stream::iter(by_user.into_values())
            .map(|errands| async move { self.take_in_order(kind, &errands).await })
            .buffer_unordered(USERS_AT_ONCE);
        // The others are done all the same, and the first failure is returned.
        done.fold(Ok(()), |so_far, done| async { so_far.and(done) }).await?;
        Ok(more)
    }

    /// Stops at the first that fails, so that what follows does not overtake it.
    async fn take_in_order(&self, kind: ErrandKind, errands: &[Errand]) -> Result<()> {
        for errand in errands {
            self.take(kind, errand).await?;
        }
        Ok(())
    }

    /// Does an errand and then deletes it. In between, the process may end: it is done again then.
    async fn take(&self, kind: ErrandKind, errand: &Errand) -> Result<()> {
        // It is ticked off with the entry of the log by which nodes notice, in one transaction.
        if kind == ErrandKind::Account {
            return self.accounts.take_up(errand).await;
        }
        match self.carry_out(kind, errand).await {
            // A refusal would be the same next time.
            Err(Error::Refused { message, .. }) => {
                tracing::warn!(user_id = %errand.user_id, reason = message, "an errand can't be done and is dropped");
            }
            done => done?,
        }
        // Deleted only now: an errand is done at least once.
        let mut tx = self.db.begin().await?;
        errand::delete(&mut tx, errand).await?;
        Ok(tx.commit().await?)
    }

    /// Does what the errand is for. To do it again makes no difference.
    async fn carry_out(&self, kind: ErrandKind, errand: &Errand) -> Result<()> {
        match (kind, &self.notices) {
            (ErrandKind::Mail, _) => match &self.threepids {
                Some(threepids) => threepids.send_security_mail(errand).await,
                None => Err(Error::broken("nobody is there to send a mail")),
            },
            (ErrandKind::Account, _) => Err(Error::broken("this errand is done and ticked off at once")),
            (ErrandKind::Departure, _) => {
                // First of all, so that nobody comes back who is still remembered.
                self.accounts.changed_from_outside(&errand.user_id).await?;
                (self.aftermath.leave_rooms)(errand.user_id.clone()).await
            }
            // As the profile is now, whatever it was when the errand was left.
            (ErrandKind::Profile, _) => (self.aftermath.update_profile)(errand.user_id.clone()).await,
            (ErrandKind::Notice, Some(notices)) => {
                // By the errand's identifier the notice is known, should it have been sent before.
                notices.send(&errand.user_id, errand.body.as_deref().unwrap_or_default(), &errand.id).await
            }
            (ErrandKind::Notice, None) => Err(Error::broken("nobody is there to send a notice")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use parking_lot::Mutex;
    use ruma::events::room::member::MembershipState;
    use tokio::sync::watch;

    use super::*;
    use crate::{
        config::RegistrationMode,
        db::testing,
        edge::{hub::Hub, metrics::Metrics},
        ground::{position::Position, random::Random, tasks::Tasks},
        node::Nodes,
        people::account::{Restriction, tests::house},
        store,
        testing::{World, user},
    };

    #[tokio::test]
    async fn an_errand_stays_until_the_other_nodes_could_be_told() {
        let database = testing::sqlite().await;
        let house = house(&database, RegistrationMode::Closed).await;
        let (db, tasks, hub) = (database.db().clone(), Tasks::new(), Hub::disconnected());
        let (clock, random) = (house.clock.clone(), Random::system());
        let place = (db.clone(), watch::channel(Position::START).1);
        let nodes = Nodes::enter(place, clock, &random, hub, None, Metrics::new(), &tasks).await.unwrap();
        let departed: Arc<Mutex<Vec<OwnedUserId>>> = Arc::default();
        let leave_rooms: InRooms = {
            let departed = Arc::clone(&departed);
            Arc::new(move |user_id| {
                departed.lock().push(user_id);
                Box::pin(ready(Ok(())))
            })
        };
        let duty = nodes.duty("errands").await.unwrap();
        let aftermath = Aftermath { leave_rooms, update_profile: Arc::new(|_| Box::pin(ready(Ok(())))) };
        let errands = Errands::new(db, house.accounts.clone(), aftermath, (None, None), duty);
        let left = async |kind, user_id: &UserId| {
            errand::is_left(&mut errands.db.read().await.unwrap(), kind, user_id).await.unwrap()
        };

        let alice = house.accounts.create_user("alice", "secret", false).await.unwrap();
        house.accounts.restrict_from_outside(&alice, Restriction::Locked, true).await.unwrap();
        house.accounts.deactivate_from_outside(&alice, false).await.unwrap();
        house.heard.0.lock().clear();
        database.refuse_log().await;
        for kind in [ErrandKind::Account, ErrandKind::Departure] {
            errands.take_up(kind).await.unwrap_err();
            assert!(left(kind, &alice).await);
        }
        assert!(departed.lock().is_empty(), "whoever is remembered somewhere could come back");
        database.accept_log().await;
        for kind in [ErrandKind::Account, ErrandKind::Departure] {
            assert!(!errands.take_up(kind).await.unwrap());
            assert!(!left(kind, &alice).await);
        }
        assert_eq!(*house.heard.0.lock(), [alice.clone(), alice.clone(), alice.clone()]);
        assert_eq!(*departed.lock(), [alice]);
        tasks.join_all(Duration::from_secs(5)).await;
        drop(errands);
        drop(house);
        database.close().await;
    }

    /// As a node leaves it that has stopped right after its answer to a request, or before.
    #[tokio::test]
    async fn a_deactivation_that_was_broken_off_is_gone_on_with() {
        let world = World::new().await;
        let (alice, bob) = (user("alice"), world.app.accounts.create_user("bob", "a password", false).await.unwrap());
        let room = world.room(&[&alice, &bob]).await;
        world.app.accounts.deactivate(&bob, true).await.unwrap();
        let is_left = async || {
            errand::is_left(&mut world.app.db.read().await.unwrap(), ErrandKind::Departure, &bob).await.unwrap()
        };
        let done = tokio::time::timeout(Duration::from_mins(1), async {
            while is_left().await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        done.await.expect("nobody takes them out of their rooms");
        let state = world.rooms().get(&room).await.unwrap().state();
        assert_eq!(state.membership(&bob), MembershipState::Leave);
        let unlogged = store::erasure::list_unlogged(&mut world.app.db.read().await.unwrap()).await.unwrap();
        assert!(unlogged.is_empty(), "{unlogged:?}");
        world.close().await;
    }

    /// Waits for something that a step of the log brings about.
    async fn until(world: &World, what: &str, holds: impl AsyncFn() -> bool) {
        let mut steps = world.rooms().log().tail().watch();
        let waited = tokio::time::timeout(Duration::from_secs(20), async {
            while !holds().await {
                steps.changed().await.unwrap();
            }
        });
        waited.await.unwrap_or_else(|_elapsed| panic!("{what}"));
    }

    /// What the request does that changes an account, unless the process ends before.
    #[tokio::test]
    async fn rooms_hear_of_a_change_of_an_account_although_the_process_ended_before() {
        for world in World::on_each_engine().await {
            let (alice, bob) = (user("alice"), user("bob"));
            world.app.accounts.create_user("alice", "correct horse", false).await.unwrap();
            let room = world.room(&[&bob, &alice]).await;
            world.app.profiles.change(&alice, "displayname", Some(&serde_json::json!("Alice Adams"))).await.unwrap();
            let world = world.restart().await;
            until(&world, "the room calls her so", async || {
                let room = world.rooms().find(&room).await.unwrap().unwrap();
                room.state().member(&alice).is_some_and(|member| member.content().get().contains("Alice Adams"))
            })
            .await;

            world.app.accounts.deactivate(&alice, false).await.unwrap();
            let world = world.restart().await;
            until(&world, "she has left", async || {
                let room = world.rooms().find(&room).await.unwrap().unwrap();
                room.state().membership(&alice) == MembershipState::Leave
            })
            .await;
            world.close().await;
        }
    }
}
