//! Captured files on the local disk, on their way to the bucket.
//!
//! The engine appends, the uploader takes from the front: between them the application never waits for the
//! network. Files are in TXID order without gaps. What is waiting is merged before it goes up, so that the
//! request rate stays one per sync interval, and an outage costs at most about the database's own size.
//!
//! A crash leaves files behind; [`Spool::create`] of the next run removes them (it starts a new generation).

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use jiff::Timestamp;
use replica::format::{Checksum, Decoder, Encoder, Header, Level, Trailer, TxidRange, merge};
use tempfile::SpooledTempFile;
use tokio::sync::Notify;

/// Files merged at once: bounds descriptors and buffers.
pub const MERGE_WIDTH: usize = 32;
/// The page index of a file being written stays in memory up to this size.
const INDEX_IN_MEMORY: usize = 64 << 10;
const WRITE_BUFFER: usize = 128 << 10;
const READ_BUFFER: usize = 32 << 10;

/// One file in the spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spooled {
    /// Where it goes.
    pub level: Level,
    /// What it covers.
    pub txids: TxidRange,
    /// Where it is.
    pub path: PathBuf,
    /// Its size, bytes.
    pub size: u64,
    /// Its file checksum.
    pub checksum: Checksum,
    /// Its header's timestamp.
    pub timestamp: Timestamp,
    /// Pages in the database after it.
    pub page_count: u32,
    /// Everything that was committed at this moment is in this file or before it.
    pub complete_until: Timestamp,
}

/// An LTX file being written to the spool.
pub type SpoolEncoder = Encoder<BufWriter<File>, SpooledTempFile>;

/// The spool of one generation of one database.
#[derive(Debug)]
pub struct Spool {
    directory: PathBuf,
    waiting: Mutex<VecDeque<Spooled>>,
    arrived: Notify,
}

impl Spool {
    /// Makes an empty spool below `parent`, removing whatever earlier ones left there. Its directory has a
    /// name of its own: work on an earlier spool that is still under way cannot touch its files.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn create(parent: &Path) -> anyhow::Result<Self> {
        match fs::remove_dir_all(parent) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("empty spool {}", parent.display()));
            }
            _ => {}
        }
        let directory = parent.join(uuid::Uuid::now_v7().to_string());
        fs::create_dir_all(&directory)
            .with_context(|| format!("create spool {}", directory.display()))?;
        Ok(Self { directory, waiting: Mutex::default(), arrived: Notify::new() })
    }

    /// Where the file of `txids` stands (or will).
    #[must_use]
    pub fn path(&self, level: Level, txids: TxidRange) -> PathBuf {
        self.directory.join(format!("{level}-{}", txids.file_name()))
    }

    /// Starts a file. It belongs to the spool only once it is [`Spool::append`]ed.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn start(&self, path: &Path, header: Header) -> anyhow::Result<SpoolEncoder> {
        let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
        let scratch = tempfile::spooled_tempfile_in(INDEX_IN_MEMORY, &self.directory);
        Encoder::new(BufWriter::with_capacity(WRITE_BUFFER, file), scratch, header)
            .with_context(|| format!("write {}", path.display()))
    }

    /// Ends a file that [`Spool::start`] began.
    ///
    /// # Errors
    /// Those of the file system, and an incomplete file.
    pub fn finish(
        encoder: SpoolEncoder,
        path: PathBuf,
        level: Level,
        header: &Header,
        complete_until: Timestamp,
    ) -> anyhow::Result<Spooled> {
        let mut encoded =
            encoder.finish(None).with_context(|| format!("write {}", path.display()))?;
        encoded.out.flush().with_context(|| format!("write {}", path.display()))?;
        Ok(Spooled {
            level,
            txids: header.txids,
            path,
            size: encoded.size,
            checksum: encoded.trailer.file,
            timestamp: header.timestamp,
            page_count: header.commit,
            complete_until,
        })
    }

    /// Puts finished files behind the others, all at once.
    pub fn append(&self, files: Vec<Spooled>) {
        self.lock().extend(files);
        self.arrived.notify_one();
    }

    /// Waits until there may be a file.
    pub async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// Files waiting, and their bytes.
    #[must_use]
    pub fn backlog(&self) -> (usize, u64) {
        let waiting = self.lock();
        (waiting.len(), waiting.iter().map(|file| file.size).sum())
    }

    /// The file to upload next: the first one, or where several of its level wait, one merged from all of
    /// them (which then stands in their place).
    ///
    /// # Errors
    /// Those of the file system, and a damaged spool.
    pub fn next(&self) -> anyhow::Result<Option<Spooled>> {
        let inputs: Vec<Spooled> = {
            let waiting = self.lock();
            let Some(first) = waiting.front() else { return Ok(None) };
            waiting.iter().take_while(|file| file.level == first.level).cloned().collect()
        };
        if inputs.len() < 2 {
            return Ok(inputs.into_iter().next());
        }
        let merged = match self.merge_all(&inputs) {
            Ok(merged) => merged,
            // No room to merge: sending the first file as it is makes some. Not so the parts of a
            // snapshot, which are a state of the database only together.
            Err(error) if inputs[0].level == Level::SYNC => {
                tracing::warn!("merge waiting files: {error:#}");
                return Ok(inputs.into_iter().next());
            }
            Err(error) => return Err(error),
        };
        let mut waiting = self.lock();
        waiting.drain(..inputs.len());
        waiting.push_front(merged.clone());
        drop(waiting);
        Self::remove_files(&inputs);
        Ok(Some(merged))
    }

    /// Merges any number of files, oldest first, [`MERGE_WIDTH`] at a time. The inputs stay.
    fn merge_all(&self, inputs: &[Spooled]) -> anyhow::Result<Spooled> {
        let mut files = inputs.to_vec();
        let mut temporary: Vec<Spooled> = Vec::new();
        while files.len() > 1 {
            let merged: anyhow::Result<Vec<Spooled>> =
                files.chunks(MERGE_WIDTH).map(|group| self.merge(group)).collect();
            Self::remove_files(&temporary);
            files = merged?;
            // A group of one file is that file itself.
            temporary = files.iter().filter(|file| !inputs.contains(file)).cloned().collect();
        }
        files.pop().context("merge of no file")
    }

    /// Merges files, oldest first, into one; they stay where they are, and a failure leaves nothing.
    fn merge(&self, inputs: &[Spooled]) -> anyhow::Result<Spooled> {
        let (first, last) = match inputs {
            [one] => return Ok(one.clone()),
            [first, .., last] => (first, last),
            [] => anyhow::bail!("merge of no file"),
        };
        let txids = TxidRange::new(first.txids.min(), last.txids.max())?;
        let path = self.path(first.level, txids);
        let (trailer, size) = self.merge_into(inputs, &path).inspect_err(|_| {
            // It may not have been created.
            let _ = fs::remove_file(&path);
        })?;
        Ok(Spooled {
            level: first.level,
            txids,
            path,
            size,
            checksum: trailer.file,
            timestamp: last.timestamp,
            page_count: last.page_count,
            complete_until: inputs
                .iter()
                .map(|file| file.complete_until)
                .max()
                .unwrap_or(last.complete_until),
        })
    }

    fn merge_into(&self, inputs: &[Spooled], path: &Path) -> anyhow::Result<(Trailer, u64)> {
        let mut decoders = Vec::with_capacity(inputs.len());
        for input in inputs {
            let name = || format!("read {}", input.path.display());
            let file = File::open(&input.path).with_context(name)?;
            let reader = BufReader::with_capacity(READ_BUFFER, file);
            decoders.push(Decoder::new(reader).with_context(name)?);
        }
        let write = || format!("write {}", path.display());
        let out = File::create(path).with_context(|| format!("create {}", path.display()))?;
        let out = BufWriter::with_capacity(WRITE_BUFFER, out);
        let scratch = tempfile::spooled_tempfile_in(INDEX_IN_MEMORY, &self.directory);
        let mut encoded = merge(decoders, out, scratch).with_context(write)?;
        encoded.out.flush().with_context(write)?;
        Ok((encoded.trailer, encoded.size))
    }

    /// Removes the first file, which is in the bucket now.
    pub fn uploaded(&self, file: &Spooled) {
        let mut waiting = self.lock();
        if waiting.front() == Some(file) {
            waiting.pop_front();
        }
        drop(waiting);
        Self::remove_files(std::slice::from_ref(file));
    }

    /// Removes files that nothing needs any more. One that stays behind costs space until the next start.
    pub fn remove_files(files: &[Spooled]) {
        for file in files {
            if let Err(error) = fs::remove_file(&file.path) {
                tracing::debug!(path = %file.path.display(), %error, "remove spooled file");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Spooled>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
