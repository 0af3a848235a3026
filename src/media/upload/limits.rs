//! How much may be uploaded: of one file, of one user, and of all.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use ruma::{OwnedUserId, UserId, api::error::ErrorKind};
use tokio::sync;

use crate::{
    config::MediaConfig,
    db::Conn,
    error::{Error, Result},
    ground::clock::millis,
    log::Quotas,
    store::{media, media_object},
};

const MIB: u64 = 1024 * 1024;
const DAY: Duration = Duration::from_hours(24);
/// For how long it is believed what the whole server has. To sum it up reads all objects.
const BELIEVED: Duration = Duration::from_secs(30);

/// The limits of uploads. Cheap to clone.
#[derive(Clone)]
pub(super) struct UploadLimits(Arc<Inner>);

struct Inner {
    config: MediaConfig,
    /// Knows to whom none apply, and where to read about them.
    quotas: Quotas,
    /// None until it is first looked at.
    server: Mutex<Option<ServerUsage>>,
    /// Held by whoever looks at it.
    looking: sync::Mutex<()>,
    /// What users are sending to this node, in bytes. It is on the disk, and counts for nothing until all of it is there.
    under_way: Mutex<HashMap<OwnedUserId, u64>>,
}

/// What one upload has sent. Dropped, it counts no more.
pub(super) struct UnderWay {
    limits: UploadLimits,
    user_id: OwnedUserId,
    bytes: u64,
}

/// What all users together have, with what this node has received since that was looked at.
#[derive(Clone, Copy)]
struct ServerUsage {
    looked_at: Instant,
    recent_bytes: u64,
    bytes: u64,
}

impl UploadLimits {
    pub(super) fn new(config: &MediaConfig, quotas: Quotas) -> Self {
        Self(Arc::new(Inner {
            config: config.clone(),
            quotas,
            server: Mutex::default(),
            looking: sync::Mutex::default(),
            under_way: Mutex::default(),
        }))
    }

    pub(super) fn max_bytes(&self) -> u64 {
        u64::from(self.0.config.max_upload_megabytes) * MIB
    }

    pub(super) fn pending_uploads(&self) -> i64 {
        self.0.config.pending_uploads.into()
    }

    /// In milliseconds: how long a URI waits for what is uploaded to it.
    pub(super) fn pending_lifetime(&self) -> i64 {
        i64::from(self.0.config.pending_hours) * 60 * 60 * 1000
    }

    /// `M_TOO_LARGE` for a file of more bytes than one may have.
    pub(super) fn check_size(&self, bytes: u64) -> Result<()> {
        if bytes > self.max_bytes() {
            let most = self.0.config.max_upload_megabytes;
            let message = format!("A file may have {most} MiB on this server");
            return Err(Error::refused(ErrorKind::TooLarge, message));
        }
        Ok(())
    }

    /// `M_USER_LIMIT_EXCEEDED` where a user would have more with so many bytes than they may. Exact while the account is
    /// locked.
    pub(super) async fn check_user(&self, conn: &mut Conn, user_id: &UserId, more: u64, now: i64) -> Result<()> {
        let Inner { config, quotas, .. } = &*self.0;
        let (a_day, in_all) = (config.user_megabytes_per_day, config.user_megabytes);
        if (a_day.is_none() && in_all.is_none()) || quotas.is_exempt(user_id) {
            return Ok(());
        }
        let has = media::usage_of_user(conn, user_id, now.saturating_sub(millis(DAY))).await?;
        if let Some(most) = exceeded(a_day, unsigned(has.recent_bytes), more) {
            return Err(quotas.refusal(format!("You may upload {most} MiB within 24 hours: try again later")));
        }
        if let Some(most) = exceeded(in_all, unsigned(has.bytes), more) {
            return Err(quotas.refusal(format!("Your files may take {most} MiB in all on this server")));
        }
        Ok(())
    }

    /// As [`Self::check_user`], of the whole server, and only about: other nodes receive something at the same time.
    pub(super) async fn check_server(&self, conn: &mut Conn, more: u64, now: i64) -> Result<()> {
        if self.bounds_server() {
            let has = self.server_usage(conn, now).await?;
            self.check_server_usage(has, more)?;
        }
        Ok(())
    }

    /// As [`Self::check_server`], and counts them from then on: of several who come at once, the last finds what the others
    /// bring.
    pub(super) async fn take_from_server(&self, conn: &mut Conn, more: u64, now: i64) -> Result<()> {
        if !self.bounds_server() {
            return Ok(());
        }
        let looked_at = self.server_usage(conn, now).await?;
        let mut server = self.0.server.lock();
        let has = server.get_or_insert(looked_at);
        self.check_server_usage(*has, more)?;
        has.recent_bytes = has.recent_bytes.saturating_add(more);
        has.bytes = has.bytes.saturating_add(more);
        Ok(())
    }

    /// Begins to count what a user sends.
    pub(super) fn begin(&self, user_id: &UserId) -> UnderWay {
        UnderWay { limits: self.clone(), user_id: user_id.to_owned(), bytes: 0 }
    }

    fn bounds_server(&self) -> bool {
        let config = &self.0.config;
        config.server_megabytes_per_day.is_some() || config.server_megabytes.is_some()
    }

    fn check_server_usage(&self, has: ServerUsage, more: u64) -> Result<()> {
        let Inner { config, quotas, .. } = &*self.0;
        let (a_day, in_all) = (config.server_megabytes_per_day, config.server_megabytes);
        if exceeded(a_day, has.recent_bytes, more).is_some() {
            return Err(quotas.refusal("This server takes no more files today: try again later"));
        }
        if exceeded(in_all, has.bytes, more).is_some() {
            return Err(quotas.refusal("This server has no room for more files"));
        }
        Ok(())
    }

    async fn server_usage(&self, conn: &mut Conn, now: i64) -> Result<ServerUsage> {
        let known = *self.0.server.lock();
        if let Some(known) = known.filter(ServerUsage::is_new) {
            return Ok(known);
        }
        // One looks: to others what was known is good enough, if anything was.
        let _looking = match (self.0.looking.try_lock(), known) {
            (Ok(looking), _) => looking,
            (Err(_), Some(known)) => return Ok(known),
            (Err(_), None) => self.0.looking.lock().await,
        };
        let known = *self.0.server.lock();
        if let Some(known) = known.filter(ServerUsage::is_new) {
            return Ok(known);
        }
        let looked_at = Instant::now();
        let recent_bytes = unsigned(media::bytes_since(conn, now.saturating_sub(millis(DAY))).await?);
        let bytes = media_object::usage(conn).await?.iter().map(|store| unsigned(store.bytes)).sum();
        let usage = ServerUsage { looked_at, recent_bytes, bytes };
        *self.0.server.lock() = Some(usage);
        Ok(usage)
    }
}

impl ServerUsage {
    fn is_new(&self) -> bool {
        self.looked_at.elapsed() < BELIEVED
    }
}

impl UnderWay {
    /// `M_USER_LIMIT_EXCEEDED` where the user sends more at once than they may have: otherwise many uploads that never end
    /// would fill the disk.
    pub(super) fn grow(&mut self, more: u64) -> Result<()> {
        let Inner { config, quotas, under_way, .. } = &*self.limits.0;
        let most = [config.user_megabytes_per_day, config.user_megabytes].into_iter().flatten().min();
        let mut under_way = under_way.lock();
        let sent = under_way.entry(self.user_id.clone()).or_default();
        if exceeded(most, *sent, more).is_some() && !quotas.is_exempt(&self.user_id) {
            return Err(quotas.refusal("You are uploading more than you may have: try again later"));
        }
        *sent = sent.saturating_add(more);
        self.bytes = self.bytes.saturating_add(more);
        Ok(())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut under_way = self.limits.0.under_way.lock();
        if let Some(sent) = under_way.get_mut(&self.user_id) {
            *sent = sent.saturating_sub(self.bytes);
            if *sent == 0 {
                under_way.remove(&self.user_id);
            }
        }
    }
}

/// The limit in MiB, if somebody would be beyond it.
fn exceeded(most: Option<u32>, has: u64, more: u64) -> Option<u32> {
    most.filter(|most| has.saturating_add(more) > u64::from(*most) * MIB)
}

/// Sums are never below zero.
fn unsigned(sum: i64) -> u64 {
    u64::try_from(sum).unwrap_or(0)
}
