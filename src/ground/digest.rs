//! SHA-256 of bytes that come bit by bit.

use std::fmt;

use aws_lc_rs::digest::{Context, SHA256, SHA256_OUTPUT_LEN};

/// Names bytes: equal ones have the same, and nobody finds others that have it too.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; SHA256_OUTPUT_LEN]);

impl Digest {
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(bytes);
        hasher.finish()
    }

    /// From 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        if text.len() != 2 * SHA256_OUTPUT_LEN || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let mut digest = [0; SHA256_OUTPUT_LEN];
        for (byte, place) in digest.iter_mut().zip((0..text.len()).step_by(2)) {
            *byte = u8::from_str_radix(text.get(place..place + 2)?, 16).ok()?;
        }
        Some(Self(digest))
    }
}

/// In 64 hexadecimal digits, small ones.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Makes a [`Digest`].
pub struct Hasher(Context);

impl Hasher {
    pub fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub fn finish(self) -> Digest {
        let mut digest = [0; SHA256_OUTPUT_LEN];
        // Both are as long as SHA-256 makes it.
        for (byte, made) in digest.iter_mut().zip(self.0.finish().as_ref()) {
            *byte = *made;
        }
        Digest(digest)
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF_ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn bytes_have_one_digest_however_they_come() {
        let mut hasher = Hasher::new();
        hasher.update(b"a");
        hasher.update(b"bc");
        let digest = hasher.finish();
        assert_eq!(digest, Digest::of(b"abc"));
        assert_eq!(digest.to_string(), OF_ABC);
        assert_eq!(Digest::from_hex(OF_ABC), Some(digest));
        assert_eq!(Digest::from_hex(&OF_ABC.to_uppercase()), Some(digest));
    }

    #[test]
    fn what_is_none_is_not_read() {
        for text in [
            "",
            "ba",
            OF_ABC.split_at(1).1,
            &format!("{OF_ABC}0"),
            &OF_ABC.replace('b', "+"),
            &OF_ABC.replace('b', "é"),
        ] {
            assert_eq!(Digest::from_hex(text), None, "{text}");
        }
    }
}
