//! What was found, one line each.

use std::fmt;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Ok,
    Warn,
    Fail,
}

/// Lines in the order in which they were found.
#[derive(Debug, Default)]
pub(super) struct Findings(Vec<(Level, String)>);

impl Findings {
    /// It is as it should be.
    pub(super) fn ok(&mut self, text: impl Into<String>) {
        self.0.push((Level::Ok, text.into()));
    }

    /// It works, and somebody should look.
    pub(super) fn warn(&mut self, text: impl Into<String>) {
        self.0.push((Level::Warn, text.into()));
    }

    /// It keeps a database from being shipped.
    pub(super) fn fail(&mut self, text: impl Into<String>) {
        self.0.push((Level::Fail, text.into()));
    }

    pub(super) fn any_failure(&self) -> bool {
        self.0.iter().any(|(level, _)| *level == Level::Fail)
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (level, text) in &self.0 {
            let mut label = match level {
                Level::Ok => "ok",
                Level::Warn => "warn",
                Level::Fail => "fail",
            };
            for line in text.lines() {
                writeln!(f, "{label:4}  {line}")?;
                label = "";
            }
        }
        Ok(())
    }
}
