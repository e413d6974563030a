//! The database itself: which of its pages to aim at, and copies of it that SQLite changed.
//!
//! The database is somebody's, and not trusted: no trigger runs, the schema may call no unsafe function.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::Context;
use replica::format::{DatabaseChecksum, PageNumber, PageSize, page_checksum};
use rusqlite::Connection;
use rusqlite::config::DbConfig;

use crate::checks;
use crate::sabotage::rewrite::each_page;
use crate::sabotage::scratch::{Scene, Scratch};

/// A copy of the database after a change; removed when dropped.
#[derive(Debug)]
pub(super) struct Changed {
    path: PathBuf,
    page_size: PageSize,
    /// Pages that differ from the undamaged database, ascending.
    pub(super) pages: Vec<u32>,
    /// Pages of the database.
    pub(super) count: u32,
}

impl Changed {
    /// Lets `change` work on a copy; `None` where it changed nothing.
    pub(super) fn by(
        scene: &Scene,
        change: impl FnOnce(&Connection) -> rusqlite::Result<bool>,
    ) -> anyhow::Result<Option<Self>> {
        let path = scene.database.with_file_name("changed.db");
        fs::copy(&scene.database, &path).context("copy database")?;
        let page_size = scene.newest.page_size;
        let mut changed = Self { path, page_size, pages: Vec::new(), count: 0 };
        let done = {
            let database = Connection::open(&changed.path)?;
            database.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
            database.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
            database.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
            database.pragma_update(None, "cache_size", -8192)?;
            change(&database)?
        };
        changed.compare(scene)?;
        Ok((done && !changed.pages.is_empty()).then_some(changed))
    }

    fn compare(&mut self, scene: &Scene) -> anyhow::Result<()> {
        let length = self.page_size.len();
        let mut before = BufReader::new(File::open(&scene.database)?);
        let mut after = BufReader::new(File::open(&self.path)?);
        let (mut old, mut new) = (vec![0; length], vec![0; length]);
        self.count =
            u32::try_from(fs::metadata(&self.path)?.len() / u64::from(self.page_size.get()))?;
        for number in 1..=self.count {
            after.read_exact(&mut new)?;
            let had = before.read_exact(&mut old).is_ok();
            if (!had || old != new) && number != self.page_size.lock_page().get() {
                self.pages.push(number);
            }
        }
        Ok(())
    }

    /// Reads a page of the changed database.
    pub(super) fn page(&self, number: u32, page: &mut [u8]) -> anyhow::Result<()> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(u64::from(number - 1) * u64::from(self.page_size.get())))?;
        Ok(file.read_exact(page)?)
    }
}

impl Changed {
    /// Opens the changed database's file.
    pub(super) fn open(&self) -> io::Result<File> {
        File::open(&self.path)
    }

    /// Its database checksum.
    pub(super) fn checksum(&self) -> anyhow::Result<DatabaseChecksum> {
        sum_of_file(&self.path, self.page_size)
    }
}

/// The database checksum of a database file.
pub(super) fn sum_of_file(path: &Path, size: PageSize) -> anyhow::Result<DatabaseChecksum> {
    let mut file = BufReader::new(File::open(path)?);
    let (mut sum, mut page) = (DatabaseChecksum::default(), vec![0; size.len()]);
    let mut number = PageNumber::new(1)?;
    while file.read_exact(&mut page).is_ok() {
        if number != size.lock_page() {
            sum.toggle(page_checksum(number, &page));
        }
        number = PageNumber::new(number.get() + 1)?;
    }
    Ok(sum)
}

impl Drop for Changed {
    fn drop(&mut self) {
        // The whole directory goes later; this only spares the room.
        let _ = fs::remove_file(&self.path);
    }
}

/// The root page of an ordinary table with rows that is not page 1; `None` where there is none.
pub(super) fn root_page(scene: &Scene) -> anyhow::Result<Option<u32>> {
    let database = checks::open(&scene.database, None)?;
    for table in tables(&database)? {
        let sql = "SELECT rootpage FROM sqlite_schema WHERE name = ?1 AND type = 'table'";
        let root: u32 = database.query_row(sql, [&table], |row| row.get(0))?;
        if root > 1 && has_rows(&database, &table) {
            return Ok(Some(root));
        }
    }
    Ok(None)
}

/// Ordinary tables of the application, by name.
pub(super) fn tables(database: &Connection) -> rusqlite::Result<Vec<String>> {
    let sql = "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table'
               AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name";
    let mut names = database.prepare(sql)?;
    names.query_map((), |row| row.get(0))?.collect()
}

/// Of them, those that no foreign key leads to: without their rows, every other row still has its parent.
pub(super) fn childless_tables(database: &Connection) -> rusqlite::Result<Vec<String>> {
    let all = tables(database)?;
    let sql = "SELECT lower(\"table\") FROM pragma_foreign_key_list(?1)";
    let mut parents = Vec::new();
    for table in &all {
        let mut keys = database.prepare(sql)?;
        let of: Vec<String> =
            keys.query_map([table], |row| row.get(0))?.collect::<Result<_, _>>()?;
        parents.extend(of);
    }
    Ok(all.into_iter().filter(|table| !parents.contains(&table.to_lowercase())).collect())
}

pub(super) fn has_rows(database: &Connection, table: &str) -> bool {
    let sql = format!("SELECT 1 FROM {} LIMIT 1", quoted(table));
    database.query_row(&sql, (), |_| Ok(())).is_ok()
}

/// `"name"`, for SQL.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// In which file of the chain (by position) the restored copy of each of `pages` is.
pub(super) fn newest_holders(
    scratch: &Scratch<'_>,
    pages: &[u32],
) -> anyhow::Result<BTreeMap<usize, Vec<u32>>> {
    let mut wanted: Vec<u32> = pages.to_vec();
    let mut holders: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
    for (position, file) in scratch.scene().files.iter().enumerate().rev() {
        if wanted.is_empty() {
            break;
        }
        each_page(&scratch.path(file), |number, _| {
            if wanted.binary_search(&number).is_ok() {
                holders.entry(position).or_default().push(number);
            }
        })?;
        if let Some(found) = holders.get(&position) {
            wanted.retain(|number| found.binary_search(number).is_err());
        }
    }
    Ok(holders)
}
