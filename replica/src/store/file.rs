//! A directory as a store: `<root>/<database>/<generation>/ltx/<level>/<min>-<max>.ltx`.
//!
//! Invariants: a file appears under its name whole and synced, or not at all; an LTX file is never
//! replaced (the name is claimed by a rename that fails where one exists). Where a [`Mark`] is
//! remembered, a generation's directory is made for its first file only: one that is gone is not begun anew in mid-chain. Every read and write
//! runs on threads of the file stores' own, and has a time limit: a file system that hangs (a dead mount) holds up
//! neither the runtime nor another database's store, and is told as an error.
//!
//! Does not promise that a directory on a network file system syncs as a local one does.
//! A crash leaves at most a `.tmp-…` file behind, which no listing shows.

mod access;
mod durable;
mod mark;
mod read;

use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use crate::format::{Checksum, Level, Txid, TxidRange};
use crate::store::key::FILE_LEVELS_DIR;
use crate::store::v03::GENERATIONS_DIR;
use crate::store::{
    Body, Chain, Key, LtxAttributes, LtxKey, LtxObject, ObjectInfo, ObjectReader, PutOutcome,
    Store, StoreError, V03Generation, V03Object, V03Part,
};

use access::FileAccess;
pub(super) use mark::Mark;

/// One database's directory.
#[derive(Debug, Clone)]
pub struct FileStore {
    dir: PathBuf,
    access: FileAccess,
    /// Where the writer remembers what it wrote to.
    mark: Option<Arc<Mark>>,
}

impl FileStore {
    /// A store in `dir`, which need not exist yet.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, access: FileAccess::default(), mark: None }
    }

    /// The same, written to only as long as the directory above it bears the mark that is remembered of it.
    pub(super) fn marked(self, mark: Option<Arc<Mark>>) -> Self {
        Self { mark, ..self }
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.dir.join(key.file_path())
    }

    /// The directory of the generation that `key` goes on with; none where it begins one.
    fn begun(&self, key: &LtxKey) -> Option<PathBuf> {
        match key.chain {
            Chain::Generation(id) if key.txids.min() > Txid::FIRST => {
                Some(self.dir.join(id.to_string()))
            }
            _ => None,
        }
    }
}

#[async_trait]
impl Store for FileStore {
    fn url(&self) -> String {
        format!("file://{}", self.dir.display())
    }

    fn locate(&self, key: &Key) -> String {
        self.path(key).display().to_string()
    }

    fn keeps_time(&self) -> bool {
        false
    }

    async fn chains(&self) -> Result<Vec<Chain>, StoreError> {
        let dir = self.dir.clone();
        self.access
            .list(self.dir.clone(), move || {
                let mut chains = Vec::new();
                if dir.join(FILE_LEVELS_DIR).is_dir() {
                    chains.push(Chain::Root);
                }
                for name in names(&dir)? {
                    let name = name?;
                    if let Ok(id) = name.parse()
                        && dir.join(&name).join(FILE_LEVELS_DIR).is_dir()
                    {
                        chains.push(Chain::Generation(id));
                    }
                }
                chains.sort_unstable();
                Ok(chains)
            })
            .await
    }

    async fn list_ltx(&self, chain: Chain, level: Level) -> Result<Vec<LtxObject>, StoreError> {
        let dir = self.dir.join(chain.file_level_path(level));
        self.access
            .list(dir.clone(), move || {
                let read = |name: &str| TxidRange::from_file_name(name).ok();
                let mut objects = files(&dir, read, |txids, size, modified| LtxObject {
                    level,
                    txids,
                    size,
                    modified,
                })?;
                objects.sort_unstable_by_key(|object| object.txids);
                Ok(objects)
            })
            .await
    }

    async fn v03_generations(&self) -> Result<Vec<V03Generation>, StoreError> {
        let names = directories(self.dir.join(GENERATIONS_DIR)).await?;
        let mut generations: Vec<V03Generation> =
            names.iter().filter_map(|name| name.parse().ok()).collect();
        generations.sort_unstable();
        Ok(generations)
    }

    async fn list_v03(&self, generation: V03Generation) -> Result<Vec<V03Object>, StoreError> {
        let directories = generation.directories().map(|directory| self.dir.join(directory));
        self.access
            .list(self.dir.clone(), move || {
                let object = |part, size, modified| V03Object { part, size, modified };
                let mut objects = Vec::new();
                for directory in directories {
                    objects.extend(files(&directory, V03Part::from_name, object)?);
                }
                objects.sort_unstable_by_key(|object| object.part);
                Ok(objects)
            })
            .await
    }

    async fn head(&self, key: &Key) -> Result<ObjectInfo, StoreError> {
        let path = self.path(key);
        let is_ltx = matches!(key, Key::Ltx(_));
        self.access.run(path.clone(), 0, move || info(&path, is_ltx)).await
    }

    /// The file system's time: that of a file without a name, which is gone at once.
    async fn time(&self) -> Result<Option<Timestamp>, StoreError> {
        let dir = self.dir.clone();
        self.access
            .run(self.dir.clone(), 0, move || {
                let Ok(file) = tempfile::tempfile_in(&dir) else { return Ok(None) };
                let metadata =
                    file.metadata().map_err(|source| failure(&dir, "read time", source))?;
                modified(&dir, &metadata).map(Some)
            })
            .await
    }

    async fn get(
        &self,
        key: &Key,
        range: Option<Range<u64>>,
    ) -> Result<Box<dyn ObjectReader>, StoreError> {
        let path = self.path(key);
        let access = self.access.clone();
        let open = move || read::FileReader::open(path, range, access);
        let reader = self.access.run(self.path(key), 0, open).await?;
        Ok(Box::new(reader))
    }

    async fn put_ltx(
        &self,
        key: &LtxKey,
        body: Body,
        attributes: LtxAttributes,
    ) -> Result<PutOutcome, StoreError> {
        let path = self.path(&Key::Ltx(*key));
        let (mark, begun) = (self.mark.clone(), self.begun(key));
        self.access
            .run(path.clone(), body.len(), move || {
                if let Some(mark) = mark {
                    mark.before_write()?;
                    if let Some(generation) = begun.filter(|generation| !generation.is_dir()) {
                        let target = generation.display().to_string();
                        return Err(StoreError::NotFound { target });
                    }
                }
                // Spares the copy on a retry; what decides is the rename below.
                if fs::symlink_metadata(&path).is_ok() {
                    return compare(&path, &body, attributes);
                }
                if durable::write_new(&path, &body, attributes.timestamp)? {
                    return Ok(PutOutcome::Created);
                }
                compare(&path, &body, attributes)
            })
            .await
    }

    async fn put_document(&self, key: &Key, content: Bytes) -> Result<(), StoreError> {
        let path = self.path(key);
        let mark = self.mark.clone();
        self.access
            .run(path.clone(), 0, move || {
                mark.map_or(Ok(()), |mark| mark.before_write())?;
                durable::replace(&path, &content)
            })
            .await
    }

    async fn is_here(&self) -> Result<(), StoreError> {
        let mark = self.mark.clone();
        let check = move || mark.map_or(Ok(()), |mark| mark.check());
        self.access.run(self.dir.clone(), 0, check).await
    }

    async fn accept_as_it_is(&self) -> Result<(), StoreError> {
        let mark = self.mark.clone();
        let forget = move || mark.map_or(Ok(()), |mark| mark.forget());
        self.access.run(self.dir.clone(), 0, forget).await
    }
}

/// Names of the directories directly below `dir`, in no order; none where `dir` is missing.
pub(super) async fn directories(dir: PathBuf) -> Result<Vec<String>, StoreError> {
    FileAccess::default()
        .list(dir.clone(), move || {
            let mut found = names(&dir)?.collect::<Result<Vec<String>, StoreError>>()?;
            found.retain(|name| dir.join(name).is_dir());
            Ok(found)
        })
        .await
}

/// The files directly below `dir` whose names `read` understands; `object` takes size and time.
fn files<N, T>(
    dir: &Path,
    read: impl Fn(&str) -> Option<N>,
    object: impl Fn(N, u64, Timestamp) -> T,
) -> Result<Vec<T>, StoreError> {
    let mut objects = Vec::new();
    for name in names(dir)? {
        let name = name?;
        let Some(meaning) = read(&name) else { continue };
        let path = dir.join(&name);
        let metadata = match fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(source) if source.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(failure(&path, "read file metadata", source)),
        };
        if metadata.is_file() {
            objects.push(object(meaning, metadata.len(), modified(&path, &metadata)?));
        }
    }
    Ok(objects)
}

/// The entries of a directory whose names are Unicode, one by one; none where it is missing.
fn names(
    dir: &Path,
) -> Result<impl Iterator<Item = Result<String, StoreError>> + use<'_>, StoreError> {
    let fail = |source| failure(dir, "list directory", source);
    let entries = match fs::read_dir(dir) {
        Ok(entries) => Some(entries),
        Err(source) if source.kind() == io::ErrorKind::NotFound => None,
        Err(source) => return Err(fail(source)),
    };
    let name = move |entry: io::Result<fs::DirEntry>| match entry {
        Ok(entry) => entry.file_name().into_string().ok().map(Ok),
        Err(source) => Some(Err(fail(source))),
    };
    Ok(entries.into_iter().flatten().filter_map(name))
}

fn info(path: &Path, is_ltx: bool) -> Result<ObjectInfo, StoreError> {
    let mut file = fs::File::open(path).map_err(|source| failure(path, "open file", source))?;
    let metadata = file.metadata().map_err(|source| failure(path, "read file metadata", source))?;
    let checksum = if is_ltx { trailer_checksum(&mut file, path)? } else { None };
    Ok(ObjectInfo { size: metadata.len(), modified: modified(path, &metadata)?, checksum })
}

/// The file checksum: an LTX file's last 8 bytes, big-endian.
fn trailer_checksum(file: &mut fs::File, path: &Path) -> Result<Option<Checksum>, StoreError> {
    let fail = |source| failure(path, "read file trailer", source);
    let mut raw = [0; 8];
    if file.metadata().map_err(fail)?.len() < 8 {
        return Ok(None);
    }
    file.seek(SeekFrom::End(-8)).map_err(fail)?;
    file.read_exact(&mut raw).map_err(fail)?;
    Ok(Checksum::from_raw(u64::from_be_bytes(raw)))
}

/// Tells an earlier attempt of ours from another writer's file.
fn compare(path: &Path, body: &Body, attributes: LtxAttributes) -> Result<PutOutcome, StoreError> {
    let there = info(path, true)?;
    if there.size == body.len() && there.checksum == Some(attributes.checksum) {
        return Ok(PutOutcome::AlreadyOurs);
    }
    Err(StoreError::Precondition { target: path.display().to_string() })
}

fn modified(path: &Path, metadata: &fs::Metadata) -> Result<Timestamp, StoreError> {
    let fail = |source| failure(path, "read modification time", source);
    let time = metadata.modified().map_err(fail)?;
    Timestamp::try_from(time).map_err(|error| fail(io::Error::other(error)))
}

/// The kind that callers act on, for an error of the file system.
fn failure(path: &Path, action: &'static str, source: io::Error) -> StoreError {
    let path = path.display().to_string();
    match source.kind() {
        io::ErrorKind::NotFound => StoreError::NotFound { target: path },
        io::ErrorKind::PermissionDenied => {
            StoreError::Denied { target: path, action, reason: source.to_string() }
        }
        _ => StoreError::Io { path, action, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_file_system_are_told_apart() {
        let kind = |kind: io::ErrorKind| failure(Path::new("/r/app"), "open file", kind.into());
        assert!(kind(io::ErrorKind::NotFound).is_not_found());
        let denied = kind(io::ErrorKind::PermissionDenied);
        assert!(
            denied.is_denied() && denied.to_string().contains("\nHINT: check the owner"),
            "{denied}"
        );
        for other in [io::ErrorKind::StorageFull, io::ErrorKind::ReadOnlyFilesystem] {
            let error = kind(other);
            assert!(matches!(error, StoreError::Io { .. }) && !error.is_permanent());
            assert_eq!(error.to_string(), "/r/app: open file");
        }
    }
}
