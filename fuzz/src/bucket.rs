//! A bucket in memory that can only be read, and has whatever the input says.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use replica::format::Level;
use replica::store::{
    Body, Chain, Key, LtxAttributes, LtxKey, LtxObject, ObjectInfo, ObjectReader, PutOutcome,
    Store, StoreError, V03Generation, V03Key, V03Object,
};
use tokio::runtime::{Builder, Runtime};

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread().build().unwrap();
}

/// Runs asynchronous work to its end.
pub(crate) fn run(work: impl Future<Output = ()>) {
    RUNTIME.with(|runtime| runtime.block_on(work));
}

/// A file for a restored copy: in memory where the system has such a place, since each copy is forced to the disk.
pub(crate) fn scratch_file() -> File {
    tempfile::tempfile_in("/dev/shm").or_else(|_| tempfile::tempfile()).unwrap()
}

/// Objects by key.
#[derive(Debug, Default)]
pub(crate) struct Bucket(pub(crate) BTreeMap<Key, Bytes>);

impl Bucket {
    fn object(&self, key: &Key) -> Result<Bytes, StoreError> {
        let missing = || StoreError::NotFound { target: self.locate(key) };
        self.0.get(key).cloned().ok_or_else(missing)
    }

    fn denied<T>(&self) -> Result<T, StoreError> {
        let (target, reason) = (self.url(), "read only".to_owned());
        Err(StoreError::Denied { target, action: "write", reason })
    }
}

#[async_trait]
impl Store for Bucket {
    fn url(&self) -> String {
        "s3://fuzz/app".to_owned()
    }

    fn locate(&self, key: &Key) -> String {
        format!("s3://fuzz/app/{}", key.s3_path())
    }

    async fn chains(&self) -> Result<Vec<Chain>, StoreError> {
        let chain = |key: &Key| if let Key::Ltx(key) = key { Some(key.chain) } else { None };
        let mut chains: Vec<_> = self.0.keys().filter_map(chain).collect();
        chains.dedup();
        Ok(chains)
    }

    async fn list_ltx(&self, chain: Chain, level: Level) -> Result<Vec<LtxObject>, StoreError> {
        let listed = self.0.iter().filter_map(|(key, content)| match key {
            Key::Ltx(LtxKey { chain: of, level: at, txids }) if *of == chain && *at == level => {
                let (txids, size) = (*txids, content.len() as u64);
                Some(LtxObject { level, txids, size, modified: Timestamp::UNIX_EPOCH })
            }
            _ => None,
        });
        Ok(listed.collect())
    }

    async fn v03_generations(&self) -> Result<Vec<V03Generation>, StoreError> {
        let of = |key: &Key| if let Key::V03(key) = key { Some(key.generation) } else { None };
        let mut generations: Vec<_> = self.0.keys().filter_map(of).collect();
        generations.dedup();
        Ok(generations)
    }

    async fn list_v03(&self, generation: V03Generation) -> Result<Vec<V03Object>, StoreError> {
        let listed = self.0.iter().filter_map(|(key, content)| match key {
            Key::V03(V03Key { generation: of, part }) if *of == generation => {
                let (part, size) = (*part, content.len() as u64);
                Some(V03Object { part, size, modified: Timestamp::UNIX_EPOCH })
            }
            _ => None,
        });
        Ok(listed.collect())
    }

    async fn head(&self, key: &Key) -> Result<ObjectInfo, StoreError> {
        let size = self.object(key)?.len() as u64;
        Ok(ObjectInfo { size, modified: Timestamp::UNIX_EPOCH, checksum: None })
    }

    async fn get(
        &self,
        key: &Key,
        range: Option<Range<u64>>,
    ) -> Result<Box<dyn ObjectReader>, StoreError> {
        let content = self.object(key)?;
        let at = |offset: u64| usize::try_from(offset).unwrap().min(content.len());
        let content = range.map_or(content.clone(), |range| {
            let end = at(range.end);
            content.slice(at(range.start).min(end)..end)
        });
        Ok(Box::new(Reader(content)))
    }

    async fn put_ltx(
        &self,
        _: &LtxKey,
        _: Body,
        _: LtxAttributes,
    ) -> Result<PutOutcome, StoreError> {
        self.denied()
    }

    async fn put_document(&self, _: &Key, _: Bytes) -> Result<(), StoreError> {
        self.denied()
    }
}

struct Reader(Bytes);

#[async_trait]
impl ObjectReader for Reader {
    async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        let piece = self.0.split_to(self.0.len().min(10_007));
        Ok((!piece.is_empty()).then_some(piece))
    }
}

/// The input, taken piece by piece; when it is used up, zeros.
#[derive(Debug)]
pub(crate) struct Script<'a>(pub(crate) &'a [u8]);

impl<'a> Script<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or_default()
    }

    /// At most so many bytes.
    pub(crate) fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Bytes with their length before them.
    pub(crate) fn bytes(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()) << 8 | usize::from(self.byte());
        self.take(length)
    }
}
