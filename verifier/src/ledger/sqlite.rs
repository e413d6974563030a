//! The ledger in an SQLite file: the default where there is no AWS.
//!
//! Every change is one transaction; a crash leaves the row or not. Expired rows go when a new one comes.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use replica::documents::Receipt;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use crate::ledger::{Entry, Ledger, LedgerError, Versioned};
use crate::record::Record;
use crate::watch::WatchState;

/// Waits for another verifier's transaction for this long.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS drill(
        database TEXT NOT NULL, started_at TEXT NOT NULL, id TEXT NOT NULL,
        verdict TEXT NOT NULL, document TEXT NOT NULL, expires_at INTEGER NOT NULL,
        PRIMARY KEY (database, started_at, id)) STRICT;
    CREATE TABLE IF NOT EXISTS state(
        database TEXT PRIMARY KEY, version INTEGER NOT NULL DEFAULT 0,
        watch TEXT, last_pass TEXT) STRICT;
    CREATE TABLE IF NOT EXISTS known(url TEXT PRIMARY KEY) STRICT;";

/// What the first version's `state` did not have: which drill the last PASS was, of which URL; since when it fails.
const LATER_STATE_COLUMNS: [&str; 3] = ["last_pass_drill", "last_pass_url", "failing_since"];

/// Makes the tables, or brings those of an older version up to date.
fn prepare(file: &mut Connection) -> rusqlite::Result<()> {
    file.busy_timeout(BUSY_TIMEOUT)?;
    // IMMEDIATE: of two verifiers that start at once, one sees what the other did.
    let change = file.transaction_with_behavior(TransactionBehavior::Immediate)?;
    change.execute_batch(SCHEMA)?;
    for column in LATER_STATE_COLUMNS {
        let known = "SELECT EXISTS (SELECT 1 FROM pragma_table_info('state') WHERE name = ?1)";
        if !change.query_row(known, [column], |row| row.get(0))? {
            change.execute_batch(&format!("ALTER TABLE state ADD COLUMN {column} TEXT"))?;
        }
    }
    change.commit()
}

/// A ledger file.
#[derive(Debug)]
pub struct SqliteLedger {
    url: String,
    file: Mutex<Connection>,
}

impl SqliteLedger {
    /// Opens (or creates, with its directory) the file at `path`.
    ///
    /// # Errors
    /// The file cannot be created, or is no ledger.
    pub fn open(path: &Path) -> Result<Self, LedgerError> {
        let url = format!("sqlite://{}", path.display());
        let unavailable = |action, source: Box<dyn std::error::Error + Send + Sync>| {
            LedgerError::Unavailable { ledger: url.clone(), action, source }
        };
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)
                .map_err(|error| unavailable("create directory", error.into()))?;
        }
        let mut file = Connection::open(path).map_err(|error| unavailable("open", error.into()))?;
        prepare(&mut file).map_err(|error| unavailable("prepare tables", error.into()))?;
        Ok(Self { url, file: Mutex::new(file) })
    }

    fn with<T>(
        &self,
        action: &'static str,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, LedgerError> {
        // A panic inside a transaction rolled it back: the connection is as good as before.
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut file).map_err(|error| LedgerError::Unavailable {
            ledger: self.url.clone(),
            action,
            source: error.into(),
        })
    }

    fn content(&self, database: &str, source: serde_json::Error) -> LedgerError {
        LedgerError::Content { ledger: self.url.clone(), database: database.to_owned(), source }
    }

    fn json<T: serde::Serialize>(&self, database: &str, value: &T) -> Result<String, LedgerError> {
        serde_json::to_string(value).map_err(|error| self.content(database, error))
    }
}

#[async_trait]
impl Ledger for SqliteLedger {
    fn url(&self) -> String {
        self.url.clone()
    }

    async fn append(&self, entry: &Entry) -> Result<(), LedgerError> {
        let database = &entry.record.database;
        let document = self.json(database, &entry.record)?;
        let last_pass =
            entry.last_pass.as_ref().map(|pass| self.json(database, pass)).transpose()?;
        self.with("record drill", |file| {
            let change = file.transaction()?;
            change.execute(
                "INSERT INTO drill(database, started_at, id, verdict, document, expires_at) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    database,
                    entry.sortable_start(),
                    entry.id,
                    entry.record.verdict.to_string(),
                    document,
                    entry.expires_at().as_second(),
                ],
            )?;
            if let Some(last_pass) = last_pass {
                change.execute(
                    "INSERT INTO state(database, last_pass, last_pass_drill, last_pass_url) \
                     VALUES (?1, ?2, ?3, ?4) ON CONFLICT (database) DO UPDATE \
                     SET last_pass = excluded.last_pass, last_pass_drill = excluded.last_pass_drill, \
                     last_pass_url = excluded.last_pass_url, failing_since = NULL",
                    params![database, last_pass, entry.id, entry.url],
                )?;
            } else if entry.is_failing() {
                change.execute(
                    "INSERT INTO state(database, failing_since) VALUES (?1, ?2) \
                     ON CONFLICT (database) DO UPDATE \
                     SET failing_since = coalesce(failing_since, excluded.failing_since)",
                    params![database, entry.sortable_start()],
                )?;
            }
            let now = entry.record.started_at.as_second();
            change.execute("DELETE FROM drill WHERE expires_at < ?1", [now])?;
            change.commit()
        })
    }

    async fn last_pass(&self, database: &str) -> Result<Option<Receipt>, LedgerError> {
        let text: Option<Option<String>> = self.with("read last PASS", |file| {
            file.query_row("SELECT last_pass FROM state WHERE database = ?1", [database], |row| {
                row.get(0)
            })
            .optional()
        })?;
        let parse = |text: String| {
            serde_json::from_str(&text).map_err(|error| self.content(database, error))
        };
        text.flatten().map(parse).transpose()
    }

    async fn last_pass_record(
        &self,
        database: &str,
        url: &str,
    ) -> Result<Option<Record>, LedgerError> {
        let text: Option<String> = self.with("read record of last PASS", |file| {
            file.query_row(
                "SELECT drill.document FROM state JOIN drill ON drill.database = state.database \
                 AND drill.id = state.last_pass_drill \
                 WHERE state.database = ?1 AND state.last_pass_url = ?2",
                [database, url],
                |row| row.get(0),
            )
            .optional()
        })?;
        let parse = |text: String| {
            serde_json::from_str(&text).map_err(|error| self.content(database, error))
        };
        text.map(parse).transpose()
    }

    async fn failing_since(&self, database: &str) -> Result<Option<Timestamp>, LedgerError> {
        let text: Option<Option<String>> = self.with("read first failed drill", |file| {
            file.query_row(
                "SELECT failing_since FROM state WHERE database = ?1",
                [database],
                |row| row.get(0),
            )
            .optional()
        })?;
        Ok(text.flatten().and_then(|text| text.parse().ok()))
    }

    async fn watch_state(&self, database: &str) -> Result<Versioned, LedgerError> {
        let row: Option<(u64, Option<String>)> = self.with("read alarms", |file| {
            file.query_row(
                "SELECT version, watch FROM state WHERE database = ?1",
                [database],
                |row| Ok((row.get::<_, i64>(0)?.unsigned_abs(), row.get(1)?)),
            )
            .optional()
        })?;
        let (version, text) = row.unwrap_or_default();
        let parse = |text: String| {
            serde_json::from_str(&text).map_err(|error| self.content(database, error))
        };
        Ok(Versioned { version, state: text.map(parse).transpose()? })
    }

    async fn replace_watch_state(
        &self,
        database: &str,
        seen: u64,
        next: &WatchState,
    ) -> Result<bool, LedgerError> {
        let watch = self.json(database, next)?;
        let seen = i64::try_from(seen).unwrap_or(i64::MAX);
        let changed = self.with("write alarms", |file| {
            file.execute(
                "INSERT INTO state(database, version, watch) SELECT ?1, 1, ?3 \
                 WHERE ?2 = 0 OR EXISTS (SELECT 1 FROM state WHERE database = ?1) \
                 ON CONFLICT (database) DO UPDATE \
                 SET version = version + 1, watch = excluded.watch WHERE version = ?2",
                params![database, seen, watch],
            )
        })?;
        Ok(changed == 1)
    }

    async fn known_databases(&self) -> Result<BTreeSet<String>, LedgerError> {
        self.with("read known databases", |file| {
            let mut known = file.prepare("SELECT url FROM known")?;
            known.query_map([], |row| row.get(0))?.collect()
        })
    }

    async fn remember_databases(&self, urls: &[String]) -> Result<(), LedgerError> {
        self.with("write known databases", |file| {
            let change = file.transaction()?;
            for url in urls {
                change.execute("INSERT OR IGNORE INTO known(url) VALUES (?1)", [url])?;
            }
            change.commit()
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::drill::{Asked, Draft};
    use crate::record::Verdict;

    #[tokio::test]
    async fn alarms_change_only_by_the_version_that_was_read() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = SqliteLedger::open(&directory.path().join("new/ledger.db")).unwrap();
        let other = SqliteLedger::open(&directory.path().join("new/ledger.db")).unwrap();
        let first = WatchState::new("2026-11-22T09:00:00Z".parse().unwrap());
        let second = first.claimed(first.first_seen, "second");
        assert_eq!(ledger.watch_state("app").await.unwrap(), Versioned { version: 0, state: None });
        assert!(
            !ledger.replace_watch_state("app", 3, &first).await.unwrap(),
            "no row has version 3"
        );
        assert!(ledger.replace_watch_state("app", 0, &first).await.unwrap());
        assert!(!other.replace_watch_state("app", 0, &second).await.unwrap(), "came too late");
        assert!(other.replace_watch_state("app", 1, &second).await.unwrap());
        assert!(!ledger.replace_watch_state("app", 1, &first).await.unwrap(), "came too late");
        let read = ledger.watch_state("app").await.unwrap();
        assert_eq!(read, Versioned { version: 2, state: Some(second) });
    }

    fn entry(id: &str, url: &str, at: &str, verdict: Verdict) -> Entry {
        let mut record = Draft::new("app", &Asked::LATEST, at.parse().unwrap()).record;
        record.tables.insert("orders".to_owned(), 79);
        record.verdict = verdict;
        let pass = serde_json::json!({
            "version": 1, "drill_id": id, "generation": null, "txid": "1a",
            "restored_at": at, "finished_at": at,
        });
        let last_pass = (verdict == Verdict::Pass).then(|| serde_json::from_value(pass).unwrap());
        Entry { id: id.to_owned(), url: url.to_owned(), record, latest: true, last_pass }
    }

    #[tokio::test]
    async fn the_last_pass_is_remembered_whole_and_since_when_none_follows() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger.db");
        let old = Connection::open(&path).unwrap();
        old.execute_batch(SCHEMA).unwrap();
        old.execute_batch("INSERT INTO state(database, version) VALUES ('app', 3)").unwrap();
        let ledger = SqliteLedger::open(&path).unwrap();
        let same = || async { ledger.last_pass_record("app", "file:///a").await.unwrap() };
        let since = || async { ledger.failing_since("app").await.unwrap() };
        assert_eq!((same().await, since().await), (None, None), "of an older version");
        assert_eq!(ledger.watch_state("app").await.unwrap().version, 3);

        let pass = entry("1", "file:///a", "2026-11-22T09:00:00Z", Verdict::Pass);
        ledger.append(&pass).await.unwrap();
        let first = entry("2", "file:///a", "2026-11-22T10:00:00Z", Verdict::Inconclusive);
        ledger.append(&first).await.unwrap();
        let second = entry("3", "file:///a", "2026-11-22T11:00:00Z", Verdict::Fail);
        ledger.append(&second).await.unwrap();
        assert_eq!(same().await, Some(pass.record), "what fails does not replace it");
        assert_eq!(ledger.last_pass_record("app", "file:///b").await.unwrap(), None);
        assert_eq!(since().await, Some(first.record.started_at));

        let past = Entry { latest: false, ..second };
        let again = entry("4", "file:///a", "2026-11-22T12:00:00Z", Verdict::Pass);
        ledger.append(&again).await.unwrap();
        ledger.append(&Entry { id: "5".to_owned(), ..past }).await.unwrap();
        assert_eq!((same().await, since().await), (Some(again.record), None));
    }
}
