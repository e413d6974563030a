//! What a service manager does with a `Type=notify` unit: it listens for readiness and for stopping.

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

/// A datagram socket of our own in the place of systemd's.
#[derive(Debug)]
pub struct NotifySocket {
    socket: UnixDatagram,
    path: PathBuf,
    _directory: TempDir,
}

impl NotifySocket {
    /// Binds a socket in a new directory.
    ///
    /// # Errors
    /// No directory or socket can be made.
    pub fn bind() -> Result<Self> {
        let directory = tempfile::tempdir().context("create directory for the socket")?;
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).context("bind notify socket")?;
        Ok(Self { socket, path, _directory: directory })
    }

    /// Tells a child where to report.
    pub fn offer_to(&self, command: &mut Command) {
        command.env("NOTIFY_SOCKET", &self.path);
    }

    /// Waits until a message holds the line `assignment` (such as `READY=1`), and gives all lines
    /// read until then.
    ///
    /// # Errors
    /// It did not come within `limit`; the message has what came instead.
    pub fn expect(&self, assignment: &str, limit: Duration) -> Result<Vec<String>> {
        let deadline = Instant::now() + limit;
        let mut seen = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "no {assignment} within {limit:?}, but {seen:?}");
            self.socket.set_read_timeout(Some(left)).context("set read timeout")?;
            let mut buffer = [0; 4096];
            let Ok(length) = self.socket.recv(&mut buffer) else { continue };
            let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
            seen.extend(message.lines().map(str::to_owned));
            if seen.iter().any(|line| line == assignment) {
                return Ok(seen);
            }
        }
    }

    /// Everything that has come and was not read, without waiting.
    ///
    /// # Errors
    /// The socket fails.
    pub fn pending(&self) -> Result<Vec<String>> {
        self.socket.set_nonblocking(true).context("switch to non-blocking")?;
        let mut seen = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            seen.extend(String::from_utf8_lossy(&buffer[..length]).lines().map(str::to_owned));
        }
        self.socket.set_nonblocking(false).context("switch back to blocking")?;
        Ok(seen)
    }
}
