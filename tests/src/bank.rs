//! A database whose whole content follows from one number: how many transactions were committed.
//!
//! Transaction k moves money between two accounts, rewrites one entry (now and then hundreds), counts
//! itself and continues a hash chain, all drawn from k alone. So a copy either is exactly the state after
//! some k, or it is torn, reordered or invented, and [`Ledger::check`] says where.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rusqlite::{Connection, OpenFlags, TransactionBehavior, params};

/// How long a connection waits for a lock: far above a pause of the machine, so that longer is the shipper's doing.
pub const BUSY: Duration = Duration::from_secs(60);

/// Accounts, with [`OPENING`] each at the beginning.
const ACCOUNTS: u64 = 500;
const OPENING: i64 = 1_000;
/// Entries, rewritten in turn, so that the database stays small.
const ENTRIES: u64 = 2_000;
/// Every so many transactions comes a wide one, which rewrites [`WIDE`] entries.
const WIDE_EVERY: u64 = 211;
const WIDE: u64 = 300;

/// Creates the database in WAL mode, with no transaction in it.
///
/// # Errors
/// SQLite refuses.
pub fn create(path: &Path, page_size: u32, auto_vacuum: u32) -> Result<()> {
    let db = Connection::open(path).context("create database")?;
    db.pragma_update(None, "page_size", page_size).context("set page size")?;
    db.pragma_update(None, "auto_vacuum", auto_vacuum).context("set auto_vacuum")?;
    let mode: String =
        db.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).context("switch to WAL")?;
    ensure!(mode == "wal", "journal mode is {mode}");
    db.execute_batch(
        "BEGIN;
         CREATE TABLE head (id INTEGER PRIMARY KEY, count INTEGER NOT NULL, chain INTEGER NOT NULL);
         CREATE TABLE account (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL, touched INTEGER NOT NULL);
         CREATE TABLE entry (id INTEGER PRIMARY KEY, k INTEGER NOT NULL, filler BLOB NOT NULL);
         INSERT INTO head VALUES (1, 0, 0);",
    )
    .context("create tables")?;
    for id in 0..ACCOUNTS {
        let row = params![id.cast_signed(), OPENING];
        db.execute("INSERT INTO account VALUES (?1, ?2, 0)", row).context("open account")?;
    }
    db.execute_batch("COMMIT").context("commit")
}

/// Transactions committed in a live database, as a reader beside the application sees it.
///
/// # Errors
/// SQLite refuses.
pub fn count(path: &Path) -> Result<u64> {
    let db = Connection::open(path).context("open database")?;
    db.busy_timeout(BUSY).context("set busy timeout")?;
    Ok(head(&db)?.0)
}

/// Commits the next transaction, and gives its number.
///
/// # Errors
/// SQLite refuses; the transaction is then rolled back.
pub fn transact(db: &mut Connection) -> Result<u64> {
    let transaction =
        db.transaction_with_behavior(TransactionBehavior::Immediate).context("begin")?;
    let (before, chain) = head(&transaction)?;
    let k = before + 1;
    let Change { from, to, amount } = Change::of(k);
    {
        let mut account = transaction
            .prepare_cached("UPDATE account SET balance = balance + ?2, touched = ?3 WHERE id = ?1")
            .context("prepare")?;
        let number = k.cast_signed();
        account.execute(params![from.cast_signed(), -amount, number]).context("debit")?;
        account.execute(params![to.cast_signed(), amount, number]).context("credit")?;
        let mut entry = transaction
            .prepare_cached("INSERT OR REPLACE INTO entry VALUES (?1, ?2, ?3)")
            .context("prepare")?;
        for id in entries(k) {
            entry.execute(params![id.cast_signed(), number, filler(id, k)]).context("enter")?;
        }
        transaction
            .prepare_cached("UPDATE head SET count = ?1, chain = ?2")
            .context("prepare")?
            .execute(params![number, next_chain(chain, k).cast_signed()])
            .context("count")?;
    }
    transaction.commit().context("commit")?;
    Ok(k)
}

fn head(db: &Connection) -> Result<(u64, u64)> {
    let (count, chain): (i64, i64) = db
        .prepare_cached("SELECT count, chain FROM head")
        .context("prepare")?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
        .context("read head")?;
    Ok((count.cast_unsigned(), chain.cast_unsigned()))
}

/// The money that transaction k moves.
struct Change {
    from: u64,
    to: u64,
    amount: i64,
}

impl Change {
    fn of(k: u64) -> Self {
        let random = mix(k);
        let amount = i64::from(u8::try_from(random >> 56).unwrap_or_default());
        Self { from: random % ACCOUNTS, to: (random >> 20) % ACCOUNTS, amount }
    }
}

/// The entries that transaction k rewrites.
fn entries(k: u64) -> impl Iterator<Item = u64> {
    let width = if k.is_multiple_of(WIDE_EVERY) { WIDE } else { 1 };
    (0..width).map(move |at| (k + at) % ENTRIES)
}

fn filler(id: u64, k: u64) -> Vec<u8> {
    let mut random = mix(id ^ k.rotate_left(32));
    let length = if random.is_multiple_of(61) { 9_000 } else { random % 700 };
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < length {
        random = mix(random);
        // Half compresses, half does not.
        bytes.extend_from_slice(&random.to_le_bytes());
        bytes.extend_from_slice(b"compress");
    }
    bytes
}

fn next_chain(chain: u64, k: u64) -> u64 {
    mix(chain.wrapping_mul(31).wrapping_add(k))
}

/// SplitMix64.
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// What the database holds after `count` transactions.
#[derive(Debug, Clone)]
pub struct Ledger {
    count: u64,
    chain: u64,
    accounts: Vec<(i64, u64)>,
    entries: Vec<u64>,
}

impl Default for Ledger {
    fn default() -> Self {
        let accounts = vec![(OPENING, 0); usize::try_from(ACCOUNTS).unwrap_or_default()];
        let entries = vec![0; usize::try_from(ENTRIES).unwrap_or_default()];
        Self { count: 0, chain: 0, accounts, entries }
    }
}

impl Ledger {
    /// Requires that the database file at `path` (no `-wal` beside it) is sound and is the state after some
    /// number of transactions; gives that number. Cheapest when called with growing states.
    ///
    /// # Errors
    /// It is neither; the message says what is wrong.
    pub fn check(&mut self, path: &Path) -> Result<u64> {
        let url = format!("file:{}?immutable=1", path.display());
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
        let db = Connection::open_with_flags(url, flags).context("open copy")?;
        let verdict: String = db
            .query_row("PRAGMA integrity_check", [], |row| row.get(0))
            .context("check integrity")?;
        ensure!(verdict == "ok", "integrity_check: {verdict}");
        let (count, chain) = head(&db)?;
        self.be(count);
        ensure!(chain == self.chain, "count {count} with the hash chain of another history");
        let sum: i64 = db.query_row("SELECT sum(balance) FROM account", [], |row| row.get(0))?;
        ensure!(sum == OPENING * ACCOUNTS.cast_signed(), "count {count}: money {sum}");
        let mut statement = db.prepare("SELECT balance, touched FROM account ORDER BY id")?;
        let accounts: Vec<(i64, u64)> = statement
            .query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned())))?
            .collect::<Result<_, _>>()?;
        for (id, (actual, expected)) in accounts.iter().zip(&self.accounts).enumerate() {
            ensure!(
                actual == expected,
                "count {count}: account {id}: {actual:?}, not {expected:?}"
            );
        }
        ensure!(
            accounts.len() == self.accounts.len(),
            "count {count}: {} accounts",
            accounts.len()
        );
        self.check_entries(&db)?;
        Ok(count)
    }

    fn check_entries(&self, db: &Connection) -> Result<()> {
        let count = self.count;
        let mut statement = db.prepare("SELECT id, k, filler FROM entry ORDER BY id")?;
        let mut rows = statement.query([])?;
        let mut seen = 0;
        while let Some(row) = rows.next()? {
            let id = row.get::<_, i64>(0)?.cast_unsigned();
            let k = row.get::<_, i64>(1)?.cast_unsigned();
            let expected = usize::try_from(id).ok().and_then(|id| self.entries.get(id));
            ensure!(Some(&k) == expected, "count {count}: entry {id} of {k}, not {expected:?}");
            let bytes: Vec<u8> = row.get(2)?;
            ensure!(bytes == filler(id, k), "count {count}: filler of entry {id}");
            seen += 1;
        }
        let expected = self.entries.iter().filter(|k| **k > 0).count();
        ensure!(seen == expected, "count {count}: {seen} entries, not {expected}");
        Ok(())
    }

    /// Becomes the state after `count` transactions.
    fn be(&mut self, count: u64) {
        if count < self.count {
            *self = Self::default();
        }
        for k in self.count + 1..=count {
            let Change { from, to, amount } = Change::of(k);
            for (id, change) in [(from, -amount), (to, amount)] {
                if let Some(account) =
                    usize::try_from(id).ok().and_then(|id| self.accounts.get_mut(id))
                {
                    *account = (account.0 + change, k);
                }
            }
            for id in entries(k) {
                if let Some(entry) =
                    usize::try_from(id).ok().and_then(|id| self.entries.get_mut(id))
                {
                    *entry = k;
                }
            }
            self.chain = next_chain(self.chain, k);
        }
        self.count = count;
    }
}
