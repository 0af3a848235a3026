//! Encryption at rest: whoever gets at a store without the configuration reads nothing.
//!
//! Each object has a random key of its own, which the database keeps sealed with a master key of the configuration. A new
//! master key means sealing those keys anew, not all bytes.
//!
//! Bytes are encrypted with AES-256-GCM in segments of 64 KiB, so that any range can be read without what lies before it.
//! A segment's nonce is its number and whether it is the last: segments that were changed, moved, left out or cut off
//! don't open. An empty object has one segment, which is empty.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _, Write as _},
    ops::Range,
    path::Path,
    sync::Arc,
};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};

use super::spool::{Spool, SpoolFile, on_thread};
use crate::{
    config::MediaConfig,
    edge::object_store::ByteStream,
    error::{Error, Result},
    ground::random::Random,
};

/// In bytes.
const KEY_LENGTH: usize = 32;
const TAG: u64 = 16;
const SEGMENT: u64 = 64 * 1024;
const SEALED_SEGMENT: u64 = SEGMENT + TAG;

/// The master keys of the configuration. Cheap to clone.
#[derive(Clone)]
pub(crate) struct MasterKeys(Arc<Inner>);

struct Inner {
    /// What new keys are sealed with.
    current: Option<String>,
    /// None for one that is not 32 bytes in base64, which the configuration refuses: nothing is sealed or opened with it.
    keys: BTreeMap<String, Option<LessSafeKey>>,
    random: Random,
}

/// An object's key as the database has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SealedKey {
    /// Of the master key.
    pub(crate) key_id: String,
    /// In base64.
    pub(crate) sealed: String,
}

/// Opens the bytes of one object.
pub(crate) struct Opener {
    key: LessSafeKey,
    /// Without encryption.
    bytes: u64,
}

impl MasterKeys {
    pub(crate) fn of(config: &MediaConfig) -> Self {
        let parsed = config.master_keys.iter().map(|key| {
            let (id, key) = key.expose().split_once(':').unwrap_or((key.expose(), ""));
            (id.to_owned(), decode(key).and_then(|key| aead_key(&key)))
        });
        let parsed: Vec<_> = parsed.collect();
        let current = parsed.first().map(|(id, _)| id.clone());
        Self(Arc::new(Inner { current, keys: parsed.into_iter().collect(), random: Random::system() }))
    }

    /// The id of the one that new objects are encrypted under. None where they are not encrypted.
    pub(crate) fn current(&self) -> Option<&str> {
        self.0.current.as_deref()
    }

    /// Encrypts a file into another. None where nothing is encrypted.
    pub(crate) async fn seal(&self, spool: &Spool, plain: &Path) -> Result<Option<(SpoolFile, SealedKey)>> {
        let Some(id) = self.current() else { return Ok(None) };
        let secret: [u8; KEY_LENGTH] = self.0.random.bytes();
        let sealed = self.seal_key(id, &secret)?;
        let key = aead_key(&secret).ok_or_else(|| Error::broken("no key can be made"))?;
        let (plain, file) = (plain.to_owned(), spool.reserve());
        // The file goes along: whoever gives up does not delete it before it is made.
        let written = on_thread(move || {
            let mut target = file.make()?;
            seal_file(&key, &mut File::open(plain)?, &mut target)?;
            Ok(file)
        });
        Ok(Some((written.await?, sealed)))
    }

    /// `bytes`: how many there are without encryption.
    pub(crate) fn open(&self, key: &SealedKey, bytes: u64) -> Result<Opener> {
        let secret = self.open_key(key)?;
        let key = aead_key(&secret).ok_or_else(|| Error::broken("the key of an object is none"))?;
        Ok(Opener { key, bytes })
    }

    /// Seals the key of an object with the current master key, without a change of its bytes. None where it is sealed with
    /// that already, or where nothing is encrypted any more.
    pub(crate) fn reseal(&self, key: &SealedKey) -> Result<Option<SealedKey>> {
        match self.current() {
            Some(id) if id != key.key_id => Ok(Some(self.seal_key(id, &self.open_key(key)?)?)),
            _ => Ok(None),
        }
    }

    fn seal_key(&self, id: &str, secret: &[u8]) -> Result<SealedKey> {
        let nonce: [u8; NONCE_LEN] = self.0.random.bytes();
        let mut sealed = secret.to_vec();
        let done = self.master(id)?.seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(id.as_bytes()),
            &mut sealed,
        );
        done.map_err(Error::broken)?;
        let sealed = STANDARD_NO_PAD.encode([nonce.as_slice(), &sealed].concat());
        Ok(SealedKey { key_id: id.to_owned(), sealed })
    }

    fn open_key(&self, key: &SealedKey) -> Result<Vec<u8>> {
        let master = self.master(&key.key_id)?;
        let wrong =
            || Error::broken(format!("the key of an object does not open with the master key `{}`", key.key_id));
        let sealed = decode(&key.sealed).ok_or_else(wrong)?;
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>().ok_or_else(wrong)?;
        let mut secret = sealed.to_vec();
        let aad = Aad::from(key.key_id.as_bytes());
        let opened = master.open_in_place(Nonce::assume_unique_for_key(*nonce), aad, &mut secret);
        let length = opened.map_err(|_unspecified| wrong())?.len();
        secret.truncate(length);
        Ok(secret)
    }

    fn master(&self, id: &str) -> Result<&LessSafeKey> {
        let key = self.0.keys.get(id).and_then(Option::as_ref);
        key.ok_or_else(|| Error::broken(format!("media are encrypted with the master key `{id}`, which is not there")))
    }
}

/// With padding or without.
fn decode(base64: &str) -> Option<Vec<u8>> {
    STANDARD_NO_PAD.decode(base64.trim_end_matches('=')).ok()
}

/// None if it has not the length of one.
fn aead_key(secret: &[u8]) -> Option<LessSafeKey> {
    UnboundKey::new(&AES_256_GCM, secret).ok().map(LessSafeKey::new)
}

/// No two segments of an object have the same, and no two objects the same key.
fn nonce(segment: u64, last: bool) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    for (byte, given) in nonce.iter_mut().zip(segment.to_be_bytes().into_iter().chain([u8::from(last)])) {
        *byte = given;
    }
    Nonce::assume_unique_for_key(nonce)
}

/// Of so many bytes. Never none.
fn segments(bytes: u64) -> u64 {
    bytes.div_ceil(SEGMENT).max(1)
}

fn seal_file(key: &LessSafeKey, plain: &mut File, target: &mut File) -> io::Result<()> {
    let bytes = plain.metadata()?.len();
    let segments = segments(bytes);
    let mut part = Vec::new();
    for segment in 0..segments {
        part.clear();
        let wanted = SEGMENT.min(bytes - segment * SEGMENT);
        let read = (&*plain).take(wanted).read_to_end(&mut part)?;
        if u64::try_from(read).unwrap_or(u64::MAX) < wanted {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let nonce = nonce(segment, segment + 1 == segments);
        key.seal_in_place_append_tag(nonce, Aad::empty(), &mut part).map_err(io::Error::other)?;
        target.write_all(&part)?;
    }
    Ok(())
}

impl Opener {
    /// How many bytes are stored.
    pub(crate) fn stored_bytes(&self) -> u64 {
        self.bytes + segments(self.bytes) * TAG
    }

    /// Which of the stored bytes are needed for a range: whole segments.
    pub(crate) fn stored_range(&self, plain: Range<u64>) -> Range<u64> {
        let plain = self.within(plain);
        if plain.is_empty() {
            return 0..0;
        }
        let start = plain.start / SEGMENT * SEALED_SEGMENT;
        start..self.stored_bytes().min(plain.end.div_ceil(SEGMENT) * SEALED_SEGMENT)
    }

    /// A range of the object, from the stored bytes of [`Self::stored_range`]. What does not open ends it with an error
    /// before any of its segment is out.
    pub(crate) fn stream(self, plain: Range<u64>, stored: ByteStream) -> ByteStream {
        let plain = self.within(plain);
        stream::try_unfold(Opening { opener: self, plain, stored, buffer: BytesMut::new() }, Opening::next).boxed()
    }

    fn within(&self, plain: Range<u64>) -> Range<u64> {
        plain.start.min(self.bytes)..plain.end.min(self.bytes)
    }

    /// How long a segment is where it is stored.
    fn sealed_length(&self, segment: u64) -> usize {
        let plain = SEGMENT.min(self.bytes.saturating_sub(segment * SEGMENT));
        small(plain + TAG)
    }

    fn open_segment<'a>(&self, segment: u64, sealed: &'a mut [u8]) -> io::Result<&'a mut [u8]> {
        let nonce = nonce(segment, segment + 1 == segments(self.bytes));
        let opened = self.key.open_in_place(nonce, Aad::empty(), sealed);
        opened.map_err(|_unspecified| {
            io::Error::new(io::ErrorKind::InvalidData, "stored bytes are not what was encrypted")
        })
    }
}

/// What is left to do of a range.
struct Opening {
    opener: Opener,
    plain: Range<u64>,
    stored: ByteStream,
    /// Of the segment that comes next.
    buffer: BytesMut,
}

impl Opening {
    async fn next(mut self) -> io::Result<Option<(Bytes, Self)>> {
        if self.plain.is_empty() {
            return Ok(None);
        }
        let segment = self.plain.start / SEGMENT;
        let sealed = self.opener.sealed_length(segment);
        while self.buffer.len() < sealed {
            let Some(part) = self.stored.next().await else {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "stored bytes end before their end"));
            };
            self.buffer.extend_from_slice(&part?);
        }
        let mut part = self.buffer.split_to(sealed);
        let length = self.opener.open_segment(segment, &mut part)?.len();
        part.truncate(length);
        let until = length.min(small(self.plain.end - segment * SEGMENT));
        let piece = part.freeze().slice(small(self.plain.start % SEGMENT)..until);
        self.plain.start = (segment + 1) * SEGMENT;
        Ok(Some((piece, self)))
    }
}

/// Of what is no longer than a segment, or is cut to that.
fn small(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
