//! Carries a plan out into a file.
//!
//! Three stages run at once: requests ([`crate::restore::fetch`]), decoding and checking (here, on one
//! blocking thread), writing and syncing ([`crate::restore::output`]). Every file is decoded to its end, also where
//! none of its pages is wanted any more, since a chain with a damaged file is a damaged chain.
//!
//! What a crash leaves behind is up to the owner of the file; see [`crate::restore::publish()`].

use std::fs::File;
use std::sync::Arc;
use std::sync::mpsc::{channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::format::{Checksum, Header, PageSize, Txid};
use crate::restore::canvas::{Canvas, RUNS, WriterGone};
use crate::restore::fetch::{Feed, fetch_into};
use crate::restore::paint::{Source, Stop, paint};
use crate::restore::{Plan, RestoreError, output};
use crate::store::Store;

/// The least that a page takes in a file and its index: headers, one byte of LZ4, three varints.
const LEAST_PAGE_BYTES: u64 = 10;

/// Told of every piece of work done, from any thread.
pub trait Progress: Send + Sync {
    /// `bytes` more of [`Plan::bytes`] were fetched and handed to the decoder.
    fn fetched(&self, bytes: u64);
}

impl Progress for () {
    fn fetched(&self, _bytes: u64) {}
}

/// A copy that every checksum passed for.
#[derive(Debug, Clone)]
pub struct Restored {
    /// The state it is in.
    pub txid: Txid,
    /// Bytes in a page.
    pub page_size: PageSize,
    /// Pages in the database.
    pub page_count: u32,
    /// The database checksum that its last file promises, which the copy was found to have; `None` where
    /// the chain is not checksummed.
    pub post_apply: Option<Checksum>,
    /// Bytes fetched.
    pub bytes: u64,
    /// Objects fetched.
    pub objects: usize,
    /// From the first request to the last byte written (and synced).
    pub elapsed: Duration,
    /// What was found damaged, and passed over for another way.
    pub passed_over: Vec<String>,
}

/// Restores `plan` into `output` (opened for writing; its content does not count): newest file first, each page
/// written once, several objects fetched ahead, memory bounded. The file is synced at the end.
///
/// # Errors
/// The store's, a damaged object, an incomplete database, or a failing write. The output's content is
/// then of no use.
pub async fn apply(
    store: Arc<dyn Store>,
    plan: &Plan,
    output: File,
    progress: Arc<dyn Progress>,
) -> Result<Restored, RestoreError> {
    let started = Instant::now();
    let newest_first = plan.clone();
    let objects = (0..plan.files.len()).rev().map(move |at| {
        let file = &newest_first.files[at];
        (newest_first.key(file), file.size)
    });
    let painted = {
        let (from, plan) = (Arc::clone(&store), plan.clone());
        fetch_into(store, objects, progress, move |feed| {
            decode(from.as_ref(), &plan, feed, &output)
        })
    };
    let (header, post_apply) = painted.await?;
    Ok(Restored {
        txid: plan.txid,
        page_size: header.page_size,
        page_count: header.commit,
        post_apply,
        bytes: plan.bytes(),
        objects: plan.files.len(),
        elapsed: started.elapsed(),
        passed_over: Vec::new(),
    })
}

/// Decodes every file of the plan on this thread, newest first, and writes on another.
fn decode(
    store: &dyn Store,
    plan: &Plan,
    mut feed: Feed,
    output: &File,
) -> Result<(Header, Option<Checksum>), RestoreError> {
    let sources = plan.files.iter().rev().map(|file| Source::new(store, plan, file));
    let newest = sources.clone().next().ok_or_else(|| RestoreError::Chain {
        message: format!("generation {}: an empty plan", plan.chain),
    })?;
    let header = newest.peek(&mut feed)?;
    refuse_impossible(&newest, &header, plan.bytes())?;
    let size = u64::from(header.commit) * u64::from(header.page_size.get());
    output::prepare(output, size)?;

    let (runs, to_write) = sync_channel(RUNS);
    let (give_back, spent) = channel();
    for _ in 1..RUNS {
        // Cannot fail: the receiver is right here.
        let _ = give_back.send(vec![0; Canvas::buffer_length(header.page_size)]);
    }
    let mut canvas = Canvas::new(header.page_size, header.commit, header.checksummed, runs, spent);
    thread::scope(|scope| {
        let writer = scope.spawn(move || output::write_all(output, to_write, &give_back));
        let painted = paint(sources, &mut feed, &mut canvas, plan.txid);
        drop(canvas);
        let written = writer
            .join()
            .unwrap_or_else(|_| Err(std::io::Error::other("writer thread died")))
            .map_err(|source| output::failure(size, "write", source));
        match painted {
            Ok(post_apply) => {
                written?;
                output.sync_all().map_err(|source| output::failure(size, "sync", source))?;
                Ok((header, post_apply))
            }
            // The writer stopped first, and knows why.
            Err(Stop::Writer(WriterGone)) => written.and_then(|()| {
                Err(output::failure(size, "write", std::io::Error::other("writer stopped")))
            }),
            Err(Stop::Replica(error)) => Err(error),
        }
    })
}

/// The database's size is read before anything proves it: one that these files cannot hold is
/// refused before room is made for it.
fn refuse_impossible(newest: &Source<'_>, header: &Header, bytes: u64) -> Result<(), RestoreError> {
    let most = bytes / LEAST_PAGE_BYTES;
    if u64::from(header.commit) <= most {
        return Ok(());
    }
    Err(RestoreError::Conflict {
        object: newest.object(),
        what: "pages in the database",
        expected: format!("at most {most} (in {bytes} bytes of files)"),
        actual: header.commit.to_string(),
    })
}
