//! An application in a process of its own, which can be killed: commits the transactions of
//! [`seaworthy_tests::bank`] until its standard input ends, then says how many, and the slowest.
//!
//! `application DATABASE [pause_us=N] [busy_ms=N] [reopen=N] [spill=1] [every=N sql=SQL]`: a pause between
//! commits, SQLite's busy timeout, a new connection every N commits (so the last one closes), a page cache
//! so small that transactions reach the log before they are committed, a statement every N commits. Without a busy timeout
//! it tries again by itself, and counts how often it was refused (tries one after the other are one).

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rusqlite::{Connection, ErrorCode};
use seaworthy_tests::bank;

#[derive(Debug, Default)]
struct Options {
    pause: Duration,
    busy: Duration,
    reopen: u64,
    spill: bool,
    every: u64,
    sql: String,
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().context("DATABASE")?;
    let mut options = Options { busy: bank::BUSY, ..Options::default() };
    for argument in arguments {
        let (name, value) = argument.split_once('=').context("name=value")?;
        match name {
            "pause_us" => options.pause = Duration::from_micros(value.parse()?),
            "busy_ms" => options.busy = Duration::from_millis(value.parse()?),
            "reopen" => options.reopen = value.parse()?,
            "spill" => options.spill = value == "1",
            "every" => options.every = value.parse()?,
            "sql" => value.clone_into(&mut options.sql),
            _ => bail!("unknown option {name}"),
        }
    }
    let stop = Arc::new(AtomicBool::new(false));
    let ended = stop.clone();
    std::thread::spawn(move || {
        // Whatever ends the input ends the program.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        ended.store(true, Ordering::Relaxed);
    });
    let (commits, worst, refused) = work(Path::new(&path), &options, &stop)?;
    let worst = worst.as_micros();
    println!("{{\"commits\": {commits}, \"worst_us\": {worst}, \"refused\": {refused}}}");
    Ok(())
}

fn work(path: &Path, options: &Options, stop: &AtomicBool) -> Result<(u64, Duration, u64)> {
    let mut db = open(path, options)?;
    let (mut commits, mut worst, mut refused) = (0, Duration::ZERO, 0);
    let began = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let commit = Instant::now();
        refused +=
            u64::from(!transact(&mut db, options).with_context(|| format!("commit {commits}"))?);
        worst = worst.max(commit.elapsed());
        commits += 1;
        if options.every > 0 && commits % options.every == 0 {
            side_statement(&db, &options.sql)?;
        }
        if options.reopen > 0 && commits % options.reopen == 0 {
            drop(db);
            db = open(path, options)?;
        }
        // By the clock, so that the pace is what was asked for however long a commit takes.
        let due = options.pause * u32::try_from(commits).unwrap_or(u32::MAX);
        std::thread::sleep(due.saturating_sub(began.elapsed()));
    }
    Ok((commits, worst, refused))
}

/// One transaction; `false` where it was refused at first.
fn transact(db: &mut Connection, options: &Options) -> Result<bool> {
    let mut at_once = true;
    loop {
        match bank::transact(db) {
            Err(error) if options.busy.is_zero() && is_refusal(&error) => {
                at_once = false;
                std::thread::sleep(Duration::from_micros(200));
            }
            committed => return committed.map(|_count| at_once),
        }
    }
}

fn is_refusal(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<rusqlite::Error>()).any(|error| {
        matches!(
            error.sqlite_error_code(),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
        )
    })
}

fn open(path: &Path, options: &Options) -> Result<Connection> {
    let db = Connection::open(path).context("open database")?;
    db.busy_timeout(options.busy).context("set busy timeout")?;
    db.execute_batch("PRAGMA synchronous = NORMAL").context("set synchronous")?;
    if options.spill {
        db.execute_batch("PRAGMA cache_size = 12").context("set cache size")?;
    }
    Ok(db)
}

/// A checkpoint or a `VACUUM` may be refused while somebody reads or writes: the application goes on.
fn side_statement(db: &Connection, sql: &str) -> Result<()> {
    match db.execute_batch(sql) {
        Err(error)
            if !matches!(
                error.sqlite_error_code(),
                Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
            ) =>
        {
            Err(error).with_context(|| sql.to_owned())
        }
        _ => Ok(()),
    }
}
