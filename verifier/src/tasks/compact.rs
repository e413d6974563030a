//! Compacts databases one after the other: every generation's windows, then the snapshot of the latest.
//!
//! Stops between windows when the deadline comes, and says what is left: the next run goes on from what is in the
//! bucket, which is all the state there is.

use std::path::Path;
use std::time::Instant;

use jiff::Timestamp;
use replica::documents::Heartbeat;
use replica::restore::{Inventory, RestoreError, plan};
use replica::store::{Chain, Store};

use crate::checks;
use crate::compact::{
    Bench, CompactAnswer, DEADLINE, Report, SnapshotReport, SnapshotState, compact_chain, limit,
    promote, snapshot_state,
};
use crate::databases::{Database, Databases, databases};
use crate::drill::{Asked, Drilled, Workspace, within};
use crate::heartbeat::{self, Reading};
use crate::record::{Check, Status, Verdict};
use crate::tasks::{CompactTask, DrillAnswer, DrillTask, Verifier};
use crate::words::{in_words, millis};

impl Verifier {
    pub(super) async fn compact_all(&self, task: CompactTask) -> anyhow::Result<CompactAnswer> {
        let (began, compacted_at) = (Instant::now(), Timestamp::now());
        let temporary = std::env::temp_dir();
        Workspace::sweep(&temporary);
        let unlisted = |detail: String, status| {
            let mut report = Report::new(self.config.replica.url.as_deref().unwrap_or_default());
            report.find("databases", status, detail);
            CompactAnswer::new(compacted_at, vec![report])
        };
        let listing = databases(&self.config, &task.databases, &self.given, &*self.ledger);
        let found = match within(task.deadline, listing).await {
            Err(out_of_time) => return Ok(unlisted(out_of_time.detail, Status::Error)),
            Ok(listed) => match listed? {
                Databases::Found(found) => found,
                Databases::Unlisted { error: Some(error), .. } => {
                    return Ok(unlisted(in_words(error), Status::Error));
                }
                Databases::Unlisted { .. } => {
                    let detail = "no database is there\nHINT: check [replica] url, and that a shipper ships to it";
                    return Ok(unlisted(detail.to_owned(), Status::Fail));
                }
            },
        };
        let mut reports = Vec::new();
        for database in &found {
            let started = Instant::now();
            let mut report = Report::new(&database.name);
            self.compact_one(database, &task, began, &temporary, &mut report).await;
            report.seconds = millis(started.elapsed().as_secs_f64());
            tracing::info!(db = database.name, verdict = %report.verdict, "compaction ended");
            reports.push(report);
        }
        Ok(CompactAnswer::new(compacted_at, reports))
    }

    async fn compact_one(
        &self,
        database: &Database,
        task: &CompactTask,
        began: Instant,
        temporary: &Path,
        report: &mut Report,
    ) {
        let (heartbeat, mut inventories) = match within(task.deadline, survey(database)).await {
            Ok(Ok(survey)) => survey,
            Ok(Err(check)) | Err(check) => {
                return report.find(&check.name, check.status, check.detail);
            }
        };
        let workspace = match Workspace::create(temporary) {
            Ok(workspace) => workspace,
            Err(error) => return report.find("workspace", Status::Error, in_words(error)),
        };
        let bench = Bench {
            store: database.store.clone(),
            directory: workspace.path(),
            deadline: task.deadline,
        };
        let latest = latest(&inventories, heartbeat.as_ref());
        report.restore_objects_before = objects(&inventories[latest]);
        for inventory in &mut inventories {
            if let Some(remark) = inventory.remark() {
                report.find("chain", Status::Unchecked, remark);
            }
            match (inventory.chain, limit(inventory, heartbeat.as_ref())) {
                (Chain::Root, _) => {
                    let detail = "written by Litestream, which compacts it itself";
                    report.find("chain", Status::Unchecked, detail);
                }
                (_, Some(limit)) => compact_chain(&bench, inventory, limit, report).await,
                (_, None) => {}
            }
        }
        report.restore_objects_after = objects(&inventories[latest]);
        drop(workspace);
        let every = self.config.compaction.snapshot_every.get();
        report.snapshot = match inventories[latest].chain {
            Chain::Root => None,
            Chain::Generation(_) => {
                Some(match snapshot_state(&inventories[latest], Timestamp::now(), every) {
                    SnapshotState::Current => SnapshotReport::Current,
                    SnapshotState::Young => SnapshotReport::Young,
                    SnapshotState::Due => SnapshotReport::Due,
                })
            }
        };
        drop(inventories);
        if report.snapshot == Some(SnapshotReport::Due) {
            self.snapshot(database, task, began, temporary, report).await;
        }
    }

    /// Drills the newest state, and on PASS makes the copy a snapshot.
    async fn snapshot(
        &self,
        database: &Database,
        task: &CompactTask,
        began: Instant,
        temporary: &Path,
        report: &mut Report,
    ) {
        if report.verdict != Verdict::Pass {
            return report.find(
                "snapshot",
                Status::Error,
                "due, and not made after what was found before",
            );
        }
        // A drill that runs out of time alarms people: it begins with enough, or another time.
        let late = |deadline: Instant| {
            let left = deadline.saturating_duration_since(Instant::now());
            left < deadline.saturating_duration_since(began) / 2
        };
        if task.deadline.is_some_and(late) {
            let detail = "due, and left to the next run: too little time for a drill";
            return report.find(DEADLINE, Status::Error, detail);
        }
        let asked = Asked::Latest;
        let deadline = task.deadline.or_else(|| self.default_deadline());
        let drilling = DrillTask { databases: task.databases.clone(), asked, deadline };
        let (Drilled { record, proven }, witness) =
            self.drill_one(database, &drilling, temporary).await;
        let mut drilled = DrillAnswer { one_named: true, records: Vec::new(), mail_failed: false };
        let url = database.store.url();
        let store = Some(&*database.store);
        self.conclude(record, &url, store, witness, &asked, &mut drilled).await;
        if drilled.mail_failed {
            report.find("alert", Status::Error, "the drill's mail could not be sent");
        }
        let verdict = drilled.verdict();
        let Some(proven) = proven.filter(|_| verdict == Verdict::Pass) else {
            let status = if verdict == Verdict::Fail { Status::Fail } else { Status::Error };
            let detail = format!("the drill before it ended with {verdict}, so that none was made");
            return report.find("snapshot", status, detail);
        };
        let chain = proven.selected.plan.chain;
        let promoting = promote(&database.store, proven);
        match within(task.deadline, promoting).await {
            Ok(Ok(made)) => {
                if let Chain::Generation(generation) = chain {
                    let (txid, bytes) = (made.txid, made.bytes);
                    report.snapshot = Some(SnapshotReport::Promoted { generation, txid, bytes });
                    report.restore_objects_after = Some(1);
                }
            }
            Ok(Err(error)) => {
                let status = if error.is_replica_fault() { Status::Fail } else { Status::Error };
                report.find("snapshot", status, in_words(error));
            }
            Err(out_of_time) => report.find(DEADLINE, out_of_time.status, out_of_time.detail),
        }
    }
}

/// The heartbeat, and then what each chain has: what it calls durable must be in the listing. Chains without files are left
/// out; there is at least one with some.
async fn survey(database: &Database) -> Result<(Option<Heartbeat>, Vec<Inventory>), Check> {
    let store: &dyn Store = &*database.store;
    let unknown = |words: String| Check::new("heartbeat", Status::Error, words);
    let heartbeat = match heartbeat::read(store, Timestamp::now()).await {
        Ok(Reading { heartbeat: None, problem: Some(problem), .. }) => {
            return Err(unknown(problem));
        }
        Ok(reading) => reading.heartbeat,
        Err(error) => return Err(unknown(in_words(error))),
    };
    let listing = async {
        let mut inventories = Vec::new();
        for chain in store.chains().await? {
            inventories.push(Inventory::read(store, chain).await?);
        }
        inventories.retain(|inventory| !inventory.files.is_empty());
        if inventories.is_empty() {
            let message = format!("no files at {}", store.url());
            return Err(RestoreError::Chain { message });
        }
        Ok(inventories)
    };
    Ok((heartbeat, listing.await.map_err(checks::chain_failed)?))
}

/// The latest chain: the heartbeat's if it has files, else the one written to last.
fn latest(inventories: &[Inventory], heartbeat: Option<&Heartbeat>) -> usize {
    let named = heartbeat.map(|beat| Chain::Generation(beat.generation));
    let updated = |inventory: &Inventory| inventory.files.iter().map(|file| file.modified).max();
    let last = (0..inventories.len())
        .max_by_key(|index| (updated(&inventories[*index]), inventories[*index].chain));
    inventories.iter().position(|inventory| Some(inventory.chain) == named).or(last).unwrap_or(0)
}

/// Objects that a restore of its newest state reads, where it can be restored.
fn objects(inventory: &Inventory) -> Option<u64> {
    plan(inventory, None).ok().map(|plan| plan.files.len() as u64)
}
