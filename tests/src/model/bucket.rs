//! The bucket: generations of numbered files, each written once by a conditional PUT.

use crate::model::source::{Image, PAGES, Value};

/// The content of a page that an index does not know: every page differs from it.
pub const UNKNOWN: Value = u8::MAX;

/// The index of an empty chain.
pub const NOTHING: Image = [UNKNOWN; PAGES];

/// The `node_id` of a shipper that is not ours.
pub const OTHER: u8 = u8::MAX;

/// Changed pages.
pub type Pages = [Option<Value>; PAGES];

/// A checksummed LTX file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct File {
    /// The pages it holds.
    pub pages: Pages,
    /// The database that it is to be applied to (pre-apply checksum).
    pub before: Image,
    /// The database afterwards (post-apply checksum).
    pub after: Image,
    /// Which run of which shipper made it.
    pub node: u8,
}

impl File {
    /// Whether one of these runs (a bit each) made it.
    #[must_use]
    pub fn is_of(&self, runs: u8) -> bool {
        self.node.is_power_of_two() && self.node & runs != 0
    }
}

/// The objects below one prefix.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Bucket {
    /// Per generation, the file of each TXID (from 1).
    pub generations: Vec<Vec<Option<File>>>,
    /// Whether an object was ever replaced by another one.
    pub overwritten: bool,
    /// The generation that was written to last.
    pub latest: Option<usize>,
    /// The generation that the heartbeat names.
    pub heartbeat: Option<usize>,
}

impl Bucket {
    /// The file `txid` of a generation.
    #[must_use]
    pub fn get(&self, generation: usize, txid: u8) -> Option<&File> {
        self.generations.get(generation)?.get(usize::from(txid).checked_sub(1)?)?.as_ref()
    }

    /// Highest TXID of a generation.
    #[must_use]
    pub fn head(&self, generation: usize) -> u8 {
        u8::try_from(self.generations[generation].len()).unwrap_or(u8::MAX)
    }

    /// Writes an object, whatever is there.
    pub fn put(&mut self, generation: usize, txid: u8, file: File) {
        let files = &mut self.generations[generation];
        let index = usize::from(txid) - 1;
        if files.len() <= index {
            files.resize(index + 1, None);
        }
        self.overwritten |= files[index].as_ref().is_some_and(|old| *old != file);
        files[index] = Some(file);
        self.latest = Some(generation);
    }

    /// Writes an object if there is none (`If-None-Match: *`).
    pub fn put_if_absent(&mut self, generation: usize, txid: u8, file: File) -> bool {
        let absent = self.get(generation, txid).is_none();
        if absent {
            self.put(generation, txid, file);
        }
        absent
    }
}

/// Applies pages to a database, or to an index.
pub fn apply(image: &mut Image, pages: &Pages) {
    for (old, new) in image.iter_mut().zip(pages) {
        *old = new.unwrap_or(*old);
    }
}
