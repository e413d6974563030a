//! Requests to be told when all that is committed now is in the bucket.
//!
//! *Invariant*: a request is answered with [`Answer::Durable`] only if everything that was committed when it was made
//! has been captured since, that capture is durable, and the chain was found in the bucket since. A capture of an attachment that ended proves nothing: the
//! next one captures again. At most [`MOST_WAITING`] requests wait; who asked may give up at any time.

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// Bound on the requests of one database that wait.
pub const MOST_WAITING: usize = 32;

/// One request.
#[derive(Debug)]
pub struct SyncRequest {
    /// Who is told. One that is closed is forgotten.
    pub answer: oneshot::Sender<Answer>,
}

/// The answer to a request; none (a closed channel) where the shipper stops first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// All that was committed before the request is in the bucket.
    Durable,
    /// The database is not attached: the reason, ending in a `HINT:` line where the operator can act.
    NotAttached(String),
    /// What is in the bucket may not be all that was committed: the reason, ending as above.
    NotVouched(String),
}

/// A request that waits.
#[derive(Debug)]
struct Waiting {
    answer: oneshot::Sender<Answer>,
    since: Instant,
    /// The capture after which it holds; none was made since the request.
    capture: Option<u64>,
}

/// The requests of one database.
#[derive(Debug)]
pub struct Syncs {
    requests: mpsc::Receiver<SyncRequest>,
    waiting: Vec<Waiting>,
    closed: bool,
}

impl Syncs {
    /// Those that arrive on `requests`.
    #[must_use]
    pub fn new(requests: mpsc::Receiver<SyncRequest>) -> Self {
        Self { requests, waiting: Vec::new(), closed: false }
    }

    /// Waits for the next request. Cancel-safe: a request that has arrived is kept.
    pub async fn arrived(&mut self) {
        self.waiting.retain(|waiting| !waiting.answer.is_closed());
        if self.closed || self.waiting.len() >= MOST_WAITING {
            return std::future::pending().await;
        }
        match self.requests.recv().await {
            Some(SyncRequest { answer }) => {
                let since = Instant::now();
                self.waiting.push(Waiting { answer, since, capture: None });
            }
            None => self.closed = true,
        }
    }

    /// Whether a request waits for all that is committed to be captured.
    #[must_use]
    pub fn want_capture(&self) -> bool {
        self.waiting.iter().any(|waiting| waiting.capture.is_none() && !waiting.answer.is_closed())
    }

    /// Whether anybody waits for the bucket: there is no time for intervals.
    #[must_use]
    pub fn in_a_hurry(&self) -> bool {
        self.waiting.iter().any(|waiting| !waiting.answer.is_closed())
    }

    /// All that is committed was captured just now, the last of it in `capture`.
    pub fn captured(&mut self, capture: u64) {
        for waiting in &mut self.waiting {
            waiting.capture.get_or_insert(capture);
        }
    }

    /// When the newest request was made.
    #[must_use]
    pub fn newest(&self) -> Option<Instant> {
        self.waiting.iter().map(|waiting| waiting.since).max()
    }

    /// Everything up to `capture` is in the bucket, where a look that began at `found` found the chain.
    pub fn durable(&mut self, capture: u64, found: Instant) {
        self.answer_where(&Answer::Durable, |waiting| {
            waiting.since <= found && waiting.capture.is_some_and(|needed| needed <= capture)
        });
    }

    /// The captures so far are given up: those who wait need one of the next attachment.
    pub fn start_over(&mut self) {
        for waiting in &mut self.waiting {
            waiting.capture = None;
        }
    }

    /// The database is not attached.
    pub fn refuse(&mut self, reason: &str) {
        self.answer_where(&Answer::NotAttached(reason.to_owned()), |_| true);
    }

    /// What can be captured may not be all that is committed.
    pub fn not_vouched(&mut self, reason: &str) {
        self.answer_where(&Answer::NotVouched(reason.to_owned()), |_| true);
    }

    fn answer_where(&mut self, answer: &Answer, holds: impl Fn(&Waiting) -> bool) {
        for waiting in self.waiting.extract_if(.., |waiting| holds(waiting)) {
            // Who asked may have given up.
            let _ = waiting.answer.send(answer.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    async fn asked(sender: &mpsc::Sender<SyncRequest>) -> oneshot::Receiver<Answer> {
        let (answer, told) = oneshot::channel();
        sender.send(SyncRequest { answer }).await.unwrap();
        told
    }

    #[tokio::test]
    async fn an_answer_needs_a_capture_made_since_that_is_durable() {
        let (sender, requests) = mpsc::channel(4);
        let mut syncs = Syncs::new(requests);
        let mut first = asked(&sender).await;
        syncs.arrived().await;
        assert!(syncs.want_capture() && syncs.in_a_hurry());
        syncs.durable(7, Instant::now());
        assert!(first.try_recv().is_err(), "nothing was captured since");
        syncs.captured(8);
        assert!(!syncs.want_capture());
        let mut second = asked(&sender).await;
        syncs.arrived().await;
        syncs.captured(9);
        syncs.durable(8, Instant::now());
        assert_eq!(first.try_recv(), Ok(Answer::Durable));
        assert!(second.try_recv().is_err(), "its own capture is not durable");
        syncs.start_over();
        syncs.durable(9, Instant::now());
        assert!(second.try_recv().is_err(), "captures of an earlier attachment prove nothing");
        syncs.refuse("no such file");
        assert_eq!(second.try_recv(), Ok(Answer::NotAttached("no such file".into())));
        assert!(!syncs.in_a_hurry());
    }

    #[tokio::test]
    async fn who_gave_up_is_forgotten_and_the_number_is_bounded() {
        let (sender, requests) = mpsc::channel(MOST_WAITING + 1);
        let mut syncs = Syncs::new(requests);
        let mut told = Vec::new();
        for _ in 0..=MOST_WAITING {
            told.push(asked(&sender).await);
        }
        for _ in 0..MOST_WAITING {
            syncs.arrived().await;
        }
        let more = tokio::time::timeout(std::time::Duration::ZERO, syncs.arrived()).await;
        assert!(more.is_err(), "one more has to wait");
        told.truncate(0);
        assert!(!syncs.in_a_hurry() && !syncs.want_capture());
        syncs.arrived().await;
        assert!(!syncs.in_a_hurry(), "it gave up, too");
    }
}
