//! One fixed scenario, once for each of its durable steps: the process dies there, or the power fails, or only that
//! step does. Afterwards the rest of the scenario runs, and the bucket must be as if nothing had been.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use anyhow::Result;
use rand::SeedableRng;
use rand::rngs::StdRng;
use seaworthy_tests::faulty_store::{Fault, When};
use seaworthy_tests::memory_store::Condition;
use seaworthy_tests::sim::application::Habits;
use seaworthy_tests::sim::nature::Nature;
use seaworthy_tests::sim::world::World;

/// What a power failure leaves is drawn so often.
const FATES: u64 = 3;
/// Steps of the disk that fail one after the other.
const FULL: u64 = 12;

fn nature() -> Nature {
    let habits =
        Habits { page_size: 512, rows: 50, auto_vacuum: 1, autocheckpoint: 30, full: false };
    let (condition, sync_interval) = (Condition::Honoured, Duration::ZERO);
    // So few that some captures are groups of files.
    let most_frames = 20;
    Nature { habits, condition, spool_limit: 1 << 30, sync_interval, most_frames }
}

/// A first snapshot with changes in the middle, single files, merged ones, a checkpoint, a clean stop, commits that
/// nobody captured, a catch-up, and a bucket that is ahead of what this machine remembers.
fn scenario(world: &mut World) -> Result<()> {
    let work = |world: &mut World, times: u32| (0..times).try_for_each(|_| world.work());
    world.start()?;
    world.step(false)?;
    work(world, 3)?;
    world.step(false)?;
    world.step(true)?;
    world.attempt()?;
    for _ in 0..3 {
        work(world, 2)?;
        world.start()?;
        world.step(true)?;
        world.attempt()?;
    }
    world.keep_state()?;
    for _ in 0..3 {
        work(world, 1)?;
        world.start()?;
        world.step(true)?;
    }
    world.sync()?;
    world.put_state_back()?;
    world.start()?;
    world.sync()?;
    world.wait(Duration::from_secs(2));
    world.start()?;
    world.step(true)?;
    work(world, 2)?;
    world.start()?;
    world.stop()?;
    world.start()?;
    world.sync()?;
    world.crash()?;
    work(world, 12)?;
    world.start()?;
    world.sync()?;
    work(world, 1)?;
    world.start()?;
    world.sync()?;
    Ok(())
}

/// Runs the scenario with something going wrong, and returns the world after it.
fn run(what: &str, wrong: impl FnOnce(&mut World)) -> World {
    let mut world = World::new(0, nature()).unwrap();
    wrong(&mut world);
    let ran = scenario(&mut world).and_then(|()| world.settle());
    if let Err(error) = ran {
        panic!("{}\n{what}: {error:#}", world.log.join("\n"));
    }
    world
}

/// The process dies at each number up to `last`, with the power (of several fates) or without.
fn death(last: u64, what: &str, fates: u64, wrong: impl Fn(&mut World, u64)) {
    for number in 1..=last {
        for fate in 0..fates.max(1) {
            let world = run(&format!("{what} {number}, fate {fate}"), |world| {
                world.power_fails = fates > 0;
                world.fate = StdRng::seed_from_u64(fate);
                wrong(world, number);
            });
            assert_eq!(world.tally.died, 1, "{what} {number}");
        }
    }
}

/// Calls of the store, and steps of the disk, where nothing goes wrong.
fn clean() -> (u64, u64) {
    let mut world = World::new(0, nature()).unwrap();
    scenario(&mut world).unwrap();
    // What comes after it meets no fault.
    let (calls, steps) = (world.faults.calls(), world.here.disk.steps());
    world.settle().unwrap();
    let tally = world.tally;
    println!("{calls} calls of the store, {steps} steps of the disk, {tally:?}");
    assert!(tally.synced >= 4 && tally.generations == 1 && tally.points >= 7, "{tally:?}");
    assert!(calls > 12 && steps > 60, "{calls} calls, {steps} steps");
    (calls, steps)
}

#[test]
fn the_process_may_die_at_any_step_of_the_disk() {
    let (_, steps) = clean();
    death(steps, "death before step", 0, |world, number| world.here.disk.stop_at(number));
}

#[test]
fn the_process_may_die_at_any_call_of_the_store() {
    let (calls, _) = clean();
    for when in [When::Before, When::After] {
        let what = format!("death {when:?} call");
        death(calls, &what, 0, |world, number| world.faults.stop_at(number, when));
    }
}

#[test]
fn the_power_may_fail_at_any_step() {
    let (calls, steps) = clean();
    let what = "power failure before step";
    death(steps, what, FATES, |world, number| world.here.disk.stop_at(number));
    for when in [When::Before, When::After] {
        let what = format!("power failure {when:?} call");
        death(calls, &what, FATES, |world, number| world.faults.stop_at(number, when));
    }
}

#[test]
fn any_step_may_fail_and_the_process_go_on() {
    let (calls, steps) = clean();
    for number in 1..=steps {
        run(&format!("failure of step {number}"), |world| world.here.disk.fail_at(number));
    }
    for number in (1..=steps).step_by(5) {
        let what = format!("a full disk from step {number} on");
        run(&what, |world| world.here.disk.full_at(number, FULL));
    }
    for fault in [Fault::Before, Fault::After, Fault::Late(2), Fault::Denied, Fault::Truncated] {
        for number in 1..=calls {
            let what = format!("{fault:?} at call {number}");
            let world = run(&what, |world| world.faults.at(number, fault));
            assert_eq!(world.faults.fired(), 1, "{what}");
        }
    }
}

/// A bucket that somebody empties, at every place where it may be noticed: nothing is acknowledged until a new snapshot is there.
#[test]
fn an_emptied_bucket_gets_a_new_snapshot() {
    let runs: [fn(&mut World) -> Result<()>; 3] = [
        |_| Ok(()),
        |world| world.work(),
        |world| world.stop().and_then(|()| world.work()).and_then(|()| world.start()),
    ];
    for (number, before) in runs.into_iter().enumerate() {
        let world = run("nothing", |_| ());
        let emptied = |mut world: World| {
            world.start()?;
            world.empty_bucket();
            before(&mut world)?;
            world.settle()?;
            anyhow::Ok(world)
        };
        let world = emptied(world).unwrap_or_else(|error| panic!("{number}: {error:#}"));
        let log = world.log.join("\n");
        assert_eq!(world.tally.generations, 1, "{log}");
        assert!(log.contains("what this shipper wrote is gone"), "{log}");
    }
}
