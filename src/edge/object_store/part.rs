//! A part of a file on its way to a store.

use std::{fs::File, io, ops::Range, os::unix::fs::FileExt as _, path::PathBuf};

use ::object_store::PutPayload;
use bytes::Bytes;

/// In bytes. A connection takes a part in such pieces, by which it is seen to move.
const PIECE: usize = 64 * 1024;

pub(super) struct FilePart {
    pub(super) file: PathBuf,
    pub(super) range: Range<u64>,
}

impl FilePart {
    pub(super) fn length(&self) -> u64 {
        self.range.end.saturating_sub(self.range.start)
    }

    /// Into memory, all of it.
    pub(super) async fn read(self) -> io::Result<PutPayload> {
        let reading = tokio::task::spawn_blocking(move || {
            let mut part = vec![0; usize::try_from(self.length()).map_err(io::Error::other)?];
            File::open(&self.file)?.read_exact_at(&mut part, self.range.start)?;
            Ok(pieces(part.into()))
        });
        reading.await.map_err(io::Error::other)?
    }
}

fn pieces(mut part: Bytes) -> PutPayload {
    let mut pieces = Vec::with_capacity(part.len().div_ceil(PIECE));
    while !part.is_empty() {
        pieces.push(part.split_to(part.len().min(PIECE)));
    }
    pieces.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_all_of_its_pieces() {
        for length in [0, 1, PIECE, PIECE + 1, 3 * PIECE] {
            let part: Bytes = (0..length).map(|place| u8::try_from(place % 251).unwrap()).collect();
            let payload = pieces(part.clone());
            assert!(payload.iter().all(|piece| piece.len() <= PIECE));
            assert_eq!(Bytes::from(payload), part);
        }
    }
}
