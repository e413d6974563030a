//! The shipper's command line as an operator meets it: what goes wrong, what it says then, how it exits,
//! and that it leaves nothing half-written.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use seaworthy_tests::process::{PATIENCE, Process, command, program, repository};
use serde_json::Value;
use sha2::{Digest, Sha256};

fn shipper() -> Command {
    program("shipper").unwrap()
}

fn fixtures() -> PathBuf {
    repository().join("tests/fixtures")
}

/// The fixture as a URL that needs no configuration.
fn url() -> String {
    format!("file://{}", fixtures().join("v05-file/replica").display())
}

fn expected() -> Value {
    let text = fs::read(fixtures().join("v05-file/expected.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

fn sha256(path: &Path) -> String {
    let digest = Sha256::digest(fs::read(path).unwrap());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Runs it, and gives what it said on stderr.
#[track_caller]
fn refused(command: &mut Command, code: i32) -> String {
    let output = command.output().unwrap();
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{error}");
    assert_eq!(text(&output.stdout), "", "{error}");
    error
}

#[track_caller]
fn done(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    output
}

fn restore(output: &Path) -> Command {
    let mut command = shipper();
    command.args(["restore", &url(), "--output"]).arg(output);
    command
}

fn configured(directory: &Path, content: &str) -> PathBuf {
    let path = directory.join("shipper.toml");
    fs::write(&path, content).unwrap();
    path
}

#[test]
fn a_restore_says_what_it_did_and_what_comes_next() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    let output = done(&mut restore(&path));
    assert_eq!(sha256(&path), expected()["latest"]["file_sha256"]);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(names(dir.path()), ["app.db"]);
    let said = text(&output.stdout);
    for part in ["TXID 000000000000001a", "18 pages of 4096 bytes", "Next:", "chown"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn json_is_one_document() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    let output = done(restore(&path).args(["--json", "--txid", "d"]));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["txid"], "000000000000000d");
    assert_eq!(document["output"], path.to_str().unwrap());
    assert_eq!(document["page_count"], 16);
    assert_eq!(document["checksum"], Value::Null);
    let point = &expected()["restore_points"][1];
    assert_eq!(point["value"], document["txid"]);
    assert_eq!(sha256(&path), point["file_sha256"]);
}

#[test]
fn a_dry_run_plans_and_touches_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    let output = done(restore(&path).args(["--dry-run", "--json"]));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let plan = expected()["latest"]["plan"].clone();
    let files = document["files"].as_array().unwrap();
    assert_eq!(files.len(), plan.as_array().unwrap().len());
    for (file, name) in files.iter().zip(plan.as_array().unwrap()) {
        assert!(file["object"].as_str().unwrap().ends_with(name.as_str().unwrap()), "{file}");
    }
    let said = text(&done(restore(&path).arg("--dry-run")).stdout);
    assert!(said.starts_with("Would restore TXID 000000000000001a"), "{said}");
    assert_eq!(names(dir.path()), [""; 0]);
}

#[test]
fn points_can_be_asked_for() {
    let listed = done(shipper().args(["points", &url(), "--json"]));
    let document: Value = serde_json::from_slice(&listed.stdout).unwrap();
    let points = document["points"].as_array().unwrap();
    assert_eq!(points.last().unwrap()["txid"], expected()["max_txid"]);
    let table = text(&done(shipper().args(["points", &url()])).stdout);
    assert_eq!(table.lines().count(), points.len() + 1);
    let dir = tempfile::tempdir().unwrap();
    let third = &points[2];
    let output = done(restore(&dir.path().join("app.db")).args([
        "--json",
        "--timestamp",
        third["timestamp"].as_str().unwrap(),
    ]));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["txid"], third["txid"]);
}

#[test]
fn an_existing_output_is_refused_and_kept() {
    for there in ["app.db", "app.db-wal", "app.db-shm", "app.db-journal"] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(there), "precious").unwrap();
        let error = refused(&mut restore(&dir.path().join("app.db")), 2);
        assert!(error.contains(&format!("{there}: exists already")), "{error}");
        assert!(error.trim_end().lines().last().unwrap().starts_with("HINT: "), "{error}");
        assert_eq!(names(dir.path()), [there]);
        assert_eq!(fs::read_to_string(dir.path().join(there)).unwrap(), "precious");
    }
}

#[test]
fn force_replaces_the_database_and_removes_its_leftovers() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    fs::write(&path, "old").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    for leftover in ["app.db-wal", "app.db-shm", "app.db-journal"] {
        fs::write(dir.path().join(leftover), "old").unwrap();
    }
    done(restore(&path).arg("--force"));
    assert_eq!(names(dir.path()), ["app.db"]);
    assert_eq!(sha256(&path), expected()["latest"]["file_sha256"]);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
}

/// In WAL mode an idle connection has nothing but a lock on the `-shm`; in a rollback mode nothing but an open file.
#[test]
fn a_database_in_use_is_not_replaced_by_force_either() {
    let dir = tempfile::tempdir().unwrap();
    for mode in ["wal", "delete"] {
        let path = dir.path().join(format!("{mode}.db"));
        let connection = rusqlite::Connection::open(&path).unwrap();
        connection.pragma_update(None, "journal_mode", mode).unwrap();
        connection.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (1)").unwrap();
        let before = names(dir.path());
        for options in [&[][..], &["--force"]] {
            let error = refused(restore(&path).args(options), 1);
            let me = format!("(process {})", std::process::id());
            assert!(error.contains("in use by") && error.contains(&me), "{error}");
            assert!(error.contains("HINT: stop the application"), "{error}");
            assert_eq!(names(dir.path()), before);
        }
        connection.execute("INSERT INTO t VALUES (2)", ()).unwrap();
        // By another name of it, too.
        let link = dir.path().join(format!("{mode}.link.db"));
        fs::hard_link(&path, &link).unwrap();
        assert!(refused(restore(&link).arg("--force"), 1).contains("in use by"));
        fs::remove_file(&link).unwrap();
        drop(connection);
        done(restore(&path).arg("--force"));
        assert_eq!(sha256(&path), expected()["latest"]["file_sha256"]);
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_failed_restore_keeps_what_force_would_have_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    fs::write(&path, "old").unwrap();
    fs::write(dir.path().join("app.db-wal"), "old").unwrap();
    refused(restore(&path).args(["--force", "--txid", "1b"]), 1);
    assert_eq!(names(dir.path()), ["app.db", "app.db-wal"]);
    assert_eq!(fs::read_to_string(&path).unwrap(), "old");
}

#[test]
fn points_that_cannot_be_reached_are_refused_with_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    let later = refused(restore(&path).args(["--txid", "1b"]), 1);
    assert!(later.contains("after the newest, 000000000000001a"), "{later}");
    assert!(later.contains("\nHINT: `shipper points`"), "{later}");
    let early = refused(restore(&path).args(["--timestamp", "2001-01-01T00:00:00Z"]), 1);
    assert!(early.contains("no restore point at or before"), "{early}");
    let other = "01900000-0000-7000-8000-000000000000";
    let generation = refused(restore(&path).args(["--generation", other]), 1);
    assert!(generation.contains(other), "{generation}");
    assert_eq!(names(dir.path()), [""; 0]);
}

#[test]
fn wrong_usage_exits_2() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    refused(&mut shipper(), 2);
    refused(shipper().args(["restore", "app"]), 2);
    refused(restore(&path).args(["--txid", "xyz"]), 2);
    refused(restore(&path).args(["--timestamp", "yesterday"]), 2);
    refused(shipper().args(["restore", "s3://no-prefix", "--output"]).arg(&path), 2);
    refused(shipper().args(["restore", "/srv/app.db", "--output"]).arg(&path), 2);
    let nowhere = dir.path().join("nowhere/app.db");
    let error = refused(&mut restore(&nowhere), 1);
    assert!(error.contains("create temporary file"), "{error}");
}

#[test]
fn a_replica_that_is_not_there_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("file://{}/nothing", dir.path().display());
    let output = dir.path().join("app.db");
    let error = refused(shipper().args(["restore", &url, "--output"]).arg(output), 1);
    assert!(error.contains("no replica at") && error.contains("HINT: check"), "{error}");
    let error = refused(shipper().args(["points", &url]), 1);
    assert!(error.contains("no replica at"), "{error}");
    assert_eq!(names(dir.path()), [""; 0]);
}

#[test]
fn a_name_is_looked_up_in_the_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("file://{}", fixtures().join("v05-file").display());
    // The database itself is lost, and its glob matches nothing any more.
    let config = configured(
        dir.path(),
        &format!("[replica]\nurl = \"{url}\"\n[[database]]\npath = \"/lost/*/x.db\"\n"),
    );
    let output = dir.path().join("app.db");
    let mut command = shipper();
    command.args(["restore", "replica", "--output"]).arg(&output).arg("--config").arg(&config);
    done(&mut command);
    assert_eq!(sha256(&output), expected()["latest"]["file_sha256"]);
    let mut command = shipper();
    command.args(["restore", "replica", "--output"]).arg(dir.path().join("b.db"));
    let error = refused(command.args(["--config", "/nowhere/shipper.toml"]), 2);
    assert!(error.contains("read configuration /nowhere/shipper.toml"), "{error}");
    assert!(error.contains("HINT: name the file with --config"), "{error}");
}

#[test]
fn a_wrong_configuration_exits_2_and_says_where() {
    let dir = tempfile::tempdir().unwrap();
    let replica = format!("[replica]\nurl = \"file://{}/replica\"\n", dir.path().display());
    let database = "[[database]]\npath = \"/srv/a/app.db\"\n";
    let cases = [
        (format!("{replica}[[database]]\npaht = \"/srv/app.db\"\n"), ":4: unknown key", "path?"),
        (format!("{replica}regoin = \"eu\"\n{database}"), "replica.regoin", "region?"),
        (format!("{replica}{database}sync_interval = \"5 minuts\"\n"), ":5: ", "1s, 15m"),
        (format!("{replica}{database}sync_interval = \"2d\"\n"), "sync_interval", "between"),
        (format!("{replica}{database}name = \"a/b\"\n"), "cannot be a name", "HINT: set name"),
        (replica.clone(), "no database is configured", "HINT: add a [[database]]"),
        (
            format!("{replica}{database}[[database]]\npath = \"/srv/b/app.db\"\n"),
            "named app",
            "HINT:",
        ),
        ("[replica]\nurl = \"ftp://x/y\"\n".to_owned(), "replica.url", ""),
        (database.to_owned(), "missing field `replica`", ""),
    ];
    for (content, says, also) in cases {
        let config = configured(dir.path(), &content);
        let error = refused(shipper().arg("run").arg("--config").arg(&config), 2);
        assert!(error.contains(says) && error.contains(also), "{content}\n{error}");
        assert_eq!(names(dir.path()), ["shipper.toml"]);
    }
}

/// A limit on the size of files stands in for the full disk: the same error to the program, without
/// a file system of our own.
#[test]
fn no_room_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    let shipper = shipper();
    let mut limited = command("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$0\" \"$@\""]);
    limited.arg(shipper.get_program()).args(["restore", &url(), "--output"]).arg(&path);
    let error = refused(&mut limited, 1);
    assert!(error.contains("no room for the restored database: 73728 bytes needed"), "{error}");
    assert!(error.contains("HINT: free space"), "{error}");
    assert_eq!(names(dir.path()), [""; 0]);
}

#[test]
fn a_damaged_object_is_named_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let replica = dir.path().join("replica");
    done(command("cp").arg("-r").arg(fixtures().join("v05-file/replica")).arg(&replica));
    // No compaction holds it, so there is no other way.
    let name = "ltx/0/0000000000000017-0000000000000017.ltx";
    let mut bytes = fs::read(replica.join(name)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(replica.join(name), bytes).unwrap();
    fs::create_dir(dir.path().join("out")).unwrap();
    let output = dir.path().join("out/app.db");
    let url = format!("file://{}", replica.display());
    let error = refused(shipper().args(["restore", &url, "--output"]).arg(output), 1);
    assert!(error.contains(name) && error.contains("damaged: offset "), "{error}");
    assert_eq!(names(&dir.path().join("out")), [""; 0]);
}

/// An S3 server with one answer.
fn answering(status: &'static str, code: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = [0; 4096];
            let _ = stream.read(&mut head);
            let body = format!("<Error><Code>{code}</Code><Message>no</Message></Error>");
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\ncontent-type: application/xml\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    format!("http://{address}")
}

fn from_s3(endpoint: &str, dir: &Path, command: &str) -> Command {
    let mut shipper = shipper();
    shipper
        .args([command, "s3://backups/web-1/app", "--region", "eu-west-1", "--endpoint", endpoint])
        .env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        .env("AWS_SECRET_ACCESS_KEY", "not-to-be-printed");
    if command == "restore" {
        shipper.arg("--output").arg(dir.join("app.db"));
    }
    shipper
}

#[test]
fn missing_rights_name_the_restore_policy() {
    let dir = tempfile::tempdir().unwrap();
    let endpoint = answering("403 Forbidden", "AccessDenied");
    for name in ["restore", "points"] {
        let error = refused(&mut from_s3(&endpoint, dir.path(), name), 1);
        assert!(error.contains("access denied"), "{error}");
        let hint = error.trim_end().lines().last().unwrap();
        assert!(hint.starts_with("HINT: ") && hint.contains("restore policy"), "{error}");
        assert!(!error.contains("not-to-be-printed"), "{error}");
    }
    assert_eq!(names(dir.path()), [""; 0]);
}

#[test]
fn a_wrong_bucket_is_a_configuration_error() {
    let dir = tempfile::tempdir().unwrap();
    let endpoint = answering("404 Not Found", "NoSuchBucket");
    let error = refused(&mut from_s3(&endpoint, dir.path(), "restore"), 2);
    assert!(error.contains("backups") && error.contains("HINT: "), "{error}");
    assert_eq!(names(dir.path()), [""; 0]);
}

/// A server that takes the request and never answers: the operator's Ctrl-C must still work.
#[test]
fn a_signal_stops_a_restore() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let mut process = Process::start(from_s3(&endpoint, dir.path(), "restore")).unwrap();
    let (_stream, _) = listener.accept().unwrap();
    process.terminate().unwrap();
    let status = process.wait(PATIENCE).unwrap();
    assert_eq!(status.code(), Some(1), "{}", process.output());
    assert!(process.output().contains("stopped by SIGTERM"), "{}", process.output());
    assert_eq!(names(dir.path()), [""; 0]);
}
