//! Drills databases one after the other: witness, drill, ledger, receipt, mail.
//!
//! Order matters: the ledger first, since a PASS that nobody recorded is none; then the receipt, which only points at
//! the ledger; the mail last, so that it tells everything. A crash between two steps leaves the earlier ones.

use std::time::Instant;

use bytes::Bytes;
use jiff::Timestamp;
use replica::documents::{Receipt, ReceiptDocument, RepairWanted};
use replica::store::{Key, S3Options, Store, StoreError, read_all};

use crate::alert::{Story, drill_mail};
use crate::checks::{Share, out_of_time};
use crate::config::Config;
use crate::databases::{Database, Databases, databases};
use crate::drill::{Asked, Draft, Drilled, Request, Workspace, drill, within};
use crate::heartbeat;
use crate::ledger::{Entry, LedgerError, Place};
use crate::record::{Check, Record, Status, Verdict};
use crate::tasks::{DrillAnswer, DrillTask, Verifier};
use crate::words::in_words;

/// Far above what a receipt needs, bytes.
const RECEIPT_LIMIT_BYTES: usize = 64 * 1024;

/// What is known of earlier drills.
#[derive(Default)]
pub(super) struct Witness {
    pub(super) last_pass: Option<Receipt>,
    pub(super) record: Option<Record>,
    failing_since: Option<Timestamp>,
    problem: Option<Check>,
}

impl Verifier {
    pub(super) async fn drill_all(&self, task: DrillTask) -> anyhow::Result<DrillAnswer> {
        let task =
            DrillTask { deadline: task.deadline.or_else(|| self.default_deadline()), ..task };
        let temporary = std::env::temp_dir();
        Workspace::sweep(&temporary);
        let mut answer = DrillAnswer {
            one_named: task.databases.len() == 1,
            records: Vec::new(),
            mail_failed: false,
        };
        let listing = databases(&self.config, &task.databases, &self.given, &*self.ledger);
        let listed = match within(task.deadline, listing).await {
            Ok(listed) => listed?,
            Err(_out_of_time) => out_of_time_listing(&self.config),
        };
        let found = match listed {
            Databases::Found(found) => found,
            Databases::Unlisted { url, error } => {
                let record = unlisted(&url, error, &task.asked);
                let witness = Witness::default();
                self.conclude(record, &url, None, witness, &task.asked, &mut answer).await;
                return Ok(answer);
            }
        };
        for database in &found {
            let (Drilled { record, .. }, witness) =
                self.drill_one(database, &task, &temporary).await;
            let url = database.store.url();
            self.conclude(record, &url, Some(&*database.store), witness, &task.asked, &mut answer)
                .await;
        }
        Ok(answer)
    }

    /// Drills one database; with the record goes what was known of the last PASS.
    pub(super) async fn drill_one(
        &self,
        database: &Database,
        task: &DrillTask,
        temporary: &std::path::Path,
    ) -> (Drilled, Witness) {
        if task.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            let mut draft = Draft::new(&database.name, &task.asked, now());
            draft.record.checks.push(out_of_time("chain"));
            let witness = Witness::default();
            let record = draft.finish(std::time::Duration::ZERO);
            return (Drilled { record, proven: None }, witness);
        }
        let mut witness = self.witness(database, task.deadline).await;
        let asked = task.asked.seeded(fresh_seed());
        let request = Request {
            database: &database.name,
            store: database.store.clone(),
            asked: &asked,
            last_pass: witness.last_pass.clone(),
            last_pass_record: witness.record.take(),
            other_files: Share::OfTheDay,
            temporary,
            inspector: self.inspector.clone(),
            deadline: task.deadline,
            started_at: now(),
            progress: self.progress.clone(),
        };
        (drill(&request).await, witness)
    }

    /// The last PASS: the ledger's where it names a generation (whose id is unique); else the receipt
    /// beside the data, since of two replicas that Litestream wrote the names tell nothing.
    pub(super) async fn witness(&self, database: &Database, deadline: Option<Instant>) -> Witness {
        let place = database.place();
        let asked = async {
            self.settle(database).await?;
            let pass = self.ledger.last_pass(&place).await?;
            let record = self.ledger.last_pass_record(&place).await?;
            let failing_since = self.ledger.failing_since(&place).await?;
            Ok::<_, LedgerError>((pass, Witness { record, failing_since, ..Witness::default() }))
        };
        let (ledgers, mut witness) = asked.await.unwrap_or_else(|error| {
            let problem = Some(Check::new("ledger", Status::Error, in_words(error)));
            (None, Witness { problem, ..Witness::default() })
        });
        witness.last_pass = match ledgers.filter(|pass| pass.generation.is_some()) {
            Some(pass) => Some(pass),
            None => within(deadline, receipt(&*database.store)).await.ok().flatten(),
        };
        witness
    }

    /// Records a drill, and says it to whom it concerns.
    pub(super) async fn conclude(
        &self,
        mut record: Record,
        url: &str,
        store: Option<&dyn Store>,
        witness: Witness,
        asked: &Asked,
        answer: &mut DrillAnswer,
    ) {
        if let Some(problem) = witness.problem {
            record.append(problem);
        }
        let id = uuid::Uuid::now_v7().to_string();
        let receipt = new_receipt(&id, &record, asked);
        let entry = Entry {
            id,
            place: Place::new(url, &record.database),
            record: record.clone(),
            latest: *asked == Asked::Latest,
            last_pass: receipt.clone(),
        };
        match self.ledger.append(&entry).await {
            Ok(()) => {
                if let Some(store) = store {
                    tell_shipper(store, receipt, &record, asked).await;
                }
            }
            Err(error) => {
                let detail = format!(
                    "{}\nHINT: this drill is recorded nowhere but in its output; make the ledger writable, drill again",
                    in_words(error)
                );
                record.append(Check::new("ledger", Status::Error, detail));
            }
        }
        tracing::info!(db = record.database, verdict = %record.verdict, "drill ended");
        if record.verdict != Verdict::Pass {
            let configured = self.config.s3_options();
            let options = S3Options {
                endpoint: self.given.endpoint.clone().or(configured.endpoint),
                region: self.given.region.clone().or(configured.region),
                ..S3Options::default()
            };
            let story = Story {
                url,
                options: &options,
                last_pass: witness.last_pass.as_ref(),
                failing_since: witness.failing_since.filter(|_| *asked == Asked::Latest),
            };
            let mail = drill_mail(&record, &story);
            if let Err(error) = self.mailer.send(&mail).await {
                tracing::error!(
                    db = record.database,
                    error = in_words(error),
                    "the failed drill was mailed to nobody"
                );
                answer.mail_failed = true;
            }
        }
        answer.records.push(record);
    }
}

/// The store did not list its databases before the deadline.
fn out_of_time_listing(config: &Config) -> Databases {
    let url = config.replica.url.clone().unwrap_or_default();
    let error = StoreError::Unavailable {
        target: url.clone(),
        action: "list databases",
        attempts: 1,
        source: "deadline reached".into(),
    };
    Databases::Unlisted { url, error: Some(error) }
}

/// The record where it cannot be told which databases there are.
fn unlisted(url: &str, error: Option<StoreError>, asked: &Asked) -> Record {
    let mut draft = Draft::new(url, asked, now());
    draft.record.checks.push(match error {
        Some(error) => crate::checks::chain_failed(error.into()),
        None => Check::new(
            "chain",
            Status::Fail,
            format!("{url}: no database is there\nHINT: check [replica] url, and that a shipper ships to it"),
        ),
    });
    draft.finish(std::time::Duration::ZERO)
}

/// The receipt of a drill that passed at the newest state: a past point proves nothing about today.
fn new_receipt(id: &str, record: &Record, asked: &Asked) -> Option<Receipt> {
    if record.verdict != Verdict::Pass || *asked != Asked::Latest {
        return None;
    }
    Some(Receipt {
        version: 1,
        drill_id: id.to_owned(),
        generation: record.generation,
        txid: record.txid,
        restored_at: record.point.restored_at?,
        finished_at: record.finished_at,
    })
}

/// What a drill of the newest state asks of the shipper: another generation, where this one is damaged. What is wrong with
/// the content, or with a rule, no snapshot mends.
async fn repair_wanted(store: &dyn Store, record: &Record, asked: &Asked) -> Option<RepairWanted> {
    if *asked != Asked::Latest {
        return None;
    }
    let damage = record.checks.iter().find(|check| {
        check.status == Status::Fail && matches!(check.name.as_str(), "chain" | "durable_point")
    })?;
    let beat =
        heartbeat::read(store, record.finished_at).await.ok().and_then(|read| read.heartbeat);
    let shipped = beat.map(|heartbeat| heartbeat.generation);
    let restored = record.generation.filter(|_| damage.name == "chain");
    let why = damage.detail.lines().next().unwrap_or_default().to_owned();
    Some(RepairWanted { generation: restored.or(shipped)?, at: record.finished_at, why })
}

/// Writes the receipt. It is a courtesy to the shipper: the ledger has the proof already.
async fn tell_shipper(store: &dyn Store, pass: Option<Receipt>, record: &Record, asked: &Asked) {
    let document = if pass.is_some() {
        ReceiptDocument { last_pass: pass, repair_wanted: None }
    } else {
        let Some(wanted) = repair_wanted(store, record, asked).await else { return };
        match document(store).await {
            // The last PASS stays.
            Ok(there) => ReceiptDocument { repair_wanted: Some(wanted), ..there },
            Err(error) => {
                tracing::warn!(error = in_words(error), "read receipt");
                return;
            }
        }
    };
    let put = async {
        let bytes = serde_json::to_vec_pretty(&document)?;
        store.put_document(&Key::Receipt, Bytes::from(bytes)).await?;
        anyhow::Ok(())
    };
    if let Err(error) = put.await {
        let target = store.locate(&Key::Receipt);
        tracing::warn!(
            target,
            error = in_words(error),
            "receipt not written: the shipper will not know of this drill"
        );
    }
}

async fn receipt(store: &dyn Store) -> Option<Receipt> {
    document(store).await.ok()?.last_pass
}

/// What stands beside the data; one that is missing, or no receipt, says nothing.
async fn document(store: &dyn Store) -> Result<ReceiptDocument, StoreError> {
    match read_all(store, &Key::Receipt, RECEIPT_LIMIT_BYTES).await {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).unwrap_or_default()),
        Err(error) if error.is_not_found() => Ok(ReceiptDocument::default()),
        Err(error) => Err(error),
    }
}

/// What a random point is drawn with, unless the caller named it: other bits at each call.
fn fresh_seed() -> u64 {
    uuid::Uuid::now_v7().as_u64_pair().1
}

/// The time now, in the milliseconds that records and ledger keys have.
fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
}
