//! Where the control socket is.
//!
//! The first of these that can be had: `runtime_dir`, `$RUNTIME_DIRECTORY` (systemd), `$XDG_RUNTIME_DIR/seaworthy` or
//! `/run/seaworthy`, `<state_dir>/run`. A file in the state directory says which one it was, so that a client finds the
//! socket without the service's environment.
//!
//! *Invariants*: whoever holds the lock beside a socket owns it: a socket found there without a lock is a dead
//! shipper's, and replaced. Before the socket exists, its directory is ours and closed to others for writing.
//! A crash leaves the socket and the pointer behind; a client that finds nobody there says so.

use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use rustix::fs::{FlockOperation, flock};

use crate::config::{SOCKET_NAME, fits_socket};

const LOCK_NAME: &str = "shipper.lock";
const POINTER_NAME: &str = "socket";
/// Its name in the usual places.
const DIRECTORY_NAME: &str = "seaworthy";

/// The socket's place, ours until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    socket: PathBuf,
    pointer: PathBuf,
    _lock: File,
}

/// The file that says where the socket is.
#[must_use]
pub fn pointer(state_dir: &Path) -> PathBuf {
    state_dir.join(POINTER_NAME)
}

impl Place {
    /// Takes the first place that can be had. The caller holds the lock of the state directory.
    pub(super) fn take(
        state_dir: &Path,
        configured: Option<&Path>,
    ) -> anyhow::Result<(Self, UnixListener)> {
        let mut refusals = Vec::new();
        for directory in candidates(state_dir, configured) {
            match Self::take_in(&directory, state_dir) {
                Ok(taken) => return Ok(taken),
                Err(refusal) => refusals.push(format!("{}: {refusal:#}", directory.display())),
            }
        }
        bail!(
            "no place for the control socket: {}\n\
             HINT: set runtime_dir to a directory of this user's own, with a short path",
            refusals.join("; ")
        )
    }

    fn take_in(directory: &Path, state_dir: &Path) -> anyhow::Result<(Self, UnixListener)> {
        ensure!(fits_socket(directory), "the path is too long for a socket");
        prepare(directory)?;
        let lock = directory.join(LOCK_NAME);
        let lock = File::create(lock).context("create lock")?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .context("another shipper has its socket here")?;
        let socket = directory.join(SOCKET_NAME);
        remove(&socket).context("remove a dead shipper's socket")?;
        let listener = UnixListener::bind(&socket).context("bind socket")?;
        // Nobody can have connected before: the directory is ours alone, or at worst readable to a group that
        // systemd was told to let in.
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o600)).context("guard socket")?;
        listener.set_nonblocking(true).context("set socket non-blocking")?;
        let place = Self { socket, pointer: pointer(state_dir), _lock: lock };
        place.point().context("say where the socket is")?;
        Ok((place, listener))
    }

    /// Where it is.
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    fn point(&self) -> std::io::Result<()> {
        use std::os::unix::ffi::OsStrExt;
        let temporary = self.pointer.with_extension("tmp");
        fs::write(&temporary, self.socket.as_os_str().as_bytes())?;
        fs::rename(&temporary, &self.pointer)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for path in [&self.pointer, &self.socket] {
            if let Err(error) = remove(path) {
                tracing::debug!(path = %path.display(), %error, "remove");
            }
        }
    }
}

fn candidates(state_dir: &Path, configured: Option<&Path>) -> Vec<PathBuf> {
    if let Some(directory) = configured {
        return vec![directory.to_owned()];
    }
    let told = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(list) = told("RUNTIME_DIRECTORY") {
        return std::env::split_paths(&list).take(1).collect();
    }
    let usual = told("XDG_RUNTIME_DIR").map_or_else(|| PathBuf::from("/run"), PathBuf::from);
    vec![usual.join(DIRECTORY_NAME), state_dir.join("run")]
}

/// Makes the directory, or checks that nobody else can put anything into it.
fn prepare(directory: &Path) -> anyhow::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(error).context("create directory");
        }
        _ => {}
    }
    let metadata = fs::metadata(directory).context("read directory metadata")?;
    ensure!(metadata.is_dir(), "not a directory");
    let user = rustix::process::geteuid().as_raw();
    ensure!(metadata.uid() == user, "owned by user {}, and this is user {user}", metadata.uid());
    let mode = metadata.permissions().mode() & 0o777;
    ensure!(mode & 0o022 == 0, "others may write to it (mode {mode:03o})");
    Ok(())
}

fn remove(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_socket_is_for_its_owner_and_a_dead_one_is_replaced() {
        let state = tempfile::tempdir().unwrap();
        let run = state.path().join("r");
        let (place, listener) = Place::take(state.path(), Some(&run)).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&run), mode(place.socket())), (0o700, 0o600));
        let told = fs::read_to_string(pointer(state.path())).unwrap();
        assert_eq!(Path::new(&told), place.socket());
        let second = Place::take(state.path(), Some(&run)).unwrap_err();
        assert!(format!("{second:#}").contains("another shipper"), "{second:#}");
        let socket = place.socket().to_owned();
        drop((place, listener));
        assert!(!socket.exists() && !pointer(state.path()).exists(), "removed at the end");
        // A killed shipper leaves its socket behind, and no lock.
        drop(UnixListener::bind(&socket).unwrap());
        assert!(socket.exists());
        let (place, _listener) = Place::take(state.path(), Some(&run)).unwrap();
        std::os::unix::net::UnixStream::connect(place.socket()).unwrap();
    }

    #[test]
    fn a_directory_of_somebody_else_s_or_a_long_path_is_refused() {
        let state = tempfile::tempdir().unwrap();
        let open = state.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        let refused = format!("{:#}", Place::take(state.path(), Some(&open)).unwrap_err());
        assert!(refused.contains("others may write") && refused.contains("HINT"), "{refused}");
        let long = state.path().join("l".repeat(120));
        let refused = format!("{:#}", Place::take(state.path(), Some(&long)).unwrap_err());
        assert!(refused.contains("too long"), "{refused}");
    }
}
