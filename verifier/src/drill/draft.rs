//! A record that is still being filled in, so that whatever ends the drill, what is known by then stays.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use replica::documents::{Heartbeat, Receipt};
use replica::format::GenerationId;
use replica::restore::{Found, RestoreError, Restored, Selected, V03Selected};
use replica::store::Chain;

use crate::checks::Lag;
use crate::drill::Asked;
use crate::drill::inspect::Findings;
use crate::heartbeat::Reading;
use crate::record::{
    Check, Instead, OtherFiles, Point, Record, RestoreFigures, Status, Step, Verdict,
};
use crate::words::millis;

/// The draft.
#[derive(Debug)]
pub struct Draft {
    /// What is known so far; its verdict is set at the end.
    pub record: Record,
}

impl Draft {
    /// Nothing is known but the question.
    #[must_use]
    pub fn new(database: &str, asked: &Asked, started_at: Timestamp) -> Self {
        let versions = [
            ("verifier".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
            ("sqlite".to_owned(), rusqlite::version().to_owned()),
        ];
        Self {
            record: Record {
                database: database.to_owned(),
                generation: None,
                txid: None,
                point: Point {
                    asked: asked.to_string(),
                    restored_at: None,
                    txid: None,
                    seed: asked.seed(),
                },
                verdict: Verdict::Inconclusive,
                checks: Vec::new(),
                tables: [].into(),
                size: None,
                schema: None,
                values: [].into(),
                steps: Vec::new(),
                other_files: None,
                instead: None,
                restore: None,
                lag_seconds: None,
                source_match: None,
                started_at,
                finished_at: started_at,
                versions: versions.into(),
            },
        }
    }

    /// The shipper's version.
    pub fn note_heartbeat(&mut self, heartbeat: Option<&Heartbeat>) {
        if let Some(heartbeat) = heartbeat {
            self.record.versions.insert("shipper".to_owned(), heartbeat.shipper_version.clone());
        }
    }

    /// The point that will be restored.
    pub fn note_found(&mut self, found: &Found) {
        match found {
            Found::Ltx(selected) => self.note_selected(selected),
            Found::V03(selected) => {
                let record = &mut self.record;
                record.generation = None;
                record.point.restored_at = Some(selected.plan.timestamp);
                record.point.txid = None;
            }
        }
    }

    /// The point of a chain that will be restored, or was: damage may have made it another one.
    pub fn note_selected(&mut self, selected: &Selected) {
        let record = &mut self.record;
        record.generation = generation(selected.plan.chain);
        record.point.restored_at = Some(selected.timestamp);
        record.point.txid = Some(selected.plan.txid);
    }

    /// What can be had instead of a point that cannot; nothing where the last PASS can.
    pub fn note_stuck(&mut self, error: &RestoreError, last_pass: Option<&Receipt>) {
        let RestoreError::NoOtherWay(stuck) = error else { return };
        let generation = generation(stuck.chain);
        let proven = last_pass.filter(|pass| pass.generation == generation);
        if proven.and_then(|pass| pass.txid).is_some_and(|txid| stuck.left.contains(&txid)) {
            return;
        }
        self.record.instead = stuck.instead.map(|txid| Instead { generation, txid });
    }

    /// How far behind the state of `covered` is, seconds.
    fn note_lag_since(&mut self, covered: Timestamp) -> f64 {
        let lag = self.record.started_at.duration_since(covered).max(SignedDuration::ZERO);
        let seconds = millis(lag.as_secs_f64());
        self.record.lag_seconds = Some(seconds);
        seconds
    }

    /// How far the newest state of a Litestream v0.3 replica was behind: only its objects' times tell.
    pub fn note_lag_v03(&mut self, selected: &V03Selected) -> Lag {
        let seconds = self.note_lag_since(selected.plan.timestamp);
        Lag { seconds, is_witnessed: false }
    }

    /// How far the newest state was behind. What was
    /// committed by the copy's own timestamp is in it; where the copy is what the heartbeat calls
    /// durable, so is everything up to the heartbeat's `synced_at`.
    pub fn note_lag(
        &mut self,
        selected: &Selected,
        restored: &Restored,
        reading: Option<&Reading>,
    ) -> Lag {
        let heartbeat = reading.and_then(|reading| reading.heartbeat.as_ref());
        let heartbeat = heartbeat.filter(|heartbeat| {
            Chain::Generation(heartbeat.generation) == selected.plan.chain
                && heartbeat.txid.is_some_and(|durable| durable <= restored.txid)
        });
        let synced = heartbeat.and_then(|heartbeat| heartbeat.synced_at);
        let covered = synced.map_or(selected.timestamp, |synced| synced.max(selected.timestamp));
        let seconds = self.note_lag_since(covered);
        // By a clock that is behind, everything looks older than it is.
        let in_time = reading.is_some_and(|reading| reading.behind.is_zero());
        Lag { seconds, is_witnessed: heartbeat.is_some() && in_time }
    }

    /// The restore, and how long the choice of what to restore took before it.
    pub fn note_restored(&mut self, figures: RestoreFigures, took: Duration) {
        let choosing = millis((took.as_secs_f64() - figures.seconds).max(0.0));
        self.note_step("list", choosing);
        self.note_step("restore", figures.seconds);
        self.record.restore = Some(figures);
    }

    /// The files beside those restored.
    pub fn note_other_files(&mut self, check: Check, files: Option<OtherFiles>, took: Duration) {
        self.note_step(&check.name, millis(took.as_secs_f64()));
        self.record.checks.push(check);
        self.record.other_files = files;
    }

    fn note_step(&mut self, name: &str, seconds: f64) {
        self.record.steps.push(Step { name: name.to_owned(), seconds });
    }

    /// What checks of the copy found.
    pub fn note_findings(&mut self, found: Findings) {
        if let Some(check) = found.checks.iter().find(|check| check.name == "source_match") {
            self.record.source_match = match check.status {
                Status::Pass => Some(true),
                Status::Fail => Some(false),
                Status::Unchecked | Status::Error => None,
            };
        }
        self.record.checks.extend(found.checks);
        self.record.steps.extend(found.steps);
        self.record.tables.extend(found.tables);
        self.record.values.extend(found.values);
        self.record.size = found.size.or(self.record.size);
        self.record.schema = found.schema.or(self.record.schema.take());
    }

    /// The finished record.
    #[must_use]
    pub fn finish(mut self, took: Duration) -> Record {
        let took = SignedDuration::try_from(took).unwrap_or(SignedDuration::ZERO);
        let finished =
            self.record.started_at.saturating_add(took).unwrap_or(self.record.started_at);
        self.record.finished_at =
            Timestamp::from_millisecond(finished.as_millisecond()).unwrap_or(finished);
        self.record.verdict = Verdict::of(&self.record.checks);
        self.record
    }
}

fn generation(chain: Chain) -> Option<GenerationId> {
    match chain {
        Chain::Root => None,
        Chain::Generation(generation) => Some(generation),
    }
}
