//! Which chain is the latest, and which were written to at once. Pure: listings, the headers of each chain's first and
//! last file, and the heartbeat.
//!
//! The latest is the chain whose tip was written last. A shipper acknowledges a new generation as soon as its snapshot is in the
//! bucket, so the heartbeat, which follows, decides nothing: it breaks the doubt in a copied bucket, whose store says of every
//! object when it was copied.

use jiff::Timestamp;

use crate::documents::Heartbeat;
use crate::format::{Level, Txid};
use crate::restore::Inventory;
use crate::restore::times::is_shipped;
use crate::store::{Chain, LtxObject};

/// Writes of a chain after another one began that are no accident: one may have been under way for long.
const WRITES_OF_THE_LIVING: usize = 2;

/// When a file was written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    /// By its header; `None` where that is not valid.
    pub(super) claimed: Option<Timestamp>,
    /// By its header, as far as the store bears it out.
    pub(super) time: Timestamp,
}

/// A chain and the time in which it was written.
#[derive(Debug)]
pub(super) struct Lived {
    pub(super) inventory: Inventory,
    /// Its first file.
    pub(super) begun: Moment,
    /// Its tip.
    pub(super) tip: Moment,
    /// No file in it is valid.
    pub(super) junk: bool,
}

/// The file that a chain was last written with: of a generation's own files the last, else any that ends last.
pub(super) fn tip(inventory: &Inventory) -> Option<&LtxObject> {
    let shipped = |file: &&LtxObject| is_shipped(inventory.chain, file);
    let by_end = |file: &&LtxObject| (file.txids.max(), file.level != Level::SNAPSHOT);
    let last = inventory.files.iter().filter(shipped).max_by_key(by_end);
    last.or_else(|| inventory.files.iter().max_by_key(by_end))
}

impl Lived {
    fn chain(&self) -> Chain {
        self.inventory.chain
    }

    /// The newest TXID in any file.
    pub(super) fn newest(&self) -> Option<Txid> {
        self.inventory.files.iter().map(|file| file.txids.max()).max()
    }

    fn first_arrival(&self) -> Option<Timestamp> {
        self.inventory.files.iter().map(|file| file.modified).min()
    }

    /// Everything arrived after the last of it was written: copied here, as far as its clock can be believed.
    fn is_copied(&self) -> bool {
        self.tip.claimed < self.first_arrival()
    }

    /// How often it was written to after `time` (and until `until`), by the store's word.
    fn writes_after(&self, time: Timestamp, until: Timestamp) -> usize {
        let shipped = self.inventory.files.iter().filter(|file| is_shipped(self.chain(), file));
        shipped.filter(|file| time < file.modified && file.modified <= until).count()
    }
}

/// Whether every object arrived after every tip was written: a bucket that was copied, or a server without a clock.
pub(super) fn is_copied(lived: &[Lived]) -> bool {
    let arrived = lived.iter().filter_map(Lived::first_arrival).min();
    lived.iter().filter_map(|chain| chain.tip.claimed).max() < arrived
}

/// Puts the latest first. `kept`: the store keeps time.
pub(super) fn sort(lived: &mut [Lived], kept: bool, beat: Option<&Heartbeat>) -> Vec<String> {
    let mut remarks = Vec::new();
    lived.sort_by_key(|chain| std::cmp::Reverse((chain.tip.time, chain.chain())));
    let Some(beat) = beat else { return remarks };
    let named = Chain::Generation(beat.generation);
    let arrived = lived.iter().filter_map(Lived::first_arrival).min();
    if lived.len() > 1 && kept && is_copied(lived) && arrived.is_some_and(|at| beat.written_at < at)
    {
        lived.sort_by_key(|chain| std::cmp::Reverse((chain.tip.claimed, chain.chain())));
        let vouched = lived.first().is_some_and(|chain| chain.tip.claimed < Some(beat.written_at));
        let position = lived.iter().position(|chain| chain.chain() == named);
        if let Some(position) = position.filter(|_| vouched) {
            lived[..=position].rotate_right(1);
        }
        remarks.push(format!(
            "every file arrived in the store after the heartbeat of {} was written, as in a copied bucket: going by the heartbeat and the times in the files",
            beat.written_at
        ));
    }
    let Some(latest) = lived.first() else { return remarks };
    if lived.iter().all(|chain| chain.chain() != named) {
        let what = match beat.txid {
            None => "which has no complete snapshot yet".to_owned(),
            Some(txid) => format!(
                "of which nothing is there, although it says that TXID {txid} was shipped: its files are lost, or it never was"
            ),
        };
        remarks.push(format!(
            "the heartbeat of {} names generation {named}, {what}; the latest that is there is {}",
            beat.written_at,
            latest.chain()
        ));
    } else if latest.chain() != named {
        remarks.push(format!(
            "the heartbeat of {} names generation {named}, but {} was written to later, at {}, and is taken as the latest (choose with --generation)",
            beat.written_at,
            latest.chain(),
            latest.tip.time
        ));
    }
    remarks
}

/// The chains that were alive at once with `chosen`, as far as they were by `until`: the one that began first was written to
/// after the other one had begun. Two hosts ship under one name, or a copy of one does: each has what the other has not.
pub(super) fn rivals(lived: &[Lived], chosen: Chain, kept: bool, until: Timestamp) -> Vec<&Lived> {
    let Some(this) = lived.iter().find(|chain| chain.chain() == chosen) else { return Vec::new() };
    let others = lived.iter().filter(|other| {
        other.chain() != chosen
            && !other.junk
            && other.inventory.has_snapshot()
            && alive_at_once(this, other, kept, until)
    });
    others.collect()
}

fn alive_at_once(one: &Lived, other: &Lived, kept: bool, until: Timestamp) -> bool {
    let by_store = kept && !one.is_copied() && !other.is_copied();
    let begun = |chain: &Lived| {
        let claimed = chain.begun.claimed.unwrap_or(chain.begun.time);
        (if by_store { chain.begun.time } else { claimed }, chain.chain())
    };
    let (older, newer) = if begun(one) <= begun(other) { (one, other) } else { (other, one) };
    if newer.begun.time > until {
        return false;
    }
    let later = older.tip.claimed > newer.begun.claimed;
    if !by_store {
        return later && older.tip.time <= until;
    }
    let Some(arrived) = newer.inventory.first().map(|file| file.modified) else { return false };
    let writes = older.writes_after(arrived, until);
    writes >= WRITES_OF_THE_LIVING || (writes > 0 && later)
}
