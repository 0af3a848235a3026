//! Uploads: at once, or to a URI that was made before.
//!
//! What comes in goes to a file on this machine first, so memory holds a part of it. Only when all of it is there is it
//! known whether there are such bytes already, and only in the last transaction, with the account locked, is it exact what
//! the user has: the quotas are looked at before the first byte so that nobody sends a file in vain, and again then.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#content-repository>

mod limits;

#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::Bytes;
use ruma::{
    OwnedServerName, OwnedUserId, UserId,
    api::error::{ErrorKind, LimitExceededErrorData, RetryAfter},
};

use self::limits::{UnderWay, UploadLimits};
use super::{
    file_name, kind,
    library::{Library, MediaId, MediaUri},
    objects::{Object, Objects},
    scanner::Scanner,
    spool::Incoming,
};
use crate::{
    config::Config,
    db::{Conn, Db, Tx},
    edge::metrics::Metrics,
    error::{Error, Result},
    ground::{clock::Clock, random::Random},
    log::Quotas,
    people::account::unknown_access_token,
    store::{
        account,
        media::{self, NewMedia, Origin},
        media_object,
        media_quarantine::{self, QuarantineKind},
    },
};

/// In characters: nobody finds media whose URI they were not given.
const MEDIA_ID_LENGTH: usize = 24;

/// Everybody's uploads. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Uploads {
    db: Db,
    objects: Objects,
    library: Library,
    scanner: Scanner,
    clock: Clock,
    random: Random,
    server_name: OwnedServerName,
    limits: UploadLimits,
    metrics: Metrics,
}

/// A URI to which its user can upload something.
#[derive(Clone, Debug)]
pub(crate) struct Created {
    pub(crate) uri: MediaUri,
    /// In milliseconds since the Unix epoch. What has not come in completely by then is refused.
    pub(crate) unused_expires_at: i64,
}

/// A file that is coming in. Dropped before it is finished, it leaves nothing.
pub(crate) struct Uploading {
    uploads: Uploads,
    user_id: OwnedUserId,
    /// The URI that it is for, if there is one already.
    pending: Option<MediaUri>,
    incoming: Incoming,
    /// What this and the user's other uploads have sent to this node so far.
    under_way: UnderWay,
}

/// The row that an upload becomes.
struct Entry {
    uri: MediaUri,
    user_id: OwnedUserId,
    content_type: Option<String>,
    file_name: Option<String>,
    /// When it was found harmless, if anybody looks.
    scanned_at: Option<i64>,
    /// Whether there is a row of the URI.
    is_pending: bool,
}

impl Uploads {
    pub(crate) fn new(
        (db, clock, random): (Db, Clock, Random),
        server_name: OwnedServerName,
        (objects, library, scanner): (Objects, Library, Scanner),
        (config, quotas): (&Config, Quotas),
        metrics: Metrics,
    ) -> Self {
        let limits = UploadLimits::new(&config.media, quotas);
        Self { db, objects, library, scanner, clock, random, server_name, limits, metrics }
    }

    /// In bytes: how large a file may be.
    pub(crate) fn max_bytes(&self) -> u64 {
        self.limits.max_bytes()
    }

    /// Makes a URI to which this user can upload something later. `M_LIMIT_EXCEEDED` for somebody who has as many as they
    /// may have.
    pub(crate) async fn create(&self, user_id: &UserId) -> Result<Created> {
        let now = self.now();
        let mut tx = self.db.begin().await?;
        lock_account(&mut tx, user_id).await?;
        check_uploader(&mut tx, user_id).await?;
        let (has, first_expires_at) = media::count_pending(&mut tx, user_id, now).await?;
        if has >= self.limits.pending_uploads() {
            return Err(self.too_many_pending(first_expires_at.map_or(0, |first| first.saturating_sub(now))));
        }
        let uri = self.new_uri()?;
        let unused_expires_at = now.saturating_add(self.limits.pending_lifetime());
        if !media::insert_pending(&mut tx, uri.columns(), user_id, now, unused_expires_at).await? {
            return Err(Error::broken("a new media id is in use"));
        }
        tx.commit().await?;
        Ok(Created { uri, unused_expires_at })
    }

    /// Begins to receive a file of so many bytes, as far as its sender says. Refuses what would be refused at the end:
    /// `M_TOO_LARGE`, `M_USER_LIMIT_EXCEEDED` beyond a quota, `M_FORBIDDEN` for a user in quarantine.
    pub(crate) async fn begin(&self, user_id: &UserId, declared_bytes: Option<u64>) -> Result<Uploading> {
        self.receive(user_id, None, declared_bytes).await
    }

    /// As [`Self::begin`], for a URI that [`Self::create`] has made. `M_NOT_FOUND` if there is none or it has expired,
    /// `M_FORBIDDEN` if it is somebody else's, `M_CANNOT_OVERWRITE_MEDIA` if something was uploaded to it.
    pub(crate) async fn begin_into(
        &self,
        user_id: &UserId,
        uri: &MediaUri,
        declared_bytes: Option<u64>,
    ) -> Result<Uploading> {
        self.receive(user_id, Some(uri), declared_bytes).await
    }

    async fn receive(&self, user_id: &UserId, pending: Option<&MediaUri>, declared: Option<u64>) -> Result<Uploading> {
        let declared = declared.unwrap_or(0);
        self.limits.check_size(declared)?;
        let mut conn = self.db.read().await?;
        if let Some(uri) = pending {
            self.check_pending(&mut conn, user_id, uri).await?;
        }
        check_uploader(&mut conn, user_id).await?;
        self.limits.check_user(&mut conn, user_id, declared, self.now()).await?;
        self.limits.check_server(&mut conn, declared, self.now()).await?;
        drop(conn);
        let incoming = self.objects.spool().begin().await?;
        let under_way = self.limits.begin(user_id);
        let (user_id, pending) = (user_id.to_owned(), pending.cloned());
        Ok(Uploading { uploads: self.clone(), user_id, pending, incoming, under_way })
    }

    /// Why nothing can be uploaded to a URI, if so.
    async fn check_pending(&self, conn: &mut Conn, user_id: &UserId, uri: &MediaUri) -> Result<()> {
        if uri.server_name != self.server_name {
            return Err(no_such_uri());
        }
        let (server_name, media_id) = uri.columns();
        let found = media::find(conn, server_name, media_id).await?;
        let Some(row) = found else { return Err(no_such_uri()) };
        if row.user_id.as_deref() != Some(user_id) {
            return Err(Error::forbidden("Somebody else has made this URI: upload to one of your own"));
        }
        if row.object.is_some() {
            let message = "Something was uploaded to this URI, which stays: make another one";
            return Err(Error::refused(ErrorKind::CannotOverwriteMedia, message));
        }
        match row.expires_at {
            Some(expires_at) if expires_at > self.now() => Ok(()),
            _ => Err(no_such_uri()),
        }
    }

    /// In the transaction that makes sure of the bytes.
    async fn enter(&self, tx: &mut Tx, object: &Object, entry: &Entry) -> Result<()> {
        let Entry { uri, user_id, content_type, file_name, scanned_at, is_pending } = entry;
        // What somebody has is the same from here to the end, and whose account has ended leaves nothing behind.
        lock_account(tx, user_id).await?;
        match media_quarantine::find_of_upload(tx, user_id, &object.digest).await? {
            None => {}
            Some(QuarantineKind::User) => return Err(uploader_is_quarantined()),
            Some(_) => return Err(Error::forbidden("This file is not allowed on this server")),
        }
        let now = self.now();
        self.limits.check_user(tx, user_id, object.bytes, now).await?;
        let (server_name, media_id) = uri.columns();
        let new = NewMedia {
            server_name,
            media_id,
            origin: Origin::Upload,
            user_id: Some(user_id),
            digest: &object.digest,
            bytes: object.bytes,
            content_type: content_type.as_deref(),
            file_name: file_name.as_deref(),
            now,
        };
        if *is_pending {
            if !media::fill_pending(tx, &new).await? {
                self.check_pending(tx, user_id, uri).await?;
                return Err(no_such_uri());
            }
        } else if !media::insert(tx, &new).await? {
            return Err(Error::broken("a new media id is in use"));
        }
        if let Some(scanned_at) = scanned_at {
            media_object::set_scanned(tx, &object.digest, *scanned_at).await?;
        }
        Ok(())
    }

    fn too_many_pending(&self, wait: i64) -> Error {
        let mut data = LimitExceededErrorData::new();
        let wait = u64::try_from(wait).unwrap_or(0).div_ceil(1_000).max(1);
        data.retry_after = Some(RetryAfter::Delay(Duration::from_secs(wait)));
        let most = self.limits.pending_uploads();
        let message = format!("You have {most} URIs to which nothing was uploaded yet: upload to one of them first");
        Error::refused(ErrorKind::LimitExceeded(data), message)
    }

    fn new_uri(&self) -> Result<MediaUri> {
        let media_id = MediaId::parse(&self.random.token(MEDIA_ID_LENGTH));
        let media_id = media_id.ok_or_else(|| Error::broken("a random token is no media id"))?;
        Ok(MediaUri { server_name: self.server_name.clone(), media_id })
    }

    fn now(&self) -> i64 {
        self.clock.now().get().into()
    }
}

impl Uploading {
    /// Takes the next part of the file. `M_TOO_LARGE` where it is too much, whatever was declared, and
    /// `M_USER_LIMIT_EXCEEDED` where all that the user sends at once is more than they may have.
    pub(crate) async fn write(&mut self, part: Bytes) -> Result<()> {
        let length = u64::try_from(part.len()).unwrap_or(u64::MAX);
        self.uploads.limits.check_size(self.incoming.bytes().saturating_add(length))?;
        self.under_way.grow(length)?;
        self.incoming.write(&part).await
    }

    /// Keeps the file, durably. `content_type` and `file_name` are as the client says them. Refuses as
    /// [`Uploads::begin`], and `M_FORBIDDEN` what nobody may have; [`Error::Unavailable`] where it is to be looked at and
    /// can't be.
    pub(crate) async fn finish(self, content_type: Option<&str>, file_name: Option<&str>) -> Result<MediaUri> {
        let Self { uploads, user_id, pending, incoming, under_way } = self;
        let received = incoming.finish().await?;
        let mut conn = uploads.db.read().await?;
        uploads.limits.take_from_server(&mut conn, received.bytes, uploads.now()).await?;
        drop(conn);
        // Before anything is stored, so that a scanner that does not work leaves nothing half done.
        let scanned_at = uploads.scanner.check(&received).await?;
        let is_pending = pending.is_some();
        let uri = match pending {
            Some(uri) => uri,
            None => uploads.new_uri()?,
        };
        let (content_type, file_name) = (content_type.and_then(kind::clean), file_name.and_then(file_name::sanitise));
        let entry = Entry { uri: uri.clone(), user_id, content_type, file_name, scanned_at, is_pending };
        let entering = uploads.clone();
        let sniffed = kind::sniff(&received.head);
        uploads
            .objects
            .keep(received, sniffed, move |tx, object| {
                Box::pin(async move { entering.enter(tx, object, &entry).await })
            })
            .await?;
        drop(under_way);
        uploads.metrics.media_uploaded();
        if is_pending {
            uploads.library.note_filled(&uri);
        }
        Ok(uri)
    }
}

/// Keeps others from uploading in this user's name until the end of the transaction.
async fn lock_account(tx: &mut Tx, user_id: &UserId) -> Result<()> {
    match account::lock(tx, user_id).await? {
        Some(account) if !account.deactivated => Ok(()),
        _ => Err(unknown_access_token()),
    }
}

/// Refuses users whose media nobody may have.
async fn check_uploader(conn: &mut Conn, user_id: &UserId) -> Result<()> {
    if media_quarantine::is_quarantined(conn, QuarantineKind::User, user_id.as_str()).await? {
        return Err(uploader_is_quarantined());
    }
    Ok(())
}

fn uploader_is_quarantined() -> Error {
    Error::forbidden("You may not upload anything to this server")
}

fn no_such_uri() -> Error {
    Error::not_found("There is no such URI to upload to, or it has expired: make another one")
}
