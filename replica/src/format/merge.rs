//! Merges consecutive files into one: the newest copy of each page wins.
//!
//! Promises: applying the merged file gives what applying the inputs one after the other gives, and
//! a merge that starts at TXID 1 is a complete snapshot. A page that a later input cut off does not
//! come back when the database grows again: growth must bring its own pages, else the merge fails.
//!
//! Database checksums: the output is checksummed if every input is (pre-apply of the first,
//! post-apply of the last), and then inputs without overlap must continue each other's checksum.
//! If any input has none the output has none: a mixed chain stays restorable.
//!
//! Does not promise that `out` is usable after an error: it holds the beginning of a file.

use std::io::{Read, Seek, Write};

use crate::format::sequence::page_after;
use crate::format::{
    Checksum, Decoder, EncodeError, Encoded, Encoder, FormatError, Header, PageNumber, PageSize,
    Trailer, Txid, TxidRange,
};

/// Why files cannot be merged. `index` is the position in the inputs, from 0.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "index, expected and actual are what they say")]
pub enum MergeError {
    /// Nothing to merge.
    #[error("merge of no files")]
    NoInputs,
    /// An input is not valid.
    #[error("input {index}")]
    Input {
        index: usize,
        #[source]
        source: FormatError,
    },
    /// An input has another page size than the first.
    #[error("input {index}: page size: expected {expected}, actual {actual}")]
    PageSize { index: usize, expected: PageSize, actual: PageSize },
    /// An input leaves a gap, or brings nothing new.
    #[error(
        "input {index}: TXIDs do not continue {previous}: expected min at most {} and max above {}, \
         actual {actual}",
        TxidRange::max(*previous).next(),
        TxidRange::max(*previous)
    )]
    Txids { index: usize, previous: TxidRange, actual: TxidRange },
    /// An input continues another database than the one that the input before it left.
    #[error("input {index}: pre-apply checksum: expected {expected}, actual {actual}")]
    PreApply { index: usize, expected: Checksum, actual: Checksum },
    /// The database grew to `commit` pages, but no input says what is in one of them.
    #[error(
        "page {page} of {commit} missing: in none of the files that follow the database's growth"
    )]
    MissingPage { page: u32, commit: u32 },
    /// The output cannot be written.
    #[error(transparent)]
    Output(#[from] EncodeError),
}

/// Merges `inputs` (oldest first) into one file that covers all their TXIDs, in constant memory per
/// input: pages beyond the last commit are dropped, the timestamp is the last input's, WAL fields
/// are zero. Every input is checked to its end. `scratch` is empty.
///
/// # Errors
/// No input, inputs that do not follow each other (`min <= previous max + 1`, `max > previous max`,
/// one page size), a page of a grown database that is in no input, a damaged input, or a failing
/// writer.
pub fn merge<R: Read, W: Write, S: Read + Write + Seek>(
    inputs: Vec<Decoder<R>>,
    out: W,
    scratch: S,
) -> Result<Encoded<W>, MergeError> {
    let headers: Vec<Header> = inputs.iter().map(|decoder| *decoder.header()).collect();
    let header = merged_header(&headers)?;
    let mut previous: Option<(Txid, Option<Checksum>)> = None;
    merge_pages(inputs, out, scratch, header, Wholeness::Whole, |index, header, trailer| {
        if let (Some((end, Some(expected))), Some(actual)) = (previous, header.pre_apply)
            && end.next() == header.txids.min()
            && expected != actual
        {
            return Err(MergeError::PreApply { index, expected, actual });
        }
        previous = Some((header.txids.max(), trailer.post_apply));
        Ok(trailer.post_apply)
    })
}

/// Whether the output of a merge is a state of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wholeness {
    /// It is.
    Whole,
    /// Only with others that it will be merged with.
    Part,
}

/// Merges `inputs` (oldest first) into one file with the given header and post-apply checksum, whatever TXIDs and
/// checksums they bear: their order and that none is missing is the caller's knowledge. Parts that are a state of the
/// database only together are merged with this. The rest is as with [`merge`], but that with [`Wholeness::Part`] pages may
/// be missing that the rest of the whole has.
///
/// # Errors
/// No input, inputs of different page sizes, a page of a grown database that is in no input, a damaged input, a
/// checksum that the output's pages do not have (of a snapshot), or a failing writer.
pub fn merge_as<R: Read, W: Write, S: Read + Write + Seek>(
    inputs: Vec<Decoder<R>>,
    out: W,
    scratch: S,
    header: Header,
    post_apply: Option<Checksum>,
    wholeness: Wholeness,
) -> Result<Encoded<W>, MergeError> {
    let first = inputs.first().ok_or(MergeError::NoInputs)?.header().page_size;
    for (index, decoder) in inputs.iter().enumerate() {
        let actual = decoder.header().page_size;
        if actual != first {
            return Err(MergeError::PageSize { index, expected: first, actual });
        }
    }
    merge_pages(inputs, out, scratch, header, wholeness, |_, _, _| Ok(post_apply))
}

/// Merges the pages; `follow` is called with each input's header and trailer, oldest first, and the last call says the
/// output's post-apply checksum.
fn merge_pages<R: Read, W: Write, S: Read + Write + Seek>(
    inputs: Vec<Decoder<R>>,
    out: W,
    scratch: S,
    header: Header,
    wholeness: Wholeness,
    mut follow: impl FnMut(usize, &Header, &Trailer) -> Result<Option<Checksum>, MergeError>,
) -> Result<Encoded<W>, MergeError> {
    let headers: Vec<Header> = inputs.iter().map(|decoder| *decoder.header()).collect();
    let mut encoder = Encoder::new(out, scratch, header)?;
    let mut growth = Growth::new(&headers, &header);
    let mut inputs = open(inputs)?;
    while let Some(number) = inputs.iter().filter_map(|input| input.number).min() {
        // The newest copy. If a later input cut it off, it cut off the older ones, too.
        let newest = inputs.iter().rev().find(|input| input.number == Some(number));
        if let Some(input) = newest.filter(|input| number.get() <= input.kept) {
            if wholeness == Wholeness::Whole {
                growth.page(number.get())?;
            }
            encoder.page(number, &input.page)?;
        }
        for (index, input) in inputs.iter_mut().enumerate() {
            if input.number == Some(number) {
                input.advance().map_err(|source| MergeError::Input { index, source })?;
            }
        }
    }
    if wholeness == Wholeness::Whole {
        growth.end()?;
    }
    let mut post_apply = None;
    for (index, (input, header)) in inputs.into_iter().zip(&headers).enumerate() {
        let trailer =
            input.decoder.finish().map_err(|source| MergeError::Input { index, source })?;
        post_apply = follow(index, header, &trailer)?;
    }
    Ok(encoder.finish(post_apply.filter(|_| header.checksummed))?)
}

/// The header of the output.
fn merged_header(headers: &[Header]) -> Result<Header, MergeError> {
    let (Some(first), Some(last)) = (headers.first(), headers.last()) else {
        return Err(MergeError::NoInputs);
    };
    for (previous, (index, header)) in headers.iter().zip(headers.iter().enumerate().skip(1)) {
        if header.page_size != first.page_size {
            let (expected, actual) = (first.page_size, header.page_size);
            return Err(MergeError::PageSize { index, expected, actual });
        }
        let (previous, actual) = (previous.txids, header.txids);
        if actual.min() > previous.max().next() || actual.max() <= previous.max() {
            return Err(MergeError::Txids { index, previous, actual });
        }
    }
    let checksummed = headers.iter().all(|header| header.checksummed);
    let txids = TxidRange::new(first.txids.min(), last.txids.max()).map_err(|_| {
        let (index, previous, actual) = (headers.len() - 1, first.txids, last.txids);
        MergeError::Txids { index, previous, actual }
    })?;
    Ok(Header {
        txids,
        checksummed,
        pre_apply: first.pre_apply.filter(|_| checksummed),
        wal: None,
        node_id: 0,
        ..*last
    })
}

/// One input and the page that it stands at.
struct Input<R: Read> {
    decoder: Decoder<R>,
    page: Vec<u8>,
    number: Option<PageNumber>,
    /// Pages above this one were cut off by a later input.
    kept: u32,
}

impl<R: Read> Input<R> {
    fn advance(&mut self) -> Result<(), FormatError> {
        self.number = self.decoder.next_page(&mut self.page)?;
        Ok(())
    }
}

fn open<R: Read>(decoders: Vec<Decoder<R>>) -> Result<Vec<Input<R>>, MergeError> {
    let mut inputs: Vec<_> = decoders
        .into_iter()
        .map(|decoder| Input {
            page: vec![0; decoder.header().page_size.len()],
            number: None,
            kept: decoder.header().commit,
            decoder,
        })
        .collect();
    let mut kept = u32::MAX;
    for (index, input) in inputs.iter_mut().enumerate().rev() {
        kept = kept.min(input.kept);
        input.kept = kept;
        input.advance().map_err(|source| MergeError::Input { index, source })?;
    }
    Ok(inputs)
}

/// Pages that must come because the database did not have them all the time.
struct Growth {
    expected: Option<u32>,
    /// Pages up to this one existed throughout, so that they may be unchanged.
    floor: u32,
    commit: u32,
    lock_page: u32,
}

impl Growth {
    fn new(headers: &[Header], merged: &Header) -> Self {
        let smallest = headers.iter().map(|header| header.commit).min().unwrap_or(0);
        let floor = if merged.txids.is_snapshot() { 0 } else { smallest };
        let lock_page = merged.page_size.lock_page().get();
        Self { expected: page_after(floor, lock_page), floor, commit: merged.commit, lock_page }
    }

    fn page(&mut self, page: u32) -> Result<(), MergeError> {
        if page <= self.floor {
            return Ok(());
        }
        if self.expected != Some(page) {
            return self.missing();
        }
        self.expected = page_after(page, self.lock_page);
        Ok(())
    }

    fn end(&self) -> Result<(), MergeError> {
        if self.expected.is_some_and(|page| page <= self.commit) { self.missing() } else { Ok(()) }
    }

    fn missing(&self) -> Result<(), MergeError> {
        Err(MergeError::MissingPage { page: self.expected.unwrap_or(0), commit: self.commit })
    }
}
