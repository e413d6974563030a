//! What can happen next, and within which bounds.

use crate::model::Protocol;
use crate::model::disk::StateLoss;
use crate::model::source::{PAGES, TailLoss};
use crate::model::step::Step;
use crate::model::uploader::Stage;
use crate::model::world::World;

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The application commits a page, in a restarted WAL or at the end of this one.
    Commit {
        /// Which page.
        page: usize,
        /// Whether the WAL is restarted first.
        restart: bool,
    },
    /// A writer of the application dies before its commit of this page is published.
    WriterDies(usize),
    /// A PASSIVE checkpoint: ours, with or without the lock, or the application's.
    Checkpoint,
    /// The application's `wal_checkpoint(TRUNCATE)`.
    Truncate,
    /// The application closes its last connection, and no shipper has one.
    Close,
    /// The shipper starts.
    Start,
    /// It captures what was committed.
    Capture,
    /// `shipper sync`.
    Sync,
    /// The sweep reads this page.
    SweepPage(usize),
    /// The sweep ends.
    FinishSweep,
    /// The held read transaction ends too early.
    LetGo,
    /// The next read transaction begins.
    HandOverBegin,
    /// The current one ends.
    HandOverEnd,
    /// Everything that waits becomes one file.
    Freeze,
    /// It is sent and answered.
    Put,
    /// It is sent and not answered.
    PutUnanswered,
    /// What was not answered takes effect.
    Land,
    /// A file is sent although the one before it is not durable.
    PutAhead,
    /// The index of what is durable is brought up to date.
    ApplySums,
    /// The record is.
    WriteRecord,
    /// What is durable leaves the spool.
    Remove,
    /// Index and record are fsynced, first one, then the other.
    SyncIndex,
    /// The shipper is killed.
    Kill,
    /// The power fails, or the machine reboots.
    LosePower(TailLoss, StateLoss),
    /// The heartbeat that names our generation is written.
    Heartbeat,
    /// The state directory is lost; its backup is not.
    LoseState,
    /// The backup of the state directory is put back.
    PutStateBack,
    /// Another shipper writes into our generation.
    ForeignPut,
}

impl Protocol {
    /// What the application, the machine and other shippers may do now.
    pub(super) fn outside(&self, world: &World, actions: &mut Vec<Action>) {
        let (bounds, spent) = (&self.bounds, &world.spent);
        let readers = world.readers();
        if world.source.commits() < bounds.commits {
            for page in 0..if self.one_page { 1 } else { PAGES } {
                actions.push(Action::Commit { page, restart: false });
                if world.source.may_restart(&readers) {
                    actions.push(Action::Commit { page, restart: true });
                }
                if spent.dying_writers < bounds.dying_writers {
                    actions.push(Action::WriterDies(page));
                }
            }
        }
        let may_checkpoint = spent.checkpoints < bounds.checkpoints;
        if may_checkpoint && world.source.checkpointable(&readers) > world.source.backfilled() {
            actions.push(Action::Checkpoint);
        }
        if spent.truncates < bounds.truncates {
            if world.source.may_truncate(&readers) {
                actions.push(Action::Truncate);
            }
            if world.engine.is_none() {
                actions.push(Action::Close);
            }
        }
        if spent.foreign_puts < bounds.foreign_puts {
            actions.push(Action::ForeignPut);
        }
        if world.in_flight.is_some() {
            actions.push(Action::Land);
        }
        if world.engine.is_none() {
            if spent.state_losses < bounds.state_losses {
                actions.push(Action::LoseState);
            }
            if spent.put_backs < bounds.put_backs && world.backup.is_some() {
                actions.push(Action::PutStateBack);
            }
        }
        if spent.crashes < bounds.crashes && world.engine.is_some() {
            actions.push(Action::Kill);
        }
        if spent.power_losses < bounds.power_losses {
            for tail in world.source.tail_losses() {
                let losses = world.disk.losses().into_iter();
                actions.extend(losses.map(|state| Action::LosePower(tail, state)));
            }
        }
    }

    /// What the shipper may do now.
    pub(super) fn shipping(&self, world: &World, actions: &mut Vec<Action>) {
        let Some(engine) = &world.engine else {
            actions.push(Action::Start);
            return;
        };
        if engine.position != world.source.position() {
            actions.push(Action::Capture);
        }
        match engine.sweep {
            Some(PAGES) => actions.push(Action::FinishSweep),
            Some(page) => actions.push(Action::SweepPage(page)),
            None if world.spent.syncs < self.bounds.syncs => actions.push(Action::Sync),
            None => {}
        }
        if engine.next.is_some() {
            actions.push(Action::HandOverEnd);
        } else if self.bounds.checkpoints > 0 && world.source.begin_read() != engine.held {
            if self.has(Step::HandOverHandInHand) || engine.let_go {
                actions.push(Action::HandOverBegin);
            } else {
                actions.push(Action::LetGo);
            }
        }
        let named = world.bucket.heartbeat == Some(world.disk.record.generation);
        if !named && !self.heartbeat_denied {
            actions.push(Action::Heartbeat);
        }
        match engine.stage {
            Stage::Idle => self.uploading(world, actions),
            Stage::Confirmed => actions.push(Action::ApplySums),
            Stage::SumsApplied => actions.push(Action::WriteRecord),
            Stage::Recorded => actions.push(Action::Remove),
            Stage::HalfSynced => actions.push(Action::SyncIndex),
        }
    }

    fn uploading(&self, world: &World, actions: &mut Vec<Action>) {
        let waiting = !self.to_merge(world).is_empty();
        if world.disk.frozen.is_some() {
            actions.push(Action::Put);
            if world.spent.lost_answers < self.bounds.lost_answers {
                actions.push(Action::PutUnanswered);
            }
            if waiting && !self.has(Step::OrderedUploads) {
                actions.push(Action::PutAhead);
            }
        } else if waiting {
            actions.push(Action::Freeze);
        }
        let power = world.spent.power_losses < self.bounds.power_losses;
        if power && world.disk.record.index_synced != world.disk.record.txid {
            actions.push(Action::SyncIndex);
        }
    }
}
