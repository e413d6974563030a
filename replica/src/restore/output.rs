//! The file that is restored into: room for it, writes, and getting them to the disk.
//!
//! While pages are still being decoded, a thread of its own keeps syncing what was written: the disk
//! works from the start, and the last sync finds little left to do.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, Sender, SyncSender, sync_channel};
use std::thread;

use crate::restore::RestoreError;
use crate::restore::canvas::Run;

/// Bytes written between two syncs.
const SYNC_EVERY: u64 = 32 << 20;

/// Empties and sizes the file, after looking whether there is room for it.
pub(super) fn prepare(file: &File, size: u64) -> Result<(), RestoreError> {
    file.set_len(0).map_err(|source| failure(size, "set length", source))?;
    refuse_without_room(file, size, 0)?;
    file.set_len(size).map_err(|source| failure(size, "set length", source))
}

/// Whether the file, which has `length` bytes, could become `size` bytes long.
pub(super) fn refuse_without_room(file: &File, size: u64, length: u64) -> Result<(), RestoreError> {
    let space = rustix::fs::fstatvfs(file)
        .map_err(|error| failure(size, "read free space", error.into()))?;
    let available = space.f_bavail.saturating_mul(space.f_frsize).saturating_add(length);
    if available < size {
        return Err(RestoreError::NoSpace { needed: size, available: Some(available) });
    }
    Ok(())
}

/// An error of the output's file system, told apart where it has no room.
pub(super) fn failure(needed: u64, action: &'static str, source: io::Error) -> RestoreError {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    match source.kind() {
        StorageFull | QuotaExceeded | FileTooLarge => {
            RestoreError::NoSpace { needed, available: None }
        }
        _ => RestoreError::Io { path: "restored file".to_owned(), action, source },
    }
}

/// Writes every run until the sender is gone, and gives the buffers back. Not all is synced then.
pub(super) fn write_all(
    file: &File,
    runs: Receiver<Run>,
    spent: &Sender<Vec<u8>>,
) -> io::Result<()> {
    let (written, to_sync) = sync_channel(1);
    thread::scope(|scope| {
        let syncing = scope.spawn(|| sync_often(file, to_sync));
        let outcome = write_runs(file, runs, spent, &written);
        drop(written);
        let synced = syncing.join().unwrap_or_else(|_| Err(io::Error::other("sync thread died")));
        outcome.and(synced)
    })
}

fn write_runs(
    file: &File,
    runs: Receiver<Run>,
    spent: &Sender<Vec<u8>>,
    written: &SyncSender<()>,
) -> io::Result<()> {
    let mut unsynced: u64 = 0;
    for run in runs {
        file.write_all_at(&run.buffer[..run.length], run.offset)?;
        unsynced += run.length as u64;
        // Full: the last request to sync has not even begun, and covers this one too.
        if unsynced >= SYNC_EVERY && written.try_send(()).is_ok() {
            unsynced = 0;
        }
        // Nobody wants it back once the last page was decoded.
        let _ = spent.send(run.buffer);
    }
    Ok(())
}

fn sync_often(file: &File, requests: Receiver<()>) -> io::Result<()> {
    for () in requests {
        file.sync_data()?;
    }
    Ok(())
}
