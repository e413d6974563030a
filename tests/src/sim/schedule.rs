//! From a seed to a schedule, and through it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use anyhow::{Result, anyhow};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::sim::nature::{Nature, Tally};
use crate::sim::world::World;

/// What may happen, by its weight.
#[derive(Debug, Clone, Copy)]
enum Event {
    Work,
    Pass,
    Jump,
    Step,
    Attempt,
    Sync,
    Start,
    Crash,
    Stop,
    Trouble,
    Outage,
    Well,
    FullDisk,
    StopApplication,
    RestartApplication,
    StartApplication,
    WriteBack,
    LosePower,
    KeepState,
    PutStateBack,
    KeepDatabase,
    PutDatabaseBack,
    CloneMachine,
    ChangePlaces,
    WorkLong,
}

const EVENTS: [(u32, Event); 25] = [
    (300, Event::Work),
    (100, Event::Pass),
    (6, Event::Jump),
    (160, Event::Step),
    (160, Event::Attempt),
    (20, Event::Sync),
    (60, Event::Start),
    (14, Event::Crash),
    (6, Event::Stop),
    (10, Event::Trouble),
    (8, Event::Outage),
    (20, Event::Well),
    (4, Event::FullDisk),
    (4, Event::StopApplication),
    (8, Event::RestartApplication),
    (20, Event::StartApplication),
    (8, Event::WriteBack),
    (8, Event::LosePower),
    (4, Event::KeepState),
    (3, Event::PutStateBack),
    (4, Event::KeepDatabase),
    (2, Event::PutDatabaseBack),
    (2, Event::CloneMachine),
    (40, Event::ChangePlaces),
    (16, Event::WorkLong),
];

/// What a seed came to.
#[derive(Debug)]
pub struct Report {
    /// How it went.
    pub result: Result<Tally>,
    /// What happened.
    pub log: Vec<String>,
}

/// Runs one seed.
#[must_use]
pub fn run(seed: u64) -> Report {
    let nature = Nature::draw(&mut StdRng::seed_from_u64(seed ^ 0x5ea));
    let mut world = match World::new(seed, nature) {
        Ok(world) => world,
        Err(error) => return Report { result: Err(error), log: Vec::new() },
    };
    let result = catch_unwind(AssertUnwindSafe(|| {
        let events = world.random.random_range(20..300);
        let swarm = EVENTS.map(|(weight, event)| {
            // What never happens in a seed cannot heal what does: more schedules are reached like this.
            (weight * [0, 1, 1, 4][world.random.random_range(0..4)], event)
        });
        world.start()?;
        for _ in 0..events {
            happen(&mut world, &swarm)?;
        }
        world.settle()
    }));
    let result = result.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(anyhow!("panicked: {}", text.unwrap_or_default()))
    });
    Report { result: result.map(|()| world.tally), log: std::mem::take(&mut world.log) }
}

fn happen(world: &mut World, events: &[(u32, Event)]) -> Result<()> {
    let total: u32 = events.iter().map(|(weight, _)| weight).sum();
    let mut at = world.random.random_range(0..total.max(1));
    let mut chosen = Event::Work;
    for (weight, event) in events {
        if at < *weight {
            chosen = *event;
            break;
        }
        at -= weight;
    }
    match chosen {
        Event::Work => world.work()?,
        Event::Pass => world.pass(),
        Event::Jump => world.jump(),
        Event::Step => drop(world.step(false)?),
        Event::Attempt => drop(world.attempt()?),
        Event::Sync => drop(world.sync()?),
        Event::Start => world.start()?,
        Event::Crash => world.crash()?,
        Event::Stop => world.stop()?,
        Event::Trouble => world.trouble(),
        Event::Outage => world.outage(true),
        Event::Well => world.outage(false),
        Event::FullDisk => world.fill_disk(),
        Event::StopApplication => {
            let kill = world.random.random_bool(0.5);
            world.restart_application(kill, false)?;
        }
        Event::RestartApplication => {
            let kill = world.random.random_bool(0.5);
            world.restart_application(kill, true)?;
        }
        Event::StartApplication => world.open_application()?,
        Event::WriteBack => world.write_back()?,
        Event::LosePower => world.lose_power()?,
        Event::KeepState => world.keep_state()?,
        Event::PutStateBack => world.put_state_back()?,
        Event::KeepDatabase => world.keep_database()?,
        Event::PutDatabaseBack => world.put_database_back()?,
        Event::CloneMachine => world.clone_machine()?,
        Event::ChangePlaces => world.change_places(),
        Event::WorkLong => world.work_long()?,
    }
    Ok(())
}
