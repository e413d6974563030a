//! The child's side: one process that opens the copy and takes the steps it is told, one line each on stdin and stdout.
//!
//! It is this very program, begun with [`SUBCOMMAND`] and the copy's path. It knows nothing but what it is given: no
//! credentials, no configuration, no network where the system lets it give that up.

use std::io::{BufRead, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use jiff::Timestamp;
use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use super::confine::confine;
use super::step::{Content, Findings, Step};
use crate::checks;
use crate::record::{Check, Record};
use crate::rules::Rules;

/// The first argument of the child.
pub const SUBCOMMAND: &str = "inspect-copy";

/// The first line that the child reads.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Given {
    now: Timestamp,
    latest: bool,
    /// The text of `drill.toml`, which the parent has understood.
    rules: String,
    before: Option<Record>,
}

/// Every further one.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Ask {
    pub(super) step: Step,
    /// How long until the drill's deadline, milliseconds.
    pub(super) left: Option<u64>,
}

/// What the child writes for each.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    Found(Findings),
    /// The copy is nothing that SQLite opens.
    NotOpened(Check),
}

impl Given {
    pub(super) fn of(content: &Content) -> Self {
        Self {
            now: content.now,
            latest: content.latest,
            rules: content.rules.text.clone(),
            before: content.before.clone(),
        }
    }

    fn content(self, copy: &Path) -> anyhow::Result<Content> {
        let rules = Rules::parse("drill.toml", &self.rules)?;
        let (now, latest, before) = (self.now, self.latest, self.before);
        Ok(Content { copy: copy.to_owned(), now, latest, rules, before })
    }
}

/// Confines this process, and answers until stdin ends.
///
/// # Errors
/// What was read is not what a parent sends, or nobody reads the answers.
pub fn answer(copy: &Path) -> anyhow::Result<()> {
    confine();
    let (mut lines, mut out) = (std::io::stdin().lock().lines(), std::io::stdout().lock());
    let given = lines.next().context("nothing was asked")??;
    let content = serde_json::from_str::<Given>(&given)?.content(copy)?;
    let mut opened = None;
    for line in lines {
        let ask: Ask = serde_json::from_str(&line?)?;
        let answer = take(&ask, &content, &mut opened);
        serde_json::to_writer(&mut out, &answer)?;
        out.write_all(b"\n").and_then(|()| out.flush())?;
    }
    Ok(())
}

fn take(ask: &Ask, content: &Content, opened: &mut Option<Connection>) -> Answer {
    let left = ask.left.map(Duration::from_millis);
    let deadline = left.and_then(|left| Instant::now().checked_add(left));
    let ready = match opened.take() {
        None => checks::open(&content.copy, deadline),
        Some(mut copy) => checks::ends_at(&mut copy, deadline).map(|()| copy),
    };
    match ready {
        Ok(mut copy) => {
            let found = ask.step.take(&mut copy, content, deadline);
            *opened = Some(copy);
            Answer::Found(found)
        }
        Err(error) => Answer::NotOpened(checks::not_opened(&error)),
    }
}
