//! A scratch copy of a replica: hard links to the undamaged one, each broken before its bytes change.
//!
//! Invariant: no change of a scratch copy reaches the undamaged one. Only files in the private directory are ever
//! written to; a name comes from a typed key, never from what a store listed.

use std::fs::{self, File, FileTimes};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use replica::format::{Header, Level, TxidRange};
use replica::store::{Chain, Key, LtxKey, LtxObject};

/// What stands in a scratch copy.
#[derive(Debug, Clone)]
pub struct Scene {
    /// The chain.
    pub chain: Chain,
    /// Its files, oldest first: the plan of the newest state.
    pub files: Vec<LtxObject>,
    /// The header of the newest file.
    pub newest: Header,
    /// Whether a heartbeat vouches for the chain.
    pub heartbeat: bool,
    /// The database that they restore to.
    pub database: PathBuf,
}

impl Scene {
    /// Whether the chain carries database checksums.
    #[must_use]
    pub fn is_checksummed(&self) -> bool {
        self.newest.checksummed
    }

    /// One file of each level, the middle one of the level, the highest level first.
    #[must_use]
    pub fn one_a_level(&self) -> Vec<LtxObject> {
        let of = |level| {
            let files: Vec<_> = self.files.iter().filter(|file| file.level == level).collect();
            files.get(files.len() / 2).map(|file| **file)
        };
        Level::all().rev().filter_map(of).collect()
    }

    /// The newest file; a plan is never empty.
    #[must_use]
    pub fn last(&self) -> Option<LtxObject> {
        self.files.last().copied()
    }
}

/// The copy.
#[derive(Debug)]
pub struct Scratch<'a> {
    dir: PathBuf,
    scene: &'a Scene,
}

impl<'a> Scratch<'a> {
    /// A copy of `from` at `dir`, by hard links.
    ///
    /// # Errors
    /// The file system's.
    pub fn link(from: &Path, dir: &Path, scene: &'a Scene) -> io::Result<Self> {
        if dir.exists() {
            fs::remove_dir_all(dir)?;
        }
        link_tree(from, dir)?;
        Ok(Self { dir: dir.to_owned(), scene })
    }

    /// Where it stands: a replica of one database, in the file layout.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What stands in it (before it was damaged).
    #[must_use]
    pub fn scene(&self) -> &Scene {
        self.scene
    }

    /// Where an object stands.
    #[must_use]
    pub fn at(&self, key: &Key) -> PathBuf {
        self.dir.join(key.file_path())
    }

    /// Where a file of the chain stands.
    #[must_use]
    pub fn path(&self, file: &LtxObject) -> PathBuf {
        self.place(file.level, file.txids)
    }

    /// Where a file of the chain would stand.
    #[must_use]
    pub fn place(&self, level: Level, txids: TxidRange) -> PathBuf {
        self.at(&Key::Ltx(LtxKey { chain: self.scene.chain, level, txids }))
    }

    /// Lets `change` edit a file's bytes in a copy of its own, whose modification time stays.
    ///
    /// # Errors
    /// The file system's.
    pub fn edit(
        &self,
        path: &Path,
        change: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> anyhow::Result<()> {
        let modified = fs::metadata(path).and_then(|data| data.modified());
        let modified = modified.with_context(|| format!("look at {}", path.display()))?;
        let own = self.dir.join("own");
        fs::copy(path, &own)?;
        let mut file = File::options().read(true).write(true).open(&own)?;
        change(&mut file)?;
        file.set_times(FileTimes::new().set_modified(modified))?;
        Ok(fs::rename(&own, path)?)
    }

    /// Writes a file (again), with the modification time of `like`.
    ///
    /// # Errors
    /// The file system's, or those of `write`.
    pub fn write(
        &self,
        path: &Path,
        like: &Path,
        write: impl FnOnce(&mut io::BufWriter<File>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let modified = fs::metadata(like)?.modified()?;
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let own = self.dir.join("own");
        let mut out = io::BufWriter::new(File::create(&own)?);
        write(&mut out)?;
        out.flush()?;
        out.get_ref().set_times(FileTimes::new().set_modified(modified))?;
        Ok(fs::rename(&own, path)?)
    }

    /// Moves a file of the chain to another name.
    ///
    /// # Errors
    /// The file system's.
    pub fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::rename(from, to)
    }

    /// A second name for a file.
    ///
    /// # Errors
    /// The file system's.
    pub fn duplicate(&self, from: &Path, to: &Path) -> io::Result<()> {
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::hard_link(from, to)
    }

    /// Removes it.
    ///
    /// # Errors
    /// The file system's.
    pub fn clear(&self) -> io::Result<()> {
        fs::remove_dir_all(&self.dir)
    }
}

/// Flips one bit of the byte at `offset`.
pub(super) fn flip(file: &mut File, offset: u64) -> io::Result<()> {
    let mut byte = [0];
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(&mut byte)?;
    byte[0] ^= 0x10;
    file.seek(SeekFrom::Start(offset))?;
    file.write_all(&byte)
}

fn link_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            link_tree(&entry.path(), &target)?;
        } else {
            fs::hard_link(entry.path(), target)?;
        }
    }
    Ok(())
}
