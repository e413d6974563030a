//! Gets the objects of a plan, in the order in which they are decoded, ahead of the decoder.
//!
//! Objects are fetched in pieces, several at once (one connection is seldom as fast as the network), and handed
//! over in order. Memory is bounded by [`IN_FLIGHT`] pieces of [`PIECE_BYTES`], whatever the objects' sizes.

use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::stream::{self, StreamExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::restore::{Progress, RestoreError};
use crate::store::{Key, Store};

/// Bytes in a request.
const PIECE_BYTES: u64 = 1 << 20;
/// Requests under way (or done and waiting for the decoder).
const IN_FLIGHT: usize = 16;
/// Pieces handed over and not yet decoded.
pub(super) const HANDED_OVER: usize = 2;

/// What the decoder is fed with.
pub(super) type Piece = Result<Bytes, RestoreError>;

/// A part of one object; `range` is `None` for a whole one.
#[derive(Debug)]
struct Request {
    key: Key,
    range: Option<Range<u64>>,
    length: u64,
}

/// The requests for one object of so many bytes. An empty one needs none: the decoder refuses it by its size.
fn requests((key, size): (Key, u64)) -> impl Iterator<Item = Request> {
    (0..size.div_ceil(PIECE_BYTES)).map(move |piece| {
        let start = piece * PIECE_BYTES;
        let end = size.min(start + PIECE_BYTES);
        let range = (size > PIECE_BYTES).then_some(start..end);
        Request { key, range, length: end - start }
    })
}

/// Sends every piece of `objects` (with their sizes, bytes) in their order. Ends early when the
/// decoder is gone, and after a piece that could not be fetched. Dropping it stops every request.
pub(super) async fn feed(
    store: Arc<dyn Store>,
    objects: Vec<(Key, u64)>,
    pieces: mpsc::Sender<Piece>,
) {
    let mut fetched = stream::iter(objects.into_iter().flat_map(requests))
        .map(|request| Task(tokio::spawn(fetch(Arc::clone(&store), request))).join())
        .buffered(IN_FLIGHT);
    while let Some(piece) = fetched.next().await {
        let failed = piece.is_err();
        if pieces.send(piece).await.is_err() || failed {
            return;
        }
    }
}

/// A task of its own, so that it goes on while the decoder is busy; ends with its owner.
struct Task(JoinHandle<Piece>);

impl Task {
    async fn join(mut self) -> Piece {
        match (&mut self.0).await {
            Ok(piece) => piece,
            Err(error) => Err(RestoreError::Io {
                path: String::new(),
                action: "run request",
                source: io::Error::other(error),
            }),
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn fetch(store: Arc<dyn Store>, request: Request) -> Piece {
    let Request { key, range, length } = request;
    let conflict = |actual: String| RestoreError::Conflict {
        object: store.locate(&key),
        what: "size changed since the listing",
        expected: format!("{length} bytes"),
        actual,
    };
    let mut reader = store.get(&key, range).await?;
    let mut bytes = BytesMut::with_capacity(usize::try_from(length).unwrap_or(0));
    while let Some(part) = reader.next().await? {
        bytes.extend_from_slice(&part);
        if bytes.len() as u64 > length {
            return Err(conflict("more".to_owned()));
        }
    }
    if bytes.len() as u64 != length {
        return Err(conflict(format!("{} bytes", bytes.len())));
    }
    Ok(bytes.freeze())
}

/// The pieces as a reader, one object after the other, on the decoder's thread.
pub(super) struct Feed {
    pieces: mpsc::Receiver<Piece>,
    current: Bytes,
    progress: Arc<dyn Progress>,
    /// What the store answered instead of a piece: tells more than the reader's error.
    pub(super) error: Option<RestoreError>,
}

impl Feed {
    pub(super) fn new(pieces: mpsc::Receiver<Piece>, progress: Arc<dyn Progress>) -> Self {
        Self { pieces, current: Bytes::new(), progress, error: None }
    }

    /// The next `size` bytes, which are one object.
    pub(super) fn object(&mut self, size: u64) -> ObjectInput<'_> {
        ObjectInput { feed: self, left: size }
    }

    /// What is left of the current piece, or the next one: never empty.
    pub(super) fn peek(&mut self) -> io::Result<&[u8]> {
        if self.current.is_empty() {
            match self.pieces.blocking_recv() {
                Some(Ok(piece)) => {
                    self.progress.fetched(piece.len() as u64);
                    self.current = piece;
                }
                Some(Err(error)) => {
                    self.error = Some(error);
                    return Err(io::Error::other("fetch"));
                }
                None => return Err(io::Error::other("restore was stopped")),
            }
        }
        Ok(&self.current)
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.peek()?;
        let length = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

/// One object's bytes.
pub(super) struct ObjectInput<'a> {
    feed: &'a mut Feed,
    left: u64,
}

impl Read for ObjectInput<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bound = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if bound == 0 {
            return Ok(0);
        }
        let length = self.feed.read(&mut buffer[..bound])?;
        self.left -= length as u64;
        Ok(length)
    }
}
