//! Exit codes, and how an error is printed.
//!
//! An error that carries [`Usage`] (or a store's configuration error) anywhere in its chain is the
//! operator's to fix before anything can work: exit 2, which a service manager does not restart.

use std::fmt::Display;
use std::process::{ExitCode, Termination};

use crate::restore::RestoreError;
use crate::store::StoreError;

/// What an exit code says, in both programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: it holds.
    Holds,
    /// 1: it does not, or the program failed.
    Fails,
    /// 2: wrong usage or configuration.
    Usage,
    /// 3: it could not be found out.
    Inconclusive,
}

impl Exit {
    /// The process's exit code.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Holds => 0,
            Self::Fails => 1,
            Self::Usage => 2,
            Self::Inconclusive => 3,
        }
    }

    /// The exit that an error asks for: [`Exit::Usage`] or [`Exit::Fails`].
    #[must_use]
    pub fn of(error: &anyhow::Error) -> Self {
        let by_store = |error: &StoreError| matches!(error, StoreError::Configuration { .. });
        let by_chain = error.chain().any(|cause| {
            cause.is::<Usage>()
                || cause.downcast_ref::<StoreError>().is_some_and(by_store)
                || matches!(
                    cause.downcast_ref::<RestoreError>(),
                    Some(
                        RestoreError::Store(StoreError::Configuration { .. })
                            | RestoreError::OutputExists { .. }
                    )
                )
        });
        // `downcast_ref` also finds a `Usage` that was attached with `.context(…)`.
        if by_chain || error.downcast_ref::<Usage>().is_some() { Self::Usage } else { Self::Fails }
    }
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        ExitCode::from(self.code())
    }
}

/// Marks an error as wrong usage or configuration (exit 2). Either the error itself, or attached to
/// one with `.context(usage("…"))`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Usage(String);

/// A [`Usage`] with a message, which may end in `\nHINT: …` lines.
#[must_use]
pub fn usage(message: impl Into<String>) -> Usage {
    Usage(message.into())
}

/// The text of an error: `error: ` and the chain joined by `: `, then its `HINT:` lines.
#[must_use]
pub fn explain(error: &anyhow::Error) -> String {
    let mut said: Vec<String> = Vec::new();
    let mut hints: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = cause.to_string();
        let (message, own_hints) = split_hints(&text);
        // Some libraries repeat their source in their own message.
        if !said.last().is_some_and(|last| last.ends_with(&message)) && !message.is_empty() {
            said.push(message);
        }
        for hint in own_hints {
            if !hints.contains(&hint) {
                hints.push(hint);
            }
        }
    }
    let mut text = format!("error: {}", said.join(": "));
    for hint in hints {
        text.push_str("\nHINT: ");
        text.push_str(&hint);
    }
    text
}

/// A message without its hints, and the hints. A hint ends with its line or the next hint.
fn split_hints(text: &str) -> (String, Vec<String>) {
    let mut message = Vec::new();
    let mut hints: Vec<String> = Vec::new();
    for line in text.lines() {
        if let Some(hint) = line.trim_start().strip_prefix("HINT: ") {
            hints.push(hint.trim_end().to_owned());
        } else {
            message.push(line.trim_end());
        }
    }
    (message.join("\n").trim_end().to_owned(), hints)
}

/// Ends a program: prints what went wrong, if anything, and says how to exit.
#[must_use]
pub fn conclude<T: Into<Exit>>(outcome: Result<T, anyhow::Error>) -> Exit {
    match outcome {
        Ok(exit) => exit.into(),
        Err(error) => {
            print_error(explain(&error));
            Exit::of(&error)
        }
    }
}

impl From<()> for Exit {
    fn from((): ()) -> Self {
        Self::Holds
    }
}

/// Ignores a closed stderr: there is nobody left to tell.
fn print_error(text: impl Display) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use anyhow::Context;

    #[test]
    fn hints_come_last_and_once() {
        let inner = anyhow::anyhow!("bucket is closed\nHINT: open it");
        let error = inner.context("read heartbeat\nHINT: look first\nHINT: open it");
        assert_eq!(
            explain(&error),
            "error: read heartbeat: bucket is closed\nHINT: look first\nHINT: open it"
        );
    }

    #[test]
    fn usage_is_found_at_any_depth() {
        let bottom = Err::<(), _>(usage("no such name")).context("a").context("b").unwrap_err();
        assert_eq!(Exit::of(&bottom), Exit::Usage);
        let middle =
            anyhow::anyhow!("syntax").context(usage("read configuration")).context("start");
        assert_eq!(Exit::of(&middle), Exit::Usage);
        assert_eq!(explain(&middle), "error: start: read configuration: syntax");
        assert_eq!(Exit::of(&anyhow::anyhow!("disk")), Exit::Fails);
    }

    #[test]
    fn a_store_configuration_is_usage() {
        let error = StoreError::Configuration { message: "no region\nHINT: set it".into() };
        let error = anyhow::Error::from(RestoreError::from(error)).context("restore");
        assert_eq!(Exit::of(&error), Exit::Usage);
        assert_eq!(explain(&error), "error: restore: no region\nHINT: set it");
    }
}
