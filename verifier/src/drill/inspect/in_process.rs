//! The checks in this process, one after the other: for tests. One operation inside SQLite can outlast every deadline
//! here, and a fault of its code would end the caller.

use std::time::Instant;

use async_trait::async_trait;

use super::step::{Content, Findings, Step};
use super::{Inspector, off_thread};
use crate::checks;

/// Makes the checks in this process.
#[derive(Debug, Clone, Copy, Default)]
pub struct InProcess;

#[async_trait]
impl Inspector for InProcess {
    async fn inspect(&self, content: Content, deadline: Option<Instant>) -> Findings {
        off_thread("integrity_check", move || {
            let mut findings = Findings::default();
            match checks::open(&content.copy, deadline) {
                Ok(mut copy) => {
                    for step in Step::all(&content.rules) {
                        findings.append(step.take(&mut copy, &content, deadline));
                    }
                }
                Err(error) => findings.checks.push(checks::not_opened(&error)),
            }
            findings
        })
        .await
    }
}
