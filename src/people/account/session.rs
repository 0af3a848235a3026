//! Opening a session: a device and the tokens that speak for it.
//!
//! Tokens begin with `hat_` (access), `hrt_` (refresh), `hlt_` (login) or `hoi_` (`OpenID`). Only their SHA-256 is
//! stored: they are random and long, so a slow hash would add nothing.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#relationship-between-access-tokens-and-devices>

use std::{net::IpAddr, time::Duration};

use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};

use super::{
    Accounts, after,
    bearer::unknown_access_token,
    caller::User,
    ended_keys::EndedKeys,
    last_words::{End, settle_delayed_events},
};
use crate::{
    db::Tx,
    error::{Error, Result},
    people::device,
    store::{
        account, cross_signing, dehydrated_device,
        device::{self as devices, DeviceSelection},
        device_key, to_device,
        token::{self, TokenHash},
    },
};

/// 43 characters of 62 are 256 bits.
const TOKEN_LENGTH: usize = 43;

/// In characters: people read it in lists.
const DEVICE_ID_LENGTH: usize = 10;

/// Of a cross-signing key, in characters: 32 bytes in unpadded base64.
const PUBLIC_KEY_LENGTH: usize = 43;

/// What a client says of itself when it logs in.
#[derive(Clone, Debug)]
pub(crate) struct NewSession {
    /// None to be given one.
    pub(crate) device_id: Option<OwnedDeviceId>,
    pub(crate) display_name: Option<String>,
    /// Whether it knows how to refresh an access token.
    pub(crate) refreshable: bool,
    pub(crate) address: IpAddr,
}

/// A session that was just opened. The only place where its tokens can be read.
pub(crate) struct Session {
    pub(crate) user_id: OwnedUserId,
    pub(crate) device_id: OwnedDeviceId,
    pub(crate) access_token: String,
    pub(crate) refresh_token: Option<String>,
    pub(crate) expires_in: Option<Duration>,
}

/// Sessions that were ended.
#[derive(Debug, Default)]
pub(super) struct EndedSessions {
    pub(super) count: usize,
    pub(super) keys: EndedKeys,
}

/// A pair as it is issued, at first or by refreshing.
pub(super) struct IssuedTokens {
    pub(super) access: String,
    pub(super) refresh: Option<(String, TokenHash)>,
    pub(super) expires_in: Option<Duration>,
}

impl Accounts {
    /// Opens a session within a transaction that holds the account. A device that is there already is reused,
    /// and the tokens that it had are gone. `M_USER_LIMIT_EXCEEDED` for one more than the user may have.
    pub(super) async fn open_session(&self, tx: &mut Tx, user_id: &UserId, new: NewSession) -> Result<Session> {
        let device_id = match new.device_id.filter(|device_id| !device_id.as_str().is_empty()) {
            Some(device_id) => device::check_device_id(device_id)?,
            None => self.0.random.token(DEVICE_ID_LENGTH).to_ascii_uppercase().into(),
        };
        let display_name = new.display_name.as_deref().map(device::shorten_display_name);
        if devices::find(tx, user_id, &device_id).await?.is_none() {
            // Clients tell devices and cross-signing keys by what they are called.
            if device_id.as_str().len() == PUBLIC_KEY_LENGTH
                && cross_signing::is_public_key(tx, user_id, device_id.as_str()).await?
            {
                let message = "One of your cross-signing keys is called so: log in with another device ID";
                return Err(Error::invalid_param(message));
            }
            self.check_device_quota(tx, user_id).await?;
        }
        dehydrated_device::wake(tx, user_id, &device_id).await?;
        let ip = new.address.to_string();
        devices::upsert(tx, user_id, &device_id, display_name.as_deref(), self.now(), &ip).await?;
        token::delete_of_device(tx, user_id, &device_id).await?;
        let tokens = self.issue_tokens(tx, user_id, &device_id, new.refreshable).await?;
        Ok(Session {
            user_id: user_id.to_owned(),
            device_id,
            access_token: tokens.access,
            refresh_token: tokens.refresh.map(|(token, _)| token),
            expires_in: tokens.expires_in,
        })
    }

    /// Refuses one device more than the user of a locked account may have.
    pub(crate) async fn check_device_quota(&self, tx: &mut Tx, user_id: &UserId) -> Result<()> {
        let has = devices::count(tx, user_id).await?;
        self.0.settings.quotas.check(user_id, |quotas| quotas.devices, has, too_many_devices)
    }

    /// Ends sessions of an account that is locked. With them goes what they have made: tokens, keys, and what they were to
    /// send later; and what waits for them, as of the end of the log when the transaction ends, which is why it has to end
    /// with a change of the account or by [`Accounts::commit_leaving`].
    pub(super) async fn end_sessions(
        &self,
        tx: &mut Tx,
        user_id: &UserId,
        which: DeviceSelection<'_>,
        end: End,
    ) -> Result<EndedSessions> {
        settle_delayed_events(tx, user_id, which, end, self.now()).await?;
        let ended = devices::delete(tx, user_id, which).await?;
        token::delete_orphans(tx, user_id).await?;
        dehydrated_device::delete_orphan(tx, user_id).await?;
        if ended.is_empty() {
            return Ok(EndedSessions::default());
        }
        let device_ids: Vec<&str> = ended.iter().map(|device_id| device_id.as_str()).collect();
        to_device::end_inboxes(tx, user_id, &device_ids).await?;
        let with_keys = device_key::delete_with_all(tx, user_id, &device_ids).await?;
        Ok(EndedSessions { count: ended.len(), keys: EndedKeys(with_keys.into_iter().map(Some).collect()) })
    }

    /// The tokens of a device, whose row is locked. They expire only where the client knows how to refresh.
    pub(super) async fn issue_tokens(
        &self,
        tx: &mut Tx,
        user_id: &UserId,
        device_id: &DeviceId,
        refreshable: bool,
    ) -> Result<IssuedTokens> {
        let lifetime = self.0.settings.access_token_lifetime;
        let expires_in = refreshable.then_some(lifetime);
        let expires_ts = expires_in.map(|lifetime| after(self.now(), lifetime));
        let (access, access_hash) = self.new_token("hat");
        token::insert_access_token(tx, &access_hash, user_id, device_id, expires_ts).await?;
        let refresh = refreshable.then(|| self.new_token("hrt"));
        if let Some((_, hash)) = &refresh {
            token::insert_refresh_token(tx, hash, user_id, device_id, &access_hash).await?;
        }
        Ok(IssuedTokens { access, refresh, expires_in })
    }

    /// By its prefix whoever finds a token somewhere, a program that looks for leaked secrets for instance, knows what
    /// it is.
    pub(super) fn new_token(&self, prefix: &str) -> (String, TokenHash) {
        let token = format!("{prefix}_{}", self.0.random.token(TOKEN_LENGTH));
        let hash = TokenHash::of(&token);
        (token, hash)
    }
}

/// Makes sure that a session lasts until the transaction ends, in which something is made that is to end with it.
///
/// Where it was ended since its token was looked at, it is refused as a new request would be.
pub(super) async fn hold_session(tx: &mut Tx, user_id: &UserId, device_id: &DeviceId) -> Result<()> {
    if devices::lock(tx, user_id, device_id).await? { Ok(()) } else { Err(unknown_access_token()) }
}

/// Makes sure that an account and the session that writes in it last until the transaction ends. Keys are written so: they
/// end with their device, and whoever logs in or out, or ends devices, holds the account as well.
///
/// Where the session was ended since its token was looked at, it is refused as a new request would be. Where somebody has
/// logged in on the same device since, the keys there are theirs: the request is to be sent again, and is then judged by
/// its token.
pub(crate) async fn hold_account(tx: &mut Tx, user: &User) -> Result<()> {
    let User { user_id, device_id, token, .. } = user;
    let account = account::lock(tx, user_id).await?.filter(|account| !account.deactivated);
    let account = account.ok_or_else(unknown_access_token)?;
    hold_session(tx, user_id, device_id).await?;
    account.restrictions.check_unlocked()?;
    if !token::is_of_device(tx, token, user_id, device_id).await? {
        return Err(Error::Unavailable("the session has another access token by now".to_owned()));
    }
    Ok(())
}

fn too_many_devices(most: u32) -> String {
    format!(
        "This account has {most} devices, as many as it may: log one of them out, or log in with the `device_id` of one"
    )
}
