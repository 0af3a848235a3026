//! Random numbers, handed in: tokens, salts and identifiers come from here, and a test can seed it.
//!
//! The system's variant is aws-lc's generator. Whoever can guess an access token is that user, so
//! nothing weaker is offered outside tests
//! (<https://spec.matrix.org/v1.19/client-server-api/#client-authentication>).
//!
//! Lengths are chosen where something is made: 43 characters are 256 bits, for what must never be guessed; 16 are 95
//! bits, for what must only be unique.

use std::sync::Arc;

use aws_lc_rs::{digest, rand};
use parking_lot::Mutex;

/// 62 characters: with the lower six bits of a byte as the index, two of 64 values fall outside and
/// are thrown away, so that every character is equally likely.
const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// A source of random bytes. Clones of a seeded source continue the same sequence.
#[derive(Clone, Debug)]
pub struct Random(RandomSource);

#[derive(Clone, Debug)]
enum RandomSource {
    System,
    Seeded(Arc<Mutex<Sequence>>),
}

impl Random {
    /// The generator of the machine, fit for secrets.
    pub fn system() -> Self {
        Self(RandomSource::System)
    }

    /// A sequence that is the same in every run. For tests only: its secrets are known.
    pub fn seeded(seed: u64) -> Self {
        Self(RandomSource::Seeded(Arc::new(Mutex::new(Sequence { seed, next_block: 0 }))))
    }

    /// Fills `bytes`.
    ///
    /// # Panics
    ///
    /// If the operating system gives no random bytes: no secret made after that would be one.
    pub fn fill(&self, bytes: &mut [u8]) {
        match &self.0 {
            RandomSource::System => {
                rand::fill(bytes).expect("aws-lc aborts rather than return short once its generator is seeded");
            }
            RandomSource::Seeded(sequence) => sequence.lock().fill(bytes),
        }
    }

    /// `N` random bytes.
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }

    /// `length` random characters of `A-Z`, `a-z` and `0-9`, 5.95 bits each.
    pub fn token(&self, length: usize) -> String {
        let mut token = String::with_capacity(length);
        while token.len() < length {
            let missing = length - token.len();
            let characters = self
                .bytes::<32>()
                .into_iter()
                .filter_map(|byte| ALPHABET.get(usize::from(byte & 0b11_1111)))
                .map(|character| char::from(*character));
            token.extend(characters.take(missing));
        }
        token
    }
}

/// SHA-256 in counter mode: a few lines, and the same numbers on every machine.
#[derive(Debug)]
struct Sequence {
    seed: u64,
    next_block: u64,
}

impl Sequence {
    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(digest::SHA256_OUTPUT_LEN) {
            let input = [self.seed.to_be_bytes(), self.next_block.to_be_bytes()].concat();
            let block = digest::digest(&digest::SHA256, &input);
            for (byte, random) in chunk.iter_mut().zip(block.as_ref()) {
                *byte = *random;
            }
            self.next_block += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_its_length_and_only_url_safe_characters() {
        for length in [0, 1, 31, 32, 33, 200] {
            let token = Random::system().token(length);
            assert_eq!(token.len(), length);
            assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{token}");
        }
    }

    #[test]
    fn every_character_of_a_token_is_equally_likely() {
        let token = Random::seeded(7).token(62_000);
        for character in ALPHABET {
            let count = token.bytes().filter(|byte| byte == character).count();
            assert!((850..1150).contains(&count), "{} came {count} times", char::from(*character));
        }
    }

    #[test]
    fn a_seed_gives_the_same_sequence_and_clones_continue_it() {
        let (one, other) = (Random::seeded(1), Random::seeded(1));
        assert_eq!(one.bytes::<40>(), other.bytes::<40>());

        let clone = one.clone();
        assert_ne!(clone.bytes::<8>(), one.bytes::<8>());
        assert_ne!(Random::seeded(1).bytes::<8>(), Random::seeded(2).bytes::<8>());
    }
}
