//! Watches every database: evidence, judgement, claim, mail, mark.

use jiff::Timestamp;
use replica::restore::Inventory;
use replica::store::{Store, StoreError};

use crate::alert::watch_mail;
use crate::clock::Clock;
use crate::databases::{Database, Databases, databases};
use crate::heartbeat::{self, Reading};
use crate::ledger::Versioned;
use crate::tasks::Verifier;
use crate::watch::{
    Evidence, Findings, Life, MailOutcome, Notice, Standing, WatchAnswer, WatchReport, WatchState,
    standing,
};
use crate::words::in_words;

impl Verifier {
    pub(super) async fn watch_all(&self) -> anyhow::Result<WatchAnswer> {
        let watched_at = Timestamp::now();
        let found = match databases(&self.config, &[], &self.given, &*self.ledger).await? {
            Databases::Found(found) => found,
            Databases::Unlisted { url, error } => {
                let databases = vec![unlisted(url, error)];
                return Ok(WatchAnswer { watched_at, databases });
            }
        };
        let mut reports = Vec::new();
        for database in &found {
            // Each at its own time: many slow databases may outlast a claim's lease.
            reports.push(self.watch_one(database).await);
        }
        Ok(WatchAnswer { watched_at, databases: reports })
    }

    async fn watch_one(&self, database: &Database) -> WatchReport {
        let ours = Timestamp::now();
        let clock = Clock::of(&*database.store, ours).await;
        let now = clock.corrected(ours);
        let mut report = WatchReport {
            database: database.name.clone(),
            state: None,
            detail: String::new(),
            proof_overdue: None,
            last_pass: None,
            other_host: None,
            mail: MailOutcome::None,
        };
        let place = database.place();
        let settled = self.settle(database).await.map_err(in_words);
        let seen = match settled {
            Ok(()) => self.ledger.watch_state(&place).await.map_err(in_words),
            Err(error) => Err(error),
        };
        let pass = self.ledger.last_pass(&place).await.map_err(in_words);
        let seen = seen.map(|seen| Versioned {
            state: seen.state.filter(|state| !state.is_to_come(now)),
            ..seen
        });
        let read = evidence(&*database.store, now).await.map_err(in_words);
        let problem = read.as_ref().ok().and_then(|(_, problem)| problem.clone());
        let evidence = read.map(|(evidence, _)| evidence);
        report.last_pass = pass.as_ref().ok().and_then(Option::as_ref).map(|pass| pass.finished_at);
        let first_seen = seen
            .as_ref()
            .ok()
            .and_then(|seen| seen.state.as_ref())
            .map_or(now, |state| state.first_seen);
        let judged = Evidence {
            last_pass: report.last_pass,
            ..evidence.as_ref().cloned().unwrap_or_default()
        };
        let stale = &self.config.stale;
        let mut judgement =
            standing(now, first_seen, &judged, stale.after.get(), stale.proof_after.get());
        let unusable = problem.is_some()
            && evidence.as_ref().is_ok_and(|evidence| evidence.heartbeat.is_none());
        // A heartbeat that cannot be read leaves only the objects to tell: no new ones is a sign, new ones are none.
        let stopped = judgement.life == Life::Dead && judged.newest_object.is_some();
        let life_known = evidence.is_ok() && (!unusable || stopped);
        report.state = life_known.then_some(judgement.life);
        report.other_host = judgement.other_host.clone();
        // Without the ledger, neither the last PASS nor the first sight is known.
        let proof_known = seen.is_ok() && pass.is_ok();
        report.proof_overdue = proof_known.then_some(judgement.proof_overdue);
        let mut detail: Vec<String> =
            [seen.as_ref().err(), pass.as_ref().err(), evidence.as_ref().err()]
                .into_iter()
                .flatten()
                .cloned()
                .collect();
        detail.dedup();
        detail.extend(clock.fault());
        match problem {
            Some(problem) if life_known => judgement.life_detail.push_str(&format!("; {problem}")),
            problem => detail.extend(problem),
        }
        if life_known {
            detail.insert(0, judgement.life_detail.clone());
        }
        report.detail = detail.join("; ");
        if let Ok(seen) = seen {
            let findings = Findings {
                // While the first snapshot is under way, an open alarm neither ends nor goes on.
                life: report.state.filter(|_| !judgement.pending).map(|life| life.is_bad()),
                proof: report.proof_overdue,
                // Who else ships it, only a heartbeat tells.
                two_shippers: judged.heartbeat.as_ref().map(|_| report.other_host.is_some()),
            };
            let shown = life_known.then_some(&judgement);
            report.mail = self.tell(database, now, seen, findings, shown).await;
        }
        tracing::info!(db = report.database, state = ?report.state, proof_overdue = ?report.proof_overdue, "watched");
        report
    }

    /// Claims, sends and marks what is due.
    async fn tell(
        &self,
        database: &Database,
        now: Timestamp,
        seen: Versioned,
        findings: Findings,
        judgement: Option<&Standing>,
    ) -> MailOutcome {
        let first_sight = seen.state.is_none();
        let state = seen.state.unwrap_or_else(|| WatchState::new(now));
        let notices = state.due(now, findings, self.config.alert.remind_every.get());
        if notices.is_empty() && !first_sight {
            return MailOutcome::None;
        }
        let next = if notices.is_empty() {
            state
        } else {
            state.claimed(now, &uuid::Uuid::now_v7().to_string())
        };
        let name = &database.name;
        match self.ledger.replace_watch_state(&database.place(), seen.version, &next).await {
            Ok(true) if notices.is_empty() => MailOutcome::None,
            Ok(true) => {
                self.send(database, now, seen.version + 1, &next, &notices, judgement).await
            }
            Ok(false) => MailOutcome::Elsewhere,
            Err(error) => {
                tracing::error!(
                    db = name,
                    error = in_words(error),
                    "alarms not written, so nothing mailed"
                );
                // At first sight too: unless it is written down, no proof is ever overdue.
                MailOutcome::Failed
            }
        }
    }

    async fn send(
        &self,
        database: &Database,
        now: Timestamp,
        version: u64,
        claimed: &WatchState,
        notices: &[Notice],
        judgement: Option<&Standing>,
    ) -> MailOutcome {
        let name = &database.name;
        let mail = watch_mail(name, &database.store.url(), notices, judgement);
        if let Err(error) = self.mailer.send(&mail).await {
            // The claim's lease ends by itself; the next watch tries again.
            tracing::error!(db = name, error = in_words(error), "alarm mailed to nobody");
            return MailOutcome::Failed;
        }
        let told = claimed.settled(now, notices);
        match self.ledger.replace_watch_state(&database.place(), version, &told).await {
            Ok(true) => {}
            Ok(false) => tracing::warn!(
                db = name,
                "alarm mailed after its lease had ended: it may be mailed twice"
            ),
            Err(error) => {
                tracing::error!(
                    db = name,
                    error = in_words(error),
                    "alarm mailed but not marked: it will be mailed again"
                );
            }
        }
        MailOutcome::Sent
    }
}

/// What is said where it cannot be told which databases there are: of no database, but of the URL.
fn unlisted(url: String, error: Option<StoreError>) -> WatchReport {
    let detail = match error {
        Some(error) => {
            in_words(anyhow::Error::from(error).context(format!("list databases of {url}")))
        }
        None => format!(
            "no database is there\nHINT: check [replica] url ({url}), and that a shipper ships to it"
        ),
    };
    WatchReport {
        database: url,
        state: None,
        detail,
        proof_overdue: None,
        last_pass: None,
        other_host: None,
        mail: MailOutcome::None,
    }
}

/// The heartbeat; where there is none, the newest object (which costs a listing).
///
/// With it goes what is wrong with the heartbeat.
async fn evidence(store: &dyn Store, now: Timestamp) -> anyhow::Result<(Evidence, Option<String>)> {
    let Reading { heartbeat, problem, behind } = heartbeat::read(store, now).await?;
    let problem = problem.or_else(|| {
        (!behind.is_zero()).then(|| {
            format!(
                "the heartbeat came {behind:#} after the time that it bears: the server's clock is behind, or this is a copy"
            )
        })
    });
    let mut newest_object = None;
    if heartbeat.is_none() {
        for chain in store.chains().await? {
            let inventory = Inventory::read(store, chain).await?;
            newest_object =
                newest_object.max(inventory.files.iter().map(|file| file.modified).max());
        }
        for generation in store.v03_generations().await? {
            let objects = store.list_v03(generation).await?;
            newest_object = newest_object.max(objects.iter().map(|object| object.modified).max());
        }
    }
    Ok((Evidence { heartbeat, newest_object, last_pass: None }, problem))
}
