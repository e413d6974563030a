//! The shipper between the WAL and the spool: hold, capture, sweep, and the start after a crash.

use crate::model::bucket::{NOTHING, Pages, apply};
use crate::model::disk::{Captured, Disk};
use crate::model::source::{Image, PAGES, Position, Reader};
use crate::model::step::Step;
use crate::model::world::World;
use crate::model::{Protocol, uploader::Stage};

/// What a running shipper has in memory.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Engine {
    /// The read transaction that is held.
    pub held: Reader,
    /// Whether it was ended before the next one began (only without [`Step::HandOverHandInHand`]).
    pub let_go: bool,
    /// The one that is about to replace it.
    pub next: Option<Reader>,
    /// The end of what was captured.
    pub position: Position,
    /// The index at the last capture.
    pub tip: Image,
    /// The next page that the sweep reads, while one is under way.
    pub sweep: Option<usize>,
    /// Number of the last capture.
    pub sequence: u8,
    /// This run's id: a bit.
    pub run: u8,
    /// A `sync` that waits for this capture, and the state that it must not fall short of.
    pub sync: Option<Waiting>,
    /// Where the uploader is.
    pub stage: Stage,
}

/// A `sync` that was not answered yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Waiting {
    /// The newest state when it was asked for: an index of the timeline.
    pub state: usize,
    /// The capture to wait for.
    pub sequence: u8,
}

impl Engine {
    /// The read transactions that are open.
    pub fn readers(&self) -> impl Iterator<Item = Reader> + '_ {
        (!self.let_go).then_some(self.held).into_iter().chain(self.next)
    }
}

impl Protocol {
    /// The shipper starts.
    pub(super) fn start(&self, world: &mut World) {
        world.runs += 1;
        let run = 1 << world.runs;
        world.disk.record.runs |= run;
        if !self.has(Step::ReadHeartbeatBeforeWriting) {
            world.bucket.heartbeat = Some(world.disk.record.generation);
        }
        let later = world.bucket.heartbeat > Some(world.disk.record.generation);
        let trusted = self.redo_index(world) && !(later && self.has(Step::LaterGenerationEndsOurs));
        world.engine = Some(self.attach(world, run));
        if !trusted {
            self.new_generation(world);
        }
        if self.has(Step::RunIdBeforePut) {
            world.disk.sync_record();
        }
    }

    /// Brings the index of what is durable back in line with the record, from the bucket. `false` where that is
    /// not to be had.
    fn redo_index(&self, world: &mut World) -> bool {
        let World { disk, bucket, .. } = world;
        let runs = disk.record.runs;
        let holds = disk.sums == disk.record.checksum || !self.has(Step::SumsProveThemselves);
        if holds && !self.has(Step::AskBucketAtStart) {
            return true;
        }
        let from = if holds || !self.has(Step::RedoFromLastSync) {
            disk.record.txid
        } else {
            disk.record.index_synced
        };
        let mut txid = from;
        let mut checksum = disk.record.checksum;
        while let Some(file) = bucket.get(disk.record.generation, txid + 1)
            && (file.is_of(runs) || !self.has(Step::RollForwardOnlyOurs))
        {
            apply(&mut disk.sums, &file.pages);
            checksum = file.after;
            txid += 1;
        }
        if txid < disk.record.txid || (disk.sums != checksum && self.has(Step::SumsProveThemselves))
        {
            return false;
        }
        if txid > disk.record.txid && self.has(Step::PositionOfItsTxid) {
            disk.record.position = None;
        }
        disk.record.txid = txid;
        disk.record.checksum = checksum;
        true
    }

    /// Holds the database, rebuilds the tip from the spool, and goes on or catches up.
    pub(super) fn attach(&self, world: &mut World, run: u8) -> Engine {
        let held = world.source.begin_read();
        let (tip, position) = self.rebuild_tip(&mut world.disk);
        let proven = position.filter(|position| self.matches(world, *position));
        if proven.is_none() {
            world.catches_up();
        }
        // A WAL that is backfilled to its end can be restarted before what we have not read of it is captured.
        world.excused |= held.on_slot_0 && proven.is_some_and(|position| position != held.mark);
        Engine {
            held,
            let_go: false,
            next: None,
            position: proven.unwrap_or(held.mark),
            tip,
            sweep: proven.is_none().then_some(0),
            sequence: world.disk.last_sequence(),
            run,
            sync: None,
            stage: Stage::Idle,
        }
    }

    /// The index after the last whole file of the spool, and the position there. What does not follow is removed.
    fn rebuild_tip(&self, disk: &mut Disk) -> (Image, Option<Position>) {
        let mut tip = disk.sums;
        let mut position = disk.record.position;
        if let Some(frozen) = disk.frozen.take() {
            if frozen.txid == disk.record.txid {
                // It is durable, although the record may not have said so.
                if frozen.file.after == tip
                    && position.is_none()
                    && self.has(Step::PositionFromFrozenFile)
                {
                    position = Some(frozen.end);
                    disk.record.position = position;
                }
                disk.record.sequence = disk.record.sequence.max(frozen.sequence);
            } else if frozen.txid == disk.record.txid + 1 && frozen.file.before == tip {
                tip = frozen.file.after;
                position = Some(frozen.end);
                disk.frozen = Some(frozen);
            }
        }
        let mut kept = disk.waiting().next().map_or(u8::MAX, |first| first.sequence - 1);
        let mut running = tip;
        for captured in disk.waiting() {
            if captured.before != running && self.has(Step::SpoolEndsAtGap) {
                break;
            }
            apply(&mut running, &captured.pages);
            if captured.whole || !self.has(Step::SweepBeginsAgain) {
                tip = running;
                position = Some(captured.end);
                kept = captured.sequence;
            }
        }
        disk.spool.retain(|captured| captured.sequence <= kept);
        (tip, position)
    }

    /// Whether a saved position proves that the live WAL goes on from it.
    fn matches(&self, world: &World, saved: Position) -> bool {
        let live = world.source.position();
        let checksum = world.source.frame_in_file(saved.frame).map_or(0, |frame| frame.value);
        !(self.has(Step::EmptyWalProvesNothing) && saved.salt == 0
            || self.has(Step::PositionCheckSalts) && saved.salt != live.salt
            || self.has(Step::PositionCheckMxFrame) && saved.frame > live.frame
            || self.has(Step::PositionCheckChecksum) && saved.checksum != checksum)
    }

    /// Captures up to the WAL's end. A discontinuity attaches anew.
    pub(super) fn capture(&self, world: &mut World) {
        let Some(engine) = &world.engine else { return };
        let live = world.source.position();
        let from = if live.salt == engine.position.salt {
            (live.frame >= engine.position.frame).then_some(engine.position.frame)
        } else {
            self.goes_on_after_restart(engine).then_some(0)
        };
        let Some(from) = from else {
            world.engine = Some(self.attach(world, engine.run));
            return;
        };
        let mut pages: Pages = [None; PAGES];
        for frame in world.source.frames_from(from, !self.has(Step::BoundByWalIndex)) {
            pages[frame.page] = Some(frame.value);
        }
        self.spool(world, pages, live);
    }

    /// Whether new salts are what our read transaction allows for: one restart, from exactly where it stands; and behind that
    /// only incarnations that were left empty, since nothing is backfilled under a transaction on slot 0.
    fn goes_on_after_restart(&self, engine: &Engine) -> bool {
        let Engine { held, position, .. } = engine;
        let empty = position.frame == 0 && held.mark.salt != position.salt;
        !self.has(Step::RestartOnlyFromCaptured)
            || *position == held.mark
            || empty && self.has(Step::EmptyWalsMayFollow)
    }

    fn spool(&self, world: &mut World, pages: Pages, end: Position) {
        let Some(engine) = &mut world.engine else { return };
        engine.position = end;
        if pages == [None; PAGES] {
            return;
        }
        engine.sequence += 1;
        let before = engine.tip;
        apply(&mut engine.tip, &pages);
        world.disk.spool.push(Captured {
            sequence: engine.sequence,
            pages,
            before,
            after: engine.tip,
            end,
            whole: engine.sweep.is_none(),
        });
    }

    /// The sweep reads a page and spools it if the index does not know it.
    pub(super) fn sweep_page(&self, world: &mut World, page: usize) {
        let Some(engine) = &mut world.engine else { return };
        engine.sweep = Some(page + 1);
        let live = world.source.image()[page];
        if engine.tip[page] != live {
            let mut pages = [None; PAGES];
            pages[page] = Some(live);
            let end = engine.position;
            self.spool(world, pages, end);
        }
    }

    /// After the last page: one capture to the end makes all parts a whole.
    pub(super) fn finish_sweep(&self, world: &mut World) {
        if self.has(Step::SweepEndsWithCapture) {
            self.capture(world);
        }
        let Some(engine) = &mut world.engine else { return };
        if engine.sweep != Some(PAGES) {
            return; // The capture found a discontinuity.
        }
        engine.sweep = None;
        let end = engine.position;
        if let Some(last) = world.disk.spool.last_mut().filter(|last| !last.whole) {
            last.whole = true;
            last.end = end;
        }
    }

    /// The next read transaction begins.
    pub(super) fn hand_over_begin(&self, world: &mut World) {
        let Some(engine) = &mut world.engine else { return };
        engine.next = Some(world.source.begin_read());
    }

    /// The current one ends, after a capture where the next one may stand on slot 0.
    pub(super) fn hand_over_end(&self, world: &mut World) {
        let Some(Engine { held, next: Some(next), position, .. }) = world.engine else { return };
        let appended = next.mark.salt == held.mark.salt && next.mark.frame > held.mark.frame;
        if !appended && position != next.mark && self.has(Step::CaptureBeforeRelease) {
            self.capture(world);
        }
        let Some(engine) = &mut world.engine else { return };
        // (`next` is gone if the capture found a discontinuity and attached anew.)
        if let Some(next) = engine.next.take() {
            engine.held = next;
            engine.let_go = false;
        }
    }

    /// `shipper sync`: capture to the end, then wait until that capture is durable.
    pub(super) fn sync(&self, world: &mut World) {
        world.spent.syncs += 1;
        let state = world.source.timeline.len() - 1;
        if self.has(Step::SyncCaptures) {
            self.capture(world);
        }
        let Some(engine) = &mut world.engine else { return };
        if engine.sweep.is_some() {
            return; // The capture found a discontinuity: asked again later.
        }
        let sequence = if self.has(Step::SyncWaitsForUpload) { engine.sequence } else { 0 };
        engine.sync = Some(Waiting { state, sequence });
        self.answer(world);
    }

    /// Answers a `sync` whose capture is durable.
    pub(super) fn answer(&self, world: &mut World) {
        let Some(engine) = &world.engine else { return };
        let named = world.bucket.heartbeat == Some(world.disk.record.generation);
        if !named && !self.heartbeat_denied && self.has(Step::SyncWaitsForHeartbeat) {
            return;
        }
        let durable = match engine.stage {
            Stage::Confirmed | Stage::SumsApplied => world.disk.frozen.as_ref().map(|f| f.sequence),
            _ => None,
        };
        world.answer_sync(durable.unwrap_or(world.disk.record.sequence));
    }

    /// The heartbeat is written.
    pub(super) fn heartbeat(&self, world: &mut World) {
        world.bucket.heartbeat = Some(world.disk.record.generation);
        self.answer(world);
    }

    /// Gives the generation up: a new one begins with a sweep that finds every page.
    pub(super) fn new_generation(&self, world: &mut World) {
        world.begins_generation();
        world.disk = Disk::new(world.bucket.generations.len() - 1, world.disk.record.runs);
        let Some(engine) = &mut world.engine else { return };
        engine.tip = NOTHING;
        engine.sweep = Some(0);
        engine.sequence = 0;
        engine.sync = None;
        engine.stage = Stage::Idle;
    }
}
