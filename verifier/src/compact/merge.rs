//! Makes one window's file: inputs streamed, merged into a temporary file, put once.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::future::join_all;
use replica::format::{Decoder, EncodeError, FormatError, MergeError, TxidRange, merge};
use replica::store::{Body, Chain, Key, LtxAttributes, LtxKey, LtxObject, PutOutcome, Store};
use tokio::sync::Semaphore;

use super::input::{ObjectInput, feed, store_error};
use super::{CompactError, Window, put_once};

/// The index of an output kept in memory, bytes; a longer one goes to the temporary directory.
const INDEX_IN_MEMORY: usize = 256 << 10;

/// One object made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Merged {
    /// Its size, bytes.
    pub bytes: u64,
    /// Whether this run wrote it, or found the same bytes there.
    pub outcome: PutOutcome,
}

/// Merges a window's inputs and writes the result once. `permits` bounds the requests under way; `directory` holds the
/// result until it is uploaded.
///
/// # Errors
/// A damaged input, inputs that do not make one file, the store's or the file system's failure. Nothing was written
/// then, except that an upload may have taken effect whose answer was lost.
pub async fn merge_window(
    store: &Arc<dyn Store>,
    chain: Chain,
    window: &Window<'_>,
    directory: &Path,
    permits: &Semaphore,
) -> Result<Merged, CompactError> {
    let key = |file: &LtxObject| Key::Ltx(LtxKey { chain, level: file.level, txids: file.txids });
    let (mut inputs, mut feeders) = (Vec::new(), Vec::new());
    for file in &window.inputs {
        let (reader, pieces) = ObjectInput::new();
        let key = key(file);
        inputs.push(Input { object: store.locate(&key), txids: file.txids, reader });
        feeders.push(feed(&**store, key, file.size, permits, pieces));
    }
    let target = LtxKey { chain, level: window.level, txids: window.txids };
    let spool = Spool(directory.join(format!("{}-{}", window.level, window.txids)));
    let path = spool.0.clone();
    let merging = tokio::task::spawn_blocking(move || write(inputs, &path));
    let (_, written) = tokio::join!(join_all(feeders), merging);
    let (len, attributes) = written
        .unwrap_or_else(|error| Err(CompactError::io("run merge")(std::io::Error::other(error))))?;
    let body = Body::File { path: spool.0.clone(), len };
    let outcome = put_once(&**store, &target, body, attributes).await?;
    Ok(Merged { bytes: len, outcome })
}

/// The temporary file; gone when dropped.
struct Spool(PathBuf);

impl Drop for Spool {
    fn drop(&mut self) {
        // There is none where it could not be created; else the directory takes it along.
        let _ = std::fs::remove_file(&self.0);
    }
}

struct Input {
    object: String,
    txids: TxidRange,
    reader: ObjectInput,
}

/// Merges into a file of `path`; gives its length and what goes with it.
fn write(inputs: Vec<Input>, path: &Path) -> Result<(u64, LtxAttributes), CompactError> {
    let objects: Vec<String> = inputs.iter().map(|input| input.object.clone()).collect();
    let mut decoders = Vec::with_capacity(inputs.len());
    for Input { object, txids, reader } in inputs {
        let decoder = Decoder::new(reader)
            .and_then(|decoder| decoder.header().check_name(txids).map(|()| decoder))
            .map_err(|source| unreadable(object, source))?;
        decoders.push(decoder);
    }
    let timestamp = decoders.last().map(|decoder| decoder.header().timestamp).unwrap_or_default();
    let file = File::create_new(path).map_err(CompactError::io("create file"))?;
    let scratch = tempfile::spooled_tempfile_in(INDEX_IN_MEMORY, path.parent().unwrap_or(path));
    let merged = merge(decoders, BufWriter::with_capacity(256 << 10, file), scratch)
        .map_err(|error| at_fault(error, &objects))?;
    let mut out = merged.out;
    out.flush().map_err(CompactError::io("write file"))?;
    Ok((merged.size, LtxAttributes { timestamp, checksum: merged.trailer.file }))
}

/// Says which object is to blame.
fn at_fault(error: MergeError, objects: &[String]) -> CompactError {
    let object = |index: usize| objects.get(index).cloned().unwrap_or_default();
    match error {
        MergeError::Input { index, source } => unreadable(object(index), source),
        MergeError::Output(EncodeError::Write(source)) => CompactError::io("write file")(source),
        MergeError::PageSize { index, .. }
        | MergeError::Txids { index, .. }
        | MergeError::PreApply { index, .. } => {
            CompactError::Broken { object: object(index), source: error }
        }
        // Of all of them: a page that came into being in one, and is in none.
        _ => {
            let object = format!("{} to {}", object(0), object(objects.len() - 1));
            CompactError::Broken { object, source: error }
        }
    }
}

fn unreadable(object: String, source: FormatError) -> CompactError {
    match source {
        FormatError::Read { offset, source } => match store_error(source) {
            Ok(error) => CompactError::Store(error),
            Err(source) => {
                CompactError::Damaged { object, source: FormatError::Read { offset, source } }
            }
        },
        source => CompactError::Damaged { object, source },
    }
}
