//! Raw pages of the live database, through SQLite (`sqlite_dbpage`): it knows which of them the WAL holds,
//! and opening the file ourselves would drop its locks when we close it.

use replica::format::PageNumber;
use rusqlite::Connection;

/// Reads one page as the open transaction of `reader` sees it. One that the file counts and the database does not
/// have is zeros, see [`crate::wal::sqlite::Mark::page_count`].
///
/// # Errors
/// Those of SQLite, and a page of another size.
pub fn read_page(reader: &Connection, number: PageNumber, page: &mut [u8]) -> anyhow::Result<()> {
    let mut statement = reader.prepare_cached("SELECT data FROM sqlite_dbpage WHERE pgno = ?1")?;
    let mut rows = statement.query([number.get()])?;
    let Some(row) = rows.next()? else {
        page.fill(0);
        return Ok(());
    };
    let data = row.get_ref(0)?.as_blob()?;
    anyhow::ensure!(
        data.len() == page.len(),
        "page {number}: {} bytes, expected {}",
        data.len(),
        page.len()
    );
    page.copy_from_slice(data);
    Ok(())
}
