//! The unit as systemd reads it, and the shipper as a service manager meets it: ready, stopping, gone.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use seaworthy_tests::process::{PATIENCE, Process, program, repository, tool};
use seaworthy_tests::systemd::NotifySocket;
use seaworthy_tests::writer::{Writer, create};
use tempfile::TempDir;

/// What the unit allows before it kills.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// In tenths of systemd's exposure level (0 to 10). Those that remain: the network, name service,
/// and no mapping of users (see the unit).
const MAX_EXPOSURE: &str = "15";

// --- the unit ---

/// The unit and its example drop-in, with our built program in the place of the installed one.
fn installed_unit(directory: &Path) -> PathBuf {
    let source = repository().join("infra/systemd");
    let text = std::fs::read_to_string(source.join("seaworthy-shipper.service")).unwrap();
    let built = program("shipper").unwrap().get_program().to_str().unwrap().to_owned();
    assert!(text.contains("ExecStart=/usr/local/bin/shipper run "));
    let unit = directory.join("seaworthy-shipper.service");
    std::fs::write(&unit, text.replace("/usr/local/bin/shipper", &built)).unwrap();
    let drop_in = "seaworthy-shipper.service.d/local.conf";
    std::fs::create_dir(directory.join("seaworthy-shipper.service.d")).unwrap();
    std::fs::copy(source.join(drop_in), directory.join(drop_in)).unwrap();
    unit
}

/// `systemd-analyze verify`: its complaints about our unit (it warns, and still ends with 0).
fn verify(unit: &Path) -> Vec<String> {
    let output = tool("systemd-analyze").unwrap().arg("verify").arg(unit).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let mut complaints: Vec<String> =
        text.lines().filter(|line| line.contains("seaworthy")).map(str::to_owned).collect();
    if !output.status.success() {
        complaints.push(format!("{}: {text}", output.status));
    }
    complaints
}

#[test]
fn systemd_has_nothing_to_say_about_the_unit() {
    let directory = tempfile::tempdir().unwrap();
    let unit = installed_unit(directory.path());
    assert_eq!(verify(&unit), Vec::<String>::new());

    // The same check sees a key that does not exist, in the drop-in too.
    let drop_in = directory.path().join("seaworthy-shipper.service.d/local.conf");
    let text = std::fs::read_to_string(&drop_in).unwrap();
    std::fs::write(&drop_in, text.replace("ReadWritePaths=", "ReadWritePath=")).unwrap();
    assert_eq!(verify(&unit).len(), 1);
}

#[test]
fn the_unit_is_hardened() {
    let directory = tempfile::tempdir().unwrap();
    let unit = installed_unit(directory.path());
    let security = |threshold: &str| {
        let mut command = tool("systemd-analyze").unwrap();
        command.args(["security", "--offline=true", "--no-pager", "--threshold", threshold]);
        command.arg(&unit).output().unwrap()
    };
    let output = security(MAX_EXPOSURE);
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{report}{}", String::from_utf8_lossy(&output.stderr));
    assert!(!security("5").status.success(), "any unit passes: {report}");
}

#[test]
fn the_unit_keeps_its_promises() {
    let text =
        std::fs::read_to_string(repository().join("infra/systemd/seaworthy-shipper.service"))
            .unwrap();
    let lines: Vec<&str> = text.lines().collect();
    for promise in [
        "Type=notify",
        "Restart=on-failure",
        "TimeoutStopSec=20",
        "StateDirectory=seaworthy",
        "LoadCredential=aws:/etc/seaworthy/aws-credentials",
        "Environment=AWS_SHARED_CREDENTIALS_FILE=%d/aws",
        "ProtectSystem=strict",
        "Wants=time-sync.target",
    ] {
        assert!(lines.contains(&promise), "no line {promise}");
    }
    let after = lines.iter().find(|line| line.starts_with("After=")).unwrap();
    assert!(after.split(' ').any(|unit| unit == "time-sync.target"), "{after}");
    let not_restarted = lines.iter().find(|line| line.starts_with("RestartPreventExitStatus="));
    assert!(not_restarted.unwrap().split(['=', ' ']).any(|status| status == "2"));
    assert!(!lines.iter().any(|line| line.starts_with("DynamicUser")));
}

// --- the program under it ---

/// A server: a database, a configuration, a socket where systemd's would be.
struct Server {
    directory: TempDir,
    socket: NotifySocket,
}

impl Server {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        create(&directory.path().join("app.db"), 4096, 200).unwrap();
        let server = Self { directory, socket: NotifySocket::bind().unwrap() };
        server.configure("app.db");
        server
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Configures one database by each name.
    fn configure(&self, databases: &str) {
        let mut text = format!(
            "state_dir = \"{}\"\n[replica]\nurl = \"file://{}\"\n",
            self.path("state").display(),
            self.path("replica").display()
        );
        for name in databases.split(' ') {
            let path = self.path(name);
            text.push_str(&format!("[[database]]\npath = \"{}\"\n", path.display()));
        }
        std::fs::write(self.path("shipper.toml"), text).unwrap();
    }

    fn command(&self) -> Command {
        let mut command = program("shipper").unwrap();
        command.arg("run").arg("--config").arg(self.path("shipper.toml"));
        self.socket.offer_to(&mut command);
        command
    }

    fn start(&self) -> Process {
        Process::start(self.command()).unwrap()
    }

    /// Starts and waits for readiness; a failure shows what the program wrote.
    fn start_ready(&self) -> Process {
        let shipper = self.start();
        if let Err(error) = self.socket.expect("READY=1", PATIENCE) {
            panic!("{error:#}\n{}", shipper.output());
        }
        shipper
    }

    /// SIGTERM, `STOPPING=1`, exit code 0, all within what the unit allows.
    fn stop(&self, shipper: &mut Process) {
        shipper.terminate().unwrap();
        if let Err(error) = self.socket.expect("STOPPING=1", STOP_LIMIT) {
            panic!("{error:#}\n{}", shipper.output());
        }
        let status = shipper.wait(STOP_LIMIT).unwrap();
        assert_eq!(status.code(), Some(0), "{}", shipper.output());
    }
}

#[test]
fn ready_once_attached_and_gone_within_the_limit() {
    let server = Server::new();
    let mut shipper = server.start_ready();
    let writer = Writer::start(&server.path("app.db"), 1, Duration::from_millis(2));
    std::thread::sleep(Duration::from_secs(1));
    server.stop(&mut shipper);
    writer.stop().unwrap();
}

#[test]
fn one_broken_database_does_not_stop_the_others() {
    let server = Server::new();
    server.configure("app.db missing.db");
    let mut shipper = server.start_ready();
    shipper.until(|| server.path("replica/app").is_dir()).expect("the sound database is shipped");
    assert!(shipper.output().contains("missing"), "{}", shipper.output());
    server.stop(&mut shipper);
}

#[test]
fn wrong_configuration_is_exit_code_2_and_never_ready() {
    let server = Server::new();
    let text = std::fs::read_to_string(server.path("shipper.toml")).unwrap();
    for (wrong, named) in [
        (text.replace("state_dir", "state_dri"), "state_dri"),
        (text.replace("url =", "endpoint ="), "url"),
        (text.replace("file://", "ftp://"), "ftp://"),
        (format!("{text}[[database]]\npath = \"/elsewhere/app.db\"\n"), "app"),
    ] {
        std::fs::write(server.path("shipper.toml"), &wrong).unwrap();
        let mut shipper = server.start();
        let status = shipper.wait(PATIENCE).unwrap();
        assert_eq!(status.code(), Some(2), "{wrong}\n{}", shipper.output());
        assert!(shipper.output().contains(named), "{wrong}\n{}", shipper.output());
        let messages = server.socket.pending().unwrap();
        assert!(!messages.iter().any(|line| line == "READY=1"), "{messages:?}");
    }
    std::fs::remove_file(server.path("shipper.toml")).unwrap();
    let mut shipper = server.start();
    assert_eq!(shipper.wait(PATIENCE).unwrap().code(), Some(2), "{}", shipper.output());
}
