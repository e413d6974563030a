//! A bucket that refuses everything for a while, under an application that never stops writing.
//!
//! The application meets no error; its log and the shipper's spool stay bounded; nobody has to do anything for the
//! shipping to resume; and every commit arrives, also when the shipper is restarted, or killed, in the middle.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use replica::store::Store;
use seaworthy_tests::application::Application;
use seaworthy_tests::fault_proxy::{Fault, FaultProxy};
use seaworthy_tests::process::{PATIENCE, Process};
use seaworthy_tests::s3_server::S3Server;
use seaworthy_tests::scene::{Scene, generations, in_commit_order};
use seaworthy_tests::shipping::{Shipping, same_rows};
use seaworthy_tests::writer;

const OUTAGE: Duration = Duration::from_secs(6);
/// Far above what the log should need. At full speed it grows for as long as the disk keeps a checkpoint waiting, too.
const WAL_BOUND: u64 = 768 << 20;
/// Far above what the spool should need, far below what an outage without bounds would make of it.
const SPOOL_BOUND: u64 = 512 << 20;

struct Outage {
    server: S3Server,
    proxy: FaultProxy,
    scene: Scene,
}

impl Outage {
    fn new() -> Self {
        let server = S3Server::start();
        let proxy = FaultProxy::start(server.address());
        let options = format!("endpoint = \"{}\"\nregion = \"us-east-1\"", proxy.endpoint);
        let scene = Scene::with(|directory| {
            Shipping::new(directory, &server.url("outage"), &options, server.environment())
        });
        Self { scene: scene.unwrap(), server, proxy }
    }

    fn store(&self) -> Arc<dyn Store> {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let root = seaworthy_tests::stores::s3_root(&self.server, &self.server.endpoint, "outage");
        runtime.block_on(root).database("app").unwrap()
    }

    /// Lets time pass; gives the most bytes that the log and the spool had.
    fn watch(&self, time: Duration) -> (u64, u64) {
        let wal = shipper::wal::reader::wal_path(&self.scene.source);
        let (mut most_wal, mut most_spool) = (0, 0);
        let end = Instant::now() + time;
        while Instant::now() < end {
            most_wal = most_wal.max(std::fs::metadata(&wal).map_or(0, |wal| wal.len()));
            most_spool = most_spool.max(size(&self.scene.at("state")));
            std::thread::sleep(Duration::from_millis(50));
        }
        (most_wal, most_spool)
    }

    /// How often the log was begun again: SQLite counts it in the log's header. 0 where there is none just now.
    fn restarts(&self) -> u32 {
        let log = std::fs::File::open(shipper::wal::reader::wal_path(&self.scene.source));
        let mut count = [0; 4];
        let read = log.and_then(|log| log.read_exact_at(&mut count, 12));
        read.map_or(0, |()| u32::from_be_bytes(count))
    }

    /// What bounds the log, however long the outage is.
    fn log_begins_again(&self, shipper: &mut Process) {
        let before = self.restarts();
        shipper.until(|| self.restarts() > before).expect("the log only grows");
    }

    fn work_through(&self, application: Application, shipper: &mut Process) {
        // What was written during the outage is in the bucket without anybody's help.
        let sync = |output: String| {
            self.scene.shipping.sync(&[]).unwrap_or_else(|error| panic!("{error:#}\n{output}"))
        };
        sync(shipper.output());
        let work =
            application.stop().unwrap_or_else(|error| panic!("{error:#}\n{}", shipper.output()));
        sync(shipper.output());
        shipper.stop().unwrap();
        self.scene
            .latest_is_the_source()
            .unwrap_or_else(|error| panic!("{error:#}\n{}", shipper.output()));
        let states = self.scene.states(self.store().as_ref()).unwrap();
        in_commit_order(&states).unwrap();
        println!("{work:?}, {} states", states.len());
        assert_eq!(states.last().unwrap().count, work.commits);
        assert_eq!(generations(&states).len(), 1, "{}", shipper.output());
    }
}

fn size(directory: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => size(&entry.path()),
        Ok(metadata) => metadata.len(),
        // It went up just now.
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

#[test]
fn a_bucket_that_refuses_everything_for_a_while() {
    let outage = Outage::new();
    let mut shipper = outage.scene.start().unwrap();
    let application = Application::start(&outage.scene.source, &[]).unwrap();
    outage.scene.shipping.sync(&[]).unwrap();
    for fault in
        [Fault::Answer(503, "SlowDown"), Fault::Answer(403, "AccessDenied"), Fault::ResetBefore]
    {
        outage.proxy.random(1, 1, &[fault]);
        let fired = outage.proxy.fired();
        let (wal, spool) = outage.watch(OUTAGE / 2);
        println!("{fault:?}: WAL {} MB, state {} MB", wal >> 20, spool >> 20);
        outage.log_begins_again(&mut shipper);
        // The pause after a refusal for good may be longer than this one.
        let refused = || outage.proxy.fired() > fired;
        shipper.until(refused).expect("nothing was refused");
        assert!(wal < WAL_BOUND, "the log grew to {wal} bytes");
        assert!(spool < SPOOL_BOUND, "the state grew to {spool} bytes");
        outage.proxy.heal();
        std::thread::sleep(Duration::from_millis(500));
    }
    outage.work_through(application, &mut shipper);
}

#[test]
fn a_shipper_restarted_and_killed_in_the_middle_of_an_outage() {
    let outage = Outage::new();
    let mut shipper = outage.scene.start().unwrap();
    let application = Application::start(&outage.scene.source, &["pause_us=300"]).unwrap();
    outage.scene.shipping.sync(&[]).unwrap();
    outage.proxy.random(1, 1, &[Fault::Answer(503, "SlowDown")]);
    outage.watch(OUTAGE / 4);
    shipper.kill().unwrap();
    outage.watch(OUTAGE / 8);
    let mut shipper = outage.scene.start().unwrap();
    let (wal, spool) = outage.watch(OUTAGE / 2);
    outage.log_begins_again(&mut shipper);
    println!("WAL {} MB, state {} MB", wal >> 20, spool >> 20);
    assert!(wal < WAL_BOUND, "the log grew to {wal} bytes");
    assert!(spool < SPOOL_BOUND, "the state grew to {spool} bytes");
    shipper.stop().unwrap();
    let mut shipper = outage.scene.start().unwrap();
    outage.watch(OUTAGE / 4);
    outage.proxy.heal();
    outage.work_through(application, &mut shipper);
}

/// The answers that lie: what took effect and was reported as failed is not uploaded as something else.
#[test]
fn a_line_that_breaks_after_the_effect() {
    let outage = Outage::new();
    outage.proxy.random(
        7,
        3,
        &[Fault::ResetAfter, Fault::ResetBefore, Fault::Answer(500, "InternalError")],
    );
    let mut shipper = outage.scene.spawn().unwrap();
    let application = Application::start(&outage.scene.source, &["pause_us=300"]).unwrap();
    for kill in 0..4 {
        outage.watch(OUTAGE / 4 + Duration::from_millis(kill * 77));
        shipper.kill().unwrap();
        shipper = outage.scene.spawn().unwrap();
    }
    outage.watch(OUTAGE / 4);
    outage.proxy.heal();
    shipper.until_it_says("ready").unwrap();
    println!("{} faults", outage.proxy.fired());
    outage.work_through(application, &mut shipper);
}

/// A file whose opening never comes back, as on a dead mount.
fn dead(path: &Path) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
}

/// More than there are threads of each kind, and turns to read a whole database.
const DEAD: usize = 6;

#[test]
fn what_hangs_holds_up_no_other_database_and_not_the_end_either() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let shipping = Shipping::to_files(directory.path());
    let names: Vec<String> = ["local", "remote"]
        .iter()
        .flat_map(|kind| (0..DEAD).map(move |number| format!("{kind}{number}")))
        .chain(["app".to_owned()])
        .collect();
    let paths: Vec<_> = names.iter().map(|name| at(&format!("{name}.db"))).collect();
    let databases: Vec<(&str, &Path)> =
        names.iter().zip(&paths).map(|(name, path)| (name.as_str(), path.as_path())).collect();
    for path in &paths {
        writer::create(path, 4096, 10).unwrap();
    }
    let commit = |path: &Path| {
        let db = rusqlite::Connection::open(path).unwrap();
        db.execute("INSERT INTO item (name) VALUES ('later')", []).unwrap();
    };
    let mut shipper = shipping.start(&databases, "100ms").unwrap();
    shipping.sync(&[]).unwrap();
    shipper.stop().unwrap();

    // Of some the files on this machine hang, of others the place in the replica.
    for number in 0..DEAD {
        dead(&at(&format!("state/db/local{number}/spool/dead.ltx")));
        let replica = at(&format!("replica/remote{number}"));
        let next = "0000000000000002-0000000000000002.ltx";
        let mut entries = std::fs::read_dir(&replica).unwrap().map(|entry| entry.unwrap().path());
        let generation = entries.find(|path| path.is_dir()).unwrap();
        dead(&generation.join("ltx/0").join(next));
    }
    paths.iter().for_each(|path| commit(path));
    let mut shipper = shipping.spawn(&databases, "100ms").unwrap();
    let synced = |name: &str| shipping.ask(&["sync", name, "--timeout", "5s"], 0).is_ok();
    shipper.until(|| synced("app")).unwrap();
    commit(&at("app.db"));
    shipper.until(|| synced("app")).unwrap();
    for dead in ["local0", "remote0"] {
        assert!(!shipping.ask(&["sync", dead, "--timeout", "100ms"], 1).unwrap().stderr.is_empty());
    }
    // Heard, and no longer than the service manager waits.
    shipper.terminate().unwrap();
    shipper.until_it_says("SIGTERM").unwrap();
    shipper.wait(PATIENCE).unwrap();
    assert!(shipper.output().contains("hangs"), "{}", shipper.output());
    shipping.restore("app", &at("copy.db")).unwrap();
    same_rows(&at("copy.db"), &at("app.db")).unwrap();
}
