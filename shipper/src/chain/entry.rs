//! One file of the spool: an LTX file, and behind it what the shipper must know of it.
//!
//! A file comes into being under a name that nothing looks for and is renamed when it is whole: a rename is a
//! capture's commit. A file that is not whole after all (the machine lost power) does not verify, and counts as
//! not there.
//!
//! An entry may begin a *group*: a state of the database only together with those that follow it, up to the one that
//! [`End::members`] names. Its first entry is renamed last.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use jiff::Timestamp;
use replica::format::wal::Position;
use replica::format::{
    Checksum, DatabaseChecksum, Decoder, Encoded, Encoder, Header, PageNumber, Wholeness, merge_as,
    page_checksum,
};
use serde::{Deserialize, Serialize};
use tempfile::{SpooledTempFile, TempPath};

use crate::chain::disk::{Change, Disk};
use crate::chain::framed;
use crate::chain::reserve::Reserve;

/// The page index of a file being written stays in memory up to this size.
const INDEX_IN_MEMORY: usize = 64 << 10;
const WRITE_BUFFER: usize = 128 << 10;
const READ_BUFFER: usize = 32 << 10;
/// Ends every entry: the length of the framed footer stands before it.
const MAGIC: [u8; 8] = *b"SEASPOOL";
/// The footer is far smaller.
const FOOTER_LIMIT: u64 = 4096;

/// What stands behind the LTX file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Footer {
    /// Bytes of the LTX file.
    pub size: u64,
    /// Its file checksum.
    pub checksum: Checksum,
    /// Its number: entries follow each other without a gap.
    pub sequence: u64,
    /// What is known at the end of the group that it begins.
    #[serde(flatten)]
    pub end: End,
}

/// What is known at the end of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// The last entry of the group that it begins; its own number where it stands alone.
    pub members: u64,
    /// The last capture that is in the group: one that was merged from others stands for theirs, too.
    pub through: u64,
    /// Where the WAL was captured up to at the group's end.
    pub position: Position,
    /// The database's checksum before the group; `None` for a first snapshot.
    pub pre_apply: Option<Checksum>,
    /// The database's checksum at the group's end.
    pub post_apply: Checksum,
    /// Pages in the database at the group's end.
    pub page_count: u32,
    /// The newest timestamp of the group.
    pub timestamp: Timestamp,
    /// Everything that was committed at this moment is in the group or before it.
    pub complete_until: Timestamp,
}

/// A whole file of the spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it is.
    pub path: PathBuf,
    /// What is known of it.
    pub footer: Footer,
    /// The LTX file's header.
    pub header: Header,
}

impl Entry {
    /// Reads what an earlier run left at `path`; `None` where it is not whole.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn open(path: &Path) -> anyhow::Result<Option<Self>> {
        let mut file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        let Some(footer) =
            read_footer(&mut file).with_context(|| format!("read {}", path.display()))?
        else {
            return Ok(None);
        };
        file.rewind()?;
        let Ok(decoder) = Decoder::new(file.take(footer.size)) else { return Ok(None) };
        let header = *decoder.header();
        Ok(Some(Self { path: path.to_owned(), footer, header }))
    }

    /// Its pages.
    ///
    /// # Errors
    /// Those of the file system, and a damaged header.
    pub fn decoder(&self) -> anyhow::Result<Decoder<impl Read>> {
        let name = || format!("read {}", self.path.display());
        let file = File::open(&self.path).with_context(name)?;
        let reader = BufReader::with_capacity(READ_BUFFER, file).take(self.footer.size);
        Decoder::new(reader).with_context(name)
    }

    /// Bytes on the disk, nearly.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.footer.size
    }
}

fn read_footer(file: &mut File) -> std::io::Result<Option<Footer>> {
    let length = file.metadata()?.len();
    let tail = FOOTER_LIMIT.min(length);
    file.seek(SeekFrom::Start(length - tail))?;
    let mut bytes = Vec::new();
    Read::by_ref(file).take(tail).read_to_end(&mut bytes)?;
    Ok(parse_footer(&bytes, length))
}

/// The footer at the end of `tail`, which ends a file of `length` bytes.
fn parse_footer(tail: &[u8], length: u64) -> Option<Footer> {
    let rest = tail.strip_suffix(&MAGIC)?;
    let (rest, framed_length) = rest.split_last_chunk::<4>()?;
    let framed_length = u32::from_le_bytes(*framed_length);
    let start = rest.len().checked_sub(usize::try_from(framed_length).ok()?)?;
    let footer: Footer = serde_json::from_slice(framed::decode(&rest[start..])?).ok()?;
    let behind = u64::from(framed_length) + 4 + MAGIC.len() as u64;
    (footer.size + behind == length).then_some(footer)
}

/// Bytes of pages between looks at the room on the disk.
const LOOK_EVERY: u64 = 1 << 20;

/// Watches that an entry leaves others their room while it is written.
#[derive(Debug)]
pub struct Room {
    reserve: Reserve,
    /// What the spool holds with it, at most.
    held: u64,
    looked_at: u64,
}

impl Room {
    /// Beside `held` bytes that are in the spool already.
    #[must_use]
    pub fn new(reserve: Reserve, held: u64) -> Self {
        Self { reserve, held, looked_at: held }
    }

    fn take(&mut self, bytes: u64) -> anyhow::Result<()> {
        self.held += bytes;
        if self.held - self.looked_at >= LOOK_EVERY {
            self.looked_at = self.held;
            self.reserve.check(self.held)?;
        }
        Ok(())
    }
}

/// An entry being written; what is not finished is removed with it.
#[derive(Debug)]
pub struct EntryWriter {
    encoder: Encoder<BufWriter<File>, SpooledTempFile>,
    temporary: TempPath,
    path: PathBuf,
    header: Header,
    sequence: u64,
    own: DatabaseChecksum,
    room: Room,
}

impl EntryWriter {
    /// Begins an entry that will stand at `path`. `header.checksummed` says whether it may be a state by itself.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn create(
        path: &Path,
        sequence: u64,
        header: Header,
        room: Room,
        disk: &dyn Disk,
    ) -> anyhow::Result<Self> {
        let temporary = path.with_extension("tmp");
        let (out, scratch) = create_temporary(&temporary, disk)?;
        let temporary = TempPath::try_from_path(temporary)?;
        let encoder = Encoder::new(out, scratch, header)
            .with_context(|| format!("create {}", temporary.display()))?;
        let own = DatabaseChecksum::default();
        let path = path.to_owned();
        Ok(Self { encoder, temporary, path, header, sequence, own, room })
    }

    /// Its number.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Pages in the database, as the header says.
    #[must_use]
    pub fn page_count(&self) -> u32 {
        self.header.commit
    }

    /// Adds a page, ascending, and returns its checksum.
    ///
    /// # Errors
    /// Those of the file system, no room, and pages out of order.
    pub fn page(&mut self, number: PageNumber, page: &[u8]) -> anyhow::Result<Checksum> {
        self.room.take(page.len() as u64)?;
        let sum = page_checksum(number, page);
        self.own.toggle(sum);
        self.encoder
            .page(number, page)
            .with_context(|| format!("write {}", self.temporary.display()))?;
        Ok(sum)
    }

    /// Ends the entry and gives it its name.
    ///
    /// # Errors
    /// Those of the file system, and an incomplete snapshot. What was written is then removed.
    pub fn finish(self, end: End, disk: &dyn Disk) -> anyhow::Result<Entry> {
        let Self { encoder, temporary, path, header, sequence, own, .. } = self;
        let name = || format!("write {}", temporary.display());
        // A snapshot's checksum is that of its own pages, also where later entries change them.
        let post_apply = header
            .checksummed
            .then(|| if header.txids.is_snapshot() { own.value() } else { end.post_apply });
        let encoded = encoder.finish(post_apply).with_context(name);
        let entry = encoded
            .and_then(|encoded| publish(encoded, &temporary, path, header, sequence, end, disk))?;
        // It has its name.
        let _ = temporary.keep();
        Ok(entry)
    }

    /// Ends the entry as if it had never begun.
    pub fn abandon(self) {
        drop(self);
    }
}

/// A file that nothing looks for, and scratch space beside it for its page index.
fn create_temporary(
    path: &Path,
    disk: &dyn Disk,
) -> anyhow::Result<(BufWriter<File>, SpooledTempFile)> {
    let file = disk
        .before(Change::Write, path)
        .and_then(|()| File::create(path))
        .with_context(|| format!("create {}", path.display()))?;
    let directory = path.parent().unwrap_or(Path::new("."));
    let scratch = tempfile::spooled_tempfile_in(INDEX_IN_MEMORY, directory);
    Ok((BufWriter::with_capacity(WRITE_BUFFER, file), scratch))
}

/// Merges entries, oldest first, into one with the given header that stands at `path`; they stay where they are.
///
/// # Errors
/// Those of the file system, and damaged entries. What was written is then removed.
pub fn merge_entries(
    inputs: &[Entry],
    path: PathBuf,
    header: Header,
    end: End,
    disk: &dyn Disk,
) -> anyhow::Result<Entry> {
    let sequence = inputs.first().context("merge of no entry")?.footer.sequence;
    let temporary = path.with_extension("tmp");
    let merged = (|| {
        let decoders = inputs.iter().map(Entry::decoder).collect::<anyhow::Result<Vec<_>>>()?;
        let (out, scratch) = create_temporary(&temporary, disk)?;
        let post_apply = header.checksummed.then_some(end.post_apply);
        let wholeness = if header.checksummed { Wholeness::Whole } else { Wholeness::Part };
        let encoded = merge_as(decoders, out, scratch, header, post_apply, wholeness)
            .with_context(|| format!("write {}", temporary.display()))?;
        publish(encoded, &temporary, path.clone(), header, sequence, end, disk)
    })();
    merged.inspect_err(|_| {
        // It may not have been created.
        let _ = std::fs::remove_file(&temporary);
    })
}

/// Writes the footer and gives the file its name.
fn publish(
    encoded: Encoded<BufWriter<File>>,
    temporary: &Path,
    path: PathBuf,
    header: Header,
    sequence: u64,
    end: End,
    disk: &dyn Disk,
) -> anyhow::Result<Entry> {
    let footer = Footer { size: encoded.size, checksum: encoded.trailer.file, sequence, end };
    write_footer(encoded.out, &footer)
        .and_then(|()| Ok(disk.rename(temporary, &path)?))
        .with_context(|| format!("write {}", path.display()))?;
    Ok(Entry { path, footer, header })
}

fn write_footer(mut out: impl Write, footer: &Footer) -> anyhow::Result<()> {
    let framed = framed::encode(&serde_json::to_vec(footer)?);
    out.write_all(&framed)?;
    out.write_all(&u32::try_from(framed.len())?.to_le_bytes())?;
    out.write_all(&MAGIC)?;
    out.flush()?;
    Ok(())
}
