//! Reads back from the bucket what a crash took from this machine: one GET for each TXID, until there is none.
//!
//! Asked for where the index does not prove itself at a start, and where a key that should be free is taken. A file that
//! none of our runs wrote, or a checksum that does not hold, ends the generation: a new one is the safe way.
//!
//! Afterwards the index is that of the database in the bucket, the spool is empty, and the place in the WAL unknown:
//! what differs in the source is caught up.

use std::fs::File;
use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use replica::format::{Decoder, GenerationId, PageSize, Txid, TxidRange};
use replica::store::{Key, Store, StoreError};
use tracing::warn;

use crate::chain::keys::{free, ltx_key};
use crate::chain::record::Durable;
use crate::chain::{LocalChain, Recorded};
use crate::threads::blocking;

/// Files that are read back at most; above it a new generation is cheaper.
const MOST_FILES: u64 = 10_000;

/// Why a chain cannot be rolled forward.
#[derive(Debug, thiserror::Error)]
pub enum RollForwardError {
    /// The generation cannot go on.
    #[error("{0}")]
    Ended(String),
    /// Another try may help.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// This machine's own trouble.
    #[error(transparent)]
    Local(anyhow::Error),
}

/// Brings `chain` to what the bucket holds; returns how many files that took.
///
/// # Errors
/// See [`RollForwardError`].
pub async fn roll_forward(
    chain: &Arc<LocalChain>,
    store: &dyn Store,
) -> Result<u64, RollForwardError> {
    let rolling = chain.clone();
    let start = local(move || rolling.begin_roll_forward()).await?;
    let mut next = start.next;
    let mut known = start.known;
    let mut files = 0;
    loop {
        let key: Key = ltx_key(start.generation, next).into();
        let path = start.path.clone();
        match fetch(store, &key, path.clone()).await {
            Ok(()) => {}
            Err(RollForwardError::Store(error)) => {
                // What was there once must be there still.
                if next <= start.recorded {
                    return Err(error.into());
                }
                let before = Txid::new(next.get() - 1).unwrap_or(Txid::FIRST);
                free(store, error, start.generation, before).await?;
                break;
            }
            Err(error) => return Err(error),
        }
        let (rolling, located) = (chain.clone(), store.locate(&key));
        let applied = local(move || rolling.roll(&path, next, known)).await;
        known = Some(applied.map_err(|error| match error {
            RollForwardError::Ended(why) => RollForwardError::Ended(format!("{located}: {why}")),
            other => other,
        })?);
        files += 1;
        next = next.next();
        if files >= MOST_FILES {
            return Err(RollForwardError::Ended(format!(
                "more than {MOST_FILES} files to read back"
            )));
        }
    }
    let rolling = chain.clone();
    local(move || rolling.end_roll_forward(known)).await?;
    if files > 0 {
        warn!(files, "read back from the bucket what this machine had forgotten");
    }
    Ok(files)
}

/// Where it begins.
struct Start {
    generation: GenerationId,
    next: Txid,
    /// The state before `next`, where it is known from the record.
    known: Option<Durable>,
    /// The last TXID that the record knows to be in the bucket.
    recorded: Txid,
    path: PathBuf,
}

async fn fetch(store: &dyn Store, key: &Key, path: PathBuf) -> Result<(), RollForwardError> {
    let mut reader = store.get(key, None).await?;
    let mut file = writing(&path, File::create).await?;
    while let Some(piece) = reader.next().await? {
        file = writing(&path, move |_| file.write_all(&piece).map(|()| file)).await?;
    }
    Ok(())
}

async fn writing(
    path: &Path,
    work: impl FnOnce(PathBuf) -> std::io::Result<File> + Send + 'static,
) -> Result<File, RollForwardError> {
    let at = path.to_owned();
    let written = local(move || work(at).map_err(|error| RollForwardError::Local(error.into())));
    written.await.map_err(|error| match error {
        RollForwardError::Local(error) => {
            RollForwardError::Local(error.context(format!("write {}", path.display())))
        }
        other => other,
    })
}

/// Runs `work` where it keeps nobody waiting.
async fn local<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RollForwardError> + Send + 'static,
) -> Result<T, RollForwardError> {
    blocking(work).await.map_err(RollForwardError::Local)?
}

impl LocalChain {
    fn begin_roll_forward(&self) -> Result<Start, RollForwardError> {
        let ended = |why: &str| RollForwardError::Ended(why.to_owned());
        let torn = self.is_torn();
        let record = self.record().record.clone();
        let generation =
            record.generation.ok_or_else(|| ended("the generation has no name yet"))?;
        let durable =
            record.durable.ok_or_else(|| ended("nothing is known to be in the bucket"))?;
        // What came after the index was last forced may be torn, and is applied again.
        let (next, known) = if torn {
            let forced =
                record.index_forced.ok_or_else(|| ended("the page index was never forced"))?;
            (forced.next(), None)
        } else {
            (durable.txid.next(), Some(durable))
        };
        // Until the end, a crash leaves a mixture.
        self.durable_sums().torn = true;
        let path = self.directory.join("read-back.tmp");
        Ok(Start { generation, next, known, recorded: durable.txid, path })
    }

    /// Applies one file that was read back.
    fn roll(
        &self,
        path: &PathBuf,
        txid: Txid,
        before: Option<Durable>,
    ) -> Result<Durable, RollForwardError> {
        let ended = |error: anyhow::Error| RollForwardError::Ended(format!("{error:#}"));
        let local = |error: std::io::Error| RollForwardError::Local(error.into());
        let file = File::open(path).map_err(local)?;
        let decoder = Decoder::new(BufReader::new(file)).map_err(|error| ended(error.into()))?;
        let header = *decoder.header();
        let record = self.record().record.clone();
        let known = record.durable.map_or(0, |durable| durable.txid.get());
        let ours = record.runs.contains(&header.node_id);
        if header.txids != TxidRange::single(txid) || (txid.get() > known && !ours) {
            return Err(RollForwardError::Ended("written by another shipper".to_owned()));
        }
        if let (Some(before), Some(actual)) = (before, header.pre_apply)
            && before.checksum != actual
        {
            return Err(RollForwardError::Ended(format!(
                "continues {actual}, not {}",
                before.checksum
            )));
        }
        let page_size: PageSize = self.page_size;
        let mut durable = self.durable_sums();
        let applied = durable.sums.apply(decoder, page_size, false).map_err(ended)?;
        let Some(checksum) = applied.trailer.post_apply else {
            return Err(RollForwardError::Ended("has no database checksum".to_owned()));
        };
        Ok(Durable {
            txid,
            checksum,
            page_count: header.commit,
            position: None,
            sequence: 0,
            timestamp: header.timestamp,
        })
    }

    /// The index must prove itself now; then the spool, which continued something older, is given up.
    fn end_roll_forward(&self, known: Option<Durable>) -> Result<(), RollForwardError> {
        let mut durable = self.durable_sums();
        let recorded = self.record().record.durable;
        let Some(reached) = known.or(recorded) else {
            return Err(RollForwardError::Ended("nothing in the bucket to go on from".to_owned()));
        };
        let sums = &mut durable.sums;
        sums.truncate(reached.page_count).map_err(RollForwardError::Local)?;
        let actual = sums.checksum();
        if actual != reached.checksum {
            return Err(RollForwardError::Ended(format!(
                "the page index gives {actual}, TXID {} has {}",
                reached.txid, reached.checksum
            )));
        }
        sums.force().map_err(RollForwardError::Local)?;
        let mut recorded = self.record();
        let Recorded { record, file } = &mut *recorded;
        record.durable = Some(reached);
        record.index_forced = Some(reached.txid);
        file.force(record, self.disk()).map_err(RollForwardError::Local)?;
        drop(recorded);
        durable.torn = false;
        drop(durable);
        self.drop_spool(true).map_err(RollForwardError::Local)
    }
}
