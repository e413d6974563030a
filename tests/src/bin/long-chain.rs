//! Makes a generation of many small files on top of a database: `long-chain DATABASE DIRECTORY FILES` writes
//! `DIRECTORY/0009/…` (the snapshot) and `FILES` transactions to `DIRECTORY/0000/`, as a shipper that synced after
//! each would have, with every checksum. The database (in WAL mode, with the tables of the figures) goes on with them.

use std::fs::{self, File};
use std::io::{BufWriter, Cursor, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use jiff::{SignedDuration, Timestamp};
use replica::format::{
    Checksum, DatabaseChecksum, Encoder, Header, PageNumber, PageSize, Txid, TxidRange,
    page_checksum,
};
use rusqlite::Connection;

/// Transactions between two checkpoints: the WAL stays small.
const BATCH: u64 = 1000;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [database, directory, files] = arguments.as_slice() else {
        bail!("DATABASE DIRECTORY FILES")
    };
    let files: u64 = files.parse().context("FILES")?;
    let db = Connection::open(database)?;
    db.execute_batch(
        "PRAGMA wal_autocheckpoint = 0; PRAGMA wal_checkpoint(TRUNCATE); PRAGMA synchronous = OFF",
    )?;
    let mut chain = LongChain::begin(Path::new(database), Path::new(directory), files)?;
    let mut update =
        db.prepare("UPDATE item SET body = randomblob(300) WHERE id = 1 + abs(random()) % 5000")?;
    let mut left = files;
    while left > 0 {
        let batch = left.min(BATCH);
        for _ in 0..batch {
            update.execute([])?;
        }
        chain.ship(&PathBuf::from(format!("{database}-wal")), batch)?;
        db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?;
        left -= batch;
    }
    Ok(())
}

/// The chain so far.
struct LongChain {
    directory: PathBuf,
    page_size: PageSize,
    /// Of each page, by its number less one; the lock page's is none.
    sums: Vec<Option<Checksum>>,
    database: DatabaseChecksum,
    txid: Txid,
    /// The last second, in milliseconds; the files before it are a second apart.
    began: Timestamp,
}

impl LongChain {
    /// Writes the snapshot.
    fn begin(database: &Path, directory: &Path, files: u64) -> Result<Self> {
        for level in ["0000", "0009"] {
            fs::create_dir_all(directory.join(level))?;
        }
        let mut file = std::io::BufReader::with_capacity(1 << 20, File::open(database)?);
        let mut head = [0; 100];
        file.read_exact(&mut head)?;
        let raw = u32::from(u16::from_be_bytes([head[16], head[17]]));
        let page_size = PageSize::new(if raw == 1 { 65_536 } else { raw })?;
        let pages = u32::try_from(fs::metadata(database)?.len() / u64::from(page_size.get()))?;
        let back = SignedDuration::from_secs(i64::try_from(files)?);
        let now = Timestamp::from_second(Timestamp::now().as_second())?;
        let mut chain = Self {
            directory: directory.to_owned(),
            page_size,
            sums: Vec::new(),
            database: DatabaseChecksum::default(),
            txid: Txid::FIRST,
            began: now.checked_sub(back)?,
        };
        let mut file = std::io::BufReader::with_capacity(1 << 20, File::open(database)?);
        let out = BufWriter::with_capacity(1 << 20, File::create(chain.path("0009"))?);
        let scratch = Cursor::new(Vec::new());
        let mut encoder = Encoder::new(out, scratch, chain.header(pages, None)?)?;
        let mut page = vec![0; page_size.len()];
        for number in 1..=pages {
            file.read_exact(&mut page)?;
            let number = PageNumber::new(number)?;
            let kept = number != page_size.lock_page();
            if kept {
                encoder.page(number, &page)?;
            }
            chain.take(number, kept.then_some(page.as_slice()))?;
        }
        encoder.finish(Some(chain.database.value()))?.out.flush()?;
        Ok(chain)
    }

    /// Makes a file of each transaction in the WAL.
    fn ship(&mut self, wal: &Path, expected: u64) -> Result<()> {
        let bytes = fs::read(wal)?;
        let (mut pages, mut transactions) = (std::collections::BTreeMap::new(), 0);
        for frame in bytes.get(32..).context("a WAL")?.chunks_exact(24 + self.page_size.len()) {
            let (head, page) = frame.split_at(24);
            let word = |at: usize| {
                u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]])
            };
            pages.insert(PageNumber::new(word(0))?, page);
            if word(4) > 0 {
                self.ship_one(&std::mem::take(&mut pages), word(4))?;
                transactions += 1;
            }
        }
        ensure!(transactions == expected, "{transactions} transactions in the WAL, not {expected}");
        Ok(())
    }

    fn ship_one(
        &mut self,
        pages: &std::collections::BTreeMap<PageNumber, &[u8]>,
        commit: u32,
    ) -> Result<()> {
        let before = self.database.value();
        self.txid = self.txid.next();
        let header = self.header(commit, Some(before))?;
        let mut encoder = Encoder::new(Vec::new(), Cursor::new(Vec::new()), header)?;
        for (number, page) in pages {
            encoder.page(*number, page)?;
            self.take(*number, Some(page))?;
        }
        let encoded = encoder.finish(Some(self.database.value()))?;
        fs::write(self.path("0000"), encoded.out)?;
        Ok(())
    }

    /// Page `number` is this from now on.
    fn take(&mut self, number: PageNumber, page: Option<&[u8]>) -> Result<()> {
        let at = usize::try_from(number.get() - 1)?;
        if self.sums.len() <= at {
            self.sums.resize(at + 1, None);
        }
        let new = page.map(|page| page_checksum(number, page));
        for sum in [self.sums[at], new].into_iter().flatten() {
            self.database.toggle(sum);
        }
        self.sums[at] = new;
        Ok(())
    }

    fn header(&self, commit: u32, pre_apply: Option<Checksum>) -> Result<Header> {
        let after = SignedDuration::from_secs(i64::try_from(self.txid.get())?);
        Ok(Header {
            page_size: self.page_size,
            commit,
            txids: TxidRange::single(self.txid),
            timestamp: self.began.checked_add(after)?,
            checksummed: true,
            pre_apply,
            wal: None,
            node_id: 0,
        })
    }

    fn path(&self, level: &str) -> PathBuf {
        self.directory.join(level).join(TxidRange::single(self.txid).file_name())
    }
}
