//! Ships every configured database in one process, until SIGTERM or SIGINT.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use replica::store::{Root, Store};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tracing::{Instrument, info, info_span, warn};

use crate::clock::SystemClock;
use crate::config::Config;
use crate::ship::claims::Claims;
use crate::ship::database::Database;
use crate::ship::notify::Watcher;
use crate::ship::status::Status;
use crate::ship::sync::{self, Syncs};
use crate::wal::sqlite;

/// Threads for the steps of the engines and for file reads, whatever the number of databases.
const BLOCKING_THREADS: usize = 4;
/// How many databases are read as a whole at once: leaves threads to the others.
const SNAPSHOTS_AT_ONCE: usize = 2;
/// Stack of each of them.
const STACK_BYTES: usize = 512 << 10;
/// How long a step that is under way at the end is waited for.
const LAST_STEP: Duration = Duration::from_secs(1);
/// How soon an idle one gives its memory back.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Ships until told to stop by a signal.
///
/// # Errors
/// A configuration that cannot work, a state directory that another shipper uses, or a wrong build.
pub fn run(config: Config) -> anyhow::Result<()> {
    sqlite::assert_capabilities()?;
    let _lock = lock_state(&config.state_dir)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_stack_size(STACK_BYTES)
        .thread_keep_alive(KEEP_ALIVE)
        .build()
        .context("start runtime")?;
    let shipped = runtime.block_on(ship(config));
    // A step that is still under way must not keep the program from ending in time.
    runtime.shutdown_timeout(LAST_STEP);
    shipped
}

async fn ship(config: Config) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("watch SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("watch SIGINT")?;
    let root = Root::open(&config.replica.url, &config.replica.options).await?;
    let (stop, stopped) = watch::channel(false);
    let watch = watch_files();
    let host: Arc<str> = rustix::system::uname().nodename().to_string_lossy().into();
    let clock = Arc::new(SystemClock);
    let claims = Arc::new(Claims::default());
    let turns = Arc::new(Semaphore::new(SNAPSHOTS_AT_ONCE));
    let mut databases = JoinSet::new();
    let mut settled = Vec::new();
    for database in config.databases {
        let store: Arc<dyn Store> = root.database(&database.name)?;
        let (_syncs, requests) = mpsc::channel(sync::MOST_WAITING);
        let span = info_span!("ship", db = %database.name);
        let database = Database {
            state: config.state_dir.join("db").join(&database.name),
            config: database,
            store,
            heartbeat: config.heartbeat,
            clock: clock.clone(),
            host: host.clone(),
            watch: watch.clone(),
            status: Arc::new(Status::new()),
            syncs: Syncs::new(requests),
            claims: claims.clone(),
            turns: turns.clone(),
            stop: stopped.clone(),
        };
        let (tell, told) = oneshot::channel();
        settled.push(told);
        databases.spawn(database.run(tell).instrument(span));
    }
    let ready = async {
        for told in settled {
            // A database whose task ended has settled, too.
            let _ = told.await;
        }
        tell_systemd(NotifyState::Ready);
        info!("ready");
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = ready => {}
        _ = terminate.recv() => info!("SIGTERM: final sync"),
        _ = interrupt.recv() => info!("SIGINT: final sync"),
    }
    tell_systemd(NotifyState::Stopping);
    stop.send_replace(true);
    let mut outcome = Ok(());
    while let Some(ended) = databases.join_next().await {
        // One that panicked must not cut the others' final sync short.
        outcome = outcome.and(ended.context("ship a database"));
    }
    outcome
}

fn watch_files() -> Option<crate::ship::notify::Watch> {
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

/// Keeps a second shipper out of the same state directory, for the life of the returned file.
fn lock_state(directory: &Path) -> anyhow::Result<File> {
    std::fs::create_dir_all(directory).with_context(|| {
        format!(
            "create state directory {}\nHINT: set state_dir, or StateDirectory= in the unit",
            directory.display()
        )
    })?;
    let path = directory.join("lock");
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

fn tell_systemd(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        warn!(%error, "notify the service manager");
    }
}
