//! The program `application` as a child of a test: started, stopped, killed.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::process::command;

/// A running application. Dropped, it is killed.
#[derive(Debug)]
pub struct Application {
    child: Option<Child>,
}

/// What an application says of itself at its end.
#[derive(Debug, Clone, Copy)]
pub struct Work {
    /// Transactions committed.
    pub commits: u64,
    /// The slowest of them.
    pub worst: Duration,
    /// How often it was told that the database is locked, where it does not wait.
    pub refused: u64,
}

impl Application {
    /// Starts to write to `database`; for `options` see the program.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(database: &Path, options: &[&str]) -> Result<Self> {
        let test = std::env::current_exe().context("find this test's own executable")?;
        // target/debug/deps/<test> → target/debug/application, built with the package's tests
        let profile = test.parent().and_then(Path::parent).context("find the target directory")?;
        let mut command: Command = command(profile.join("application"));
        command.arg(database).args(options);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().context("start application")?;
        Ok(Self { child: Some(child) })
    }

    /// Lets it end after the transaction under way.
    ///
    /// # Errors
    /// It met an error, which the message gives.
    pub fn stop(mut self) -> Result<Work> {
        let mut child = self.child.take().context("application was stopped before")?;
        drop(child.stdin.take());
        let output = child.wait_with_output().context("wait for application")?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "application: {}: {error}", output.status);
        let work: serde_json::Value =
            serde_json::from_slice(&output.stdout).context("read the application's work")?;
        Ok(Work {
            commits: work["commits"].as_u64().context("commits")?,
            worst: Duration::from_micros(work["worst_us"].as_u64().context("worst_us")?),
            refused: work["refused"].as_u64().context("refused")?,
        })
    }

    /// Kills it at once, in whatever it is doing.
    ///
    /// # Errors
    /// It had ended before, with an error that the message gives.
    pub fn kill(mut self) -> Result<()> {
        let mut child = self.child.take().context("application was stopped before")?;
        if child.try_wait().context("look at application")?.is_some() {
            let output = child.wait_with_output().context("wait for application")?;
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            anyhow::bail!("application ended early: {}: {error}", output.status);
        }
        child.kill().context("kill application")?;
        child.wait().context("wait for application")?;
        Ok(())
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Already gone is fine.
            drop(child.kill());
            drop(child.wait());
        }
    }
}
