//! Gets the objects of a plan, in the order in which they are decoded, ahead of the decoder.
//!
//! Objects are fetched in pieces, several at once (one connection is seldom as fast as the network, and a small
//! object costs waiting more than bytes), and handed over in order. Memory is bounded by [`AHEAD_BYTES`], whatever the
//! objects' sizes and number. Room is given in the order of the pieces, so that the one that the decoder waits for
//! always has some.

use std::io::{self, Read};
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::stream::{self, StreamExt};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;

use crate::restore::{Progress, RestoreError, output};
use crate::store::{Key, Store};

/// Bytes in a request.
const PIECE_BYTES: u64 = 1 << 20;
/// Bytes on their way, or fetched and not yet decoded.
const AHEAD_BYTES: usize = 16 << 20;
/// Requests under way (or done and waiting for one before them).
const IN_FLIGHT: usize = 64;
/// Pieces handed over and not yet decoded.
const HANDED_OVER: usize = 64;

/// What the decoder is fed with.
type Piece = Result<Held, RestoreError>;

/// Bytes, and the room that they take until they are decoded.
#[derive(Debug)]
struct Held {
    bytes: Bytes,
    room: OwnedSemaphorePermit,
}

/// A part of one object; `range` is `None` for a whole one.
#[derive(Debug)]
struct Request {
    key: Key,
    range: Option<Range<u64>>,
    length: u64,
}

impl Request {
    /// Waits for the room that it needs.
    async fn room(&self, room: Arc<Semaphore>) -> Result<OwnedSemaphorePermit, AcquireError> {
        // At most a piece.
        room.acquire_many_owned(u32::try_from(self.length).unwrap_or(u32::MAX)).await
    }
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

/// Fetches objects, in this order and some ahead, while `decode` takes them on a blocking thread; gives what that gives.
///
/// # Errors
/// Those of `decode`, and its panic.
pub(super) async fn fetch_into<T: Send + 'static>(
    store: Arc<dyn Store>,
    objects: impl IntoIterator<Item = (Key, u64)>,
    progress: Arc<dyn Progress>,
    decode: impl FnOnce(Feed) -> Result<T, RestoreError> + Send + 'static,
) -> Result<T, RestoreError> {
    let (sender, receiver) = mpsc::channel(HANDED_OVER);
    let decoding = tokio::task::spawn_blocking(move || decode(Feed::new(receiver, progress)));
    let ((), decoded) = tokio::join!(feed(store, objects, sender), decoding);
    decoded.unwrap_or_else(|error| Err(output::failure(0, "run decoder", io::Error::other(error))))
}

/// Sends every piece of `objects` (with their sizes, bytes) in their order. Ends early when the
/// decoder is gone, and after a piece that could not be fetched. Dropping it stops every request.
async fn feed(
    store: Arc<dyn Store>,
    objects: impl IntoIterator<Item = (Key, u64)>,
    pieces: mpsc::Sender<Piece>,
) {
    let room = Arc::new(Semaphore::new(AHEAD_BYTES));
    let fetched = stream::iter(objects.into_iter().flat_map(requests))
        .then(|request| {
            let room = Arc::clone(&room);
            async move { (request.room(room).await, request) }
        })
        .map(|(room, request)| Task(tokio::spawn(fetch(Arc::clone(&store), request, room))).join())
        .buffered(IN_FLIGHT);
    let mut fetched = pin!(fetched);
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
            Err(error) => Err(not_run(error)),
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn not_run(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> RestoreError {
    let source = io::Error::other(error);
    RestoreError::Io { path: String::new(), action: "run request", source }
}

async fn fetch(
    store: Arc<dyn Store>,
    request: Request,
    room: Result<OwnedSemaphorePermit, AcquireError>,
) -> Piece {
    let room = room.map_err(not_run)?;
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
    Ok(Held { bytes: bytes.freeze(), room })
}

/// The pieces as a reader, one object after the other, on the decoder's thread.
pub(super) struct Feed {
    pieces: mpsc::Receiver<Piece>,
    current: Bytes,
    /// What `current` takes.
    room: Option<OwnedSemaphorePermit>,
    progress: Arc<dyn Progress>,
    /// What the store answered instead of a piece: tells more than the reader's error.
    pub(super) error: Option<RestoreError>,
}

impl Feed {
    fn new(pieces: mpsc::Receiver<Piece>, progress: Arc<dyn Progress>) -> Self {
        Self { pieces, current: Bytes::new(), room: None, progress, error: None }
    }

    /// The next `size` bytes, which are one object.
    pub(super) fn object(&mut self, size: u64) -> ObjectInput<'_> {
        ObjectInput { feed: self, left: size }
    }

    /// What is left of the current piece, or the next one: never empty.
    pub(super) fn peek(&mut self) -> io::Result<&[u8]> {
        if self.current.is_empty() {
            self.room = None;
            match self.pieces.blocking_recv() {
                Some(Ok(Held { bytes, room })) => {
                    self.progress.fetched(bytes.len() as u64);
                    (self.current, self.room) = (bytes, Some(room));
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
