//! A small file system of its own, for what happens when a disk is full; and one place shown at another. Needs the right to mount.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use crate::process::{command, run};

/// A mount, gone when dropped.
#[derive(Debug)]
pub struct Mount(PathBuf);

impl Mount {
    /// Mounts a file system in memory at a directory, with these options (`size=24m,mode=700`).
    ///
    /// # Panics
    /// Without the right to.
    #[must_use]
    pub fn new(path: &Path, options: &str) -> Self {
        assert!(rustix::process::geteuid().is_root(), "run this test as root: it mounts");
        fs::create_dir_all(path).unwrap();
        let mut mount = command("mount");
        run(mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(path), 0).unwrap();
        Self(path.to_owned())
    }

    /// Shows `from` at `to`, a file or directory that is there.
    ///
    /// # Panics
    /// Without the right to.
    #[must_use]
    pub fn bind(from: &Path, to: &Path) -> Self {
        assert!(rustix::process::geteuid().is_root(), "run this test as root: it mounts");
        run(command("mount").arg("--bind").arg(from).arg(to), 0).unwrap();
        Self(to.to_owned())
    }

    /// Changes its options.
    ///
    /// # Panics
    /// They do not hold.
    pub fn become_like(&self, options: &str) {
        let mut mount = command("mount");
        run(mount.args(["-o", &format!("remount,{options}")]).arg(&self.0), 0).unwrap();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a failed test may still have a process in it.
        drop(command("umount").arg("--lazy").arg(&self.0).status());
    }
}
