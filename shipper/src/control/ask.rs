//! The client's end: finds the socket of a running shipper and asks it one thing.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::place::pointer;
use super::protocol::{REPLY_MAX, Reply, Request};

/// How long a shipper may take to answer beyond what it was asked to wait for.
const PATIENCE: Duration = Duration::from_secs(15);

/// Nobody answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unanswered {
    /// Nobody listens.
    #[error(
        "no shipper is running on {state_dir}\n\
         HINT: start it (systemctl start seaworthy-shipper), or name its configuration with --config; without a \
         state_dir there, it is $STATE_DIRECTORY or /var/lib/seaworthy"
    )]
    NotRunning {
        /// The state directory.
        state_dir: String,
    },
    /// The socket, or what says where it is, is not for us.
    #[error("{path}: {source}\nHINT: run this as root, or as the user who runs the shipper")]
    Denied {
        /// Which file.
        path: String,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// The connection broke, or nothing came.
    #[error(
        "ask the shipper at {path}: {source}\n\
         HINT: it may have been stopped meanwhile; look at its log (journalctl -u seaworthy-shipper)"
    )]
    Broken {
        /// The socket.
        path: String,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
}

/// Asks the shipper that uses `state_dir`; it may take `wait` to answer.
///
/// # Errors
/// Nobody answers.
pub fn ask(state_dir: &Path, request: &Request, wait: Duration) -> Result<Reply, Unanswered> {
    let socket = find(state_dir)?;
    let stream = UnixStream::connect(&socket).map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => not_running(state_dir),
        ErrorKind::PermissionDenied => denied(&socket, error),
        _ => broken(&socket, error),
    })?;
    exchange(&stream, request, wait).map_err(|error| broken(&socket, error))
}

fn find(state_dir: &Path) -> Result<PathBuf, Unanswered> {
    let pointer = pointer(state_dir);
    match std::fs::read(&pointer) {
        Ok(path) => Ok(PathBuf::from(std::ffi::OsString::from_vec(path))),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(denied(&pointer, error)),
        Err(_) => Err(not_running(state_dir)),
    }
}

fn exchange(stream: &UnixStream, request: &Request, wait: Duration) -> std::io::Result<Reply> {
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_read_timeout(Some(wait.saturating_add(PATIENCE)))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    (&mut &*stream).write_all(&line)?;
    let mut reply = Vec::new();
    BufReader::new(stream).take(REPLY_MAX).read_until(b'\n', &mut reply)?;
    if reply.last() != Some(&b'\n') {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&reply)?)
}

fn not_running(state_dir: &Path) -> Unanswered {
    Unanswered::NotRunning { state_dir: state_dir.display().to_string() }
}

fn denied(path: &Path, source: std::io::Error) -> Unanswered {
    Unanswered::Denied { path: path.display().to_string(), source }
}

fn broken(path: &Path, source: std::io::Error) -> Unanswered {
    Unanswered::Broken { path: path.display().to_string(), source }
}
