//! Guesses at the password of an account by somebody who is not logged in.
//!
//! Three bounds, of which the narrowest holds:
//!
//! - for the address, whoever is meant (`RateLimits::check_address`);
//! - for the account at this address, so that one household does not spend what others have;
//! - for the account at all addresses together at which none of its devices was seen. It has [`STRANGERS`] times as much
//!   room as one address, and bounds a guesser who comes from many. A login that succeeds is not counted.
//!
//! So a stranger can't lock the owner out: from where a device of theirs was last seen the third bound does not count,
//! and from elsewhere one address alone can't reach it. Only who guesses from many addresses at once makes the owner
//! wait, and only where the owner is new, too: what can't be told from a guess has to be bounded like one.

use std::net::IpAddr;

use ruma::OwnedUserId;

use super::{Limit, RateLimits, bucket::Charge, network::Network};
use crate::{error::Result, people::threepid::EmailAddress};

/// How many times as much as one address all strange addresses together may guess at an account.
const STRANGERS: u32 = 4;

/// Whose password is guessed at, by the name that was typed. Whether anybody has it makes no difference: who is made to
/// wait learns nothing from it.
#[derive(Clone, Debug)]
pub(crate) enum GuessedName {
    User(OwnedUserId),
    /// In the spelling in which it is kept. It has an `@` within, where a user ID begins with one.
    Email(EmailAddress),
}

impl GuessedName {
    fn as_str(&self) -> &str {
        match self {
            Self::User(user_id) => user_id.as_str(),
            Self::Email(email) => email.as_str(),
        }
    }
}

/// A guess that was counted, and may turn out to be none.
#[must_use]
#[derive(Default)]
pub(crate) struct Guess(Vec<Charge>);

impl RateLimits {
    /// Counts a guess. `seen_at`: where the devices of the account were last seen, if there is one.
    ///
    /// Users who are exempt are not exempt from this: it need not be they who guess.
    pub(crate) async fn check_guess(&self, name: &GuessedName, address: IpAddr, seen_at: &[IpAddr]) -> Result<Guess> {
        let (name, network) = (name.as_str(), Network::of(address));
        let mut charges = vec![self.charge(Limit::Login, 1, 1, format_args!("{name} at {network}"))];
        let mut strange = Vec::new();
        if !seen_at.iter().any(|seen_at| Network::of(*seen_at) == network) {
            strange.push(self.charge(Limit::Login, STRANGERS, 1, format_args!("{name} at strange addresses")));
        }
        charges.extend(strange.iter().cloned());
        self.take(Limit::Login, &charges).await?;
        Ok(Guess(strange))
    }

    /// It was the right password: whoever knows it is no stranger.
    pub(crate) async fn was_right(&self, guess: Guess) {
        self.put_back(&guess.0).await;
    }
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;
    use crate::{
        config::{RateLimitConfig, RateLimitsConfig},
        edge::{hub::SharedValues, metrics::Metrics},
    };

    fn limits() -> RateLimits {
        let login = RateLimitConfig { per_second: 0.001, burst: 3 };
        let config = RateLimitsConfig { login, ..RateLimitsConfig::default() };
        RateLimits::new(&config, SharedValues::none(), Metrics::new())
    }

    fn alice() -> GuessedName {
        GuessedName::User(user_id!("@alice:example.org").to_owned())
    }

    fn address(number: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, number])
    }

    #[tokio::test]
    async fn one_stranger_does_not_lock_out_the_owner() {
        let (limits, alice) = (limits(), alice());
        for _ in 0..3 {
            let _counted = limits.check_guess(&alice, address(1), &[]).await.unwrap();
        }
        for _ in 0..20 {
            assert!(limits.check_guess(&alice, address(1), &[]).await.is_err());
        }
        let _counted = limits.check_guess(&alice, address(2), &[]).await.unwrap();
    }

    #[tokio::test]
    async fn many_strangers_are_bounded_and_do_not_lock_out_the_owner_where_they_are_known() {
        let (limits, alice, home) = (limits(), alice(), address(200));
        let mut guesses = 0;
        for stranger in 1..=100 {
            guesses += u32::from(limits.check_guess(&alice, address(stranger), &[home]).await.is_ok());
        }
        assert_eq!(guesses, 3 * STRANGERS);
        let _counted = limits.check_guess(&alice, home, &[address(150), home]).await.unwrap();
        // Nobody else is the worse for it.
        let bob = GuessedName::User(user_id!("@bob:example.org").to_owned());
        let _counted = limits.check_guess(&bob, address(1), &[]).await.unwrap();
    }

    #[tokio::test]
    async fn a_known_address_may_not_guess_without_end_either() {
        let (limits, alice, home) = (limits(), alice(), address(200));
        for _ in 0..3 {
            let _counted = limits.check_guess(&alice, home, &[home]).await.unwrap();
        }
        assert!(limits.check_guess(&alice, home, &[home]).await.is_err());
    }

    #[tokio::test]
    async fn a_right_password_is_no_guess() {
        let (limits, alice) = (limits(), alice());
        for owner in 1..=100 {
            let guess = limits.check_guess(&alice, address(owner), &[]).await.unwrap();
            limits.was_right(guess).await;
        }
    }

    #[tokio::test]
    async fn an_email_address_counts_apart_from_whoever_has_it() {
        let (limits, here) = (limits(), address(1));
        for spelling in ["alice@example.org", "Alice@Example.org", "ALICE@example.org"] {
            let name = GuessedName::Email(EmailAddress::parse(spelling).unwrap());
            let _counted = limits.check_guess(&name, here, &[]).await.unwrap();
        }
        let name = GuessedName::Email(EmailAddress::parse("alice@example.org").unwrap());
        assert!(limits.check_guess(&name, here, &[]).await.is_err());
        let _counted = limits.check_guess(&alice(), here, &[]).await.unwrap();
    }
}
