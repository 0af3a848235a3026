//! Who calls, as types: what a function asks for says whom it is for.
//!
//! Other servers call with a signature instead of a token, and are none of these.
//!
//! A handler that takes a [`User`] can't be reached by a guest, and a function that takes an [`Administrator`] need not
//! check. The device is part of a caller, because transaction ids and presence go by it.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicBool, Ordering},
};

use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId, api::error::ErrorKind};

use crate::{
    error::{Error, Result},
    room::Author,
    store::{
        account::{Account, Restrictions},
        token::TokenHash,
    },
};

/// Raised once something of an account or its devices has changed since a caller was looked up: whatever goes on for
/// longer in their name looks again. What is changed by another node raises it when this node reads of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct ChangedFlag(Arc<AtomicBool>);

impl ChangedFlag {
    /// For a caller of whom it is unknown whether they have changed already.
    pub(super) fn raised() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }

    pub(super) fn raise(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(crate) fn is_raised(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// As long as anybody has this.
    pub(super) fn downgrade(&self) -> Weak<AtomicBool> {
        Arc::downgrade(&self.0)
    }

    pub(super) fn upgrade(flag: &Weak<AtomicBool>) -> Option<Self> {
        flag.upgrade().map(Self)
    }
}

/// Who somebody is does not depend on when they were looked up.
impl PartialEq for ChangedFlag {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for ChangedFlag {}

/// A user who has registered, on one of their devices.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "that is what the specification calls it")]
pub(crate) struct User {
    pub(crate) user_id: OwnedUserId,
    pub(crate) device_id: OwnedDeviceId,
    /// By which the session is told from another on the same device, before or after it.
    pub(crate) token: TokenHash,
    pub(crate) rank: Rank,
    pub(crate) pace: Pace,
    pub(crate) restrictions: Restrictions,
    pub(crate) changed: ChangedFlag,
}

/// What a user has a say in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rank {
    Member,
    /// Everything on this server: they may use the admin API.
    Administrator,
}

/// Whether rate limits apply to an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    Limited,
    Unlimited,
}

/// Somebody who has not registered, on the only device that they have.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#guest-access>
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Guest {
    pub(crate) user_id: OwnedUserId,
    pub(crate) device_id: OwnedDeviceId,
    pub(crate) pace: Pace,
    pub(crate) restrictions: Restrictions,
    pub(crate) changed: ChangedFlag,
}

/// A user who is known to be an administrator. Only [`User::into_administrator`] makes one.
pub(crate) struct Administrator(User);

/// An application service that acts as one of its users. There are none yet, so nobody can be one.
///
/// <https://spec.matrix.org/v1.19/application-service-api/#identity-assertion>
#[derive(Debug)]
pub(crate) enum Appservice {}

/// Whoever holds an access token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    User(User),
    Guest(Guest),
}

impl Caller {
    pub(crate) fn user_id(&self) -> &UserId {
        match self {
            Self::User(user) => &user.user_id,
            Self::Guest(guest) => &guest.user_id,
        }
    }

    pub(crate) fn device_id(&self) -> &DeviceId {
        match self {
            Self::User(user) => &user.device_id,
            Self::Guest(guest) => &guest.device_id,
        }
    }

    pub(crate) fn pace(&self) -> Pace {
        match self {
            Self::User(user) => user.pace,
            Self::Guest(guest) => guest.pace,
        }
    }

    pub(crate) fn restrictions(&self) -> Restrictions {
        match self {
            Self::User(user) => user.restrictions,
            Self::Guest(guest) => guest.restrictions,
        }
    }

    /// Whether they have to be looked up again, should this have taken a while.
    pub(crate) fn changed(&self) -> &ChangedFlag {
        match self {
            Self::User(user) => &user.changed,
            Self::Guest(guest) => &guest.changed,
        }
    }

    /// In whose name they write into rooms.
    pub(crate) fn author(&self) -> Author {
        match self {
            Self::User(user) => user.author(),
            Self::Guest(guest) => Author::Guest(guest.user_id.clone()),
        }
    }

    /// Refuses a guest.
    pub(crate) fn into_user(self) -> Result<User> {
        match self {
            Self::User(user) => Ok(user),
            Self::Guest(_) => Err(not_for_guests()),
        }
    }

    /// Refuses a guest.
    pub(crate) fn check_registered(&self) -> Result<()> {
        if let Self::Guest(_) = self { Err(not_for_guests()) } else { Ok(()) }
    }
}

impl User {
    /// In whose name they write into rooms.
    pub(crate) fn author(&self) -> Author {
        self.rank.author(self.user_id.clone())
    }

    /// Refuses whoever is no administrator.
    pub(crate) fn into_administrator(self) -> Result<Administrator> {
        match self.rank {
            Rank::Administrator => Ok(Administrator(self)),
            Rank::Member => Err(Error::forbidden("Only administrators of this server can do this")),
        }
    }
}

impl Administrator {
    pub(crate) fn user(&self) -> &User {
        &self.0
    }
}

impl Rank {
    /// As it is written down.
    pub(super) fn of(admin: bool) -> Self {
        if admin { Self::Administrator } else { Self::Member }
    }

    fn author(self, user_id: OwnedUserId) -> Author {
        match self {
            Self::Member => Author::User(user_id),
            Self::Administrator => Author::Administrator(user_id),
        }
    }
}

impl Pace {
    /// As it is written down.
    pub(super) fn of(rate_limited: bool) -> Self {
        if rate_limited { Self::Limited } else { Self::Unlimited }
    }
}

/// In whose name is written into rooms what an account has scheduled.
pub(crate) fn author_of(account: &Account) -> Author {
    let user_id = account.user_id.clone();
    if account.guest { Author::Guest(user_id) } else { Rank::of(account.admin).author(user_id) }
}

fn not_for_guests() -> Error {
    Error::refused(ErrorKind::GuestAccessForbidden, "Guests can't do this: register an account")
}
