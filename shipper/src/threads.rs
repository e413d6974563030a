//! The threads on which engines are stepped and chains are worked at: four at once, and beside them those that hang.
//!
//! *Invariant*: nothing that may block runs on the runtime's own thread. A database whose file system hangs costs a few
//! threads, and the others nothing; above [`HUNG`] such pieces of work at once everything waits.

use std::sync::LazyLock;
use std::time::Duration;

use anyhow::Context;
use replica::threads::{Limits, Threads};

/// Pieces of work at once, whatever the number of databases.
const AT_ONCE: usize = 4;
/// Pieces of work that hang, beside the others.
const HUNG: usize = 256;
/// Work that has taken so long is taken to hang.
const SLOW: Duration = Duration::from_secs(5);

static THREADS: LazyLock<Threads> =
    LazyLock::new(|| Threads::new(Limits { at_once: AT_ONCE, hung: HUNG, slow: SLOW }));

/// Runs `work` where it keeps nobody waiting, in the caller's span.
///
/// # Errors
/// It panicked.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<T> {
    let span = tracing::Span::current();
    THREADS.run(move || span.in_scope(work)).await.context("blocking step")
}
