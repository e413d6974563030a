//! What a chain has: its files by level.

use futures_util::stream::{self, StreamExt, TryStreamExt};

use crate::format::{Level, Txid};
use crate::restore::RestoreError;
use crate::store::{Chain, LtxObject, Store};

/// Listings under way at once.
const CONCURRENT_LISTINGS: usize = 5;

/// The files of one chain.
#[derive(Debug, Clone)]
pub struct Inventory {
    /// The chain.
    pub chain: Chain,
    /// Its files, by level, then name.
    pub files: Vec<LtxObject>,
}

impl Inventory {
    /// Lists every level of a chain.
    ///
    /// # Errors
    /// Those of a listing.
    pub async fn read(store: &dyn Store, chain: Chain) -> Result<Self, RestoreError> {
        // One level (the lowest, where nobody compacts) has nearly all of the files: it is taken over, not copied.
        let files = stream::iter(Level::all())
            .map(|level| store.list_ltx(chain, level))
            .buffered(CONCURRENT_LISTINGS)
            .try_fold(Vec::new(), |mut files: Vec<LtxObject>, mut level| async move {
                if files.is_empty() {
                    return Ok(level);
                }
                files.append(&mut level);
                Ok(files)
            })
            .await?;
        Ok(Self { chain, files })
    }

    /// Whether it holds a whole database: any file that starts at TXID 1 does.
    pub(super) fn has_snapshot(&self) -> bool {
        self.files.iter().any(|file| file.txids.is_snapshot())
    }

    /// The file that the chain begins with, as far as it is there.
    pub(super) fn first(&self) -> Option<&LtxObject> {
        self.files.iter().min_by_key(|file| (file.txids.min(), file.txids.max()))
    }

    /// The file that knows best when `txid` was committed: a level-9 snapshot may be taken long after.
    pub(super) fn witness(&self, txid: Txid) -> Option<&LtxObject> {
        self.files
            .iter()
            .filter(|file| file.txids.max() == txid)
            .min_by_key(|file| (file.level, std::cmp::Reverse(file.txids.min())))
    }
}
