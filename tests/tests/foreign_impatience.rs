//! An application that does not wait: without a busy timeout, every lock that it meets is an error.
//!
//! Nothing of the shipper refuses it but the write lock, which is counted and reported. (That at 1,000 commits a second the
//! lock is never taken is measured, on a machine that has nothing else to do: `tests/figures`.)

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use seaworthy_tests::application::Application;
use seaworthy_tests::scene::Scene;

fn refusals_and_locks(options: &[&str]) -> (u64, u64) {
    let scene = Scene::new(4096, 0).unwrap();
    let mut shipper = scene.start().unwrap();
    let application = Application::start(&scene.source, options).unwrap();
    std::thread::sleep(Duration::from_secs(5));
    let work = application.stop().unwrap();
    let states = scene.finish(&mut shipper).unwrap();
    let output = shipper.output();
    let locks = output
        .lines()
        .find(|line| line.contains("write locks held"))
        .and_then(|line| line.split_once("taken=")?.1.split_whitespace().next()?.parse().ok());
    println!("{options:?}: {work:?}, locks taken: {locks:?}");
    assert!(work.commits > 0);
    assert_eq!(states.last().unwrap().count, work.commits);
    (work.refused, locks.unwrap_or(0))
}

#[test]
fn an_application_that_does_not_wait_is_refused_by_a_counted_lock_or_not_at_all() {
    for pace in ["pause_us=1000", "pause_us=10000", "pause_us=0"] {
        let (refused, locks) = refusals_and_locks(&["busy_ms=0", pace]);
        assert!(refused <= locks, "{pace}: refused {refused} times, locks taken {locks} times");
    }
}
