//! Ships every configured database in one process, until SIGTERM or SIGINT.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use replica::store::Root;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::clock::SystemClock;
use crate::config::Config;
use crate::control::Server;
use crate::ship::fleet::{Common, Fleet};
use crate::ship::limits;
use crate::ship::notify::{Watch, Watcher};
use crate::wal::{index_file, sqlite};

/// Threads of the runtime for what is left to it, files that are read for an upload: everything else has its own.
const BLOCKING_THREADS: usize = 4;
/// Stack of each of them.
const STACK_BYTES: usize = 512 << 10;
/// How long the service manager is kept waiting for databases that can neither be attached nor be refused.
const SETTLED_WITHIN: Duration = Duration::from_secs(30);
/// Locked while a shipper uses the state directory.
const LOCK_NAME: &str = "lock";
/// Remembers the directory that a replica of files is in.
pub const ROOT_MEMORY: &str = "replica-root";
/// How soon an idle one gives its memory back.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Ships until told to stop by a signal.
///
/// # Errors
/// A configuration that cannot work, a state directory that another shipper uses, or a wrong build.
pub fn run(config: Config) -> anyhow::Result<()> {
    sqlite::assert_capabilities()?;
    index_file::contain_faults().context("watch SIGBUS")?;
    let _lock = lock_state(&config.state_dir)?;
    let files = limits::raise();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_stack_size(STACK_BYTES)
        .thread_keep_alive(KEEP_ALIVE)
        .build()
        .context("start runtime")?;
    let shipped = runtime.block_on(ship(config, files));
    // What is still under way then hangs: nothing of it, not even closing a file, may keep the program from ending.
    std::mem::forget(runtime);
    shipped
}

async fn ship(config: Config, files: u64) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("watch SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("watch SIGINT")?;
    let common = Common {
        root: Root::open(&config.replica.url, &config.replica.options)
            .await?
            .remembered_in(&config.state_dir.join(ROOT_MEMORY)),
        state_dir: config.state_dir.clone(),
        heartbeat: config.heartbeat,
        clock: Arc::new(SystemClock),
        host: rustix::system::uname().nodename().to_string_lossy().into(),
        watch: watch_files(),
        files,
    };
    let mut fleet = Fleet::new(common, config.databases);
    let server = Server::open(
        &config.state_dir,
        config.runtime_dir.as_deref(),
        config.replica.url.to_string(),
        fleet.registry(),
    );
    let settled = fleet.look().await?;
    if settled.is_empty() {
        warn!(
            "no database matches yet\nHINT: check [[database]] path, and that this user may read its directories"
        );
    }
    let ready = async {
        let by = Instant::now() + SETTLED_WITHIN;
        for told in settled {
            // A database whose task ended has settled, too; one that hangs must not end the service.
            let _ = tokio::time::timeout_at(by, told).await;
        }
        tell_systemd(NotifyState::Ready);
        info!("ready");
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = ready => {}
        () = fleet.follow() => {}
        () = server.run() => {}
        _ = terminate.recv() => info!("SIGTERM: final sync"),
        _ = interrupt.recv() => info!("SIGINT: final sync"),
    }
    tell_systemd(NotifyState::Stopping);
    fleet.stop().await
}

fn watch_files() -> Option<Watch> {
    let watcher = match Watcher::new() {
        Ok(watcher) => watcher,
        Err(error) => {
            warn!(
                %error,
                "no notices of changes, looking once per sync interval instead\n\
                 HINT: raise fs.inotify.max_user_instances"
            );
            return None;
        }
    };
    let watch = watcher.watch();
    tokio::spawn(async move {
        if let Err(error) = watcher.run().await {
            warn!(%error, "notices of changes ended, looking every few seconds instead");
        }
    });
    Some(watch)
}

/// Keeps a second shipper out of the same state directory, for the life of the returned file. What is kept there are
/// pages of the databases, whose own files may be closed to others: so is a directory that is created here.
fn lock_state(directory: &Path) -> anyhow::Result<File> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory).with_context(|| {
        format!(
            "create state directory {}\nHINT: set state_dir, or StateDirectory= in the unit",
            directory.display()
        )
    })?;
    if others_may_enter(directory)? {
        warn!(
            "state directory {}: other users may read the databases' pages in it\nHINT: chmod 700 {0}",
            directory.display()
        );
    }
    let path = directory.join(LOCK_NAME);
    let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).with_context(
        || {
            format!(
                "{}: another shipper uses this state directory\n\
                 HINT: stop it, or give this one a state_dir of its own",
                path.display()
            )
        },
    )?;
    Ok(file)
}

fn others_may_enter(directory: &Path) -> anyhow::Result<bool> {
    let metadata = std::fs::metadata(directory)
        .with_context(|| format!("read rights of {}", directory.display()))?;
    Ok(metadata.permissions().mode() & 0o007 != 0)
}

fn tell_systemd(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        warn!(%error, "notify the service manager");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_state_directory_is_closed_to_others_and_taken_once() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("lib/seaworthy");
        let lock = lock_state(&state).unwrap();
        assert_eq!(std::fs::metadata(&state).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(!others_may_enter(&state).unwrap());
        let second = lock_state(&state).unwrap_err();
        assert!(format!("{second:#}").contains("another shipper"), "{second:#}");
        drop(lock);
        std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(others_may_enter(&state).unwrap());
        drop(lock_state(&state).unwrap());
    }
}
