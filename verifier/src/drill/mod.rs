//! The drill: restore into a private directory, check the copy, say what was found.
//!
//! Invariants: a drill always ends in a record, also after a panic, a deadline or with nothing to restore; the
//! copy is gone when what [`drill`] returns is dropped, and is handed out only after a PASS. A process that is killed leaves its directory to the next
//! drill's sweep ([`Workspace::sweep`]). Nothing here writes to the store, the ledger or a mailbox.

mod asked;
mod copy;
mod draft;
mod inspect;
mod text;
mod unlisted;
mod workspace;

use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use jiff::Timestamp;
use replica::documents::{Heartbeat, Receipt};
use replica::restore::{Progress, Restored, Selected};
use replica::store::{Chain, Store};

use crate::checks::{self, DurablePoint, Share, out_of_time};
use crate::clock::Clock;
use crate::drill::inspect::Subject;
use crate::drill::unlisted::Seen;
use crate::heartbeat::{self, Reading};
use crate::record::{Check, Record, Status, Verdict};
use crate::rules;
use crate::words::in_words;

use copy::restore;

pub use asked::Asked;
pub(crate) use copy::{Copied, copy};
pub use draft::Draft;
pub(crate) use inspect::alive;
pub use inspect::{ChildProcess, InProcess, Inspector, SUBCOMMAND, answer};
pub use text::text;
pub use workspace::Workspace;

/// How long after the deadline the checks may take to notice it.
const NOTICE: Duration = Duration::from_secs(2);

/// Shows the progress of a restore of so many bytes.
pub type ShowProgress = Arc<dyn Fn(u64) -> Arc<dyn Progress> + Send + Sync>;

/// What to drill.
#[derive(Clone)]
pub struct Request<'a> {
    /// The database's name, for the record.
    pub database: &'a str,
    /// Where it is.
    pub store: Arc<dyn Store>,
    /// The point.
    pub asked: &'a Asked,
    /// The last PASS of its newest state, as a witness.
    pub last_pass: Option<Receipt>,
    /// The record of the last PASS, to compare schema and rows with.
    pub last_pass_record: Option<Record>,
    /// How many of the files that the newest state does not need are read.
    pub other_files: Share,
    /// Where the private directory is made.
    pub temporary: &'a Path,
    /// Who asks SQLite about the copy.
    pub inspector: Arc<dyn Inspector>,
    /// When the drill must have ended.
    pub deadline: Option<Instant>,
    /// The time now, by this machine's clock.
    pub started_at: Timestamp,
    /// Shows progress.
    pub progress: ShowProgress,
}

impl<'a> Request<'a> {
    /// A drill that begins now, without a witness, a deadline, or anybody to show progress to.
    #[must_use]
    pub fn new(
        database: &'a str,
        store: Arc<dyn Store>,
        asked: &'a Asked,
        temporary: &'a Path,
        inspector: Arc<dyn Inspector>,
    ) -> Self {
        Self {
            database,
            store,
            asked,
            last_pass: None,
            last_pass_record: None,
            other_files: Share::OfTheDay,
            temporary,
            inspector,
            deadline: None,
            started_at: Timestamp::now(),
            progress: Arc::new(|_| Arc::new(())),
        }
    }
}

/// What a drill leaves behind.
#[derive(Debug)]
pub struct Drilled {
    /// What was found.
    pub record: Record,
    /// The copy, after a PASS of a chain of LTX files only. It is gone when this drops.
    pub proven: Option<Proven>,
}

/// A restored copy for which every check held.
#[derive(Debug)]
pub struct Proven {
    /// Where it stands ([`Workspace::copy`]).
    pub workspace: Workspace,
    /// What was restored.
    pub selected: Selected,
    /// How the copy came out.
    pub restored: Restored,
}

/// Carries out one drill.
pub async fn drill(request: &Request<'_>) -> Drilled {
    let began = Instant::now();
    let mut draft = Draft::new(request.database, request.asked, request.started_at);
    let attempt = AssertUnwindSafe(attempt(request, &mut draft)).catch_unwind();
    let outcome = match request.deadline {
        Some(deadline) => tokio::time::timeout_at((deadline + NOTICE).into(), attempt).await,
        None => Ok(attempt.await),
    };
    let mut proven = None;
    match outcome {
        Ok(Ok(Ok(copy))) => proven = copy,
        Ok(Ok(Err(stopped))) => draft.record.checks.push(stopped),
        Ok(Err(_panic)) => draft.record.checks.push(Check::new(
            "drill",
            Status::Error,
            "the verifier itself failed (panicked)\nHINT: its log says where; please report it",
        )),
        Err(_elapsed) => draft.record.checks.push(out_of_time("drill")),
    }
    let record = draft.finish(began.elapsed());
    Drilled { proven: proven.filter(|_| record.verdict == Verdict::Pass), record }
}

/// Fills the draft as far as it gets; an error is the check that ended it.
async fn attempt(request: &Request<'_>, draft: &mut Draft) -> Result<Option<Proven>, Check> {
    let store = &*request.store;
    let clock = within(request.deadline, Clock::of(store, request.started_at)).await?;
    let now = clock.corrected(request.started_at);
    draft.record.started_at = now;
    if let Some(fault) = clock.fault() {
        draft.record.checks.push(Check::new("clock", Status::Error, fault));
    }
    // Read before the listing: what it calls durable must then be listed.
    let reading = within(request.deadline, heartbeat::read(store, now)).await?.map_err(in_words);
    let heartbeat = reading.as_ref().ok().and_then(|reading| reading.heartbeat.as_ref());
    draft.note_heartbeat(heartbeat);
    let witnesses = witnesses(heartbeat, request.last_pass.as_ref());
    let rules = within(request.deadline, rules::read(store)).await?.map_err(in_words);
    let began = Instant::now();
    let restoring = async {
        // The replica's own retention may delete between the listing and the reading: a second listing tells.
        let restored = match restore(request, draft).await {
            Err(error) if checks::vanished(&error) => {
                tracing::info!(db = request.database, %error, "listing once more");
                restore(request, draft).await
            }
            restored => restored,
        };
        match restored {
            Ok(restored) => Ok(restored),
            Err(error) => {
                Err(unlisted::excuse(checks::chain_failed(error), store, &witnesses).await)
            }
        }
    };
    let (workspace, copied) = within(request.deadline, restoring).await??;
    draft.note_restored(copied.figures(), began.elapsed());
    draft.record.checks.push(copied.chain());
    draft.record.txid = copied.told().map(|told| told.txid);
    let latest = *request.asked == Asked::Latest;
    let subject = Subject {
        copy: workspace.copy(),
        told: copied.told(),
        restored_at: copied.restored_at(),
        latest,
        now,
        heartbeat: heartbeat.cloned(),
        behind: reading.as_ref().map(|reading| reading.behind).unwrap_or_default(),
        rules: rules.as_ref().ok().cloned().unwrap_or_default(),
        before: request.last_pass_record.clone().filter(|_| latest),
        deadline: request.deadline,
    };
    draft.note_findings(subject.clone().source().await);
    if latest {
        let check = match &copied {
            Copied::Ltx(selected, restored) => {
                let chosen = rules.as_ref().ok().and_then(|rules| rules.generation);
                draft.record.checks.extend(checks::rivals(&selected.rivals, chosen, now));
                let check = durable_point(request, selected, restored, &reading).await;
                unlisted::excuse(check, store, &witnesses).await
            }
            Copied::V03(selected, _) => {
                checks::v03_durable_point(selected, request.last_pass.as_ref())
            }
        };
        draft.record.checks.push(check);
    }
    draft.note_findings(subject.content(&*request.inspector).await);
    let lag = latest.then(|| match &copied {
        Copied::Ltx(selected, restored) => {
            draft.note_lag(selected, restored, reading.as_ref().ok())
        }
        Copied::V03(selected, _) => draft.note_lag_v03(selected),
    });
    match rules {
        Ok(rules) => {
            let elapsed = copied.figures().seconds;
            draft.record.checks.extend(checks::budgets(&rules.budget, elapsed, lag));
        }
        Err(error) => draft.record.checks.push(checks::no_rules(&error)),
    }
    if let (true, Copied::Ltx(selected, restored)) = (latest, &copied) {
        let share = (request.other_files, request.started_at);
        let (began, store, deadline) = (Instant::now(), &request.store, request.deadline);
        let (check, files) = checks::other_files(store, selected, restored, share, deadline).await;
        draft.note_other_files(check, files, began.elapsed());
    }
    Ok(match copied {
        Copied::Ltx(selected, restored) => Some(Proven { workspace, selected, restored }),
        Copied::V03(..) => None,
    })
}

/// What `work` gives, unless the deadline passes first.
pub(crate) async fn within<T>(
    deadline: Option<Instant>,
    work: impl Future<Output = T>,
) -> Result<T, Check> {
    match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline.into(), work)
            .await
            .map_err(|_elapsed| out_of_time("chain")),
        None => Ok(work.await),
    }
}

async fn durable_point(
    request: &Request<'_>,
    selected: &Selected,
    restored: &Restored,
    reading: &Result<Reading, String>,
) -> Check {
    let unreadable = |words: &str| Check::new("durable_point", Status::Error, words);
    let (mut witness, problem) = match reading {
        Ok(reading) => (reading.heartbeat.clone(), reading.problem.as_deref()),
        Err(error) => return unreadable(error),
    };
    let chain = selected.plan.chain;
    if witness.as_ref().is_some_and(|witness| Chain::Generation(witness.generation) != chain) {
        // A new generation may have begun between the reading of the heartbeat and the listing.
        witness = match heartbeat::read(&*request.store, Timestamp::now()).await {
            Ok(newer) => {
                newer.heartbeat.filter(|newer| Chain::Generation(newer.generation) != chain)
            }
            Err(error) => return unreadable(&in_words(error)),
        };
    }
    // It may be older than the newest generation for longer: it is written after it, or cannot be.
    if let Some(&seen) = witnesses(witness.as_ref(), None).first()
        && seen.0 != chain
        && unlisted::holds(&*request.store, seen).await
    {
        witness = None;
    }
    checks::durable_point(&DurablePoint {
        chain,
        txid: restored.txid,
        heartbeat: witness.as_ref(),
        last_pass: request.last_pass.as_ref(),
        problem,
    })
}

/// What was seen in the bucket before, and by whom.
fn witnesses(heartbeat: Option<&Heartbeat>, last_pass: Option<&Receipt>) -> Vec<Seen> {
    let beat = heartbeat.and_then(|beat| Some((Chain::Generation(beat.generation), beat.txid?)));
    let pass = last_pass.and_then(|pass| {
        Some((pass.generation.map_or(Chain::Root, Chain::Generation), pass.txid?))
    });
    beat.into_iter().chain(pass).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::atomic::{AtomicU64, Ordering};

    use replica::store::{Root, S3Options};

    use super::*;

    /// A drill of the latest state, which calls `begun` when the restore is about to be shown.
    fn latest<'a>(
        root: &Root,
        temporary: &'a Path,
        begun: impl Fn() + Send + Sync + 'static,
    ) -> Request<'a> {
        let progress = move |_| -> Arc<dyn Progress> {
            begun();
            Arc::new(())
        };
        let (store, inspector) = (root.as_database(), Arc::new(InProcess));
        let request = Request::new("app", store, &Asked::LATEST, temporary, inspector);
        Request { progress: Arc::new(progress), ..request }
    }

    /// A drill of a copy of a replica whose newest object is deleted after it was listed, `times`
    /// times (its store's retention at work); the TXIDs of the objects start at 1a and go down.
    async fn drill_while_deleting(times: u64) -> Record {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let fixture = fixture.join("tests/fixtures/v05-file/replica");
        let replica = tempfile::tempdir().unwrap();
        for level in ["ltx/0", "ltx/1", "ltx/2", "ltx/9"] {
            std::fs::create_dir_all(replica.path().join(level)).unwrap();
            for entry in std::fs::read_dir(fixture.join(level)).unwrap() {
                let entry = entry.unwrap();
                let to = replica.path().join(level).join(entry.file_name());
                std::fs::copy(entry.path(), to).unwrap();
            }
        }
        let url = format!("file://{}", replica.path().display());
        let root = Root::open(&url.parse().unwrap(), &S3Options::default()).await.unwrap();
        let temporary = tempfile::tempdir().unwrap();
        let listed = AtomicU64::new(0);
        let level = replica.path().join("ltx/0");
        // Called between the listing and the reading.
        let request = latest(&root, temporary.path(), move || {
            let nth = listed.fetch_add(1, Ordering::Relaxed);
            if nth < times {
                let txid = 0x1a - nth;
                std::fs::remove_file(level.join(format!("{txid:016x}-{txid:016x}.ltx"))).unwrap();
            }
        });
        let Drilled { record, proven } = drill(&request).await;
        assert_eq!(proven.is_some(), record.verdict == Verdict::Pass);
        let copies = std::fs::read_dir(temporary.path()).unwrap().count();
        assert_eq!(copies, usize::from(proven.is_some()), "a proven copy, and no other, is kept");
        drop(proven);
        assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0);
        record
    }

    #[tokio::test]
    async fn what_is_deleted_under_the_drill_is_listed_once_more() {
        let record = drill_while_deleting(1).await;
        assert_eq!(record.verdict, Verdict::Pass, "{record:#?}");
        assert_eq!(record.txid.unwrap().to_string(), "0000000000000019");
        assert_eq!(record.point.txid, record.txid, "what was chosen at last");
        let record = drill_while_deleting(2).await;
        assert_eq!(record.verdict, Verdict::Inconclusive, "{record:#?}");
        let detail = &record.checks.last().unwrap().detail;
        assert!(detail.contains("0000000000000019.ltx") && detail.contains("HINT: "), "{detail}");
    }

    #[tokio::test]
    async fn a_wrong_clock_of_this_machine_accuses_nobody() {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let url = format!("file://{}/tests/fixtures/v05-file/replica", fixture.display());
        let root = Root::open(&url.parse().unwrap(), &S3Options::default()).await.unwrap();
        let temporary = tempfile::tempdir().unwrap();
        for (hours, verdict) in
            [(0, Verdict::Pass), (-100_000, Verdict::Inconclusive), (47, Verdict::Inconclusive)]
        {
            let mut request = latest(&root, temporary.path(), || ());
            let right = request.started_at;
            request.started_at = right + jiff::SignedDuration::from_hours(hours);
            let record = drill(&request).await.record;
            assert_eq!(record.verdict, verdict, "{record:#?}");
            let wrong: Vec<&str> =
                record.findings().iter().map(|check| check.name.as_str()).collect();
            assert_eq!(wrong, if hours == 0 { vec![] } else { vec!["clock"] });
            let off = record.started_at.duration_since(right);
            assert!(off.abs() < jiff::SignedDuration::from_mins(5), "by the store's clock: {off}");
        }
    }

    #[tokio::test]
    async fn a_panic_ends_in_a_record_and_leaves_nothing() {
        let replica = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let url = format!("file://{}/tests/fixtures/v05-file/replica", replica.display());
        let root = Root::open(&url.parse().unwrap(), &S3Options::default()).await.unwrap();
        let temporary = tempfile::tempdir().unwrap();
        // Called when the copy's file is there already.
        let request = latest(&root, temporary.path(), || std::panic::panic_any("a fault of ours"));
        let record = drill(&request).await.record;
        assert_eq!(record.verdict, Verdict::Inconclusive);
        assert_eq!(record.checks.last().unwrap().name, "drill");
        assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0);
    }
}
