//! Inspects a restored copy: what its bytes say here, in the drill's process; what SQLite says of it by an [`Inspector`].
//!
//! The command line and the Lambda have the checks that ask SQLite made by a child process ([`ChildProcess`]).

mod child;
mod confine;
mod in_process;
mod parent;
mod step;

use std::path::PathBuf;
use std::time::Instant;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use replica::documents::Heartbeat;

use crate::checks::{self, SourceMatch, Told};
use crate::record::{Check, Record, Status};
use crate::rules::Rules;

pub use child::{SUBCOMMAND, answer};
pub(crate) use confine::alive;
pub use in_process::InProcess;
pub use parent::ChildProcess;
pub use step::{Content, Findings};

/// A copy, and what its checks compare it with.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The copy's file.
    pub copy: PathBuf,
    /// What its chain says of it.
    pub told: Option<Told>,
    /// The moment it stands for.
    pub restored_at: Timestamp,
    /// Whether the newest state was asked for.
    pub latest: bool,
    /// The time now.
    pub now: Timestamp,
    /// The heartbeat, where it could be read.
    pub heartbeat: Option<Heartbeat>,
    /// How far the server's clock is behind.
    pub behind: SignedDuration,
    /// What the operator says must hold.
    pub rules: Rules,
    /// The record of the last PASS of the newest state: only that is compared with it.
    pub before: Option<Record>,
    /// When the checks must have ended.
    pub deadline: Option<Instant>,
}

/// Makes the checks that ask SQLite.
#[async_trait]
pub trait Inspector: Send + Sync + std::fmt::Debug {
    /// Their findings, in the record's order. Never fails: what could not be found out is a check with status `error`.
    async fn inspect(&self, content: Content, deadline: Option<Instant>) -> Findings;
}

impl Subject {
    /// `source_match`, which goes before what the drill finds out without the copy.
    pub async fn source(self) -> Findings {
        off_thread("source_match", move || {
            let mut findings = Findings::default();
            findings.time("source_match", |found| {
                let what = SourceMatch {
                    told: self.told,
                    heartbeat: self.heartbeat.as_ref(),
                    latest: self.latest,
                    now: self.now,
                    behind: self.behind,
                };
                found.checks.push(checks::source_match(&what, &self.copy, self.deadline));
            });
            findings
        })
        .await
    }

    /// Every other check that needs the copy.
    pub async fn content(self, inspector: &dyn Inspector) -> Findings {
        let mut findings = Findings::default();
        findings.checks.push(checks::point(self.restored_at, self.now, self.before.as_ref()));
        let (size, figures) = checks::size(&self.copy, self.told, self.heartbeat.as_ref());
        findings.checks.push(size);
        findings.size = figures;
        let content = Content {
            copy: self.copy,
            // What "now" is to an assertion: at a past point, that point.
            now: if self.latest { self.now } else { self.restored_at },
            latest: self.latest,
            rules: self.rules,
            before: self.before,
        };
        findings.append(inspector.inspect(content, self.deadline).await);
        findings
    }
}

/// Runs `work`; a panic in it becomes the failed check `name`.
async fn off_thread(name: &str, work: impl FnOnce() -> Findings + Send + 'static) -> Findings {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_panic| {
        let detail = "a check itself failed (panicked)\nHINT: the verifier's log says where; please report it";
        Findings::of(Check::new(name, Status::Error, detail))
    })
}
