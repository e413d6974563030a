//! The page-checksum index: 8 bytes a page in a file, and their sum in memory.
//!
//! The sum of all pages' checksums is the database's checksum as LTX has it, so an index proves itself: torn by a
//! crash, its sum is not the checksum that belongs to its TXID. Memory is flat: one block of the file.
//!
//! *Invariant*: an entry is zero exactly where the index knows of no page (the lock page, and what is beyond the end).
//! A crash leaves any mixture of old and new entries.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use replica::format::{
    Checksum, DatabaseChecksum, Decoder, Header, PageNumber, PageSize, Trailer, page_checksum,
};

use crate::chain::disk::{Change, Disk};

const ENTRY: u64 = 8;
/// Bytes read and written at a time.
const BLOCK: usize = 4096;
/// Bytes read at a time by a scan.
const SCAN: usize = 64 << 10;

/// The checksums of a database's pages at one moment.
#[derive(Debug)]
pub struct PageSums {
    file: File,
    path: PathBuf,
    /// Pages up to the highest one ever set.
    page_count: u32,
    sum: DatabaseChecksum,
    block: Block,
    disk: Arc<dyn Disk>,
}

/// One block of the file, in memory.
#[derive(Debug)]
struct Block {
    /// Which; `None` where none is loaded.
    number: Option<u64>,
    bytes: Vec<u8>,
    dirty: bool,
}

/// What a file changed when it was applied.
#[derive(Debug, Clone, Copy)]
pub struct Applied {
    /// The file's header.
    pub header: Header,
    /// The file's trailer.
    pub trailer: Trailer,
}

impl PageSums {
    /// An empty index in place of whatever stands at `path`.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn create(path: &Path, disk: Arc<dyn Disk>) -> anyhow::Result<Self> {
        Self::open_file(path, true, disk)
    }

    /// The index at `path`, which must be of `page_count` pages; its sum is computed from all entries.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn open(path: &Path, page_count: u32, disk: Arc<dyn Disk>) -> anyhow::Result<Self> {
        let mut sums = Self::open_file(path, false, disk)?;
        sums.page_count = page_count;
        sums.scan().with_context(|| format!("read {}", path.display()))?;
        Ok(sums)
    }

    /// The index at `path` (or an empty one), whose entries may be anything: all that it has room for.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn open_torn(path: &Path, disk: Arc<dyn Disk>) -> anyhow::Result<Self> {
        let bytes = std::fs::metadata(path).map_or(0, |file| file.len());
        let entries = u32::try_from(bytes / ENTRY).unwrap_or(u32::MAX);
        if entries == 0 { Self::create(path, disk) } else { Self::open(path, entries, disk) }
    }

    /// A copy of this index in place of whatever stands at `path`.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn copy_to(&mut self, path: &Path) -> anyhow::Result<Self> {
        self.flush()?;
        let mut copy = Self::create(path, self.disk.clone())?;
        let mut source = &self.file;
        std::io::Seek::rewind(&mut source)
            .and_then(|()| {
                let bytes = u64::from(self.page_count) * ENTRY;
                std::io::copy(&mut source.take(bytes), &mut copy.file)
            })
            .with_context(|| format!("copy {} to {}", self.path.display(), path.display()))?;
        copy.page_count = self.page_count;
        copy.sum = self.sum;
        Ok(copy)
    }

    fn open_file(path: &Path, empty: bool, disk: Arc<dyn Disk>) -> anyhow::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(empty)
            .truncate(empty)
            .open(path)
            .with_context(|| format!("open {}", path.display()))?;
        let block = Block { number: None, bytes: vec![0; BLOCK], dirty: false };
        Ok(Self {
            file,
            path: path.to_owned(),
            page_count: 0,
            sum: DatabaseChecksum::default(),
            block,
            disk,
        })
    }

    /// Where it stands.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Forces it to the disk.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn force(&mut self) -> anyhow::Result<()> {
        self.flush()?;
        self.disk
            .sync(&self.file, &self.path)
            .with_context(|| format!("force {} to the disk", self.path.display()))
    }

    /// Pages up to the highest one.
    #[must_use]
    pub fn page_count(&self) -> u32 {
        self.page_count
    }

    /// The database's checksum.
    #[must_use]
    pub fn checksum(&self) -> Checksum {
        self.sum.value()
    }

    /// The checksum of a page; `None` where the index knows of none.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn get(&mut self, page: PageNumber) -> anyhow::Result<Option<Checksum>> {
        if page.get() > self.page_count {
            return Ok(None);
        }
        let at = self.load(page.get())?;
        Ok(self.entry(at))
    }

    /// Sets a page's checksum and returns the one before.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn set(&mut self, page: PageNumber, sum: Checksum) -> anyhow::Result<Option<Checksum>> {
        // Beyond the end the file may hold anything; growing page by page zeroes it.
        if page.get() > self.page_count + 1 {
            self.clear(self.page_count + 1, page.get() - 1)?;
        }
        let at = self.load(page.get())?;
        let before = self.entry(at).filter(|_| page.get() <= self.page_count);
        self.page_count = self.page_count.max(page.get());
        if before != Some(sum) {
            before.into_iter().chain([sum]).for_each(|sum| self.sum.toggle(sum));
            self.put(at, sum.raw());
        }
        Ok(before)
    }

    /// Forgets every page above `page_count`.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn truncate(&mut self, page_count: u32) -> anyhow::Result<()> {
        if page_count < self.page_count {
            let end = self.page_count;
            for page in page_count + 1..=end {
                let at = self.load(page)?;
                if let Some(sum) = self.entry(at) {
                    self.sum.toggle(sum);
                    self.put(at, 0);
                }
            }
            self.page_count = page_count;
        }
        Ok(())
    }

    /// Applies an LTX file, checked to its end.
    ///
    /// # Errors
    /// A damaged file; checksums before or after that are not the file's (where `verify` and it has them); those
    /// of the file system. The index then holds a mixture.
    pub fn apply<R: Read>(
        &mut self,
        mut decoder: Decoder<R>,
        page_size: PageSize,
        verify: bool,
    ) -> anyhow::Result<Applied> {
        let header = *decoder.header();
        anyhow::ensure!(
            header.page_size == page_size,
            "page size {} where {page_size} is expected",
            header.page_size
        );
        if let Some(expected) = header.pre_apply.filter(|_| verify) {
            let actual = self.checksum();
            anyhow::ensure!(actual == expected, "continues {expected}, not {actual}");
        }
        let mut page = vec![0; page_size.len()];
        while let Some(number) = decoder.next_page(&mut page)? {
            self.set(number, page_checksum(number, &page))?;
        }
        let trailer = decoder.finish()?;
        self.truncate(header.commit)?;
        if let Some(expected) = trailer.post_apply.filter(|_| verify) {
            let actual = self.checksum();
            anyhow::ensure!(actual == expected, "database checksum {actual}, not {expected}");
        }
        Ok(Applied { header, trailer })
    }

    /// What an LTX file, read to its end, would give: its file checksum, and the database's. Changes nothing.
    ///
    /// # Errors
    /// A damaged file; those of the file system.
    pub fn predict<R: Read>(
        &mut self,
        mut decoder: Decoder<R>,
        page_size: PageSize,
    ) -> anyhow::Result<(Checksum, Checksum)> {
        let commit = decoder.header().commit;
        anyhow::ensure!(decoder.header().page_size == page_size, "of another page size");
        let mut sum = self.sum;
        let mut page = vec![0; page_size.len()];
        while let Some(number) = decoder.next_page(&mut page)? {
            self.get(number)?.into_iter().for_each(|before| sum.toggle(before));
            sum.toggle(page_checksum(number, &page));
        }
        let trailer = decoder.finish()?;
        for cut in commit + 1..=self.page_count {
            self.get(PageNumber::new(cut)?)?.into_iter().for_each(|before| sum.toggle(before));
        }
        Ok((trailer.file, sum.value()))
    }

    /// Writes what is still in memory.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn flush(&mut self) -> anyhow::Result<()> {
        let Block { number: Some(number), dirty: true, .. } = self.block else { return Ok(()) };
        self.disk
            .before(Change::Write, &self.path)
            .and_then(|()| self.file.write_all_at(&self.block.bytes, number * BLOCK as u64))
            .with_context(|| format!("write {}", self.path.display()))?;
        self.block.dirty = false;
        Ok(())
    }

    /// Sums all entries.
    fn scan(&mut self) -> std::io::Result<()> {
        let mut sum = DatabaseChecksum::default();
        // A file that ends early lacks entries, and so has another sum.
        let mut left = (u64::from(self.page_count) * ENTRY).min(self.file.metadata()?.len());
        let mut offset = 0;
        let mut chunk = vec![0; SCAN];
        while left > 0 {
            let length = usize::try_from(left).map_or(SCAN, |left| left.min(SCAN));
            self.file.read_exact_at(&mut chunk[..length], offset)?;
            let entries = chunk[..length].as_chunks::<8>().0;
            let sums =
                entries.iter().filter_map(|raw| Checksum::from_raw(u64::from_le_bytes(*raw)));
            sums.for_each(|entry| sum.toggle(entry));
            offset += length as u64;
            left -= length as u64;
        }
        self.sum = sum;
        Ok(())
    }

    fn clear(&mut self, first: u32, last: u32) -> anyhow::Result<()> {
        for page in first..=last {
            let at = self.load(page)?;
            self.put(at, 0);
        }
        Ok(())
    }

    /// Brings the block of a page into memory and says where in it the page's entry is.
    fn load(&mut self, page: u32) -> anyhow::Result<usize> {
        let offset = u64::from(page - 1) * ENTRY;
        let (number, at) = (offset / BLOCK as u64, offset % BLOCK as u64);
        if self.block.number != Some(number) {
            self.flush()?;
            self.block.number = None;
            self.read_block(number).with_context(|| format!("read {}", self.path.display()))?;
            self.block.number = Some(number);
        }
        Ok(usize::try_from(at)?)
    }

    /// Reads a block; beyond the end of the file it is zeros.
    fn read_block(&mut self, number: u64) -> std::io::Result<()> {
        let mut filled = 0;
        while filled < BLOCK {
            let offset = number * BLOCK as u64 + filled as u64;
            match self.file.read_at(&mut self.block.bytes[filled..], offset)? {
                0 => break,
                read => filled += read,
            }
        }
        self.block.bytes[filled..].fill(0);
        Ok(())
    }

    fn entry(&self, at: usize) -> Option<Checksum> {
        let mut raw = [0; 8];
        raw.copy_from_slice(&self.block.bytes[at..at + 8]);
        Checksum::from_raw(u64::from_le_bytes(raw))
    }

    fn put(&mut self, at: usize, raw: u64) {
        self.block.bytes[at..at + 8].copy_from_slice(&raw.to_le_bytes());
        self.block.dirty = true;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::chain::disk::SystemDisk;

    /// Any sequence of sets and truncations gives what a map gives, and reading it back gives the same sum.
    #[test]
    fn an_index_is_a_map_with_a_sum() {
        for seed in 0..20 {
            let mut random = StdRng::seed_from_u64(seed);
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("sums");
            let mut sums = PageSums::create(&path, Arc::new(SystemDisk)).unwrap();
            let mut model: BTreeMap<u32, Checksum> = BTreeMap::new();
            for _ in 0..400 {
                if random.random_bool(0.05) {
                    let end = random.random_range(0..3000);
                    sums.truncate(end).unwrap();
                    model.retain(|page, _| *page <= end);
                } else {
                    let page = random.random_range(1..3000);
                    let sum = Checksum::from_raw(random.random::<u64>() | 1 << 63).unwrap();
                    let before = sums.set(PageNumber::new(page).unwrap(), sum).unwrap();
                    assert_eq!(before, model.insert(page, sum), "seed {seed}");
                }
                let mut expected = DatabaseChecksum::default();
                model.values().for_each(|sum| expected.toggle(*sum));
                assert_eq!(sums.checksum(), expected.value(), "seed {seed}");
            }
            sums.flush().unwrap();
            let pages = sums.page_count();
            let mut again = PageSums::open(&path, pages, Arc::new(SystemDisk)).unwrap();
            assert_eq!(again.checksum(), sums.checksum(), "seed {seed}");
            for page in 1..=pages {
                let number = PageNumber::new(page).unwrap();
                assert_eq!(again.get(number).unwrap(), model.get(&page).copied(), "seed {seed}");
            }
            let copy = again.copy_to(&directory.path().join("copy")).unwrap();
            assert_eq!((copy.checksum(), copy.page_count()), (sums.checksum(), pages));
        }
    }
}
