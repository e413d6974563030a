//! Serves the clients.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;
use tracing::{debug, error, info};

use super::place::Place;
use super::protocol::{
    LONGEST_SYNC, REQUEST_MAX, Reply, Request, ResetReply, StatusReply, SyncOutcome, SyncReply,
};
use super::receipts::Receipts;
use super::report::{Refused, Report};
use crate::ship::registry::{Entry, Registry};
use crate::ship::sync::{Answer, SyncRequest};

/// Clients at once.
const CLIENTS: usize = 64;
/// Of these, those that wait for a sync: somebody can always ask how it stands.
const SYNCS: usize = 24;
/// How long a client may take to ask, and to take the answer.
const CLIENT_PATIENCE: Duration = Duration::from_secs(10);
/// Pause after a connection that could not be taken (no descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// The control socket; without one where it could not be made: shipping matters more.
#[derive(Debug)]
pub struct Server {
    listening: Option<(Place, UnixListener)>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    registry: Arc<Registry>,
    receipts: Receipts,
    replica: String,
    started_at: Timestamp,
    syncs: Semaphore,
}

impl Server {
    /// Opens the socket. The caller holds the lock of the state directory; needs a runtime.
    #[must_use]
    pub fn open(
        state_dir: &Path,
        runtime_dir: Option<&Path>,
        replica: String,
        registry: Arc<Registry>,
    ) -> Self {
        let listening = listen(state_dir, runtime_dir)
            .inspect_err(|failure| {
                error!("neither `shipper sync` nor `status` can reach this shipper: {failure:#}");
            })
            .ok();
        let shared = Shared {
            registry,
            receipts: Receipts::default(),
            replica,
            started_at: Timestamp::now(),
            syncs: Semaphore::new(SYNCS),
        };
        Self { listening, shared: Arc::new(shared) }
    }

    /// Serves clients, for as long as it is polled. Those that are being served go on to their answer after that.
    pub async fn run(&self) {
        let Some((place, listener)) = &self.listening else {
            return std::future::pending().await;
        };
        info!(socket = %place.socket().display(), "answering");
        let clients = Arc::new(Semaphore::new(CLIENTS));
        loop {
            // More have to wait until one goes: the kernel queues some, and refuses the rest.
            let Ok(permit) = clients.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let shared = self.shared.clone();
                    tokio::spawn(async move {
                        let _permit = permit;
                        if let Err(failure) = shared.serve(stream).await {
                            debug!("client: {failure:#}");
                        }
                    });
                }
                Err(failure) => {
                    error!("accept client: {failure}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

fn listen(state_dir: &Path, runtime_dir: Option<&Path>) -> anyhow::Result<(Place, UnixListener)> {
    let (place, listener) = Place::take(state_dir, runtime_dir)?;
    let listener = UnixListener::from_std(listener).context("watch socket")?;
    Ok((place, listener))
}

impl Shared {
    async fn serve(&self, stream: UnixStream) -> anyhow::Result<()> {
        let (reader, mut writer) = stream.into_split();
        let mut reader = BufReader::new(reader).take(REQUEST_MAX);
        let mut line = Vec::new();
        tokio::time::timeout(CLIENT_PATIENCE, reader.read_until(b'\n', &mut line))
            .await
            .context("request: out of time")?
            .context("read request")?;
        let reply = match serde_json::from_slice(&line) {
            Ok(request) => {
                reader.set_limit(1);
                // A client that goes away is not waited for.
                tokio::select! {
                    reply = self.reply(request) => reply,
                    _ = reader.read_u8() => return Ok(()),
                }
            }
            Err(error) => Reply::Refused(format!(
                "request not understood: {error}\nHINT: use the `shipper` of the same version; restart the service after an update"
            )),
        };
        let mut reply = serde_json::to_vec(&reply).context("write reply")?;
        reply.push(b'\n');
        tokio::time::timeout(CLIENT_PATIENCE, writer.write_all(&reply))
            .await
            .context("reply: out of time")?
            .context("write reply")
    }

    async fn reply(&self, request: Request) -> Reply {
        match request {
            Request::Status {} => Reply::Status(self.status().await),
            Request::Reset { database, why } => self.reset(&database, why).await,
            Request::Sync { database, timeout_ms } => {
                let Ok(_permit) = self.syncs.try_acquire() else {
                    return Reply::Refused(format!(
                        "{SYNCS} syncs wait already\nHINT: try again when they are done"
                    ));
                };
                let timeout = Duration::from_millis(timeout_ms).min(LONGEST_SYNC);
                Reply::Sync(self.sync(database.as_deref(), Instant::now() + timeout).await)
            }
        }
    }

    async fn status(&self) -> StatusReply {
        let entries = self.registry.entries();
        self.receipts.refresh(&entries).await;
        let now = Timestamp::now();
        let databases = entries
            .iter()
            .map(|entry| {
                let receipt = self.receipts.get(&entry.config.name);
                Report::new(&entry.config, entry.status.state(), receipt, now)
            })
            .collect();
        StatusReply {
            shipper_version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started_at: self.started_at,
            replica: self.replica.clone(),
            databases,
            refused: self.refused(),
        }
    }

    /// What the store remembers of its place goes, too: whoever asks for this knows what is there.
    async fn reset(&self, name: &str, why: String) -> Reply {
        let Some(entry) = self.registry.entry(name) else {
            return Reply::Reset(ResetReply { known: Some(self.known()) });
        };
        if let Err(error) = entry.store.accept_as_it_is().await {
            return Reply::Refused(format!("{:#}", anyhow::Error::new(error)));
        }
        entry.status.ask_reset(why);
        Reply::Reset(ResetReply { known: None })
    }

    fn known(&self) -> Vec<String> {
        self.registry.entries().into_iter().map(|entry| entry.config.name).collect()
    }

    /// A database that was created before the call counts: so look first.
    async fn sync(&self, name: Option<&str>, deadline: Instant) -> SyncReply {
        if name.is_none_or(|name| self.registry.entry(name).is_none()) {
            // Out of time is told of each database below.
            let _ = tokio::time::timeout_at(deadline, self.registry.look()).await;
        }
        let entries = match name {
            None => self.registry.entries(),
            Some(name) => match self.registry.entry(name) {
                Some(entry) => vec![entry],
                None => {
                    let known = Some(self.known());
                    return SyncReply { databases: vec![], refused: vec![], known };
                }
            },
        };
        let all = entries.iter().map(|entry| async move {
            let outcome = sync_one(entry, deadline).await;
            (entry.config.name.clone(), outcome)
        });
        let mut databases: Vec<_> = all.collect::<FuturesUnordered<_>>().collect().await;
        databases.sort_by(|(one, _): &(String, _), (other, _)| one.cmp(other));
        let refused = if name.is_none() { self.refused() } else { Vec::new() };
        SyncReply { databases, refused, known: None }
    }

    fn refused(&self) -> Vec<Refused> {
        let refused = self.registry.refused().into_iter();
        refused.map(|(path, reason)| Refused { path: path.display().to_string(), reason }).collect()
    }
}

async fn sync_one(entry: &Entry, deadline: Instant) -> SyncOutcome {
    let (answer, told) = oneshot::channel();
    if entry.syncs.try_send(SyncRequest { answer }).is_err() {
        return if entry.syncs.is_closed() { SyncOutcome::Stopped } else { SyncOutcome::Busy };
    }
    match tokio::time::timeout_at(deadline, told).await {
        Ok(Ok(Answer::Durable)) => {
            let txid = entry.status.durable().map(|txid| txid.to_string());
            SyncOutcome::Durable { txid }
        }
        Ok(Ok(Answer::NotAttached(reason))) => SyncOutcome::NotAttached { reason },
        Ok(Ok(Answer::NotVouched(reason))) => SyncOutcome::NotVouched { reason },
        Ok(Err(_)) => SyncOutcome::Stopped,
        Err(_) => {
            let state = entry.status.state();
            SyncOutcome::TimedOut { last_error: state.last_error().cloned() }
        }
    }
}
