//! What was encrypted is read again, in any range, and whatever was done to it is noticed.

use std::fs;

use futures_util::TryStreamExt as _;
use tempfile::TempDir;

use super::*;

fn master(id: &str, byte: u8) -> String {
    format!("{id}:{}", base64::engine::general_purpose::STANDARD.encode([byte; KEY_LENGTH]))
}

fn keys(keys: &[String]) -> MasterKeys {
    let master_keys = keys.iter().map(|key| key.clone().try_into().unwrap()).collect();
    MasterKeys::of(&MediaConfig { master_keys, ..MediaConfig::default() })
}

/// So many bytes that say where they are.
fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|place| u8::try_from(place % 251).unwrap()).collect()
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap()
}

fn part(bytes: &[u8], range: &Range<u64>) -> Vec<u8> {
    bytes[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()].to_vec()
}

async fn spool() -> (TempDir, Spool) {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path()).await.unwrap();
    (folder, spool)
}

async fn seal(keys: &MasterKeys, plain: &[u8]) -> (Vec<u8>, SealedKey) {
    let (folder, spool) = spool().await;
    let path = folder.path().join("plain");
    fs::write(&path, plain).unwrap();
    let (file, key) = keys.seal(&spool, &path).await.unwrap().unwrap();
    (fs::read(file.path()).unwrap(), key)
}

/// As a store gives it out: in parts of another size than segments.
fn stored(bytes: &[u8], size: usize) -> ByteStream {
    let parts: Vec<io::Result<Bytes>> = bytes.chunks(size).map(|part| Ok(Bytes::copy_from_slice(part))).collect();
    stream::iter(parts).boxed()
}

async fn read(opener: Opener, range: Range<u64>, sealed: &[u8]) -> io::Result<Vec<u8>> {
    let needed = part(sealed, &opener.stored_range(range.clone()));
    Ok(opener.stream(range, stored(&needed, 10_000)).try_collect::<Vec<_>>().await?.concat())
}

#[tokio::test]
async fn any_range_of_any_length_is_read_again() {
    let keys = keys(&[master("one", 1)]);
    let segment = usize::try_from(SEGMENT).unwrap();
    for size in [0, 1, 100, segment - 1, segment, segment + 1, 2 * segment, 3 * segment + 5] {
        let plain = bytes(size);
        let (sealed, key) = seal(&keys, &plain).await;
        let all = length(&plain);
        assert_eq!(keys.open(&key, all).unwrap().stored_bytes(), length(&sealed), "{size}");
        assert!(size < 100 || !sealed.windows(16).any(|part| part == &plain[..16]), "it is readable");
        let places = [0, 1, SEGMENT - 1, SEGMENT, SEGMENT + 1, 2 * SEGMENT, 3 * SEGMENT, all.saturating_sub(1), all];
        for (start, end) in places.into_iter().flat_map(|start| places.map(|end| (start, end))) {
            if start <= end && end <= all {
                let opened = read(keys.open(&key, all).unwrap(), start..end, &sealed).await.unwrap();
                assert!(opened == part(&plain, &(start..end)), "{start}..{end} of {size}");
            }
        }
        // What lies beyond the end is not there.
        assert!(read(keys.open(&key, all).unwrap(), 0..all + 10, &sealed).await.unwrap() == plain);
    }
}

#[tokio::test]
async fn only_what_a_range_needs_is_read() {
    let keys = keys(&[master("one", 1)]);
    let (sealed, key) = seal(&keys, &bytes(usize::try_from(3 * SEGMENT).unwrap())).await;
    let opener = keys.open(&key, 3 * SEGMENT).unwrap();
    assert_eq!(opener.stored_range(SEGMENT..SEGMENT + 1), SEALED_SEGMENT..2 * SEALED_SEGMENT);
    assert_eq!(opener.stored_range(SEGMENT - 1..SEGMENT + 1), 0..2 * SEALED_SEGMENT);
    assert_eq!(opener.stored_range(0..3 * SEGMENT), 0..length(&sealed));
    assert_eq!(opener.stored_range(7..7), 0..0);
}

#[tokio::test]
async fn every_changed_byte_is_noticed() {
    let keys = keys(&[master("one", 1)]);
    let plain = bytes(200);
    let (sealed, key) = seal(&keys, &plain).await;
    for place in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed[place] ^= 1;
        let error = read(keys.open(&key, 200).unwrap(), 0..200, &changed).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{place}");
    }
    let mut changed = decode(&key.sealed).unwrap();
    for place in 0..changed.len() {
        changed[place] ^= 1;
        let key = SealedKey { sealed: STANDARD_NO_PAD.encode(&changed), ..key.clone() };
        assert!(keys.open(&key, 200).is_err(), "{place}");
        changed[place] ^= 1;
    }
    for sealed in ["", "AAAA", "?", key.sealed.split_at(1).1] {
        assert!(keys.open(&SealedKey { sealed: sealed.to_owned(), ..key.clone() }, 200).is_err(), "{sealed}");
    }
}

#[tokio::test]
async fn segments_that_are_moved_left_out_or_cut_off_are_noticed() {
    let keys = keys(&[master("one", 1)]);
    let all = 3 * SEGMENT;
    let (sealed, key) = seal(&keys, &bytes(usize::try_from(all).unwrap())).await;
    let segments: Vec<&[u8]> = sealed.chunks(usize::try_from(SEALED_SEGMENT).unwrap()).collect();
    let [one, two, three] = segments[..] else { panic!("{} segments", segments.len()) };
    let open = async |stored_bytes: Vec<u8>, bytes: u64| {
        let stream = keys.open(&key, bytes).unwrap().stream(0..bytes, stored(&stored_bytes, 50_000));
        stream.try_collect::<Vec<_>>().await.map(|parts| parts.concat())
    };
    assert!(open([one, two, three].concat(), all).await.is_ok());
    for mixed in [[two, one, three], [one, one, three], [one, three, two], [one, two, two]] {
        assert_eq!(open(mixed.concat(), all).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
    // Also where the row was made to fit.
    assert!(open([one, two].concat(), 2 * SEGMENT).await.is_err());
    assert!(open([one, two, &three[..40]].concat(), 2 * SEGMENT + 24).await.is_err());
    let short = open([one, two].concat(), all).await.unwrap_err();
    assert_eq!(short.kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn a_store_that_breaks_off_ends_it() {
    let keys = keys(&[master("one", 1)]);
    let (sealed, key) = seal(&keys, &bytes(1_000)).await;
    let broken = stored(&sealed[..100], 10).chain(stream::iter([Err(io::Error::other("it broke off"))])).boxed();
    let read = keys.open(&key, 1_000).unwrap().stream(0..1_000, broken).try_collect::<Vec<_>>().await;
    assert_eq!(read.unwrap_err().to_string(), "it broke off");
}

#[tokio::test]
async fn a_new_master_key_opens_what_an_old_one_has_sealed() {
    let plain = bytes(1_000);
    let old = keys(&[master("old", 1)]);
    let (sealed, key) = seal(&old, &plain).await;
    assert_eq!(key.key_id, "old");
    assert_eq!(old.reseal(&key).unwrap(), None);

    let both = keys(&[master("new", 2), master("old", 1)]);
    assert_eq!(both.current(), Some("new"));
    assert_eq!(read(both.open(&key, 1_000).unwrap(), 0..1_000, &sealed).await.unwrap(), plain);
    let resealed = both.reseal(&key).unwrap().unwrap();
    assert_eq!(resealed.key_id, "new");
    let new = keys(&[master("new", 2)]);
    assert_eq!(read(new.open(&resealed, 1_000).unwrap(), 0..1_000, &sealed).await.unwrap(), plain);
    assert_eq!(new.reseal(&resealed).unwrap(), None);

    // The old one is gone, or another has its name, or a key is said to be under another master key.
    assert!(new.open(&key, 1_000).is_err());
    assert!(keys(&[master("old", 9)]).open(&key, 1_000).is_err());
    let alike = keys(&[master("new", 2), master("other", 2)]);
    assert!(alike.open(&SealedKey { key_id: "other".to_owned(), ..resealed }, 1_000).is_err());
}

#[tokio::test]
async fn without_a_master_key_nothing_is_encrypted() {
    let (folder, spool) = spool().await;
    let path = folder.path().join("plain");
    fs::write(&path, "bytes").unwrap();
    assert_eq!(keys(&[]).current(), None);
    assert!(keys(&[]).seal(&spool, &path).await.unwrap().is_none());
    let sealed = SealedKey { key_id: "one".to_owned(), sealed: String::new() };
    assert!(keys(&[]).open(&sealed, 5).is_err());
    assert_eq!(keys(&[]).reseal(&sealed).unwrap(), None);
}

/// The configuration refuses it. Where it comes through, nothing is stored readable for it.
#[tokio::test]
async fn with_a_master_key_that_is_none_nothing_is_stored() {
    let (folder, spool) = spool().await;
    let path = folder.path().join("plain");
    fs::write(&path, "bytes").unwrap();
    for broken in ["one", "one:", "one:AAAA", "one:?"] {
        let keys = keys(&[broken.to_owned(), master("two", 2)]);
        assert_eq!(keys.current(), Some("one"));
        assert!(keys.seal(&spool, &path).await.is_err(), "{broken}");
    }
}

#[tokio::test]
async fn equal_bytes_are_not_seen_to_be_equal() {
    let keys = keys(&[master("one", 1)]);
    let (one, other) = (seal(&keys, &bytes(100)).await, seal(&keys, &bytes(100)).await);
    assert_ne!(one.0, other.0);
    assert_ne!(one.1, other.1);
}
