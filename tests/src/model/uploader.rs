//! The shipper between the spool and the bucket: freeze, PUT, and what is written down afterwards.

use crate::model::Protocol;
use crate::model::bucket::{File, apply};
use crate::model::disk::{Captured, Frozen};
use crate::model::step::Step;
use crate::model::world::{InFlight, World};

/// How far the uploader is with the frozen file, or with an fsync of the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Not in the bucket as far as we know.
    Idle,
    /// In the bucket.
    Confirmed,
    /// The index has it.
    SumsApplied,
    /// The record has it.
    Recorded,
    /// The first of the two fsyncs is done.
    HalfSynced,
}

impl Protocol {
    /// The captures that can go up together, from the first that waits.
    pub(super) fn to_merge<'a>(&self, world: &'a World) -> Vec<&'a Captured> {
        let mut ready: Vec<_> = world.disk.waiting().collect();
        if self.has(Step::PartsMergedWhole) {
            let end = ready.iter().rposition(|captured| captured.whole).map_or(0, |last| last + 1);
            ready.truncate(end);
        }
        ready
    }

    fn merge(&self, world: &World) -> Option<Frozen> {
        let ready = self.to_merge(world);
        let (first, last) = (ready.first()?, ready.last()?);
        let mut pages = first.pages;
        for captured in &ready {
            for (page, value) in captured.pages.iter().enumerate() {
                pages[page] = value.or(pages[page]);
            }
        }
        let node = world.engine.as_ref()?.run;
        Some(Frozen {
            file: File { pages, before: first.before, after: last.after, node },
            txid: world.disk.record.txid + 1,
            end: last.end,
            sequence: last.sequence,
        })
    }

    /// Merges everything that waits into the next file.
    pub(super) fn freeze(&self, world: &mut World) {
        let Some(frozen) = self.merge(world) else { return };
        let disk = &mut world.disk;
        if !self.has(Step::SumsAfterUpload) {
            disk.sums = frozen.file.after;
        }
        disk.frozen = Some(frozen);
    }

    /// One PUT, with an answer.
    pub(super) fn put(&self, world: &mut World) {
        let Some(frozen) = world.disk.frozen.clone() else { return };
        if !self.has(Step::RecordAfterUpload) {
            self.record(world, &frozen);
        }
        let generation = world.disk.record.generation;
        if !self.has(Step::ConditionalPut) {
            world.bucket.put(generation, frozen.txid, frozen.file.clone());
        } else if !world.bucket.put_if_absent(generation, frozen.txid, frozen.file.clone()) {
            let there = world.bucket.get(generation, frozen.txid).cloned();
            let equal = there.as_ref() == Some(&frozen.file);
            if !(equal && self.has(Step::LandedAttemptIsOurs)) {
                let runs = world.disk.record.runs;
                let ours = there.is_some_and(|file| file.is_of(runs));
                if ours || !self.has(Step::RunIdCheck) {
                    self.roll_forward(world);
                } else {
                    self.new_generation(world);
                }
                return;
            }
        }
        let Some(engine) = &mut world.engine else { return };
        engine.stage = Stage::Confirmed;
        self.answer(world);
        if !self.may_die(world) {
            // Nobody can see what is between these steps any more.
            self.apply_sums(world);
            self.write_record(world);
            self.remove(world);
        }
    }

    /// One PUT whose answer never comes; it may still take effect, at any time.
    pub(super) fn put_unanswered(&self, world: &mut World) {
        let Some(frozen) = &world.disk.frozen else { return };
        let generation = world.disk.record.generation;
        world.in_flight =
            Some(InFlight { generation, txid: frozen.txid, file: frozen.file.clone() });
        if !self.has(Step::RecordAfterUpload) {
            let frozen = frozen.clone();
            self.record(world, &frozen);
        }
        if !self.has(Step::FreezeBeforePut) {
            world.disk.frozen = None;
        }
    }

    /// The PUT whose answer never came takes effect.
    pub(super) fn land(&self, world: &mut World) {
        let Some(InFlight { generation, txid, file }) = world.in_flight.take() else { return };
        world.landed_late |= world.spent.power_losses > 0;
        if self.has(Step::ConditionalPut) {
            world.bucket.put_if_absent(generation, txid, file);
        } else {
            world.bucket.put(generation, txid, file);
        }
    }

    /// A second PUT while the first has no answer (only without [`Step::OrderedUploads`]).
    pub(super) fn put_ahead(&self, world: &mut World) {
        let Some(mut ahead) = self.merge(world) else { return };
        ahead.txid += 1;
        world.bucket.put_if_absent(world.disk.record.generation, ahead.txid, ahead.file);
    }

    /// The bucket is ahead of us: our state was stale. Believe the bucket, and catch up.
    fn roll_forward(&self, world: &mut World) {
        let World { disk, bucket, .. } = world;
        let runs = disk.record.runs;
        while let Some(file) = bucket.get(disk.record.generation, disk.record.txid + 1)
            && (file.is_of(runs)
                || !self.has(Step::RollForwardOnlyOurs)
                || !self.has(Step::RunIdCheck))
        {
            apply(&mut disk.sums, &file.pages);
            disk.record.txid += 1;
            disk.record.checksum = file.after;
        }
        if self.has(Step::PositionOfItsTxid) {
            disk.record.position = None;
        }
        disk.frozen = None;
        if self.has(Step::RollForwardDropsSpool) {
            disk.spool.clear();
        }
        let tip = disk.sums;
        world.catches_up();
        let Some(engine) = &mut world.engine else { return };
        engine.tip = tip;
        engine.sweep = Some(0);
        engine.stage = Stage::Idle;
    }

    /// After the upload: the index of what is durable.
    pub(super) fn apply_sums(&self, world: &mut World) {
        let (disk, Some(engine)) = (&mut world.disk, &mut world.engine) else { return };
        let Some(frozen) = &disk.frozen else { return };
        disk.sums = frozen.file.after;
        engine.stage = Stage::SumsApplied;
        if !self.has(Step::RemoveAfterRecord) {
            world.removed = disk.frozen.take();
        }
    }

    /// After the index: the record.
    pub(super) fn write_record(&self, world: &mut World) {
        let Some(frozen) = world.disk.frozen.clone().or_else(|| world.removed.take()) else {
            return;
        };
        self.record(world, &frozen);
        if let Some(engine) = &mut world.engine {
            engine.stage = Stage::Recorded;
        }
    }

    /// After the record: the files that it makes superfluous.
    pub(super) fn remove(&self, world: &mut World) {
        let disk = &mut world.disk;
        disk.frozen = None;
        disk.spool.retain(|captured| captured.sequence > disk.record.sequence);
        if let Some(engine) = &mut world.engine {
            engine.stage = Stage::Idle;
        }
    }

    /// One of the two fsyncs of index and record.
    pub(super) fn sync_index(&self, world: &mut World) {
        let Some(engine) = &mut world.engine else { return };
        let first = engine.stage == Stage::Idle;
        engine.stage = if first { Stage::HalfSynced } else { Stage::Idle };
        if first == self.has(Step::IndexBeforeRecord) {
            world.disk.sync_sums();
        } else {
            world.disk.record.index_synced = world.disk.record.txid;
            world.disk.sync_record();
        }
    }

    fn record(&self, world: &mut World, frozen: &Frozen) {
        let record = &mut world.disk.record;
        record.txid = frozen.txid;
        record.checksum = frozen.file.after;
        record.position = Some(frozen.end);
        record.sequence = frozen.sequence;
    }
}
