//! SIGINT and SIGTERM cancel a one-shot command, so that what it half wrote is removed.
//!
//! Invariant: the command's future is dropped before [`block_on`] returns; its guards clean up. A second
//! signal changes nothing. What a killed process (SIGKILL) leaves behind stays.

use std::future::Future;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::coop::unconstrained;

/// How long threads of a cancelled command may take to notice.
const STOP_WITHIN: Duration = Duration::from_secs(2);

/// A signal ended the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("stopped by {signal}")]
pub struct Stopped {
    /// Its name.
    pub signal: &'static str,
}

/// Runs a one-shot command until it is done, or cancels it at SIGINT or SIGTERM: dropping the
/// future is what removes a half-written file.
///
/// # Errors
/// The command's; [`Stopped`] by a signal.
pub fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start runtime")?;
    let outcome = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
        tokio::select! {
            // Work that is done when the signal comes counts as done.
            biased;
            outcome = work => outcome,
            // Heard also where the work has used up the budget of this turn.
            _ = unconstrained(terminate.recv()) => Err(Stopped { signal: "SIGTERM" }.into()),
            _ = unconstrained(interrupt.recv()) => Err(Stopped { signal: "SIGINT" }.into()),
        }
    });
    runtime.shutdown_timeout(STOP_WITHIN);
    outcome
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use rustix::process::{Signal, getpid, kill_process};

    use super::*;

    #[test]
    fn a_signal_drops_the_work_and_is_told() {
        for (number, signal) in [(Signal::TERM, "SIGTERM"), (Signal::INT, "SIGINT")] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().to_owned();
            let outcome = block_on(async move {
                let _guard = directory;
                kill_process(getpid(), number).unwrap();
                std::future::pending::<anyhow::Result<()>>().await
            });
            assert_eq!(outcome.unwrap_err().downcast_ref(), Some(&Stopped { signal }));
            assert!(!path.exists());
        }
    }

    #[test]
    fn work_that_ends_is_not_stopped() {
        assert_eq!(block_on(async { Ok(7) }).unwrap(), 7);
    }
}
