//! Seeded schedules of everything that may happen to an application, its shipper and their bucket.
//!
//! `SEAWORTHY_SEED=n` replays one seed and prints its schedule; `SEAWORTHY_SEEDS=m` runs as many as one likes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use seaworthy_tests::seed;
use seaworthy_tests::sim::nature::Tally;
use seaworthy_tests::sim::schedule::{Report, run};

fn seeds() -> u64 {
    std::env::var("SEAWORTHY_SEEDS").map_or(1000, |text| text.parse().expect("a number"))
}

#[test]
fn whatever_happens_every_restore_point_is_a_committed_state_and_what_was_acknowledged_is_there() {
    if let Some(seed) = seed::given() {
        let Report { result, log } = run(seed);
        println!("{}", log.join("\n"));
        println!("seed {seed}: {:?}", result.unwrap());
        return;
    }
    let seeds = seeds();
    let next = AtomicU64::new(0);
    let failed = Mutex::new(Vec::new());
    let total = Mutex::new(Tally::default());
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds || failed.lock().unwrap().len() > 20 {
                        return;
                    }
                    let Report { result, log } = run(seed);
                    match result {
                        Ok(tally) => total.lock().unwrap().add(tally),
                        Err(error) => {
                            // At once, for runs of hours that somebody ends.
                            eprintln!("seed {seed}: {error:#}");
                            failed.lock().unwrap().push((log.len(), seed, error, log));
                        }
                    }
                }
            });
        }
    });
    let total = total.into_inner().unwrap();
    println!("{seeds} seeds: {total:?}");
    let mut failed = failed.into_inner().unwrap();
    failed.sort_by_key(|(length, seed, ..)| (*length, *seed));
    if let Some((_, seed, error, log)) = failed.first() {
        let others: Vec<String> =
            failed.iter().map(|(_, seed, error, _)| format!("seed {seed}: {error:#}")).collect();
        panic!(
            "{}\nschedule of seed {seed}:\n{}\nseed {seed}: {error:#}",
            others.join("\n"),
            log.join("\n")
        );
    }
    // A simulation in which nothing happens proves nothing.
    assert!(total.uploaded > seeds && total.synced > seeds && total.attached > seeds, "{total:?}");
}
