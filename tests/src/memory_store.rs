//! A store in memory, for simulations: as strict about writing once as a good S3, or as careless as a bad one.
//!
//! What it holds outlives every client, so that a test can look at it after a crash. Time is a counter: each write
//! is a second after the one before, so that the same calls give the same listings.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use replica::format::{Checksum, Level};
use replica::store::{
    Body, Chain, Guard, Key, LtxAttributes, LtxKey, LtxObject, ObjectInfo, ObjectReader,
    PutOutcome, Store, StoreError,
};

/// What a store makes of the condition that keeps two writers apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Refuses to write over an object.
    Honoured,
    /// Writes over it.
    Ignored,
    /// Refuses every write that carries it.
    Refused,
}

/// One database's place in a bucket. Clones share it.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    condition: Condition,
    objects: Arc<Mutex<Objects>>,
}

#[derive(Debug, Default)]
struct Objects {
    by_key: BTreeMap<Key, Object>,
    writes: i64,
}

#[derive(Debug, Clone)]
struct Object {
    content: Bytes,
    checksum: Option<Checksum>,
    modified: Timestamp,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new(condition: Condition) -> Self {
        Self { condition, objects: Arc::default() }
    }

    /// Somebody removes everything.
    pub fn empty(&self) {
        self.objects().by_key.clear();
    }

    fn objects(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn object(&self, key: &Key) -> Result<Object, StoreError> {
        let missing = || StoreError::NotFound { target: self.locate(key) };
        self.objects().by_key.get(key).cloned().ok_or_else(missing)
    }

    fn write(&self, key: Key, content: Bytes, checksum: Option<Checksum>) {
        let mut objects = self.objects();
        objects.writes += 1;
        let modified = Timestamp::from_second(1_764_000_000 + objects.writes).unwrap();
        objects.by_key.insert(key, Object { content, checksum, modified });
    }

    fn put(
        &self,
        key: &LtxKey,
        body: Body,
        attributes: LtxAttributes,
        replace: bool,
    ) -> Result<PutOutcome, StoreError> {
        let key = Key::Ltx(*key);
        let content = read(body)?;
        if let Ok(there) = self.object(&key)
            && !replace
        {
            let same =
                there.checksum == Some(attributes.checksum) && there.content.len() == content.len();
            let refused = StoreError::Precondition { target: self.locate(&key) };
            return if same { Ok(PutOutcome::AlreadyOurs) } else { Err(refused) };
        }
        self.write(key, content, Some(attributes.checksum));
        Ok(PutOutcome::Created)
    }
}

/// The bytes of an upload.
///
/// # Errors
/// Those of the file system.
pub(crate) fn read(body: Body) -> Result<Bytes, StoreError> {
    match body {
        Body::Bytes(bytes) => Ok(bytes),
        Body::File { path, len } => {
            let name = path.display().to_string();
            let fail = |source| StoreError::Io { path: name, action: "read file", source };
            let mut content = std::fs::read(&path).map_err(fail)?;
            // What stands behind the object in its file is not part of it.
            content.truncate(usize::try_from(len).unwrap());
            Ok(content.into())
        }
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn url(&self) -> String {
        "s3://memory/app".to_owned()
    }

    fn locate(&self, key: &Key) -> String {
        format!("s3://memory/app/{}", key.s3_path())
    }

    async fn chains(&self) -> Result<Vec<Chain>, StoreError> {
        let chain = |key: &Key| if let Key::Ltx(key) = key { Some(key.chain) } else { None };
        let mut chains: Vec<_> = self.objects().by_key.keys().filter_map(chain).collect();
        chains.sort_unstable();
        chains.dedup();
        Ok(chains)
    }

    async fn list_ltx(&self, chain: Chain, level: Level) -> Result<Vec<LtxObject>, StoreError> {
        let objects = self.objects();
        let listed = objects.by_key.iter().filter_map(|(key, object)| match key {
            Key::Ltx(key) if key.chain == chain && key.level == level => Some(LtxObject {
                level,
                txids: key.txids,
                size: object.content.len() as u64,
                modified: object.modified,
            }),
            _ => None,
        });
        let mut listed: Vec<_> = listed.collect();
        listed.sort_unstable_by_key(|object| object.txids);
        Ok(listed)
    }

    async fn head(&self, key: &Key) -> Result<ObjectInfo, StoreError> {
        let Object { content, checksum, modified } = self.object(key)?;
        Ok(ObjectInfo { size: content.len() as u64, modified, checksum })
    }

    async fn get(
        &self,
        key: &Key,
        range: Option<Range<u64>>,
    ) -> Result<Box<dyn ObjectReader>, StoreError> {
        let mut content = self.object(key)?.content;
        if let Some(range) = range {
            let at = |offset| usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
            if range.start < range.end && at(range.start) == content.len() {
                let target = self.locate(key);
                return Err(StoreError::OutOfRange { target, start: range.start });
            }
            content = content.slice(at(range.start)..at(range.end));
        }
        Ok(Box::new(Reader(content)))
    }

    async fn put_ltx(
        &self,
        key: &LtxKey,
        body: Body,
        attributes: LtxAttributes,
    ) -> Result<PutOutcome, StoreError> {
        match self.condition {
            Condition::Refused => {
                Err(StoreError::Unguarded { target: self.locate(&Key::Ltx(*key)) })
            }
            condition => self.put(key, body, attributes, condition == Condition::Ignored),
        }
    }

    async fn probe_guard(
        &self,
        key: &LtxKey,
        body: Body,
        attributes: LtxAttributes,
    ) -> Result<Guard, StoreError> {
        self.head(&Key::Ltx(*key)).await?;
        self.put(key, body, attributes, false)?;
        let guarded = self.condition == Condition::Honoured;
        Ok(if guarded { Guard::Guarded } else { Guard::Unguarded })
    }

    async fn put_ltx_unguarded(
        &self,
        key: &LtxKey,
        body: Body,
        attributes: LtxAttributes,
    ) -> Result<PutOutcome, StoreError> {
        self.put(key, body, attributes, false)
    }

    async fn put_document(&self, key: &Key, content: Bytes) -> Result<(), StoreError> {
        self.write(*key, content, None);
        Ok(())
    }
}

/// Gives an object in pieces that are not the file format's.
struct Reader(Bytes);

#[async_trait]
impl ObjectReader for Reader {
    async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        let piece = self.0.split_to(self.0.len().min(10_007));
        Ok((!piece.is_empty()).then_some(piece))
    }
}
