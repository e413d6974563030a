//! The shipper's state directory, with what of it is on the platter and what only in the page cache.

use crate::model::bucket::{File, NOTHING, Pages};
use crate::model::source::{Image, PAGES, Position};

/// The record: which file of the chain is durable, and where in the WAL its state was.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Record {
    /// Generation.
    pub generation: usize,
    /// Last durable TXID.
    pub txid: u8,
    /// The database at that TXID.
    pub checksum: Image,
    /// The WAL position at that TXID, where it is known.
    pub position: Option<Position>,
    /// The TXID at which the index was last fsynced.
    pub index_synced: u8,
    /// Runs of this shipper: a bit each.
    pub runs: u8,
    /// Last capture that is durable.
    pub sequence: u8,
}

/// A capture, or a part of a sweep, in the spool.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Captured {
    /// Number in the spool.
    pub sequence: u8,
    /// The changed pages.
    pub pages: Pages,
    /// The index before and after.
    pub before: Image,
    /// The index after it.
    pub after: Image,
    /// WAL position at its end.
    pub end: Position,
    /// Whether the database is in a committed state after it.
    pub whole: bool,
}

/// What is being uploaded: merged from captures, numbered, and not changed any more.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Frozen {
    /// The file.
    pub file: File,
    /// Its TXID.
    pub txid: u8,
    /// WAL position at its end.
    pub end: Position,
    /// The last capture in it.
    pub sequence: u8,
}

/// What a power cut takes from the state directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StateLoss {
    /// The record falls back to the one last fsynced.
    pub record: bool,
    /// These pages' checksums fall back to the index last fsynced.
    pub sums: [bool; PAGES],
    /// These files of the spool are gone: a bit each.
    pub spool: u8,
    /// The frozen file is gone.
    pub frozen: bool,
}

/// The files of one database below `state_dir`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Disk {
    /// `record`.
    pub record: Record,
    /// `durable.sums`.
    pub sums: Image,
    /// `spool/<sequence>.ltx`; those that are in `frozen` are removed together with it.
    pub spool: Vec<Captured>,
    /// `spool/upload-<txid>.ltx`.
    pub frozen: Option<Frozen>,
    synced_record: Record,
    synced_sums: Image,
}

impl Disk {
    /// The state of a generation that nothing was uploaded of.
    #[must_use]
    pub fn new(generation: usize, runs: u8) -> Self {
        let record = Record {
            generation,
            txid: 0,
            checksum: NOTHING,
            position: None,
            index_synced: 0,
            runs,
            sequence: 0,
        };
        Self::of(record)
    }

    /// The state after a clean stop at `record`.
    #[must_use]
    pub fn of(record: Record) -> Self {
        Self {
            sums: record.checksum,
            spool: Vec::new(),
            frozen: None,
            synced_sums: record.checksum,
            synced_record: record.clone(),
            record,
        }
    }

    /// Fsyncs the record.
    pub fn sync_record(&mut self) {
        self.synced_record = self.record.clone();
    }

    /// Fsyncs the index.
    pub fn sync_sums(&mut self) {
        self.synced_sums = self.sums;
    }

    /// The captures that are not in the frozen file.
    pub fn waiting(&self) -> impl DoubleEndedIterator<Item = &Captured> {
        let merged = self.frozen.as_ref().map_or(self.record.sequence, |frozen| frozen.sequence);
        self.spool.iter().filter(move |captured| captured.sequence > merged)
    }

    /// The highest number that a capture ever had, as far as it is known.
    #[must_use]
    pub fn last_sequence(&self) -> u8 {
        let frozen = self.frozen.as_ref().map_or(0, |frozen| frozen.sequence);
        let spooled = self.spool.iter().map(|captured| captured.sequence).max().unwrap_or(0);
        self.record.sequence.max(frozen).max(spooled)
    }

    /// The last position that is written down.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        let spooled = self.waiting().rfind(|captured| captured.whole).map(|captured| captured.end);
        let frozen = self.frozen.as_ref().map(|frozen| frozen.end);
        spooled.or(frozen).or(self.record.position)
    }

    /// Everything that a power cut can do.
    #[must_use]
    pub fn losses(&self) -> Vec<StateLoss> {
        let either = |differs: bool| if differs { vec![false, true] } else { vec![false] };
        let mut losses = Vec::new();
        for record in either(self.record != self.synced_record) {
            for first in either(self.sums[0] != self.synced_sums[0]) {
                for second in either(self.sums[1] != self.synced_sums[1]) {
                    for frozen in either(self.frozen.is_some()) {
                        for spool in 0..1 << self.spool.len() {
                            losses.push(StateLoss { record, sums: [first, second], spool, frozen });
                        }
                    }
                }
            }
        }
        losses
    }

    /// A power cut.
    pub fn lose_power(&mut self, loss: StateLoss) {
        if loss.record {
            self.record = self.synced_record.clone();
        }
        for (page, lost) in loss.sums.into_iter().enumerate() {
            if lost {
                self.sums[page] = self.synced_sums[page];
            }
        }
        let mut index = 0;
        self.spool.retain(|_| {
            index += 1;
            loss.spool & 1 << (index - 1) == 0
        });
        if loss.frozen {
            self.frozen = None;
        }
        self.sync_record();
        self.sync_sums();
    }
}
