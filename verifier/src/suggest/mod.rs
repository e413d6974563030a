//! A first `drill.toml`, proposed from a restored copy: what its tables, times and foreign keys show today.
//!
//! Everything proposed holds of the copy it was read from, with a margin, so that the first drills pass and a later
//! FAIL means something. It is a beginning for people to edit, not a judgement: nothing is written anywhere.
//!
//! Bounds: so many tables and columns are looked at, so many of the newest values; a query that takes long is
//! given up for its column only. Names come from the copy and are not trusted to be harmless in a text.

mod column;
mod text;

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::Connection;

use crate::checks;
use crate::record::Status;

pub use column::Newest;

/// Tables proposed: the largest.
const TABLES_AT_MOST: usize = 40;

/// What is known of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Rows it has; never 0.
    pub rows: u64,
    /// The column that moves with the clock, where one does.
    pub newest: Option<Newest>,
}

/// What a proposal is made from.
#[derive(Debug, Clone, PartialEq)]
pub struct Survey {
    /// Where the replica is.
    pub url: String,
    /// When it was looked at.
    pub at: Timestamp,
    /// How long the restore took.
    pub restore: Duration,
    /// Tables with rows, the largest first.
    pub tables: Vec<Table>,
    /// Tables with rows that were left out.
    pub left_out: usize,
    /// Tables without rows.
    pub empty: usize,
    /// Foreign keys that the schema has.
    pub foreign_keys: u64,
    /// What a drill would say of them today, where that is not a pass.
    pub foreign_keys_trouble: Option<String>,
}

impl Survey {
    /// Looks at a copy that was opened for checks ([`checks::open`]).
    ///
    /// # Errors
    /// SQLite's, where not even the tables can be listed.
    pub fn of(
        copy: &Connection,
        url: &str,
        at: Timestamp,
        restore: Duration,
    ) -> rusqlite::Result<Self> {
        let (_, counts) = checks::tables(copy, None, &[]);
        let mut tables: Vec<(String, u64)> =
            counts.into_iter().filter(|(name, _)| !name.starts_with("_litestream_")).collect();
        tables.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let filled = tables.iter().take_while(|(_, rows)| *rows > 0).count();
        let empty = tables.len() - filled;
        tables.truncate(filled.min(TABLES_AT_MOST));
        let left_out = filled - tables.len();
        let tables = tables
            .into_iter()
            .map(|(name, rows)| {
                let newest = column::newest(copy, &name, at);
                Table { name, rows, newest }
            })
            .collect();
        let foreign_keys = copy.query_row(
            "SELECT count(*) FROM (SELECT DISTINCT list.name, keys.id FROM pragma_table_list AS list, \
             pragma_foreign_key_list(list.name) AS keys WHERE list.schema = 'main')",
            (),
            |row| row.get::<_, i64>(0),
        )?;
        let check = checks::foreign_keys(copy);
        Ok(Self {
            url: url.to_owned(),
            at,
            restore,
            tables,
            left_out,
            empty,
            foreign_keys: u64::try_from(foreign_keys).unwrap_or_default(),
            foreign_keys_trouble: (check.status != Status::Pass)
                .then(|| check.detail.lines().next().unwrap_or_default().to_owned()),
        })
    }
}
