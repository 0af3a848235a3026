//! What is done now and then: what has expired goes, what is to be deleted is, and media that nobody asks for make room.

use std::{collections::BTreeMap, time::Duration};

use futures_util::{StreamExt as _, stream};

use super::MediaUpkeep;
use crate::{
    edge::object_store::StoreFault,
    error::Result,
    ground::clock::millis,
    media::library::{MediaId, MediaUri, Origin},
    store::{media, media_object, url_preview},
};

const DAY: Duration = Duration::from_hours(24);
/// How many media go in one step, and how many steps are taken at once.
const MEDIA: i64 = 100;
const STEPS: usize = 20;
/// How many deletions a store is asked for at once, in each step.
const REMOVALS: i64 = 100;
const REQUESTS: usize = 8;
/// After how long something is tried again that could not be deleted.
const AGAIN: Duration = Duration::from_hours(1);
/// How often the bytes of other servers' media are counted: all their rows are read for that.
const COUNTED: Duration = Duration::from_mins(5);
const MIB: i64 = 1024 * 1024;

impl MediaUpkeep {
    /// Removes what has had its time. To be called now and then, by one node: it takes a bounded number of steps, and goes on
    /// the next time. What can't be done keeps nothing else from being done; the first error is returned.
    pub(crate) async fn tidy(&self) -> Result<()> {
        let done = [
            self.clear_expired().await,
            self.end_lives().await,
            self.keep_to_budget().await,
            // Last, though what the others have let go of is not due before ten minutes.
            self.remove_due().await,
        ];
        done.into_iter().collect()
    }

    /// URIs that nothing was uploaded to, and previews of pages.
    async fn clear_expired(&self) -> Result<()> {
        let mut tx = self.db().begin().await?;
        media::delete_expired(&mut tx, self.now()).await?;
        url_preview::delete_expired(&mut tx, self.now()).await?;
        Ok(tx.commit().await?)
    }

    /// Media that nobody has asked for in too long.
    async fn end_lives(&self) -> Result<()> {
        let days = |days: u32| DAY.saturating_mul(days);
        let config = &self.0.config;
        let lifetimes = [
            (Origin::Upload, config.local_lifetime_days.map(days)),
            (Origin::Remote, config.remote_lifetime_days.map(days)),
            (Origin::Preview, Some(self.0.preview_lifetime)),
        ];
        for (origin, lifetime) in lifetimes {
            let Some(lifetime) = lifetime else { continue };
            let before = self.now().saturating_sub(millis(lifetime));
            for _ in 0..STEPS {
                let unused = media::list_unused(&mut self.db().read().await?, origin, before, MEDIA).await?;
                let (is_last, mut deleted) = (is_last(unused.len(), MEDIA), 0);
                for (server_name, media_id, used_at, _) in unused {
                    let Some(media_id) = MediaId::parse(&media_id) else { continue };
                    let uri = MediaUri { server_name, media_id };
                    deleted += usize::from(self.library().delete_unused(&uri, used_at).await?);
                }
                // What is used at this moment is not listed again.
                if is_last || deleted == 0 {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Other servers' media, beginning with those that were asked for longest ago, until the others are no more than the
    /// operator wants.
    async fn keep_to_budget(&self) -> Result<()> {
        let now = self.now();
        let counted_at = *self.0.counted_at.lock();
        if counted_at.is_some_and(|at| now.saturating_sub(at) < millis(COUNTED)) {
            return Ok(());
        }
        let has = media::bytes_of_origin(&mut self.db().read().await?, Origin::Remote).await?;
        let mut over = has.saturating_sub(i64::from(self.0.config.remote_megabytes).saturating_mul(MIB));
        for _ in 0..STEPS {
            if over <= 0 {
                *self.0.counted_at.lock() = Some(now);
                return Ok(());
            }
            let unused = media::list_unused(&mut self.db().read().await?, Origin::Remote, i64::MAX, MEDIA).await?;
            let mut deleted = 0;
            for (server_name, media_id, used_at, bytes) in unused {
                if over <= 0 {
                    break;
                }
                let Some(media_id) = MediaId::parse(&media_id) else { continue };
                if self.library().delete_unused(&MediaUri { server_name, media_id }, used_at).await? {
                    over -= bytes;
                    deleted += 1;
                }
            }
            // What is left is quarantined: it stays as long as it is.
            if deleted == 0 {
                *self.0.counted_at.lock() = Some(now);
                return Ok(());
            }
        }
        // There is more to do: it is counted again the next time.
        Ok(())
    }

    /// Bytes that nobody can be reading any more. A store that does not work is left for the next time, and holds up none of
    /// the others. What can't be deleted makes way for the rest. What is in a store that this node does not know waits until
    /// there is one that does.
    async fn remove_due(&self) -> Result<()> {
        let objects = self.library().objects();
        let mut first_fault = None;
        for store in objects.stores().names() {
            for _ in 0..STEPS {
                let now = self.now();
                let due = media_object::list_due_removals(&mut self.db().read().await?, store, now, REMOVALS).await?;
                if due.is_empty() {
                    break;
                }
                let is_last = is_last(due.len(), REMOVALS);
                let Removed { tried, failures, fault } = self.remove(store, due).await;
                let (mut tx, later) = (self.db().begin().await?, now.saturating_add(millis(AGAIN)));
                // In one order: two nodes may be at it while the duty passes from one to the other.
                for (location, is_gone) in &tried {
                    if *is_gone {
                        media_object::delete_removal(&mut tx, store, location).await?;
                    } else {
                        media_object::insert_removal(&mut tx, store, location, later).await?;
                    }
                }
                tx.commit().await?;
                first_fault = first_fault.or(fault);
                if failures >= REQUESTS || is_last {
                    break;
                }
            }
        }
        first_fault.map_or(Ok(()), |fault| Err(fault.into()))
    }

    /// Gives up on a store that fails with as many as it is asked for at once.
    async fn remove(&self, store: &str, due: Vec<String>) -> Removed {
        let stores = self.library().objects().stores();
        let deleting = stream::iter(due).map(|location| async move {
            let deleted = stores.delete(store, &location).await;
            (location, deleted)
        });
        let mut deleting = deleting.buffer_unordered(REQUESTS);
        let mut removed = Removed::default();
        while let Some((location, deleted)) = deleting.next().await {
            let is_gone = deleted.is_ok();
            if let Err(fault) = deleted {
                tracing::warn!(%store, %location, %fault, "what is to be deleted was not; it is tried again in an hour");
                removed.failures += 1;
                removed.fault = removed.fault.or(Some(fault));
            }
            removed.tried.insert(location, is_gone);
            if removed.failures >= REQUESTS {
                break;
            }
        }
        removed
    }
}

/// What came of deleting some things. The rest was not tried, or is unknown.
#[derive(Default)]
struct Removed {
    /// Whether it is gone, by location.
    tried: BTreeMap<String, bool>,
    failures: usize,
    /// The first.
    fault: Option<StoreFault>,
}

/// Whether so few are the last, where so many were asked for.
fn is_last(listed: usize, limit: i64) -> bool {
    i64::try_from(listed).is_ok_and(|listed| listed < limit)
}
