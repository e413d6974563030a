//! Decodes the files of a plan onto the canvas, and checks each against its neighbours.

use crate::format::{Checksum, Decoder, FormatError, HEADER_SIZE, Header, PageSize, Trailer, Txid};
use crate::restore::canvas::{Canvas, WriterGone};
use crate::restore::fetch::{Feed, ObjectInput};
use crate::restore::{Plan, RestoreError};
use crate::store::{Chain, LtxObject, Store};

/// Why decoding ended early.
#[derive(Debug)]
pub(super) enum Stop {
    /// Something is wrong with the replica, or with getting at it.
    Replica(RestoreError),
    /// Nobody writes any more.
    Writer(WriterGone),
}

impl From<RestoreError> for Stop {
    fn from(error: RestoreError) -> Self {
        Self::Replica(error)
    }
}

impl From<WriterGone> for Stop {
    fn from(gone: WriterGone) -> Self {
        Self::Writer(gone)
    }
}

/// One file of the plan.
///
/// There may be hundreds of thousands: what only a message needs is made when one is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    store: &'a dyn Store,
    plan: &'a Plan,
    file: &'a LtxObject,
}

impl<'a> Source<'a> {
    pub(super) fn new(store: &'a dyn Store, plan: &'a Plan, file: &'a LtxObject) -> Self {
        Self { store, plan, file }
    }

    /// Its full key, for messages.
    pub(super) fn object(&self) -> String {
        self.store.locate(&self.plan.key(self.file))
    }

    /// Whether every page that the database grows by is in the file that it grows in.
    ///
    /// Litestream has filled in such pages since 0.5.15 only: before, SQLite's not writing a free page made
    /// a file without it, and what it restores is an older file's copy. Its own replicas may have such files.
    fn brings_growth(&self) -> bool {
        matches!(self.plan.chain, Chain::Generation(_))
    }

    /// The header of the file that comes next, which stays unread.
    pub(super) fn peek(&self, feed: &mut Feed) -> Result<Header, RestoreError> {
        if self.file.size >= HEADER_SIZE as u64
            && let Some(bytes) = feed.peek().ok().and_then(<[u8]>::first_chunk)
        {
            let header = Header::decode(bytes).map_err(|source| self.damaged(source))?;
            header.check_name(self.file.txids).map_err(|source| self.damaged(source))?;
            return Ok(header);
        }
        let opened = self.open(feed).map(|decoder| *decoder.header());
        Err(feed
            .error
            .take()
            .or(opened.err())
            .unwrap_or_else(|| self.conflict("bytes of header", HEADER_SIZE, self.file.size)))
    }

    fn damaged(&self, source: FormatError) -> RestoreError {
        RestoreError::Damaged { object: self.object(), source }
    }

    fn conflict(
        &self,
        what: &'static str,
        expected: impl ToString,
        actual: impl ToString,
    ) -> RestoreError {
        let (expected, actual) = (expected.to_string(), actual.to_string());
        RestoreError::Conflict { object: self.object(), what, expected, actual }
    }

    fn open<'f>(&self, feed: &'f mut Feed) -> Result<Decoder<ObjectInput<'f>>, RestoreError> {
        let decoder = Decoder::new(feed.object(self.file.size))
            .and_then(|decoder| decoder.header().check_name(self.file.txids).map(|()| decoder));
        decoder.map_err(|source| self.damaged(source))
    }

    /// Takes every page that no newer file had, and checks the file to its end.
    fn paint(&self, feed: &mut Feed, canvas: &mut Canvas) -> Result<(Header, Trailer), Stop> {
        let mut decoder = self.open(feed)?;
        let header = *decoder.header();
        let page_size: PageSize = canvas.page_size();
        if header.page_size != page_size {
            return Err(self.conflict("page size", page_size, header.page_size).into());
        }
        let damaged = |source| self.damaged(source);
        while let Some(number) = decoder.next_page(canvas.slot()).map_err(damaged)? {
            canvas.keep(number)?;
        }
        if self.brings_growth() {
            canvas.cut(header.commit);
        }
        Ok((header, decoder.finish().map_err(damaged)?))
    }

    /// The chain proves itself: a file starts from the database that the file before it leaves.
    fn follows(&self, header: &Header, older: &Header, trailer: &Trailer) -> Result<(), Stop> {
        let adjacent = older.txids.max().next() == header.txids.min();
        match (header.pre_apply, trailer.post_apply) {
            (Some(actual), Some(expected)) if adjacent && actual != expected => {
                Err(self.conflict("pre-apply checksum", expected, actual).into())
            }
            _ => Ok(()),
        }
    }
}

/// Takes the pages of every file (newest first), and checks that they make a whole database: the one
/// that the newest file promises, where the chain is checksummed.
pub(super) fn paint<'a>(
    sources: impl Iterator<Item = Source<'a>> + Clone,
    feed: &mut Feed,
    canvas: &mut Canvas,
    txid: Txid,
) -> Result<Option<Checksum>, Stop> {
    let post_apply = match paint_files(sources.clone(), feed, canvas) {
        Ok(post_apply) => post_apply,
        // What the store said instead of bytes tells more than the decoder's failed read.
        Err(stop) => return Err(feed.error.take().map_or(stop, Stop::Replica)),
    };
    let object = || sources.clone().next().map(|source| source.object()).unwrap_or_default();
    if let Some((missing, first)) = canvas.missing() {
        let pages = canvas.commit();
        let object = object();
        return Err(RestoreError::Incomplete { object, txid, pages, missing, first }.into());
    }
    if let Some(expected) = post_apply {
        let actual = canvas.checksum();
        if actual != Some(expected) {
            let actual = actual.map_or_else(|| "none".to_owned(), |actual| actual.to_string());
            let object = object();
            return Err(RestoreError::DatabaseChecksum { object, txid, expected, actual }.into());
        }
    }
    canvas.finish_run()?;
    Ok(post_apply)
}

fn paint_files<'a>(
    sources: impl Iterator<Item = Source<'a>>,
    feed: &mut Feed,
    canvas: &mut Canvas,
) -> Result<Option<Checksum>, Stop> {
    let mut post_apply = None;
    let mut next: Option<(Source<'a>, Header)> = None;
    for source in sources {
        let (header, trailer) = source.paint(feed, canvas)?;
        match next {
            None => post_apply = trailer.post_apply,
            Some((newer, newer_header)) => newer.follows(&newer_header, &header, &trailer)?,
        }
        next = Some((source, header));
    }
    Ok(post_apply)
}
