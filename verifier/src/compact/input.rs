//! One object as a reader on the thread that merges, fetched a little ahead of it.
//!
//! Memory: at most three pieces of [`PIECE_BYTES`] an object: one being read, one waiting, one on its way.

use std::io::{self, Read};
use std::ops::Range;

use bytes::{Buf, Bytes, BytesMut};
use replica::store::{Key, Store, StoreError};
use tokio::sync::{Semaphore, mpsc};

/// Bytes in a request; a smaller object is fetched whole.
pub(super) const PIECE_BYTES: u64 = 128 << 10;

type Piece = Result<Bytes, StoreError>;

/// The bytes of one object. A failure of the store is in the reader's error ([`store_error`]).
pub(super) struct ObjectInput {
    pieces: mpsc::Receiver<Piece>,
    current: Bytes,
}

impl ObjectInput {
    /// A reader, and where [`feed`] puts its pieces.
    pub(super) fn new() -> (Self, mpsc::Sender<Piece>) {
        let (sender, pieces) = mpsc::channel(1);
        (Self { pieces, current: Bytes::new() }, sender)
    }
}

impl Read for ObjectInput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.pieces.blocking_recv() {
                Some(Ok(piece)) => self.current = piece,
                Some(Err(error)) => return Err(io::Error::other(error)),
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

/// The store's failure in a reader's error.
pub(super) fn store_error(error: io::Error) -> Result<StoreError, io::Error> {
    error.downcast::<StoreError>()
}

/// Sends the pieces of an object of `size` bytes, until its reader is gone or one cannot be fetched. A permit is held while
/// a request is under way, not while its piece waits.
pub(super) async fn feed(
    store: &dyn Store,
    key: Key,
    size: u64,
    permits: &Semaphore,
    pieces: mpsc::Sender<Piece>,
) {
    let mut start = 0;
    while start < size {
        let end = size.min(start + PIECE_BYTES);
        let range = (size > PIECE_BYTES).then_some(start..end);
        let piece = {
            let _permit = permits.acquire().await;
            fetch(store, &key, range, end - start).await
        };
        let failed = piece.is_err();
        if pieces.send(piece).await.is_err() || failed {
            return;
        }
        start = end;
    }
}

async fn fetch(store: &dyn Store, key: &Key, range: Option<Range<u64>>, length: u64) -> Piece {
    let offset = range.as_ref().map_or(0, |range| range.start);
    let mut reader = store.get(key, range).await?;
    let mut bytes = BytesMut::with_capacity(usize::try_from(length).unwrap_or(0));
    while let Some(part) = reader.next().await? {
        bytes.extend_from_slice(&part);
        if bytes.len() as u64 > length {
            break;
        }
    }
    if bytes.len() as u64 != length {
        return Err(StoreError::Changed { target: store.locate(key), offset });
    }
    Ok(bytes.freeze())
}
