//! What a drill task answers, as JSON, text and exit code.

use replica::operator::Exit;
use serde_json::{Value, json};

use crate::drill;
use crate::record::{Record, Verdict};

/// The records of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct DrillAnswer {
    /// Exactly one database was named: the answer is its record alone.
    pub one_named: bool,
    /// One record a database, in order.
    pub records: Vec<Record>,
    /// A mail that was due could not be sent.
    pub mail_failed: bool,
}

impl DrillAnswer {
    /// The worst verdict.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        Verdict::over(self.records.iter().map(|record| record.verdict))
    }

    /// The record where one database was named; else `{"verdict": the worst, "records": […]}`, however
    /// many there are.
    ///
    /// # Errors
    /// None that a record can cause.
    pub fn json(&self) -> serde_json::Result<Value> {
        match self.records.as_slice() {
            [record] if self.one_named => serde_json::to_value(record),
            records => {
                Ok(json!({"verdict": self.verdict(), "records": serde_json::to_value(records)?}))
            }
        }
    }

    /// For a terminal.
    #[must_use]
    pub fn text(&self) -> String {
        self.records.iter().map(drill::text).collect::<Vec<_>>().join("\n")
    }

    /// 0 PASS, 1 FAIL, 3 INCONCLUSIVE.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self.verdict() {
            Verdict::Pass => Exit::Holds,
            Verdict::Fail => Exit::Fails,
            Verdict::Inconclusive => Exit::Inconclusive,
        }
    }
}
