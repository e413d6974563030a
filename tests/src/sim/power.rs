//! What a power failure leaves: of each file what was forced to the disk, what was written since, or a mixture.
//!
//! Harsher than a journalling file system: every file's fate is drawn by itself, so that a later change may survive
//! an earlier one. [`Shadow`] is told of everything that is forced; now and then the system writes all of it back by
//! itself. The source's own WAL loses frames from its end, none that SQLite had forced.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rand::Rng;
use rand::rngs::StdRng;

const BLOCK: usize = 4096;

/// A file as it is on the disk for certain.
#[derive(Debug, Clone)]
struct Forced {
    inode: u64,
    content: Vec<u8>,
}

/// The shipper's files as they are on the disk for certain.
#[derive(Debug, Default)]
pub struct Shadow {
    /// By content: what was forced of each file, whatever its name.
    contents: BTreeMap<u64, Vec<u8>>,
    /// By name: directories that were forced, and what was in them.
    names: BTreeMap<PathBuf, Forced>,
}

impl Shadow {
    /// A file was forced.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn file(&mut self, path: &Path) -> io::Result<()> {
        let inode = fs::metadata(path)?.ino();
        self.contents.insert(inode, fs::read(path)?);
        Ok(())
    }

    /// A directory was forced: the names in it. Nothing is said of contents.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn directory(&mut self, path: &Path) -> io::Result<()> {
        self.names.retain(|name, _| name.parent() != Some(path));
        for file in fs::read_dir(path)? {
            let file = file?;
            if file.file_type()?.is_file() {
                let forced =
                    Forced { inode: file.metadata()?.ino(), content: fs::read(file.path())? };
                self.names.insert(file.path(), forced);
            }
        }
        Ok(())
    }

    /// The system wrote everything back by itself.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn everything(&mut self, directory: &Path) -> io::Result<()> {
        for path in files(directory)? {
            self.file(&path)?;
        }
        for directory in directories(directory)? {
            self.directory(&directory)?;
        }
        Ok(())
    }

    /// Power was lost: replaces everything in `directory` by what may be there afterwards.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn lose(&mut self, directory: &Path, random: &mut StdRng) -> Result<()> {
        let present = files(directory)?;
        let inodes: BTreeMap<u64, PathBuf> = present
            .iter()
            .map(|path| Ok((fs::metadata(path)?.ino(), path.clone())))
            .collect::<io::Result<_>>()?;
        let mut after: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
        for path in &present {
            let inode = fs::metadata(path)?.ino();
            let current = fs::read(path).context("read")?;
            let forced_name = self.names.get(path).is_some_and(|forced| forced.inode == inode);
            let forced = self.contents.get(&inode).cloned();
            if forced_name || forced.is_some() || random.random_bool(0.6) {
                after.insert(path.clone(), survivor(forced, &current, random));
            }
        }
        // Names that were removed, or given to other files, since they were forced.
        for (path, forced) in &self.names {
            let moved = inodes.get(&forced.inode);
            if moved != Some(path) && random.random_bool(0.4) {
                let content = self.contents.get(&forced.inode).unwrap_or(&forced.content).clone();
                // A rename is whole: the file has its old name or its new one.
                if let Some(new) = moved {
                    after.remove(new);
                }
                after.insert(path.clone(), content);
            }
        }
        for path in &present {
            fs::remove_file(path)?;
        }
        for (path, content) in after {
            fs::create_dir_all(path.parent().context("no parent")?)?;
            fs::write(path, content)?;
        }
        *self = Self::default();
        Ok(self.everything(directory)?)
    }
}

/// A file's content: what was forced, what was written, or blocks of both.
fn survivor(forced: Option<Vec<u8>>, current: &[u8], random: &mut StdRng) -> Vec<u8> {
    let forced = forced.unwrap_or_default();
    match random.random_range(0..4) {
        0 => forced,
        1 => {
            let length = if random.random_bool(0.5) { current.len() } else { forced.len().max(1) };
            let mut mixed = vec![0; length];
            for start in (0..length).step_by(BLOCK) {
                let from = if random.random_bool(0.5) { &forced[..] } else { current };
                let end = from.len().min(start + BLOCK).min(length);
                if start < end {
                    mixed[start..end].copy_from_slice(&from[start..end]);
                }
            }
            mixed
        }
        _ => current.to_vec(),
    }
}

fn files(directory: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for directory in directories(directory)? {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                found.insert(entry.path());
            }
        }
    }
    Ok(found)
}

/// `directory`, and every one below it; none where there is none.
fn directories(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut next = vec![directory.to_owned()];
    while let Some(directory) = next.pop() {
        if !directory.is_dir() {
            continue;
        }
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                next.push(entry.path());
            }
        }
        found.push(directory);
    }
    Ok(found)
}

/// The end of a source's WAL that a power failure may take: which frames there are, and which are forced.
#[derive(Debug, Clone, Copy)]
pub struct Tail {
    frame: u64,
    valid: u64,
    forced: u64,
}

impl Tail {
    /// Reads it from the wal-index, which is to be asked before the last connection closes; `None` without a WAL.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn read(database: &Path, page_size: u32, full: bool) -> Result<Option<Self>> {
        let index = match fs::read(beside(database, "-shm")) {
            Ok(index) if index.len() >= 136 => index,
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let field = |at: usize| -> Result<u64> {
            let bytes: [u8; 4] = index[at..at + 4].try_into()?;
            Ok(u64::from(u32::from_ne_bytes(bytes)))
        };
        // mxFrame, and nBackfillAttempted: SQLite forces the WAL before it moves pages from it.
        let (valid, attempted) = (field(16)?, field(128)?);
        let forced = if full { valid } else { attempted.min(valid) };
        Ok(Some(Self { frame: u64::from(page_size) + 24, valid, forced }))
    }

    /// Takes some of it.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn lose(self, database: &Path, random: &mut StdRng) -> Result<u64> {
        let wal = beside(database, "-wal");
        // The wal-index is never on a disk.
        let _ = fs::remove_file(beside(database, "-shm"));
        if !wal.exists() || self.forced >= self.valid {
            return Ok(0);
        }
        let kept = random.random_range(self.forced..=self.valid);
        let end = 32 + kept * self.frame;
        let file = fs::OpenOptions::new().write(true).open(&wal)?;
        if kept == 0 && random.random_bool(0.5) {
            file.set_len(0)?;
        } else if random.random_bool(0.5) {
            file.set_len(end)?;
        } else if kept < self.valid {
            // The block with the first lost frame never arrived; what follows did.
            use std::os::unix::fs::FileExt;
            file.write_all_at(&vec![0; usize::try_from(self.frame)?], end)?;
        }
        Ok(self.valid - kept)
    }
}

/// The file that SQLite keeps beside a database.
#[must_use]
pub fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
