//! Other content in a database that is sound by itself: changed behind the chain's back, or by a transaction that was
//! shipped as any other (an application's fault, or an attacker's).

use replica::format::{Encoder, Header, PageNumber, TxidRange};
use rusqlite::Connection;

use super::{Applied, Damage, Expected, NO_CHECKSUMS};
use crate::checks::{self, MANY_ROWS};
use crate::sabotage::rewrite::{Page, Rewrite};
use crate::sabotage::scratch::{Scene, Scratch};
use crate::sabotage::source::{
    Changed, childless_tables, has_rows, newest_holders, quoted, sum_of_file, tables,
};

pub(super) const NOTHING_CHANGED: &str = "the database has nothing that could be changed so";

pub(super) fn damages(scene: &Scene) -> Vec<Damage> {
    let unnoticed =
        Expected::by_checksums(scene, Expected::CHAIN, Expected::NotCatchable(NO_CHECKSUMS));
    vec![
        Damage::new("one value changed, checksums right", unnoticed, |scratch| {
            let Some(changed) = Changed::by(scratch.scene(), change_value)? else {
                return Applied::not(NOTHING_CHANGED);
            };
            replace(scratch, &changed)
        }),
        Damage::new("every row of the largest table deleted", rows_deleted(scene), |scratch| {
            commit(scratch, delete_rows)
        }),
        Damage::new("a table dropped", SCHEMA, |scratch| {
            commit(scratch, |database| match largest(database)? {
                Some((_, table)) => drop_table(database, &table).map(|()| true),
                None => Ok(false),
            })
        }),
        Damage::new("every table dropped", SCHEMA, |scratch| {
            commit(scratch, |database| {
                let tables = tables(database)?;
                for table in &tables {
                    drop_table(database, table)?;
                }
                Ok(!tables.is_empty())
            })
        }),
    ]
}

const SCHEMA: Expected = Expected::Caught(&["schema"]);
const SMALL_TABLES: &str =
    "not catchable without a [[table]] rule in drill.toml: a small table may run empty";

/// The drill by itself minds that a table is emptied where it had many rows.
fn rows_deleted(scene: &Scene) -> Expected {
    let rows = checks::open(&scene.database, None).and_then(|database| largest(&database));
    match rows {
        Ok(Some((rows, _))) if rows >= MANY_ROWS => Expected::Caught(&["tables"]),
        _ => Expected::ByChance(SMALL_TABLES),
    }
}

fn drop_table(database: &Connection, table: &str) -> rusqlite::Result<()> {
    database.pragma_update(None, "foreign_keys", false)?;
    database.execute_batch(&format!("DROP TABLE {}", quoted(table)))
}

/// The table with the most rows that no foreign key leads to, and how many it has.
fn largest(database: &Connection) -> rusqlite::Result<Option<(u64, String)>> {
    let mut largest = None;
    for table in childless_tables(database)? {
        let sql = format!("SELECT count(*) FROM {}", quoted(&table));
        let rows: i64 = database.query_row(&sql, (), |row| row.get(0))?;
        let rows = rows.cast_unsigned();
        largest = largest.max(Some((rows, table)));
    }
    Ok(largest.filter(|(rows, _)| *rows > 0))
}

pub(super) fn delete_rows(database: &Connection) -> rusqlite::Result<bool> {
    database.pragma_update(None, "foreign_keys", false)?;
    let Some((_, table)) = largest(database)? else { return Ok(false) };
    database.execute(&format!("DELETE FROM {}", quoted(&table)), ()).map(|_| true)
}

/// Changes one value so that the database stays sound: in a column that is part of no key and no index.
fn change_value(database: &Connection) -> rusqlite::Result<bool> {
    for table in tables(database)?.iter().filter(|table| has_rows(database, table)) {
        let free = "SELECT name FROM pragma_table_xinfo(?1) WHERE pk = 0 AND hidden = 0
            AND name NOT IN (SELECT i.name FROM pragma_index_list(?1) l, pragma_index_info(l.name) i
                             WHERE i.name IS NOT NULL)
            AND name NOT IN (SELECT \"from\" FROM pragma_foreign_key_list(?1)) ORDER BY cid DESC";
        let mut columns = database.prepare(free)?;
        let columns: Vec<String> =
            columns.query_map([table], |row| row.get(0))?.collect::<Result<_, _>>()?;
        for column in columns {
            let (table, column) = (quoted(table), quoted(&column));
            // Another value of the same type and about the same size.
            let sql = format!(
                "UPDATE {table} SET {column} = CASE typeof({column})
                     WHEN 'integer' THEN ({column} & ~1) | (~{column} & 1)
                     WHEN 'real' THEN -{column} - 1.5
                     WHEN 'text' THEN replace(replace(upper({column}), 'E', '3'), 'A', '4') || '?'
                     WHEN 'blob' THEN zeroblob(length({column})) END
                 WHERE rowid = (SELECT rowid FROM {table} WHERE {column} IS NOT NULL LIMIT 1)"
            );
            // A constraint may be against it: then the next one.
            if database.execute(&sql, ()).is_ok_and(|rows| rows == 1) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Puts the changed pages into the files that the restored pages come from.
fn replace(scratch: &Scratch<'_>, changed: &Changed) -> anyhow::Result<Applied> {
    if changed.count != scratch.scene().newest.commit {
        return Applied::not("SQLite could not change a value without another page");
    }
    for (position, pages) in newest_holders(scratch, &changed.pages)? {
        let Some(file) = scratch.scene().files.get(position) else { continue };
        let path = scratch.path(file);
        let substitute = |number, page: &mut Vec<u8>| {
            if pages.binary_search(&number).is_ok() {
                changed.page(number, page)?;
            }
            Ok(Page::Keep)
        };
        let rewrite = Rewrite { page: Box::new(substitute), ..Rewrite::default() };
        rewrite.run(scratch, &path, &path)?;
    }
    Ok(Applied::Done)
}

/// Ships a change as the next TXID, with everything right.
fn commit(
    scratch: &Scratch<'_>,
    change: impl FnOnce(&Connection) -> rusqlite::Result<bool>,
) -> anyhow::Result<Applied> {
    let scene = scratch.scene();
    let (Some(changed), Some(newest)) = (Changed::by(scene, change)?, scene.last()) else {
        return Applied::not(NOTHING_CHANGED);
    };
    let txids = TxidRange::single(newest.txids.max().next());
    let size = scene.newest.page_size;
    let sums = if scene.is_checksummed() {
        Some((sum_of_file(&scene.database, size)?, changed.checksum()?))
    } else {
        None
    };
    let header = Header {
        commit: changed.count,
        txids,
        pre_apply: sums.map(|(before, _)| before.value()),
        wal: None,
        ..scene.newest
    };
    let path = scratch.place(replica::format::Level::SYNC, txids);
    let mut page = vec![0; size.len()];
    scratch.write(&path, &scratch.path(&newest), |out| {
        let mut encoder = Encoder::new(out, std::io::Cursor::new(Vec::new()), header)?;
        for number in &changed.pages {
            changed.page(*number, &mut page)?;
            encoder.page(PageNumber::new(*number)?, &page)?;
        }
        encoder.finish(sums.map(|(_, after)| after.value()))?;
        Ok(())
    })?;
    Ok(Applied::Done)
}
