//! Passwords: Argon2id, off the threads that answer requests, and few at a time.
//!
//! One text can be typed in several spellings of Unicode; before it is hashed it is brought to one of them (NFKC, as
//! Synapse does, not the NFC of [RFC 8265](https://www.rfc-editor.org/rfc/rfc8265#section-4.2), which keeps apart what
//! looks alike). Hashes from before that was done are of the text as it was typed, so that is tried as well, and where
//! it is right, hashed anew.
//!
//! What a hash cost when it was made stands in it, so hashes of different costs are verified alike. Salts are 16 random
//! bytes.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#notes-on-password-management>

use std::sync::Arc;

use argon2::{
    Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version,
    password_hash::{self, phc::PasswordHash},
};
use ruma::api::error::ErrorKind;
use tokio::sync::Semaphore;
use unicode_normalization::UnicodeNormalization as _;

use crate::{
    error::{Error, Result},
    ground::random::Random,
};

/// A hash keeps a processor busy for a while; more at a time would only starve everybody else.
const AT_A_TIME: usize = 2;

/// What one hash costs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PasswordCost {
    pub(crate) memory_kib: u32,
    pub(crate) passes: u32,
}

impl Default for PasswordCost {
    /// The first choice of OWASP's password storage cheat sheet: 19 MiB, two passes, one lane.
    fn default() -> Self {
        Self { memory_kib: 19 * 1024, passes: 2 }
    }
}

/// How a password compares with a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PasswordMatch {
    Wrong,
    Right,
    /// It is right, but only as it was typed: the hash is an old one.
    AsTyped,
}

impl PasswordMatch {
    pub(super) fn is_right(self) -> bool {
        self != Self::Wrong
    }
}

/// Hashes passwords and compares them, on threads that may block, [`AT_A_TIME`] at once: each takes the memory that
/// [`PasswordCost`] says.
pub(super) struct Passwords {
    argon2: Argon2<'static>,
    /// In characters.
    min_length: usize,
    random: Random,
    /// How many may be hashed at the same time. Whoever comes beyond that waits, in order.
    permits: Arc<Semaphore>,
}

impl Passwords {
    pub(super) fn new(cost: PasswordCost, min_length: usize, random: Random) -> Result<Self> {
        let params = Params::new(cost.memory_kib, cost.passes, 1, None).map_err(Error::broken)?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        Ok(Self { argon2, min_length, random, permits: Arc::new(Semaphore::new(AT_A_TIME)) })
    }

    /// Refuses a new password that is not good enough.
    pub(super) fn check(&self, password: &str) -> Result<()> {
        let (length, wanted) = (password.nfkc().count(), self.min_length.max(1));
        if length < wanted {
            let message = format!("The password has {length} characters: choose one of at least {wanted}");
            return Err(Error::refused(ErrorKind::WeakPassword, message));
        }
        Ok(())
    }

    /// The hash of a new password, in the PHC string format.
    pub(super) async fn hash(&self, password: &str) -> Result<String> {
        self.check(password)?;
        self.hash_again(password).await
    }

    /// Hashes a password that was good enough once, whatever the rules for new ones are now.
    pub(super) async fn hash_again(&self, password: &str) -> Result<String> {
        let salt: [u8; 16] = self.random.bytes();
        let (argon2, password) = (self.argon2.clone(), password.nfkc().collect::<String>());
        self.run(move || argon2.hash_password_with_salt(password.as_bytes(), &salt).map(|hash| hash.to_string()))
            .await?
            .map_err(Error::broken)
    }

    /// Whether the password is the one that was hashed. Without a hash it is wrong, after the same time: how long the
    /// answer takes must not show who has an account.
    pub(super) async fn verify(&self, password: &str, hash: Option<&str>) -> Result<PasswordMatch> {
        let salt: [u8; 16] = self.random.bytes();
        let normal: String = password.nfkc().collect();
        let typed = (normal != password).then(|| (PasswordMatch::AsTyped, password.to_owned()));
        let spellings = [Some((PasswordMatch::Right, normal)), typed].into_iter().flatten();
        let (argon2, hash) = (self.argon2.clone(), hash.map(ToOwned::to_owned));
        let verified = self.run(move || {
            for (matched, password) in spellings {
                let Some(hash) = &hash else {
                    argon2.hash_password_with_salt(password.as_bytes(), &salt)?;
                    continue;
                };
                match argon2.verify_password(password.as_bytes(), &PasswordHash::new(hash)?) {
                    Err(password_hash::Error::PasswordInvalid) => {}
                    verified => return verified.map(|()| matched),
                }
            }
            Ok(PasswordMatch::Wrong)
        });
        let broken = |e| Error::broken(format!("a password hash in the database can't be verified: {e}"));
        verified.await?.map_err(broken)
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(Error::broken)?;
        // The permit goes along: the work is not interrupted when the client hangs up.
        let work = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(permit);
            done
        });
        work.await.map_err(Error::broken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_right_password_and_no_other() {
        let cost = PasswordCost { memory_kib: 8, passes: 1 };
        let passwords = Passwords::new(cost, 8, Random::system()).unwrap();
        let hash = passwords.hash("ilovebananas").await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=8,t=1,p=1$"), "{hash}");
        assert_ne!(passwords.hash("ilovebananas").await.unwrap(), hash);

        let verify = async |password: &str, hash: Option<&str>| passwords.verify(password, hash).await;
        assert_eq!(verify("ilovebananas", Some(&hash)).await.unwrap(), PasswordMatch::Right);
        assert_eq!(verify("ilovebanana", Some(&hash)).await.unwrap(), PasswordMatch::Wrong);
        assert_eq!(verify("ilovebananas", None).await.unwrap(), PasswordMatch::Wrong);
        assert!(verify("ilovebananas", Some("nonsense")).await.is_err());
        for weak in ["", "bananas", "äöüäöüä"] {
            let Err(Error::Refused { kind, message }) = passwords.hash(weak).await else { panic!("{weak}") };
            assert_eq!(kind, ErrorKind::WeakPassword);
            assert!(message.contains("at least 8"), "{message}");
        }
        passwords.hash("äöüäöüäö").await.unwrap();
    }

    #[tokio::test]
    async fn a_password_is_the_same_however_it_is_spelled() {
        let cost = PasswordCost { memory_kib: 8, passes: 1 };
        let passwords = Passwords::new(cost, 8, Random::system()).unwrap();
        // One character or two; a letter or the unit of length; ligatures; full width.
        let spellings = ["caf\u{e9} \u{c5}ngstr\u{f6}m fi", "cafe\u{301} \u{212b}ngstro\u{308}m \u{fb01}"];
        for chosen in spellings {
            let hash = passwords.hash(chosen).await.unwrap();
            for typed in spellings {
                assert_eq!(passwords.verify(typed, Some(&hash)).await.unwrap(), PasswordMatch::Right);
            }
            assert!(!passwords.verify("cafe Angstrom fi", Some(&hash)).await.unwrap().is_right());
            assert!(!passwords.verify(chosen, None).await.unwrap().is_right());
        }
        let old = passwords.argon2.hash_password_with_salt(spellings[1].as_bytes(), b"0123456789abcdef").unwrap();
        let old = old.to_string();
        assert_eq!(passwords.verify(spellings[1], Some(&old)).await.unwrap(), PasswordMatch::AsTyped);
        assert_eq!(passwords.verify(spellings[0], Some(&old)).await.unwrap(), PasswordMatch::Wrong);
        // Of seven characters, however many make them up.
        assert!(passwords.hash("e\u{301}e\u{301}e\u{301}e\u{301}e\u{301}e\u{301}e\u{301}").await.is_err());
    }
}
