//! The object-store seam: everything the product does with a bucket, as one narrow trait.
//!
//! A [`Root`] is what `[replica] url` names; below it each database has a [`Store`] of its own.
//! Keys are typed ([`Key`]); only a backend turns one into text.

mod access;
mod error;
mod file;
mod key;
mod retry;
mod root;
mod s3;
mod url;
mod v03;

use std::fmt::Debug;
use std::ops::Range;
use std::path::PathBuf;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use jiff::Timestamp;

pub use access::{Access, Credentials};
pub use error::StoreError;
pub use file::FileStore;
pub use key::{Chain, Key, LtxKey};
pub use retry::RetryPolicy;
pub use root::{Root, S3Options, UploadChecksum};
pub use s3::S3Store;
pub use url::RootUrl;
pub use v03::{V03Generation, V03Key, V03Object, V03Part};

use crate::format::{Checksum, Level, TxidRange};

/// One LTX object as a listing shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LtxObject {
    /// Its level.
    pub level: Level,
    /// The TXIDs in its name.
    pub txids: TxidRange,
    /// Its size, bytes.
    pub size: u64,
    /// When the store says it was written (S3: `LastModified`; file: mtime, which is the header's
    /// timestamp where the writer set it).
    pub modified: Timestamp,
}

/// What is known of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Size, bytes.
    pub size: u64,
    /// When the store says it was written.
    pub modified: Timestamp,
    /// The file checksum its writer put beside it, where the backend keeps one.
    pub checksum: Option<Checksum>,
}

/// What an LTX object carries beside its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LtxAttributes {
    /// The header's timestamp (S3: `x-amz-meta-litestream-timestamp`; file: mtime).
    pub timestamp: Timestamp,
    /// The trailer's file checksum, for telling our own earlier attempt from another writer.
    pub checksum: Checksum,
}

/// The bytes of an upload.
#[derive(Debug, Clone)]
pub enum Body {
    /// In memory.
    Bytes(Bytes),
    /// A local file of `len` bytes, streamed (in parts above 16 MiB), never read whole into memory.
    File {
        /// Where it is.
        path: PathBuf,
        /// Its length, bytes.
        len: u64,
    },
}

impl Body {
    /// Bytes to write.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File { len, .. } => *len,
        }
    }
}

/// How a write-once upload ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutOutcome {
    /// This call wrote the object.
    Created,
    /// The object was there already with the same size and checksum: an earlier attempt of ours had landed.
    AlreadyOurs,
}

/// Whether a store keeps an object from being overwritten by a second writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// It refuses to write over an object where it was asked to.
    Guarded,
    /// It ignores the condition, or does not know it.
    Unguarded,
}

/// The content of one object as it arrives. A broken connection is resumed where it broke, within the
/// store's retry budget; an error here is final.
#[async_trait]
pub trait ObjectReader: Send {
    /// The next piece; `None` at the end. Pieces are bounded (at most some hundred KiB).
    async fn next(&mut self) -> Result<Option<Bytes>, StoreError>;
}

/// One database's place in the bucket. Every call retries what is worth retrying, with backoff and
/// jitter, within a bound; `412`, `409`, `403` and `404` are told apart by [`StoreError`].
#[async_trait]
pub trait Store: Send + Sync + Debug {
    /// `s3://bucket/prefix/name` or `file:///dir/name`, for messages; without secrets.
    fn url(&self) -> String;

    /// The full key or path of an object, for messages.
    fn locate(&self, key: &Key) -> String;

    /// Whether [`LtxObject::modified`] is this store's own word, whatever a writer claims. Where it is not (a file's mtime),
    /// only the headers say when a state was committed.
    fn keeps_time(&self) -> bool {
        true
    }

    /// Chains below this database: generations in ascending order, and [`Chain::Root`] where LTX
    /// levels stand directly here (a Litestream replica).
    async fn chains(&self) -> Result<Vec<Chain>, StoreError>;

    /// The files of one level, by ascending name. Names that are not of the format are left out.
    async fn list_ltx(&self, chain: Chain, level: Level) -> Result<Vec<LtxObject>, StoreError>;

    /// Generations of a Litestream v0.3 replica that stands here, ascending. As it stands here it is for
    /// stores that never hold one.
    async fn v03_generations(&self) -> Result<Vec<V03Generation>, StoreError> {
        Ok(Vec::new())
    }

    /// The objects of one such generation: snapshots, then WAL segments, each by ascending position.
    async fn list_v03(&self, _generation: V03Generation) -> Result<Vec<V03Object>, StoreError> {
        Ok(Vec::new())
    }

    /// What is known of an object; [`StoreError::is_not_found`] where there is none.
    async fn head(&self, key: &Key) -> Result<ObjectInfo, StoreError>;

    /// What time it is by the store's own clock, to the second; `None` where it does not tell. One small request.
    async fn time(&self) -> Result<Option<Timestamp>, StoreError> {
        Ok(None)
    }

    /// Opens an object, or a range of its bytes, for reading. A range that reaches beyond the end
    /// stops there; one that starts beyond it is [`StoreError::OutOfRange`].
    async fn get(
        &self,
        key: &Key,
        range: Option<Range<u64>>,
    ) -> Result<Box<dyn ObjectReader>, StoreError>;

    /// Writes an LTX object exactly once. [`StoreError::is_precondition`] where another object is there,
    /// [`StoreError::is_unguarded`] where the store does not know the condition that this takes.
    async fn put_ltx(
        &self,
        key: &LtxKey,
        body: Body,
        attributes: LtxAttributes,
    ) -> Result<PutOutcome, StoreError>;

    /// Finds out whether the store guards its objects, by writing one a second time that this writer has
    /// written already: `key`, with the same body and attributes. Costs a HEAD and a PUT, and sends the
    /// body again, so a small object should be chosen. [`StoreError::is_not_found`] where there is no
    /// such object, [`StoreError::is_precondition`] where it is another one.
    ///
    /// As it stands here it is for backends that always guard.
    async fn probe_guard(
        &self,
        key: &LtxKey,
        body: Body,
        attributes: LtxAttributes,
    ) -> Result<Guard, StoreError> {
        match self.put_ltx(key, body, attributes).await? {
            PutOutcome::AlreadyOurs => Ok(Guard::Guarded),
            PutOutcome::Created => Ok(Guard::Unguarded),
        }
    }

    /// As [`Store::put_ltx`], for a store that was found [`Guard::Unguarded`]: looks first whether an object is there
    /// (one HEAD more for each object), then writes without the condition. A second writer between the two goes unnoticed.
    ///
    /// As it stands here it is for backends that always guard.
    async fn put_ltx_unguarded(
        &self,
        key: &LtxKey,
        body: Body,
        attributes: LtxAttributes,
    ) -> Result<PutOutcome, StoreError> {
        self.put_ltx(key, body, attributes).await
    }

    /// Writes (or overwrites) one of the small documents.
    async fn put_document(&self, key: &Key, content: Bytes) -> Result<(), StoreError>;

    /// Whether this is still the place that was written to before: nothing found in another one says that it is gone. What
    /// a backend cannot mistake needs no look.
    async fn is_here(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// From now on the place as it is counts as the one that was written to.
    async fn accept_as_it_is(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Whether the credentials could delete from here; `None` where that is no right of the store's own. Nothing is
    /// deleted to find out: what is asked for is an object that does not exist.
    async fn may_delete(&self) -> Result<Option<bool>, StoreError> {
        Ok(None)
    }
}

/// Reads a whole (small) object, refusing one above `limit` bytes.
///
/// # Errors
/// Those of [`Store::get`], and an object above the limit.
pub async fn read_all(store: &dyn Store, key: &Key, limit: usize) -> Result<Bytes, StoreError> {
    let mut reader = store.get(key, None).await?;
    let mut content = BytesMut::new();
    while let Some(piece) = reader.next().await? {
        let size = content.len() + piece.len();
        if size > limit {
            return Err(StoreError::TooLarge {
                target: store.locate(key),
                size: size as u64,
                limit: limit as u64,
            });
        }
        content.extend_from_slice(&piece);
    }
    Ok(content.freeze())
}
