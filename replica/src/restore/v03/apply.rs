//! Carries a v0.3 plan out: the snapshot into the file, then WAL after WAL on top of it.
//!
//! Objects are fetched ahead as for an LTX restore; memory is bounded by that and two LZ4 blocks. Every
//! checksum is compared: of each LZ4 frame, of each WAL header, of each WAL frame. A v0.3 snapshot has none but
//! LZ4's, and a replica none of the database as a whole.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::format::{FrameError, FrameReader, PageSize};
use crate::restore::fetch::{Feed, fetch_into};
use crate::restore::v03::V03Plan;
use crate::restore::v03::wal::{Fault, Wal};
use crate::restore::{Progress, RestoreError, output};
use crate::store::{Store, V03Object, V03Part};

/// Bytes at the start of a database that tell its page size and page count.
const DATABASE_HEADER: usize = 100;

/// A copy of a v0.3 replica.
#[derive(Debug, Clone)]
pub struct V03Restored {
    /// Bytes in a page.
    pub page_size: PageSize,
    /// Pages in the database.
    pub page_count: u32,
    /// Bytes fetched.
    pub bytes: u64,
    /// Objects fetched.
    pub objects: usize,
    /// From the first request to the last byte written and synced.
    pub elapsed: Duration,
}

/// Restores `plan` into `output` (an empty file, opened for writing), and syncs it.
///
/// # Errors
/// The store's, a damaged or encrypted object, or a failing write. The output's content is then of no use.
pub async fn apply_v03(
    store: Arc<dyn Store>,
    plan: &V03Plan,
    output: File,
    progress: Arc<dyn Progress>,
) -> Result<V03Restored, RestoreError> {
    let started = Instant::now();
    let objects: Vec<_> =
        plan.objects.iter().map(|object| (plan.key(object), object.size)).collect();
    let applied = {
        let (from, plan) = (Arc::clone(&store), plan.clone());
        fetch_into(store, objects, progress, move |feed| {
            Replay::new(from.as_ref(), &plan, feed, &output).run()
        })
    };
    let (page_size, page_count) = applied.await?;
    let (bytes, objects) = (plan.bytes(), plan.objects.len());
    Ok(V03Restored { page_size, page_count, bytes, objects, elapsed: started.elapsed() })
}

/// The work on the decoder's thread.
struct Replay<'a> {
    store: &'a dyn Store,
    plan: &'a V03Plan,
    feed: Feed,
    file: &'a File,
    /// Bytes of the database so far.
    length: u64,
    page_size: Option<PageSize>,
}

impl<'a> Replay<'a> {
    fn new(store: &'a dyn Store, plan: &'a V03Plan, feed: Feed, file: &'a File) -> Self {
        Self { store, plan, feed, file, length: 0, page_size: None }
    }

    fn run(mut self) -> Result<(PageSize, u32), RestoreError> {
        let mut wal: Option<(u32, &V03Object, Wal<'a>)> = None;
        for object in &self.plan.objects {
            let V03Part::Segment { index, offset, .. } = object.part else {
                self.snapshot(object)?;
                continue;
            };
            if wal.as_ref().is_none_or(|(current, ..)| *current != index) {
                self.end(wal.take())?;
                wal = Some((index, object, Wal::new(self.file, self.length, self.page_size)));
            }
            let Some((_, last, wal)) = wal.as_mut() else { continue };
            *last = object;
            if offset != wal.taken() {
                // A segment between them is missing, or there twice.
                let expected = format!("{:08x}", wal.taken());
                return Err(self.conflict(
                    object,
                    "offset in the WAL",
                    expected,
                    format!("{offset:08x}"),
                ));
            }
            self.segment(object, wal)?;
        }
        self.end(wal)?;
        self.finish()
    }

    fn snapshot(&mut self, object: &V03Object) -> Result<(), RestoreError> {
        let file = self.file;
        let mut length = 0;
        let mut start = Vec::with_capacity(DATABASE_HEADER);
        self.blocks(object, |block| {
            let missing = DATABASE_HEADER - start.len();
            start.extend_from_slice(&block[..block.len().min(missing)]);
            if length == 0
                && let Some(size) = promised_size(&start)
            {
                output::refuse_without_room(file, size, 0)?;
            }
            let failed = |source| output::failure(length, "write", source);
            file.write_all_at(block, length).map_err(failed)?;
            length += block.len() as u64;
            Ok(())
        })?;
        self.length = length;
        if length == 0 {
            // A database that had nothing but a WAL.
            return Ok(());
        }
        let page_size = page_size(&start).ok_or_else(|| {
            let actual = start[..start.len().min(18)].escape_ascii().to_string();
            self.conflict(object, "start of the snapshot", "a database header".into(), actual)
        })?;
        if length % u64::from(page_size.get()) != 0 {
            let expected = format!("a multiple of {page_size}");
            return Err(self.conflict(
                object,
                "bytes in the snapshot",
                expected,
                length.to_string(),
            ));
        }
        self.page_size = Some(page_size);
        Ok(())
    }

    fn segment(&mut self, object: &V03Object, wal: &mut Wal<'_>) -> Result<(), RestoreError> {
        let locate = self.store.locate(&self.plan.key(object));
        self.blocks(object, |block| {
            wal.take(block).map_err(|fault| fault_of(locate.clone(), fault))
        })
    }

    /// Decodes one object, block by block.
    fn blocks(
        &mut self,
        object: &V03Object,
        mut take: impl FnMut(&[u8]) -> Result<(), RestoreError>,
    ) -> Result<(), RestoreError> {
        let name = self.store.locate(&self.plan.key(object));
        let decoded = FrameReader::new(self.feed.object(object.size));
        let outcome = decoded.map_err(|error| frame_of(&name, error)).and_then(|mut reader| {
            while let Some(block) = reader.next_block().map_err(|error| frame_of(&name, error))? {
                take(block)?;
            }
            Ok(())
        });
        // What the store said instead of bytes tells more than the decoder's failed read.
        outcome.map_err(|error| self.feed.error.take().unwrap_or(error))
    }

    /// A WAL is complete.
    fn end(&mut self, wal: Option<(u32, &V03Object, Wal<'_>)>) -> Result<(), RestoreError> {
        let Some((_, last, wal)) = wal else { return Ok(()) };
        let finished = wal.finish();
        (self.length, self.page_size) =
            finished.map_err(|fault| fault_of(self.store.locate(&self.plan.key(last)), fault))?;
        Ok(())
    }

    fn finish(self) -> Result<(PageSize, u32), RestoreError> {
        let newest = self.plan.objects.last();
        let nothing = || RestoreError::Conflict {
            object: newest
                .map(|object| self.store.locate(&self.plan.key(object)))
                .unwrap_or_default(),
            what: "bytes in the database",
            expected: "at least one page".to_owned(),
            actual: self.length.to_string(),
        };
        let page_size = self.page_size.ok_or_else(nothing)?;
        let pages = u32::try_from(self.length / u64::from(page_size.get()));
        let pages = pages.ok().filter(|pages| *pages > 0).ok_or_else(nothing)?;
        let failed = |source| output::failure(self.length, "sync", source);
        self.file.sync_all().map_err(failed)?;
        Ok((page_size, pages))
    }

    fn conflict(
        &self,
        object: &V03Object,
        what: &'static str,
        expected: String,
        actual: String,
    ) -> RestoreError {
        let object = self.store.locate(&self.plan.key(object));
        RestoreError::Conflict { object, what, expected, actual }
    }
}

fn frame_of(object: &str, source: FrameError) -> RestoreError {
    let object = object.to_owned();
    match source {
        FrameError::Encrypted => RestoreError::Encrypted { object },
        source => RestoreError::DamagedFrame { object, source },
    }
}

fn fault_of(object: String, fault: Fault) -> RestoreError {
    match fault {
        Fault::Wal(source) => RestoreError::DamagedWal { object, source },
        Fault::Conflict(what, expected, actual) => {
            RestoreError::Conflict { object, what, expected, actual }
        }
        Fault::Output(error) => error,
    }
}

/// The page size in a database's header.
fn page_size(start: &[u8]) -> Option<PageSize> {
    let raw = start.strip_prefix(b"SQLite format 3\0")?.first_chunk::<2>()?;
    match u16::from_be_bytes(*raw) {
        1 => PageSize::new(65_536).ok(),
        size => PageSize::new(u32::from(size)).ok(),
    }
}

/// The database's size by its header, bytes; where the header does not vouch for it, nothing.
fn promised_size(start: &[u8]) -> Option<u64> {
    let word = |at: usize| {
        let bytes = start.get(at..at + 4)?.first_chunk::<4>()?;
        Some(u32::from_be_bytes(*bytes))
    };
    let current = word(24)? == word(92)?;
    current.then_some(u64::from(word(28)?) * u64::from(page_size(start)?.get()))
}
