//! The ledger in an SQLite file: the default where there is no AWS.
//!
//! Every change is one transaction; a crash leaves the row or not. Expired rows go when a new one comes.
//! Records hold what assertions found in the data: a new file is open to its owner alone (SQLite gives its journal the same mode).

use std::collections::BTreeSet;
use std::fs::{DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use replica::documents::Receipt;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use crate::ledger::{Adopt, ByName, Entry, Ledger, LedgerError, Place, Versioned};
use crate::record::Record;
use crate::watch::WatchState;

/// Waits for another verifier's transaction for this long.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// The first version: what it keeps is keyed by the database's name.
const BY_NAME: &str = "
    CREATE TABLE IF NOT EXISTS drill(
        database TEXT NOT NULL, started_at TEXT NOT NULL, id TEXT NOT NULL,
        verdict TEXT NOT NULL, document TEXT NOT NULL, expires_at INTEGER NOT NULL,
        PRIMARY KEY (database, started_at, id)) STRICT;
    CREATE TABLE IF NOT EXISTS state(
        database TEXT PRIMARY KEY, version INTEGER NOT NULL DEFAULT 0,
        watch TEXT, last_pass TEXT) STRICT;
    CREATE TABLE IF NOT EXISTS known(url TEXT PRIMARY KEY) STRICT;";

/// What it did not have: which drill the last PASS was, of which URL; since when it fails; whose it has become; where
/// a drill was made.
const LATER_COLUMNS: [(&str, &str); 5] = [
    ("state", "last_pass_drill"),
    ("state", "last_pass_url"),
    ("state", "failing_since"),
    ("state", "adopted_by"),
    ("drill", "url"),
];

/// State by place. The table `state` stays as it was found.
const BY_PLACE: &str = "
    CREATE TABLE IF NOT EXISTS place(
        url TEXT PRIMARY KEY, database TEXT NOT NULL, version INTEGER NOT NULL DEFAULT 0,
        watch TEXT, last_pass TEXT, last_pass_drill TEXT, failing_since TEXT) STRICT;
    PRAGMA user_version = 2;";

/// Makes the tables, or brings those of an older version up to date.
fn prepare(file: &mut Connection) -> rusqlite::Result<()> {
    file.busy_timeout(BUSY_TIMEOUT)?;
    // IMMEDIATE: of two verifiers that start at once, one sees what the other did.
    let change = file.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version: i64 = change.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version < 2 {
        change.execute_batch(BY_NAME)?;
        for (table, column) in LATER_COLUMNS {
            let known = "SELECT EXISTS (SELECT 1 FROM pragma_table_info(?1) WHERE name = ?2)";
            if !change.query_row(known, [table, column], |row| row.get(0))? {
                change.execute_batch(&format!("ALTER TABLE {table} ADD COLUMN {column} TEXT"))?;
            }
        }
        change.execute_batch(BY_PLACE)?;
    }
    change.commit()
}

/// Creates the file where it is missing, closed to others; warns of an older one that is open to them.
fn close_to_others(path: &Path) -> std::io::Result<()> {
    // An existing one is not opened: closing it would drop SQLite's locks in this process.
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
        Ok(_) | Err(_) => {}
    }
    if std::fs::metadata(path)?.permissions().mode() & 0o007 != 0 {
        tracing::warn!(
            path = %path.display(),
            "every user of this machine may read the ledger\nHINT: chmod 600, unless that is meant"
        );
    }
    Ok(())
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
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory)
                .map_err(|error| unavailable("create directory", error.into()))?;
        }
        close_to_others(path).map_err(|error| unavailable("create", error.into()))?;
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

    /// One text of a place's rows.
    fn text_of(
        &self,
        place: &Place,
        action: &'static str,
        question: &str,
    ) -> Result<Option<String>, LedgerError> {
        let text: Option<Option<String>> = self.with(action, |file| {
            file.query_row(question, [place.url()], |row| row.get(0)).optional()
        })?;
        Ok(text.flatten())
    }

    fn parsed<T: serde::de::DeserializeOwned>(
        &self,
        place: &Place,
        text: Option<String>,
    ) -> Result<Option<T>, LedgerError> {
        let parse = |text: String| serde_json::from_str(&text);
        text.map(parse).transpose().map_err(|error| self.content(place.name(), error))
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
        let (url, database) = (entry.place.url(), &entry.record.database);
        let document = self.json(database, &entry.record)?;
        let last_pass =
            entry.last_pass.as_ref().map(|pass| self.json(database, pass)).transpose()?;
        self.with("record drill", |file| {
            let change = file.transaction()?;
            change.execute(
                "INSERT INTO drill(database, started_at, id, verdict, document, expires_at, url) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    database,
                    entry.sortable_start(),
                    entry.id,
                    entry.record.verdict.to_string(),
                    document,
                    entry.expires_at().as_second(),
                    url,
                ],
            )?;
            if let Some(last_pass) = last_pass {
                change.execute(
                    "INSERT INTO place(url, database, last_pass, last_pass_drill) \
                     VALUES (?1, ?2, ?3, ?4) ON CONFLICT (url) DO UPDATE \
                     SET last_pass = excluded.last_pass, last_pass_drill = excluded.last_pass_drill, \
                     failing_since = NULL",
                    params![url, database, last_pass, entry.id],
                )?;
            } else if entry.is_failing() {
                change.execute(
                    "INSERT INTO place(url, database, failing_since) VALUES (?1, ?2, ?3) \
                     ON CONFLICT (url) DO UPDATE \
                     SET failing_since = coalesce(failing_since, excluded.failing_since)",
                    params![url, database, entry.sortable_start()],
                )?;
            }
            let now = entry.record.started_at.as_second();
            change.execute("DELETE FROM drill WHERE expires_at < ?1", [now])?;
            change.commit()
        })
    }

    async fn last_pass(&self, place: &Place) -> Result<Option<Receipt>, LedgerError> {
        let text =
            self.text_of(place, "read last PASS", "SELECT last_pass FROM place WHERE url = ?1")?;
        self.parsed(place, text)
    }

    async fn last_pass_record(&self, place: &Place) -> Result<Option<Record>, LedgerError> {
        let text = self.text_of(
            place,
            "read record of last PASS",
            "SELECT drill.document FROM place JOIN drill ON drill.database = place.database \
             AND drill.id = place.last_pass_drill WHERE place.url = ?1",
        )?;
        self.parsed(place, text)
    }

    async fn failing_since(&self, place: &Place) -> Result<Option<Timestamp>, LedgerError> {
        let question = "SELECT failing_since FROM place WHERE url = ?1";
        let text = self.text_of(place, "read first failed drill", question)?;
        Ok(text.and_then(|text| text.parse().ok()))
    }

    async fn watch_state(&self, place: &Place) -> Result<Versioned, LedgerError> {
        let row: Option<(u64, Option<String>)> = self.with("read alarms", |file| {
            let question = "SELECT version, watch FROM place WHERE url = ?1";
            file.query_row(question, [place.url()], |row| {
                Ok((row.get::<_, i64>(0)?.unsigned_abs(), row.get(1)?))
            })
            .optional()
        })?;
        let (version, text) = row.unwrap_or_default();
        Ok(Versioned { version, state: self.parsed(place, text)? })
    }

    async fn replace_watch_state(
        &self,
        place: &Place,
        seen: u64,
        next: &WatchState,
    ) -> Result<bool, LedgerError> {
        let watch = self.json(place.name(), next)?;
        let seen = i64::try_from(seen).unwrap_or(i64::MAX);
        let changed = self.with("write alarms", |file| {
            file.execute(
                "INSERT INTO place(url, database, version, watch) SELECT ?1, ?4, 1, ?3 \
                 WHERE ?2 = 0 OR EXISTS (SELECT 1 FROM place WHERE url = ?1) \
                 ON CONFLICT (url) DO UPDATE \
                 SET version = version + 1, watch = excluded.watch WHERE version = ?2",
                params![place.url(), seen, watch, place.name()],
            )
        })?;
        Ok(changed == 1)
    }

    async fn by_name(&self, place: &Place) -> Result<Option<ByName>, LedgerError> {
        let row: Option<(Option<String>, Option<String>)> =
            self.with("read state by name", |file| {
                file.query_row(
                    "SELECT last_pass, last_pass_url FROM state WHERE database = ?1 \
                     AND adopted_by IS NULL AND NOT EXISTS (SELECT 1 FROM place WHERE url = ?2)",
                    [place.name(), place.url()],
                    |row| Ok((row.get(0)?, row.get(1)?)),
                )
                .optional()
            })?;
        let Some((pass, last_pass_url)) = row else { return Ok(None) };
        Ok(Some(ByName { last_pass: self.parsed(place, pass)?, last_pass_url }))
    }

    async fn adopt(&self, place: &Place, adopt: Adopt) -> Result<(), LedgerError> {
        let (pass, alarms) = (adopt != Adopt::Nothing, adopt == Adopt::Everything);
        self.with("write first state", |file| {
            let change = file.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let made = change.execute(
                "INSERT INTO place(url, database, version, watch, failing_since, last_pass, last_pass_drill) \
                 SELECT ?1, ?2, iif(?4, version, 0), iif(?4, watch, NULL), iif(?4, failing_since, NULL), \
                 iif(?3, last_pass, NULL), iif(?3, last_pass_drill, NULL) \
                 FROM state WHERE database = ?2 AND adopted_by IS NULL ON CONFLICT (url) DO NOTHING",
                params![place.url(), place.name(), pass, alarms],
            )?;
            if pass && made == 1 {
                let adopted = "UPDATE state SET adopted_by = ?1 WHERE database = ?2";
                change.execute(adopted, [place.url(), place.name()])?;
            }
            change.commit()
        })
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

    #[test]
    fn a_new_ledger_is_closed_to_others() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new/ledger.db");
        let ledger = SqliteLedger::open(&path).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(path.parent().unwrap()), mode(&path)), (0o700, 0o600));
        // SQLite's own files beside it, in the middle of a change.
        ledger
            .with("change", |file| {
                let change = file.transaction()?;
                change.execute("INSERT INTO known(url) VALUES ('file:///r/app')", [])?;
                let beside = std::fs::read_dir(path.parent().unwrap()).unwrap();
                let modes: Vec<u32> = beside.map(|entry| mode(&entry.unwrap().path())).collect();
                assert_eq!(modes, [0o600, 0o600], "the journal too");
                Ok(())
            })
            .unwrap();
    }

    #[tokio::test]
    async fn alarms_change_only_by_the_version_that_was_read() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = SqliteLedger::open(&directory.path().join("new/ledger.db")).unwrap();
        let other = SqliteLedger::open(&directory.path().join("new/ledger.db")).unwrap();
        let first = WatchState::new("2026-11-22T09:00:00Z".parse().unwrap());
        let second = first.claimed(first.first_seen, "second");
        let app = &Place::new("file:///r/app", "app");
        assert_eq!(ledger.watch_state(app).await.unwrap(), Versioned { version: 0, state: None });
        assert!(!ledger.replace_watch_state(app, 3, &first).await.unwrap(), "no row has version 3");
        assert!(ledger.replace_watch_state(app, 0, &first).await.unwrap());
        assert!(!other.replace_watch_state(app, 0, &second).await.unwrap(), "came too late");
        assert!(other.replace_watch_state(app, 1, &second).await.unwrap());
        assert!(!ledger.replace_watch_state(app, 1, &first).await.unwrap(), "came too late");
        let read = ledger.watch_state(app).await.unwrap();
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
        let place = Place::new(url, "app");
        Entry { id: id.to_owned(), place, record, latest: true, last_pass }
    }

    #[tokio::test]
    async fn the_last_pass_is_remembered_whole_and_since_when_none_follows() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = SqliteLedger::open(&directory.path().join("ledger.db")).unwrap();
        let a = Place::new("file:///a/app", "app");
        let same = || async { ledger.last_pass_record(&a).await.unwrap() };
        let since = || async { ledger.failing_since(&a).await.unwrap() };
        let pass = entry("1", a.url(), "2026-11-22T09:00:00Z", Verdict::Pass);
        ledger.append(&pass).await.unwrap();
        let first = entry("2", a.url(), "2026-11-22T10:00:00Z", Verdict::Inconclusive);
        ledger.append(&first).await.unwrap();
        let second = entry("3", a.url(), "2026-11-22T11:00:00Z", Verdict::Fail);
        ledger.append(&second).await.unwrap();
        assert_eq!(same().await, Some(pass.record), "what fails does not replace it");
        assert_eq!(since().await, Some(first.record.started_at));

        let past = Entry { latest: false, ..second };
        let again = entry("4", a.url(), "2026-11-22T12:00:00Z", Verdict::Pass);
        ledger.append(&again).await.unwrap();
        ledger.append(&Entry { id: "5".to_owned(), ..past }).await.unwrap();
        assert_eq!((same().await, since().await), (Some(again.record), None));
    }

    #[tokio::test]
    async fn two_databases_of_one_name_share_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = SqliteLedger::open(&directory.path().join("ledger.db")).unwrap();
        let [a, b] = ["file:///a/app", "file:///b/app"].map(|url| Place::new(url, "app"));
        ledger.append(&entry("1", a.url(), "2026-11-22T09:00:00Z", Verdict::Pass)).await.unwrap();
        ledger.append(&entry("2", b.url(), "2026-11-22T10:00:00Z", Verdict::Fail)).await.unwrap();
        assert!(ledger.last_pass(&a).await.unwrap().is_some());
        assert_eq!(ledger.failing_since(&a).await.unwrap(), None);
        assert_eq!(ledger.last_pass(&b).await.unwrap(), None);
        assert_eq!(ledger.last_pass_record(&b).await.unwrap(), None);
        assert!(ledger.failing_since(&b).await.unwrap().is_some());
        let state = WatchState::new("2026-11-22T09:00:00Z".parse().unwrap());
        assert!(ledger.replace_watch_state(&a, 0, &state).await.unwrap());
        assert!(ledger.watch_state(&b).await.unwrap().state.is_none());
    }

    /// A ledger of the version that kept state by name, with a PASS of `file:///a/app` and an alarm.
    fn older(path: &Path) {
        let old = Connection::open(path).unwrap();
        old.execute_batch(BY_NAME).unwrap();
        for (table, column) in &LATER_COLUMNS[..3] {
            old.execute_batch(&format!("ALTER TABLE {table} ADD COLUMN {column} TEXT")).unwrap();
        }
        let Entry { record, last_pass, .. } =
            entry("1", "file:///a/app", "2026-11-22T09:00:00Z", Verdict::Pass);
        let json = |value: serde_json::Value| value.to_string();
        old.execute(
            "INSERT INTO drill VALUES ('app', '2026', '1', 'PASS', ?1, 4000000000)",
            [json(serde_json::to_value(record).unwrap())],
        )
        .unwrap();
        let watch = WatchState::new("2026-11-22T08:00:00Z".parse().unwrap());
        old.execute(
            "INSERT INTO state VALUES ('app', 3, ?1, ?2, '1', 'file:///a/app/', '2026-11-22T10:00:00Z')",
            [
                json(serde_json::to_value(watch).unwrap()),
                json(serde_json::to_value(last_pass).unwrap()),
            ],
        )
        .unwrap();
    }

    #[tokio::test]
    async fn what_an_older_version_kept_by_name_becomes_one_places_and_is_not_lost() {
        for adopt in [Adopt::Everything, Adopt::Pass] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("ledger.db");
            older(&path);
            let ledger = SqliteLedger::open(&path).unwrap();
            let [a, b] = ["file:///a/app", "file:///b/app"].map(|url| Place::new(url, "app"));
            assert!(ledger.last_pass(&a).await.unwrap().is_none(), "not before it is decided");
            let by_name = ledger.by_name(&a).await.unwrap().unwrap();
            assert_eq!(by_name.last_pass_url.as_deref(), Some("file:///a/app/"));

            ledger.adopt(&b, Adopt::Nothing).await.unwrap();
            assert!(ledger.last_pass(&b).await.unwrap().is_none());
            assert!(ledger.by_name(&b).await.unwrap().is_none(), "asked once");
            ledger.adopt(&a, adopt).await.unwrap();
            drop(ledger);
            let ledger = SqliteLedger::open(&path).unwrap();
            assert!(ledger.last_pass(&a).await.unwrap().is_some());
            assert_eq!(ledger.last_pass_record(&a).await.unwrap().unwrap().tables["orders"], 79);
            let state = ledger.watch_state(&a).await.unwrap();
            let all = adopt == Adopt::Everything;
            assert_eq!((state.version, state.state.is_some()), (if all { 3 } else { 0 }, all));
            assert_eq!(ledger.failing_since(&a).await.unwrap().is_some(), all);
            let third = Place::new("file:///c/app", "app");
            assert!(ledger.by_name(&third).await.unwrap().is_none(), "it has an owner");
            ledger.adopt(&third, Adopt::Everything).await.unwrap();
            assert!(ledger.last_pass(&third).await.unwrap().is_none());
        }
    }
}
