//! Threads for work that may block, of a pool that one hung file system (or name server) does not use up.
//!
//! *Invariants*: at most [`Limits::at_once`] pieces of work run, but one that has run for longer than [`Limits::slow`]
//! gives up its place, and the next one is begun beside it; at most [`Limits::hung`] are beside the others like this, so
//! the threads are bounded, too. Who waits is served in order. A thread without work ends.
//!
//! Does not promise that work ends: a call that hangs in the kernel cannot be taken back. Who must not wait for
//! it puts a time limit around [`Threads::run`]; the work then goes on alone.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinHandle};

/// Stack of a thread, bytes; virtual until it is used.
const STACK_BYTES: usize = 512 << 10;
/// How soon a thread without work gives its memory back. Threads take turns, so with a hundred databases that are looked at
/// every few seconds each would have work again within a second, and none that a busy moment began would ever end.
const KEEP_ALIVE: Duration = Duration::from_millis(200);

/// How many threads, and when one counts as hung.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Pieces of work at once.
    pub at_once: usize,
    /// Pieces of work beside those, which have run for too long.
    pub hung: usize,
    /// How long a piece of work keeps its place.
    pub slow: Duration,
}

/// A pool.
#[derive(Debug)]
pub struct Threads {
    /// Nothing but its blocking threads is used. None where it could not be made: then those of the caller's runtime are.
    own: Option<Runtime>,
    places: Semaphore,
    threads: Arc<Semaphore>,
    slow: Duration,
}

impl Threads {
    /// A pool without a thread yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let Limits { at_once, hung, slow } = limits;
        let own = Builder::new_current_thread()
            .max_blocking_threads(at_once + hung)
            .thread_stack_size(STACK_BYTES)
            .thread_keep_alive(KEEP_ALIVE)
            .build();
        Self {
            own: own.ok(),
            places: Semaphore::new(at_once),
            threads: Arc::new(Semaphore::new(at_once + hung)),
            slow,
        }
    }

    /// Runs `work` when it is its turn, and waits for its end. Where that is not waited for, work that was begun goes
    /// on, and what was not is never begun. Needs a runtime with timers.
    ///
    /// # Errors
    /// It panicked.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        // Neither semaphore is ever closed; without a permit the work would still be right.
        let place = self.places.acquire().await.ok();
        let thread = self.threads.clone().acquire_owned().await.ok();
        let mut running = self.begin(move || {
            let done = work();
            drop(thread);
            done
        });
        if let Ok(done) = tokio::time::timeout(self.slow, &mut running).await {
            return done;
        }
        drop(place);
        running.await
    }

    fn begin<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        match &self.own {
            Some(own) => own.spawn_blocking(work),
            None => tokio::task::spawn_blocking(work),
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(own) = self.own.take() {
            // Work that hangs is not waited for.
            own.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::mpsc;

    use super::*;

    fn threads(at_once: usize, hung: usize, slow: Duration) -> Arc<Threads> {
        Arc::new(Threads::new(Limits { at_once, hung, slow }))
    }

    /// Begins work that ends when what is returned is dropped, and waits until it runs.
    async fn stuck(threads: &Arc<Threads>) -> mpsc::Sender<()> {
        let (end, ended) = mpsc::channel::<()>();
        let (begin, begun) = tokio::sync::oneshot::channel();
        let threads = threads.clone();
        tokio::spawn(async move {
            let work = move || {
                begin.send(()).unwrap();
                // Only its end is waited for.
                let _ = ended.recv();
            };
            threads.run(work).await.unwrap();
        });
        begun.await.unwrap();
        end
    }

    #[tokio::test]
    async fn what_hangs_gives_up_its_place_to_the_others() {
        let threads = threads(2, 3, Duration::from_millis(20));
        let mut hung = Vec::new();
        // Two keep their places at first, and three are beside them later.
        for _ in 0..4 {
            hung.push(stuck(&threads).await);
        }
        for number in 0..10 {
            assert_eq!(threads.run(move || number).await.unwrap(), number);
        }
        drop(hung);
    }

    #[tokio::test]
    async fn no_more_than_are_allowed_run_at_once_and_no_more_than_that_may_hang() {
        let (places, most) =
            (threads(1, 9, Duration::from_secs(3600)), threads(1, 1, Duration::ZERO));
        let first = stuck(&places).await;
        let hung = [stuck(&most).await, stuck(&most).await];
        let waits = async |threads: &Threads| {
            let ended = tokio::time::timeout(Duration::from_millis(50), threads.run(|| ())).await;
            ended.is_err()
        };
        assert!(waits(&places).await, "it has not run for long");
        assert!(waits(&most).await, "two hang already");
        drop((first, hung));
        places.run(|| ()).await.unwrap();
        most.run(|| ()).await.unwrap();
    }

    #[tokio::test]
    async fn a_panic_is_told_and_leaves_its_place() {
        let threads = threads(1, 0, Duration::from_secs(3600));
        for _ in 0..3 {
            assert!(threads.run(|| panic!("on purpose")).await.unwrap_err().is_panic());
        }
        assert_eq!(threads.run(|| 7).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn a_pool_is_dropped_with_work_that_hangs() {
        let threads = threads(1, 0, Duration::from_secs(3600));
        let hung = stuck(&threads).await;
        // The waiting task has the other half.
        drop(threads);
        drop(hung);
    }
}
