//! A model of the shipping protocol, small enough to be checked exhaustively: a writer on a WAL, the shipper, its
//! state directory, the bucket, and everything that may happen to them between any two steps.
//!
//! [`promises`] says what must hold in every state. [`step::Step`] names what the promises rest on; a [`Protocol`] can do without
//! one of them, and then a promise must break, or the step would not be needed.
//!
//! What it does not promise: that the program is this protocol (the simulation and the crash sweep run the real one), anything
//! about time (a PUT that was given up counts as written when it takes effect; so where a state directory is lost, none is on its
//! way), or about stores without a conditional PUT. The scrub is left out on purpose: it would heal what the
//! protocol must not need healed. So is a disk cloned while the shipper runs, whose two copies have the same runs to their
//! name: the bucket alone cannot tell them apart from one whose record is stale.

pub mod action;
pub mod bucket;
pub mod disk;
pub mod engine;
pub mod promises;
pub mod source;
pub mod step;
pub mod uploader;
pub mod world;

use stateright::{Model, Property};

use crate::model::action::Action;
use crate::model::promises::PROMISES;
use crate::model::step::Step;
use crate::model::world::{Bounds, World};

/// The protocol, within bounds.
#[derive(Debug, Clone, Default)]
pub struct Protocol {
    /// What may happen how often.
    pub bounds: Bounds,
    /// Whether the database was never shipped.
    pub fresh: bool,
    /// Whether all commits are to the same page, so that there may be more of them.
    pub one_page: bool,
    /// Whether the heartbeat can never be written.
    pub heartbeat_denied: bool,
    /// The step that is left out.
    pub without: Option<Step>,
}

impl Protocol {
    /// Whether a step is taken.
    #[must_use]
    pub fn has(&self, step: Step) -> bool {
        self.without != Some(step)
    }

    /// Whether a kill or a power cut can still come.
    fn may_die(&self, world: &World) -> bool {
        let (bounds, spent) = (&self.bounds, &world.spent);
        spent.crashes < bounds.crashes || spent.power_losses < bounds.power_losses
    }
}

impl Model for Protocol {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self.fresh)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        self.outside(world, actions);
        self.shipping(world, actions);
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut next = last.clone();
        let world = &mut next;
        match action {
            Action::Commit { page, restart } => {
                if restart {
                    world.restarted_wal();
                }
                world.source.commit(page, restart);
            }
            Action::WriterDies(page) => {
                world.spent.dying_writers += 1;
                world.source.write_unpublished(page);
            }
            Action::Checkpoint => {
                world.spent.checkpoints += 1;
                world.source.checkpoint(&last.readers());
            }
            Action::Truncate | Action::Close => {
                world.spent.truncates += 1;
                world.restarted_wal();
                if action == Action::Close { world.source.close() } else { world.source.truncate() }
            }
            Action::Start => self.start(world),
            Action::Capture => self.capture(world),
            Action::Sync => self.sync(world),
            Action::SweepPage(page) => self.sweep_page(world, page),
            Action::FinishSweep => self.finish_sweep(world),
            Action::LetGo => world.engine.as_mut()?.let_go = true,
            Action::HandOverBegin => self.hand_over_begin(world),
            Action::HandOverEnd => self.hand_over_end(world),
            Action::Freeze => self.freeze(world),
            Action::Put => self.put(world),
            Action::PutUnanswered => {
                world.spent.lost_answers += 1;
                self.put_unanswered(world);
            }
            Action::Land => self.land(world),
            Action::PutAhead => self.put_ahead(world),
            Action::ApplySums => self.apply_sums(world),
            Action::WriteRecord => self.write_record(world),
            Action::Remove => self.remove(world),
            Action::SyncIndex => self.sync_index(world),
            Action::Kill => {
                world.spent.crashes += 1;
                world.kill();
            }
            Action::LosePower(tail, state) => {
                world.spent.power_losses += 1;
                world.kill();
                world.source.lose_power(tail);
                world.disk.lose_power(state);
                world.excused = true;
            }
            Action::Heartbeat => self.heartbeat(world),
            Action::LoseState => {
                world.spent.state_losses += 1;
                world.lose_state();
            }
            Action::PutStateBack => {
                world.spent.put_backs += 1;
                world.disk = world.backup.take()?;
                world.excused = true;
            }
            Action::ForeignPut => {
                world.spent.foreign_puts += 1;
                world.foreign_put();
            }
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        PROMISES.iter().map(|(name, promise)| Property::always(name, *promise)).collect()
    }
}
