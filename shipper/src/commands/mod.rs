//! One module for each command: arguments in, effects and one result out.

pub mod points;
pub mod restore;
pub mod run;

use std::future::Future;
use std::io::Write;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

/// How long threads of a cancelled command may take to notice.
const STOP_WITHIN: Duration = Duration::from_secs(2);

/// Runs a one-shot command until it is done, or cancels it at SIGINT or SIGTERM: dropping the
/// future is what removes a half-written file.
fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start runtime")?;
    let outcome = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
        tokio::select! {
            outcome = work => outcome,
            _ = terminate.recv() => Err(anyhow::anyhow!("stopped by SIGTERM")),
            _ = interrupt.recv() => Err(anyhow::anyhow!("stopped by SIGINT")),
        }
    });
    runtime.shutdown_timeout(STOP_WITHIN);
    outcome
}

/// Prints a result to stdout.
fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).context("write to stdout")
}

/// Prints one JSON document to stdout.
fn print_json(document: &serde_json::Value) -> anyhow::Result<()> {
    print(&format!("{document:#}\n"))
}

/// Bytes as people read them: `454.2 MB`.
fn readable_bytes(bytes: u64) -> String {
    let mut unit = "bytes";
    let mut size = bytes as f64;
    for next in ["kB", "MB", "GB", "TB"] {
        if size < 1000.0 {
            break;
        }
        size /= 1000.0;
        unit = next;
    }
    if unit == "bytes" { format!("{bytes} bytes") } else { format!("{size:.1} {unit}") }
}
