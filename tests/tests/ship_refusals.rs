//! What cannot be shipped is refused with the reason and what to do, and never stops the others.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;

use rusqlite::Connection;
use seaworthy_tests::mount::Mount;
use seaworthy_tests::process::{Process, run};
use seaworthy_tests::shipping::Shipping;
use seaworthy_tests::writer;
use shipper::wal::attach;

fn refusal(path: &Path) -> String {
    attach::check(path).unwrap_err().to_string()
}

#[test]
fn each_refusal_names_the_reason_and_the_next_step() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.db");
    let expect = |reason: &str| {
        let text = refusal(&path);
        assert!(text.contains(reason) && text.contains("\nHINT: "), "{text}");
        assert!(text.contains(&path.display().to_string()), "{text}");
    };
    expect("no such file");
    fs::create_dir(&path).unwrap();
    expect("not a regular file");
    fs::remove_dir(&path).unwrap();
    fs::write(&path, b"").unwrap();
    expect("empty");
    fs::write(&path, vec![7; 8192]).unwrap();
    expect("not a SQLite database");
    fs::remove_file(&path).unwrap();
    let db = Connection::open(&path).unwrap();
    db.execute_batch("CREATE TABLE t (a)").unwrap();
    drop(db);
    expect("not in WAL mode");
    let before = fs::read(&path).unwrap();
    assert_eq!(before, fs::read(&path).unwrap());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing was created");
    let db = Connection::open(&path).unwrap();
    db.pragma_update(None, "journal_mode", "wal").unwrap();
    drop(db);
    attach::check(&path).unwrap();
    let journal = directory.path().join("app.db-journal");
    // As SQLite leaves one that is done with: `journal_mode=persist`, `journal_mode=truncate`.
    for done in [&[0; 512][..], b""] {
        fs::write(&journal, done).unwrap();
        attach::check(&path).unwrap();
    }
    fs::write(&journal, [0xd9, 0xd5, 0x05, 0xf9]).unwrap();
    expect("a rollback journal is left beside it");
    let link = directory.path().join("link.db");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(refusal(&link).contains("journal"), "beside the file that the link leads to");
    fs::remove_file(&journal).unwrap();
    attach::check(&link).unwrap();
    fs::hard_link(&path, directory.path().join("second.db")).unwrap();
    expect("has 2 names");
    fs::remove_file(directory.path().join("second.db")).unwrap();
    let mount = Mount::bind(&path, &path);
    expect("mount the directory, not the file");
    drop(mount);
    attach::check(&path).unwrap();
    let mount = Mount::bind(directory.path(), directory.path());
    attach::check(&path).unwrap();
    drop(mount);
}

#[test]
fn one_broken_database_never_stops_the_others() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    writer::create(&at("good.db"), 4096, 100).unwrap();
    fs::write(at("text.db"), "not a database, but long enough for a header".repeat(9)).unwrap();
    let shipping = Shipping::to_files(directory.path());
    let (good, text, missing) = (at("good.db"), at("text.db"), at("missing.db"));
    let databases = [("text", text.as_path()), ("missing", &missing), ("good", &good)];
    let mut shipper = shipping.start(&databases, "100ms").unwrap();
    shipper.stop().unwrap();
    let output = shipper.output();
    assert!(output.contains("not a SQLite database"), "{output}");
    assert!(output.contains("no such file"), "{output}");
    shipping.restore("good", &at("copy.db")).unwrap();
    writer::checkpoint_truncate(&good).unwrap();
    writer::same_bytes(&at("copy.db"), &good).unwrap();
}

#[test]
fn a_second_shipper_on_the_same_state_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("app.db");
    writer::create(&database, 4096, 10).unwrap();
    let shipping = Shipping::to_files(directory.path());
    let mut first = shipping.start(&[("app", &database)], "1s").unwrap();
    let mut second = shipping.shipper().unwrap();
    second.arg("run").arg("--config").arg(directory.path().join("shipper.toml"));
    let output = run(&mut second, 1).unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("another shipper") && text.contains("HINT"), "{text}");
    first.stop().unwrap();
}

/// The shipper starts first after a boot (no `-wal`, no `-shm`), as root, as the owner, or as somebody
/// else; then the application writes as its own user. Needs the right to become another user.
#[test]
fn a_shipper_that_starts_first_never_locks_the_application_out() {
    const APPLICATION: u32 = 12_345;
    const STRANGER: u32 = 12_346;
    assert!(rustix::process::geteuid().is_root(), "run this test as root: it acts as two users");
    let refused = Some("could lock the application out");
    let crippled = Some("this is root without CAP_CHOWN");
    for (user, told) in [(0, None), (APPLICATION, None), (STRANGER, refused), (0, crippled)] {
        let ships = told.is_none();
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        fs::create_dir(&data).unwrap();
        let database = data.join("app.db");
        writer::create(&database, 4096, 10).unwrap();
        for (path, mode, owner) in [
            (directory.path(), 0o777, 0),
            (&data, 0o777, APPLICATION),
            (&database, 0o666, APPLICATION),
        ] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
            std::os::unix::fs::chown(path, Some(owner), Some(owner)).unwrap();
        }
        let shipping = Shipping::to_files(directory.path());
        let config = shipping.configure(&[("app", &database)], "100ms").unwrap();
        let program = directory.path().join("shipper");
        // The checkout may be in a directory that only root can enter.
        // In a process of its own: a child that another test starts just now would inherit the file, open for writing.
        let mut copy = seaworthy_tests::process::command("cp");
        run(copy.arg(shipping.shipper().unwrap().get_program()).arg(&program), 0).unwrap();
        let mut command = match told {
            told if told == crippled => {
                let mut command = seaworthy_tests::process::command("setpriv");
                command.arg("--bounding-set=-chown").arg("--inh-caps=-chown").arg(&program);
                command
            }
            _ => seaworthy_tests::process::command(&program),
        };
        command.arg("run").arg("--config").arg(&config).uid(user).gid(user);
        let mut shipper = Process::start(command).unwrap();
        shipper.until_it_says(told.unwrap_or("new generation")).unwrap();

        let mut application = seaworthy_tests::process::command("python3");
        application
            .args(["-c", "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); \
                   c.execute(\"INSERT INTO item (name) VALUES ('from the application')\"); c.commit()"])
            .arg(&database)
            .uid(APPLICATION)
            .gid(APPLICATION);
        run(&mut application, 0).unwrap_or_else(|error| panic!("shipper as {user}: {error:#}"));
        for suffix in ["-wal", "-shm"] {
            let path = data.join(format!("app.db{suffix}"));
            if let Ok(file) = fs::metadata(path) {
                assert_eq!(file.uid(), APPLICATION, "shipper as {user}: owner of app.db{suffix}");
            }
        }
        shipper.stop().unwrap();
        assert_eq!(directory.path().join("replica/app").exists(), ships, "shipper as {user}");
    }
}
