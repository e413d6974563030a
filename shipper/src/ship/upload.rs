//! From the spool to the bucket, in order.
//!
//! *Invariant*: file n + 1 is not sent before file n is durable, so [`Status`]'s durable TXID only ever moves
//! when everything before it is in the bucket. After a quiet time the first file goes up at once, then at most one
//! per sync interval. An outage is waited out; the spool grows meanwhile, nobody else waits.
//!
//! *Invariant*: a key is written once. One that another content has is another writer's, or (at a start) our own of a time
//! that this machine has forgotten; either way this chain does not go on as it is.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use replica::format::{GenerationId, Txid};
use replica::store::{Body, Guard, Key, LtxAttributes, ObjectInfo, PutOutcome, Store, StoreError};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::chain::keys::{free, ltx_key};
use crate::chain::reserve::is_out_of_room;
use crate::chain::{LocalChain, Upload};
use crate::clock::Clock;
use crate::ship::generation;
use crate::ship::presence::{self, Absent};
use crate::ship::seen::{self, Seen};
use crate::ship::status::Status;
use crate::threads::blocking;

/// First and longest pause after a failure that outlived the store's own retries.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Shortest pause, also where there is no time left.
const SHORTEST_PAUSE: Duration = Duration::from_millis(200);
/// How often a heartbeat that cannot be read is asked for.
const LOOKS: u32 = 3;
/// A file that is sent twice to see whether the store guards its objects is no bigger.
const PROBE_BYTES: u64 = 1 << 20;

/// How often the chain is looked for in the bucket: while anything is shipped, and while nothing is.
const LOOK: (Duration, Duration) = (Duration::from_secs(3600), Duration::from_secs(24 * 3600));
/// Looks in a row that must miss it: a store may be slow to show what it has.
const MISSED: u32 = 3;
/// New generations for failed drills: one in this time, so that a store that damages everything is not filled with snapshots.
const REPAIR_EVERY: Duration = Duration::from_secs(20 * 3600);

/// Why a chain cannot go on as it is.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// Another writer has written to our generation: it must be left to them.
    #[error("another writer owns this generation: {0}")]
    OtherWriter(#[source] StoreError),
    /// A generation began that this machine knows nothing of.
    #[error(
        "the heartbeat in the bucket names generation {theirs} (of {host}, at {at}), which began after this machine's own, \
         {ours}: the state directory here is an older one that was put back, or another shipper ships here\n\
         HINT: if another shipper has this prefix, stop one of the two, or give each a prefix of its own"
    )]
    Superseded {
        /// The one that the heartbeat names.
        theirs: GenerationId,
        /// The one that is known here.
        ours: GenerationId,
        /// Who wrote the heartbeat.
        host: String,
        /// When, by the store's clock.
        at: Timestamp,
    },
    /// The bucket has more than this machine knows of.
    #[error("the bucket is ahead of this machine: {0}")]
    Stale(String),
    /// What is in the bucket cannot be restored.
    #[error("{0}")]
    Lost(String),
    /// The disk has no room to send what waits.
    #[error("{0:#}")]
    Full(anyhow::Error),
    /// What is kept on this machine cannot be read or written any more.
    #[error("local state: {0:#}")]
    Local(anyhow::Error),
}

/// What an attempt came to.
#[derive(Debug)]
pub enum Attempt {
    /// There is nothing to upload.
    Nothing,
    /// A file is in the bucket, and known to be.
    Uploaded(Txid),
    /// Another attempt, with the same file, may do better.
    Failed(StoreError),
}

/// Uploads one generation of one database.
#[derive(Debug)]
pub struct Uploader {
    /// Where to.
    pub store: Arc<dyn Store>,
    /// What.
    pub chain: Arc<LocalChain>,
    /// Who is told.
    pub status: Arc<Status>,
    /// Shortest time between two uploads.
    pub interval: Duration,
    /// The wall clock, for the generation's name.
    pub clock: Arc<dyn Clock>,
    /// Becomes true when there is no time left for intervals.
    pub hurry: watch::Receiver<bool>,
    started: bool,
    looks: u32,
    /// Whether the chain is known to be where this machine believes it to be.
    confirmed: bool,
    probed: bool,
    /// When the chain is looked for again.
    next_look: Instant,
    /// Looks that missed it.
    missed: u32,
    found_again: bool,
}

impl Uploader {
    /// An uploader that has done nothing yet.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        chain: Arc<LocalChain>,
        status: Arc<Status>,
        interval: Duration,
        clock: Arc<dyn Clock>,
        hurry: watch::Receiver<bool>,
    ) -> Self {
        Self {
            store,
            chain,
            status,
            interval,
            clock,
            hurry,
            started: false,
            looks: 0,
            confirmed: false,
            probed: false,
            next_look: Instant::now(),
            missed: 0,
            found_again: false,
        }
    }

    /// Uploads until the chain cannot go on.
    pub async fn run(mut self) -> Ended {
        let mut pause = PAUSE.0;
        let mut began: Option<Instant> = None;
        loop {
            if let Some(began) = began {
                self.wait_until(began + self.interval).await;
            }
            let at = Instant::now();
            match self.attempt().await {
                Ok(Attempt::Nothing) => tokio::select! {
                    () = self.chain.arrived() => {}
                    () = self.status.looks.wanted() => {}
                    () = tokio::time::sleep_until(self.next_look) => {}
                },
                Ok(Attempt::Uploaded(_)) => {
                    // After an outage, sooner.
                    let next = if pause == PAUSE.0 { at + LOOK.0 } else { at };
                    self.next_look = self.next_look.min(next);
                    began = Some(at);
                    pause = PAUSE.0;
                }
                Ok(Attempt::Failed(failure)) => {
                    began = None;
                    self.failed(failure, &mut pause).await;
                }
                Err(ended) => return ended,
            }
        }
    }

    /// Tries once to upload the next file; does not wait for one, nor between tries.
    ///
    /// # Errors
    /// [`Ended`]: no other attempt of this uploader may be made.
    pub async fn attempt(&mut self) -> Result<Attempt, Ended> {
        if let Some(failed) = self.look().await? {
            return Ok(Attempt::Failed(failed));
        }
        let generation = match self.start().await {
            Ok(generation) => generation,
            Err(Start::Ended(ended)) => return Err(ended),
            Err(Start::Failed(error)) => return Ok(Attempt::Failed(error)),
        };
        let next = self.local(LocalChain::next_upload).await.map_err(|ended| match ended {
            Ended::Local(error) if is_out_of_room(&error) => Ended::Full(error),
            ended => ended,
        });
        let Some(upload) = next? else {
            return Ok(Attempt::Nothing);
        };
        match self.put(generation, &upload).await {
            // Behind one that was there already there may be more.
            Ok(outcome) => self.confirmed |= outcome == PutOutcome::Created,
            Err(error) if error.is_precondition() && !self.confirmed => {
                return Err(Ended::Stale(format!("{:#}", anyhow::Error::new(error))));
            }
            Err(error) if error.is_precondition() => return Err(Ended::OtherWriter(error)),
            Err(error) if error.is_unguarded() => {
                self.unguarded().await?;
                return Ok(Attempt::Failed(error));
            }
            Err(error) => {
                if error.is_not_found() {
                    // The place of the whole generation, since the file itself is new.
                    self.next_look = Instant::now();
                }
                return Ok(Attempt::Failed(error));
            }
        }
        if let Err(error) = self.find_again(generation, &upload).await {
            return Ok(Attempt::Failed(error));
        }
        self.probe(generation, &upload).await?;
        let (done, txid) = (upload.clone(), upload.txid);
        self.local(move |chain| chain.uploaded(&done)).await?;
        match self.look_ahead(generation).await {
            Ok(()) => {}
            Err(Start::Ended(ended)) => return Err(ended),
            Err(Start::Failed(error)) => return Ok(Attempt::Failed(error)),
        }
        if txid == Txid::FIRST {
            self.next_look = Instant::now();
        }
        self.status.uploaded(&upload);
        self.status.spooled(self.chain.backlog());
        Ok(Attempt::Uploaded(txid))
    }

    /// Looks for the chain in the bucket, where it is time; what kept it from being found.
    async fn look(&mut self) -> Result<Option<StoreError>, Ended> {
        let began = Instant::now();
        if began < self.next_look && !self.status.looks.is_wanted() {
            return Ok(None);
        }
        match presence::look(self.store.as_ref(), &self.chain).await {
            // What waits is sent first.
            Ok(false) => return Ok(None),
            Ok(true) => {}
            Err(Absent::Unknown(error)) => return Ok(Some(error)),
            Err(Absent::Gone(error)) => {
                self.missed += 1;
                if self.missed < MISSED {
                    self.next_look = began;
                    return Ok(Some(error));
                }
                let error = anyhow::Error::new(error);
                return Err(Ended::Lost(format!(
                    "the replica cannot be restored: what this shipper wrote is gone\n{error:#}\n\
                     HINT: find out what deletes there: a lifecycle rule, a script, a hand"
                )));
            }
        }
        self.missed = 0;
        self.local(LocalChain::set_found).await?;
        self.status.found(began, self.chain.backlog().0 == 0);
        if began >= self.next_look {
            self.next_look = began + LOOK.1;
            self.repair(began).await?;
        }
        Ok(None)
    }

    /// Whether a drill found this generation damaged.
    async fn repair(&self, now: Instant) -> Result<(), Ended> {
        let Some(generation) = self.chain.generation() else { return Ok(()) };
        match presence::repair_wanted(self.store.as_ref(), generation).await {
            Some(wanted) if self.status.looks.may_repair(now, REPAIR_EVERY) => {
                Err(Ended::Lost(format!(
                    "a drill at {} could not restore this generation: {}",
                    wanted.at, wanted.why
                )))
            }
            _ => Ok(()),
        }
    }

    /// Names a new generation; looks whether a chain that goes on is where this machine believes it to be.
    async fn start(&mut self) -> Result<GenerationId, Start> {
        if let Some(generation) = self.chain.generation() {
            if !self.started {
                self.look_back(generation).await?;
                self.look_at_the_first(generation).await?;
                self.started = true;
            }
            self.look_ahead(generation).await?;
            return Ok(generation);
        }
        let last = self.last_heartbeat(None).await.map_err(Start::Failed)?;
        let predecessor = last.as_ref().map(|last| last.heartbeat.generation);
        let generation = generation::new(predecessor, self.clock.now());
        info!(%generation, "new generation");
        let not_before = last.as_ref().map(Seen::not_before);
        self.local(move |chain| chain.set_generation(generation, not_before))
            .await
            .map_err(Start::Ended)?;
        self.status.set_generation(generation);
        self.status.looked(last);
        (self.started, self.confirmed) = (true, true);
        Ok(generation)
    }

    /// The heartbeat that stands in the bucket, where there is one; `known` is a TXID that is there. One object that cannot
    /// be read must not keep a database from being shipped.
    async fn last_heartbeat(
        &mut self,
        known: Option<(GenerationId, Txid)>,
    ) -> Result<Option<Seen>, StoreError> {
        let store = self.store.as_ref();
        let error = match seen::look(store).await {
            Ok(last) => return Ok(last),
            Err(error) => error,
        };
        self.looks += 1;
        if self.looks < LOOKS && !error.is_permanent() {
            return Err(error);
        }
        if error.is_denied() {
            // Without the right to list, this is also how a missing object is answered.
            if let Some((generation, txid)) = known {
                free(store, error, generation, txid).await?;
            }
            return Ok(None);
        }
        warn!("the last heartbeat cannot be read: {:#}", anyhow::Error::new(error));
        Ok(None)
    }

    /// A chain does not go on where a later generation began.
    async fn look_back(&mut self, ours: GenerationId) -> Result<(), Start> {
        let known = self.chain.durable_state().map(|durable| (ours, durable.txid));
        let last = self.last_heartbeat(known).await.map_err(Start::Failed)?;
        if let Some(Seen { heartbeat, modified: at }) = &last
            && generation::is_later(heartbeat.generation, ours)
        {
            let (theirs, host) = (heartbeat.generation, heartbeat.host.clone());
            return Err(Ended::Superseded { theirs, ours, host, at: *at }.into());
        }
        self.status.looked(last);
        Ok(())
    }

    /// A generation that an earlier run named and that has nothing durable, as far as is known here, may have its snapshot in
    /// the bucket: a store that ignores the condition of a PUT would let another one be written over it.
    async fn look_at_the_first(&self, generation: GenerationId) -> Result<(), Start> {
        if self.chain.durable_state().is_some() || self.chain.is_frozen() {
            return Ok(());
        }
        let key: Key = ltx_key(generation, Txid::FIRST).into();
        match self.store.head(&key).await {
            Ok(found) => Err(self.ahead(&key, &found)),
            // Without the right to list, 403 is how a missing object is answered; the PUT tells the rest.
            Err(error) if error.is_not_found() || error.is_denied() => Ok(()),
            Err(error) => Err(Start::Failed(error)),
        }
    }

    fn ahead(&self, key: &Key, found: &ObjectInfo) -> Start {
        let object = self.store.locate(key);
        Start::Ended(Ended::Stale(format!("{object} exists ({} bytes)", found.size)))
    }

    /// Until the chain is known to be where this machine believes it to be, the key of the next TXID must be free.
    /// Where a file for it is frozen, sending that tells, too.
    async fn look_ahead(&mut self, generation: GenerationId) -> Result<(), Start> {
        let Some(durable) = self.chain.durable_state() else { return Ok(()) };
        if self.confirmed || self.chain.is_frozen() {
            return Ok(());
        }
        let key: Key = ltx_key(generation, durable.txid.next()).into();
        let found = match self.store.head(&key).await {
            Ok(found) => found,
            Err(error) => {
                free(self.store.as_ref(), error, generation, durable.txid)
                    .await
                    .map_err(Start::Failed)?;
                self.confirmed = true;
                self.status.confirmed(&durable);
                return Ok(());
            }
        };
        Err(self.ahead(&key, &found))
    }

    async fn put(
        &self,
        generation: GenerationId,
        upload: &Upload,
    ) -> Result<PutOutcome, StoreError> {
        let key = ltx_key(generation, upload.txid);
        let (body, attributes) = content(upload);
        if self.chain.is_unguarded() {
            self.store.put_ltx_unguarded(&key, body, attributes).await
        } else {
            self.store.put_ltx(&key, body, attributes).await
        }
    }

    /// Once: is what the store said it took there, under its key, with its size and its checksum?
    async fn find_again(
        &mut self,
        generation: GenerationId,
        upload: &Upload,
    ) -> Result<(), StoreError> {
        if self.found_again {
            return Ok(());
        }
        let key: Key = ltx_key(generation, upload.txid).into();
        let found = self.store.head(&key).await?;
        let footer = &upload.entry.footer;
        // A store of files keeps no checksum beside them.
        let same = found.checksum.is_none_or(|checksum| checksum == footer.checksum);
        if found.size != footer.size || !same {
            return Err(StoreError::Changed { target: self.store.locate(&key), offset: 0 });
        }
        self.found_again = true;
        Ok(())
    }

    /// Once, with a small file: does the store really write a key only once?
    async fn probe(&mut self, generation: GenerationId, upload: &Upload) -> Result<(), Ended> {
        let small = upload.entry.footer.size <= PROBE_BYTES;
        if self.probed || self.chain.is_unguarded() || !small {
            return Ok(());
        }
        let key = ltx_key(generation, upload.txid);
        let (body, attributes) = content(upload);
        match self.store.probe_guard(&key, body, attributes).await {
            Ok(Guard::Guarded) => {
                self.probed = true;
                self.status.guarded();
            }
            Ok(Guard::Unguarded) => {
                self.probed = true;
                self.unguarded().await?;
            }
            Err(error) => warn!("probe the store: {:#}", anyhow::Error::new(error)),
        }
        Ok(())
    }

    async fn unguarded(&self) -> Result<(), Ended> {
        error!(
            "the store does not refuse to write a key twice: only a look before each upload keeps two shippers apart\n\
             HINT: use a store with conditional writes, or make sure that no second shipper has this prefix"
        );
        self.local(|chain| chain.set_unguarded(true)).await?;
        self.status.set_unguarded(true);
        Ok(())
    }

    async fn failed(&mut self, failure: StoreError, pause: &mut Duration) {
        let permanent = failure.is_permanent();
        let text = format!("{:#}", anyhow::Error::new(failure));
        if self.status.upload_failed(&text) {
            if permanent {
                error!("upload: {text}");
            } else {
                warn!("upload: {text}");
            }
        }
        tokio::time::sleep(SHORTEST_PAUSE).await;
        let end = Instant::now() + *pause;
        while Instant::now() < end && !*self.hurry.borrow() {
            // What is captured meanwhile is kept small.
            if let Err(error) = self.local(|chain| chain.compact(false)).await {
                warn!("merge waiting files: {error}");
            }
            self.wait_until(end.min(Instant::now() + PAUSE.0)).await;
        }
        *pause = (*pause * 2).min(PAUSE.1);
    }

    /// Runs `work` where it keeps nobody waiting.
    async fn local<T: Send + 'static>(
        &self,
        work: impl FnOnce(&LocalChain) -> anyhow::Result<T> + Send + 'static,
    ) -> Result<T, Ended> {
        let chain = self.chain.clone();
        blocking(move || work(&chain)).await.flatten().map_err(Ended::Local)
    }

    async fn wait_until(&mut self, deadline: Instant) {
        let hurry = self.hurry.wait_for(|hurry| *hurry);
        // Either way it is time; a sender that is gone is no hurry, so the timeout still bounds the wait.
        let _ = tokio::time::timeout_at(deadline, hurry).await;
    }
}

/// Why an uploader could not start.
enum Start {
    Ended(Ended),
    Failed(StoreError),
}

impl From<Ended> for Start {
    fn from(ended: Ended) -> Self {
        Self::Ended(ended)
    }
}

fn content(upload: &Upload) -> (Body, LtxAttributes) {
    let footer = &upload.entry.footer;
    let body = Body::File { path: upload.entry.path.clone(), len: footer.size };
    let attributes = LtxAttributes { timestamp: footer.end.timestamp, checksum: footer.checksum };
    (body, attributes)
}
