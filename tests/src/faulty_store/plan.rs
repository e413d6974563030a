//! Which calls of a store go wrong, and how.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use replica::store::{LtxAttributes, LtxKey};

use super::{Fault, When};

#[derive(Debug)]
pub(super) struct Plan {
    pub(super) calls: u64,
    fired: u64,
    exact: Option<(u64, Fault)>,
    stop: Option<(u64, When)>,
    stopped: bool,
    random: Option<(StdRng, u32, Vec<Fault>)>,
    outage: bool,
    pub(super) late: Vec<(u64, LtxKey, Bytes, LtxAttributes)>,
}

/// What goes wrong, shared with the store that it goes wrong with.
#[derive(Debug, Clone)]
pub struct Faults(Arc<Mutex<Plan>>);

impl Default for Faults {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Plan {
            calls: 0,
            fired: 0,
            exact: None,
            stop: None,
            stopped: false,
            random: None,
            outage: false,
            late: Vec::new(),
        })))
    }
}

impl Faults {
    /// Fails the call of this number, counted from 1.
    pub fn at(&self, call: u64, fault: Fault) {
        self.plan().exact = Some((call, fault));
    }

    /// From the call of this number on nothing has an effect any more.
    pub fn stop_at(&self, call: u64, when: When) {
        self.plan().stop = Some((call, when));
    }

    /// From now on nothing has an effect any more.
    pub fn stop(&self) {
        self.plan().stopped = true;
    }

    /// Whether that has come to pass.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.plan().stopped
    }

    /// A new process: it can call again.
    pub fn restart(&self) {
        self.plan().stopped = false;
    }

    /// From now on fails one call in `one_in` with one of `faults`.
    pub fn random(&self, seed: u64, one_in: u32, faults: &[Fault]) {
        self.plan().random = Some((StdRng::seed_from_u64(seed), one_in, faults.to_vec()));
    }

    /// Takes the bucket away, or gives it back.
    pub fn outage(&self, outage: bool) {
        self.plan().outage = outage;
    }

    /// Nothing goes wrong from now on; what is on its way for long may still arrive.
    pub fn heal(&self) {
        let mut plan = self.plan();
        (plan.random, plan.exact, plan.outage) = (None, None, false);
    }

    /// Calls so far.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.plan().calls
    }

    /// Calls that went wrong so far.
    #[must_use]
    pub fn fired(&self) -> u64 {
        self.plan().fired
    }

    pub(super) fn plan(&self) -> MutexGuard<'_, Plan> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Plan {
    /// Decides about the call that comes now.
    pub(super) fn next(&mut self) -> Verdict {
        self.calls += 1;
        if self.stopped {
            return Verdict { fault: Some(Fault::Before), stops: false };
        }
        if let Some((call, when)) = self.stop
            && call == self.calls
        {
            self.stopped = when == When::Before;
            let fault = if self.stopped { Fault::Before } else { Fault::After };
            return Verdict { fault: Some(fault), stops: true };
        }
        let mut fault = self.exact.filter(|(call, _)| *call == self.calls).map(|(_, fault)| fault);
        if self.outage {
            fault = Some(Fault::Before);
        } else if let (None, Some((random, one_in, faults))) = (fault, &mut self.random)
            && random.random_ratio(1, *one_in)
        {
            fault = faults.get(random.random_range(0..faults.len())).copied();
        }
        self.fired += u64::from(fault.is_some());
        Verdict { fault, stops: false }
    }

    /// What was on its way and is there now.
    pub(super) fn arrived(&mut self) -> Vec<(LtxKey, Bytes, LtxAttributes)> {
        let (calls, outage) = (self.calls, self.outage);
        let due: Vec<_> = self.late.extract_if(.., |late| late.0 <= calls && !outage).collect();
        due.into_iter().map(|(_, key, content, attributes)| (key, content, attributes)).collect()
    }
}

/// What becomes of one call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Verdict {
    pub(super) fault: Option<Fault>,
    /// The process dies after it, if not before.
    pub(super) stops: bool,
}
