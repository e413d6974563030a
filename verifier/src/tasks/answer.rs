//! What a drill task answers, as JSON, text and exit code.

use replica::operator::Exit;
use serde::ser::{Serialize, SerializeStruct, Serializer};

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

    /// For a terminal.
    #[must_use]
    pub fn text(&self) -> String {
        self.records.iter().map(drill::text).collect::<Vec<_>>().join("\n")
    }

    /// 0 PASS, 1 FAIL, 3 INCONCLUSIVE.
    #[must_use]
    pub fn exit(&self) -> Exit {
        self.verdict().exit()
    }
}

/// The record where one database was named; else `{"verdict": the worst, "records": […]}`, however
/// many there are.
impl Serialize for DrillAnswer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.records.as_slice() {
            [record] if self.one_named => record.serialize(serializer),
            records => {
                let mut all = serializer.serialize_struct("DrillAnswer", 2)?;
                all.serialize_field("verdict", &self.verdict())?;
                all.serialize_field("records", records)?;
                all.end()
            }
        }
    }
}
