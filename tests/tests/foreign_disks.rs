//! The disk of the state directory is full, and is read-only: at the start, and while shipping.
//!
//! The application goes on, the operator is told what to do, and once the disk is writable again everything is
//! shipped. Needs the right to mount a small file system.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use seaworthy_tests::application::Application;
use seaworthy_tests::mount::Mount;
use seaworthy_tests::process::{PATIENCE, command, run};
use seaworthy_tests::scene::{Scene, in_commit_order};

const TURN: Duration = Duration::from_secs(2);
/// How often what has gone up is filled again.
const LOOK: Duration = Duration::from_millis(100);
const WAL_BOUND: u64 = 768 << 20;

fn wal_bytes(scene: &Scene) -> u64 {
    fs::metadata(shipper::wal::reader::wal_path(&scene.source)).map_or(0, |wal| wal.len())
}

#[test]
fn a_full_disk_while_shipping() {
    let scene = Scene::new(4096, 0).unwrap();
    let _mount = Mount::new(&scene.at("state"), "size=24m,mode=700");
    let mut shipper = scene.start().unwrap();
    let application = Application::start(&scene.source, &["pause_us=300"]).unwrap();
    scene.shipping.sync(&[]).unwrap();
    let ballast = scene.at("state").join("ballast");
    // To the last byte, again and again: what has gone up leaves room.
    let fill = || {
        let filled = command("dd")
            .args(["if=/dev/zero", "bs=4096", "status=none", "oflag=append", "conv=notrunc"])
            .arg(format!("of={}", ballast.display()))
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(!filled.success(), "the disk is not full");
    };
    let deadline = Instant::now() + PATIENCE;
    while !shipper.output().contains("No space left on device") {
        assert!(Instant::now() < deadline, "nobody was told\n{}", shipper.output());
        fill();
        std::thread::sleep(LOOK);
    }
    let end = Instant::now() + TURN * 4;
    while Instant::now() < end {
        fill();
        std::thread::sleep(LOOK);
    }
    let wal = wal_bytes(&scene);
    println!("WAL {} MB\n{}", wal >> 20, shipper.output());
    assert!(wal < WAL_BOUND, "the log grew to {wal} bytes");
    fs::remove_file(ballast).unwrap();
    let work = application.stop().unwrap();
    scene.until_shipped(&mut shipper).unwrap();
    let states = scene.finish(&mut shipper).unwrap();
    in_commit_order(&states).unwrap();
    assert_eq!(states.last().unwrap().count, work.commits);
}

#[test]
fn a_disk_that_is_full_at_the_start() {
    let scene = Scene::new(4096, 0).unwrap();
    let mount = Mount::new(&scene.at("state"), "size=16k,mode=700");
    let mut shipper = scene.spawn().unwrap();
    let application = Application::start(&scene.source, &["pause_us=300"]).unwrap();
    std::thread::sleep(TURN);
    let work = application.stop().unwrap();
    assert!(work.commits > 0, "{work:?}");
    mount.become_like("size=64m");
    println!("{}", shipper.output());
    if shipper.wait(Duration::from_millis(1)).is_ok() {
        // Refused at once, with the reason, is as good: the service manager starts it again.
        shipper = scene.start().unwrap();
    }
    scene.until_shipped(&mut shipper).unwrap();
    let states = scene.finish(&mut shipper).unwrap();
    assert_eq!(states.last().unwrap().count, work.commits);
}

#[test]
fn a_disk_that_becomes_read_only_while_shipping() {
    let scene = Scene::new(4096, 0).unwrap();
    let _mount = Mount::new(&scene.at("state"), "size=64m,mode=700");
    let mut shipper = scene.start().unwrap();
    let application = Application::start(&scene.source, &["pause_us=300"]).unwrap();
    scene.shipping.sync(&[]).unwrap();
    let remount = |options: &str| {
        run(command("mount").args(["-o", options]).arg(scene.at("state")), 0).map(|_| ())
    };
    // Files that are open for writing keep a file system from it, as a broken disk would not be kept: cover it.
    let cover = Mount::new(&scene.at("state"), "size=64k,ro,mode=700");
    std::thread::sleep(TURN);
    println!("{}", shipper.output());
    drop(cover);
    remount("remount,rw").unwrap();
    let work = application.stop().unwrap();
    scene.until_shipped(&mut shipper).unwrap();
    let states = scene.finish(&mut shipper).unwrap();
    in_commit_order(&states).unwrap();
    assert_eq!(states.last().unwrap().count, work.commits);
}
