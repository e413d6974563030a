//! Access to files on threads of their own, each with a time limit.
//!
//! *Invariant*: one store (one database) has at most [`AT_ONCE`] calls under way, those that hang included, so that a
//! dead mount below one of them, tried again and again, never takes the others' threads.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::store::{RetryPolicy, StoreError};
use crate::threads::{Limits, Threads};

/// Calls of one store at once.
const AT_ONCE: usize = 4;
/// How long a listing may take: it looks at every file of a directory.
const LISTING: Duration = Duration::from_secs(1800);

/// Of all file stores of the process.
static THREADS: LazyLock<Threads> =
    LazyLock::new(|| Threads::new(Limits { at_once: 3, hung: 256, slow: Duration::from_secs(3) }));

/// How one store reaches its files.
#[derive(Debug, Clone)]
pub(super) struct FileAccess {
    calls: Arc<Semaphore>,
}

impl Default for FileAccess {
    fn default() -> Self {
        Self { calls: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

impl FileAccess {
    /// Runs `work` on `path`, which moves `bytes`.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        path: PathBuf,
        bytes: u64,
        work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.within(RetryPolicy::default().timeout(bytes), path, work).await
    }

    /// Runs `work`, which lists `dir`.
    pub(super) async fn list<T: Send + 'static>(
        &self,
        dir: PathBuf,
        work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.within(LISTING, dir, work).await
    }

    async fn within<T: Send + 'static>(
        &self,
        limit: Duration,
        path: PathBuf,
        work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let done = async {
            // Never closed. Held until the work ends, waited for or not.
            let call = self.calls.clone().acquire_owned().await.ok();
            let counted = move || {
                let done = work();
                drop(call);
                done
            };
            THREADS.run(counted).await
        };
        let source = match tokio::time::timeout(limit, done).await {
            Ok(Ok(done)) => return done,
            Ok(Err(error)) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Only a runtime that is shutting down cancels; nobody is left to read this.
                Err(cancelled) => io::Error::other(cancelled),
            },
            Err(_) => io::Error::new(
                io::ErrorKind::TimedOut,
                format!("the file system has not answered for {} s", limit.as_secs()),
            ),
        };
        Err(StoreError::Io { path: path.display().to_string(), action: "reach file", source })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn what_hangs_is_told_and_one_store_never_takes_another_s_threads() {
        let (hung, healthy) = (FileAccess::default(), FileAccess::default());
        let mut ends = Vec::new();
        // Many more than there are threads: tried again and again.
        for _ in 0..300 {
            let (end, ended) = mpsc::channel::<()>();
            ends.push(end);
            let work = move || {
                // Only its end is waited for.
                let _ = ended.recv();
                Ok(())
            };
            let tried = hung.within(Duration::from_millis(1), "/mnt/dead".into(), work).await;
            let error = format!("{:#}", anyhow::Error::new(tried.unwrap_err()));
            assert!(error.contains("/mnt/dead") && error.contains("has not answered"), "{error}");
        }
        assert_eq!(healthy.run("/mnt/app".into(), 0, || Ok(7)).await.unwrap(), 7);
        drop(ends);
        assert_eq!(hung.run("/mnt/dead".into(), 0, || Ok(7)).await.unwrap(), 7, "it is back");
    }
}
