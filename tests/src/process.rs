//! Child processes of the end-to-end suites: our own programs, and the tools in `.tools/bin`.
//!
//! Every child gets an environment without proxies, certificate bundles and the caller's AWS
//! identity, writes its output to a file, and is killed when its [`Process`] goes away, also when a
//! test panics. A tool that is not there fails the test with its name; nothing is skipped.

use std::ffi::OsStr;
use std::fs::File;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// What must not leak from the caller's environment into a child that talks to this machine only.
/// `AWS_CA_BUNDLE` alone keeps Litestream's S3 client from starting.
const REMOVED: &[&str] = &[
    "ALL_PROXY",
    "AWS_ACCESS_KEY_ID",
    "AWS_CA_BUNDLE",
    "AWS_CONFIG_FILE",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_LAMBDA_RUNTIME_API",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SHARED_CREDENTIALS_FILE",
    "CREDENTIALS_DIRECTORY",
    "CURL_CA_BUNDLE",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NOTIFY_SOCKET",
    "NO_PROXY",
    "REQUESTS_CA_BUNDLE",
    "RUST_LOG",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "STATE_DIRECTORY",
    "RUNTIME_DIRECTORY",
    "all_proxy",
    "https_proxy",
    "http_proxy",
    "no_proxy",
];

/// How long anything may take where speed is not what a test is about: a machine may stand still for seconds.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// How long a server is given to end where its port is taken.
const TO_END_WITHOUT_A_PORT: Duration = Duration::from_millis(200);

/// The checkout.
#[must_use]
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_path_buf)
}

/// A command with the clean environment.
#[must_use]
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for name in REMOVED {
        command.env_remove(name);
    }
    // Never ask the network which machine this is.
    command.env("AWS_EC2_METADATA_DISABLED", "true").stdin(Stdio::null());
    command
}

/// A tool that `./test.sh` installed, else the machine's own.
///
/// # Errors
/// The tool is missing; the message says how to get it.
pub fn tool(name: &str) -> Result<Command> {
    let installed = repository().join(".tools/bin").join(name);
    if installed.is_file() {
        return Ok(command(installed));
    }
    let on_path = std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|directory| directory.join(name).is_file())
    });
    ensure!(on_path, "missing tool: {name}\nHINT: ./test.sh {name}");
    Ok(command(name))
}

/// `shipper` or `verifier`, built from this checkout before the first use.
///
/// # Errors
/// The build fails.
pub fn program(name: &str) -> Result<Command> {
    static BUILT: OnceLock<Result<(), String>> = OnceLock::new();
    BUILT
        .get_or_init(|| build_programs().map_err(|error| format!("{error:#}")))
        .clone()
        .map_err(anyhow::Error::msg)?;
    let test = std::env::current_exe().context("find this test's own executable")?;
    // target/debug/deps/<test> → target/debug/<name>
    let profile = test.parent().and_then(Path::parent).context("find the target directory")?;
    Ok(command(profile.join(name)))
}

/// `cargo test` does not promise to build the programs of other packages.
fn build_programs() -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--offline", "-p", "shipper", "-p", "verifier", "--bins"]);
    // What cargo has set for this test would count as a change in the environment of another cargo: the first (from
    // .cargo/config.toml) rebuilds SQLite, the others (which ring's build script reads) ring, and all that stands on it.
    build.env_remove("LIBSQLITE3_FLAGS").env_remove("CARGO_MANIFEST_DIR");
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CARGO_PKG_") {
            build.env_remove(name);
        }
    }
    let output = build.current_dir(repository()).output().context("start cargo build")?;
    ensure!(output.status.success(), "cargo build: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Runs a command to its end.
///
/// # Errors
/// It cannot be started, or its exit code is not `expected`; the message has its output.
pub fn run(command: &mut Command, expected: i32) -> Result<Output> {
    let output = command.output().with_context(|| format!("start {command:?}"))?;
    ensure!(
        output.status.code() == Some(expected),
        "{command:?} ended with {}, not with exit code {expected}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    Ok(output)
}

/// A running child. Dropped, it is killed and its output removed.
#[derive(Debug)]
pub struct Process {
    child: Child,
    what: String,
    directory: TempDir,
}

impl Process {
    /// Starts a server that is told its port, and waits until somebody listens there; gives the port, too.
    ///
    /// # Errors
    /// It ends instead, whatever port it is given: somebody else may have taken one in the meantime.
    pub fn start_server(command: impl Fn(u16) -> Result<Command>) -> Result<(Self, u16)> {
        let mut attempts = 0;
        loop {
            let port = free_port()?;
            let mut server = Self::start(command(port)?)?;
            let listens = || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
            let started = server.until(listens).and_then(|()| {
                // Is it the server that listens, or who took the port from it?
                std::thread::sleep(TO_END_WITHOUT_A_PORT);
                server.check()
            });
            match started {
                Ok(()) => return Ok((server, port)),
                Err(_) if attempts < 3 && server.check().is_err() => attempts += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Starts `command`; its standard output and error go to one file.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(mut command: Command) -> Result<Self> {
        let directory = tempfile::tempdir().context("create directory for output")?;
        let log = File::create(directory.path().join("output")).context("create output file")?;
        let what = format!("{command:?}");
        let child = command
            .stdout(log.try_clone().context("clone output file")?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {what}"))?;
        Ok(Self { child, what, directory })
    }

    /// The child's process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has written so far.
    #[must_use]
    pub fn output(&self) -> String {
        std::fs::read(self.directory.path().join("output"))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Sends SIGTERM.
    ///
    /// # Errors
    /// The process is gone.
    pub fn terminate(&self) -> Result<()> {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(id.context("process id out of range")?, Signal::TERM)
            .with_context(|| format!("send SIGTERM to {}", self.what))
    }

    /// Kills it at once, as a lost server would.
    ///
    /// # Errors
    /// The process cannot be waited for.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().context("kill child")?;
        self.child.wait().context("wait for child")?;
        Ok(())
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// It still runs after `limit`; the message has its output.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().context("wait for child")? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("{} still runs after {limit:?}\n{}", self.what, self.output());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends SIGTERM and waits for exit code 0.
    ///
    /// # Errors
    /// It does not end within [`PATIENCE`], or not with exit code 0; the message has its output.
    pub fn stop(&mut self) -> Result<()> {
        self.terminate()?;
        let status = self.wait(PATIENCE)?;
        ensure!(status.code() == Some(0), "{} ended with {status}\n{}", self.what, self.output());
        Ok(())
    }

    /// Requires that it still runs.
    ///
    /// # Errors
    /// It has ended; the message has its output.
    pub fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait().context("wait for child")? {
            bail!("{} ended with {status}\n{}", self.what, self.output());
        }
        Ok(())
    }

    /// Waits until `condition` holds while the process runs.
    ///
    /// # Errors
    /// It ended first, or [`PATIENCE`] passed; the message has its output.
    pub fn until(&mut self, mut condition: impl FnMut() -> bool) -> Result<()> {
        self.until_so("not as expected", |_| condition())
    }

    /// Waits until it has written `text`.
    ///
    /// # Errors
    /// It ended first, or [`PATIENCE`] passed; the message has its output.
    pub fn until_it_says(&mut self, text: &str) -> Result<()> {
        self.until_so(&format!("never said {text:?}"), |process| process.output().contains(text))
    }

    fn until_so(&mut self, not: &str, mut condition: impl FnMut(&Self) -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !condition(self) {
            self.check()?;
            ensure!(
                Instant::now() < deadline,
                "{}: {not} after {PATIENCE:?}\n{}",
                self.what,
                self.output()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already gone is fine.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The children that a process has at this moment.
#[must_use]
pub fn children_of(id: u32) -> Vec<u32> {
    let listed = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
    listed.unwrap_or_default().split_whitespace().filter_map(|id| id.parse().ok()).collect()
}

/// Files that a process has open although they have no name any more.
#[must_use]
pub fn nameless_files_of(id: u32) -> Vec<PathBuf> {
    let open = std::fs::read_dir(format!("/proc/{id}/fd"));
    let targets = open.into_iter().flatten().filter_map(Result::ok);
    let targets = targets.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    targets.filter(|target| target.to_string_lossy().ends_with(" (deleted)")).collect()
}

/// What a process was called with; empty once it has ended.
#[must_use]
pub fn arguments_of(id: u32) -> Vec<u8> {
    std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default()
}

/// A port on the loopback interface that nothing listens on at the moment.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("bind a port")?;
    Ok(listener.local_addr().context("read the bound port")?.port())
}
