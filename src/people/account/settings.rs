//! What the operator decides about accounts.
//!
//! It is copied out of the configuration, so that tests can make accounts with cheap hashes and short tokens.

use std::time::Duration;

use super::password::PasswordCost;
use crate::{
    config::{Config, RegistrationMode},
    error::{Error, Result},
    log::Quotas,
};

/// How long an access token lasts whose client knows how to refresh it.
const ACCESS_TOKEN_LIFETIME: Duration = Duration::from_hours(1);

/// Who may come, and how tokens and passwords are.
#[derive(Clone)]
pub(crate) struct AccountSettings {
    pub(crate) registration: RegistrationMode,
    /// Whether strangers may come as guests.
    pub(crate) guests: bool,
    /// Whoever knows it may make accounts, admins too.
    pub(crate) shared_secret: Option<String>,
    /// How long an access token lasts whose client knows how to refresh it.
    pub(crate) access_token_lifetime: Duration,
    pub(crate) password_cost: PasswordCost,
    /// How many characters a password has at least.
    pub(crate) password_min_length: usize,
    /// How many devices, addresses and tokens somebody may have.
    pub(crate) quotas: Quotas,
}

impl AccountSettings {
    pub(crate) fn of(config: &Config) -> Result<Self> {
        Ok(Self {
            registration: config.registration.mode,
            guests: config.registration.guests,
            shared_secret: config.registration.shared_secret.as_ref().map(|secret| secret.expose().to_owned()),
            access_token_lifetime: ACCESS_TOKEN_LIFETIME,
            password_cost: PasswordCost::default(),
            password_min_length: usize::try_from(config.passwords.min_length).map_err(Error::broken)?,
            quotas: Quotas::of(config),
        })
    }
}
