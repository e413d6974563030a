//! What a compaction answers, as JSON, text and exit code.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::Timestamp;
use replica::format::{GenerationId, Txid};
use replica::operator::Exit;
use serde::Serialize;

use super::{Merged, Window};
use crate::record::{Check, Status, Verdict};

/// Findings that a report keeps; more are only counted.
const FINDINGS_AT_MOST: usize = 50;

/// The name of findings that only say what was left for want of time.
pub const DEADLINE: &str = "deadline";

/// The answer of the task.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CompactAnswer {
    /// When it began.
    pub compacted_at: Timestamp,
    /// The worst of all databases.
    pub verdict: Verdict,
    /// One report a database, in order.
    pub databases: Vec<Report>,
}

/// What was read and written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Figures {
    /// Files merged.
    pub files_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Files made.
    pub files_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
}

/// The snapshot of the latest generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum SnapshotReport {
    /// There is one of the newest state.
    Current,
    /// The newest is not old enough.
    Young,
    /// Made now, from a copy that was proven.
    Promoted {
        /// Its generation.
        generation: GenerationId,
        /// The state in it.
        txid: Txid,
        /// Its size.
        bytes: u64,
    },
    /// Due, and not made: a finding says why.
    Due,
}

/// What was done for one database.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Its name.
    pub database: String,
    /// PASS: all that can be compacted is. FAIL: something is wrong with the backup. INCONCLUSIVE: something is left
    /// that the next run may do.
    pub verdict: Verdict,
    /// By level.
    pub levels: BTreeMap<u8, Figures>,
    /// Windows left, for whatever reason.
    pub windows_left: u64,
    /// Objects that a restore of the newest state reads, before.
    pub restore_objects_before: Option<u64>,
    /// The same after.
    pub restore_objects_after: Option<u64>,
    /// The snapshot; `None` where it did not come to it.
    pub snapshot: Option<SnapshotReport>,
    /// What was found wrong, or left and why.
    pub findings: Vec<Check>,
    /// Findings beyond those listed.
    pub findings_omitted: u64,
    /// How long it took.
    pub seconds: f64,
}

impl Report {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(database: &str) -> Self {
        Self {
            database: database.to_owned(),
            verdict: Verdict::Pass,
            levels: BTreeMap::new(),
            windows_left: 0,
            restore_objects_before: None,
            restore_objects_after: None,
            snapshot: None,
            findings: Vec::new(),
            findings_omitted: 0,
            seconds: 0.0,
        }
    }

    /// Notes what was found; the verdict follows.
    pub fn find(&mut self, name: &str, status: Status, detail: impl Into<String>) {
        let verdict = match status {
            Status::Fail => Verdict::Fail,
            Status::Error => Verdict::Inconclusive,
            Status::Pass | Status::Unchecked => Verdict::Pass,
        };
        self.verdict = Verdict::over([self.verdict, verdict]);
        if self.findings.len() < FINDINGS_AT_MOST {
            self.findings.push(Check::new(name, status, detail));
        } else {
            self.findings_omitted += 1;
        }
    }

    /// Notes a window that was made.
    pub fn made(&mut self, window: &Window<'_>, merged: Merged) {
        let figures = self.levels.entry(window.level.get()).or_default();
        figures.files_in += window.inputs.len() as u64;
        figures.bytes_in += window.bytes();
        figures.files_out += 1;
        figures.bytes_out += merged.bytes;
    }

    fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a `String` cannot fail.
        let _ = writeln!(text, "{}  {}  ({:.1} s)", self.verdict, self.database, self.seconds);
        for (level, made) in &self.levels {
            let Figures { files_in, bytes_in, files_out, bytes_out } = made;
            let _ = writeln!(
                text,
                "  level {level}     {files_in} files of {bytes_in} bytes into {files_out} of {bytes_out}"
            );
        }
        if self.windows_left > 0 {
            let _ = writeln!(text, "  left        {} windows", self.windows_left);
        }
        match &self.snapshot {
            Some(SnapshotReport::Promoted { txid, bytes, .. }) => {
                let _ = writeln!(text, "  snapshot    of TXID {txid}, {bytes} bytes, proven first");
            }
            Some(SnapshotReport::Due) => text.push_str("  snapshot    due, not made\n"),
            Some(SnapshotReport::Current | SnapshotReport::Young) | None => {}
        }
        if let (Some(before), Some(after)) =
            (self.restore_objects_before, self.restore_objects_after)
        {
            let _ = writeln!(text, "  restore     reads {after} objects, {before} before");
        }
        for finding in &self.findings {
            let detail = finding.detail.replace('\n', "\n    ");
            let _ =
                writeln!(text, "  {:<9}  {}: {detail}", finding.status.to_string(), finding.name);
        }
        if self.findings_omitted > 0 {
            let _ = writeln!(text, "  … and {} more", self.findings_omitted);
        }
        text
    }
}

impl CompactAnswer {
    /// The answer over several databases.
    #[must_use]
    pub fn new(compacted_at: Timestamp, databases: Vec<Report>) -> Self {
        let verdict = Verdict::over(databases.iter().map(|report| report.verdict));
        Self { compacted_at, verdict, databases }
    }

    /// Something was found that the next run will not settle by itself: anything but want of time.
    #[must_use]
    pub fn needs_attention(&self) -> bool {
        let found = |check: &Check| {
            matches!(check.status, Status::Fail | Status::Error) && check.name != DEADLINE
        };
        self.databases.iter().flat_map(|report| &report.findings).any(found)
    }

    /// For a terminal.
    #[must_use]
    pub fn text(&self) -> String {
        self.databases.iter().map(Report::text).collect()
    }

    /// 0 PASS, 1 FAIL, 3 INCONCLUSIVE.
    #[must_use]
    pub fn exit(&self) -> Exit {
        self.verdict.exit()
    }
}
