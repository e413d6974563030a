//! Restores a point around what is damaged.
//!
//! A file that is damaged, gone, or not what its chain says ([`doubts()`]) is passed over, loudly, and the point is planned anew
//! without it: through level 0, through another snapshot. The point stays the one asked for. Where no other way leads to it,
//! the error names the newest point that can be had.
//!
//! One exception, for the newest state of a generation of ours: a file at the very tip that no heartbeat vouches for was
//! perhaps cut short while it was written, or put by somebody. It does not stand in the way of what was durable
//! before it: that is restored, loudly.

use std::fs::File;
use std::sync::Arc;

use crate::format::Txid;
use crate::restore::believe::{doubts, is_told_again};
use crate::restore::times::CommitTimes;
use crate::restore::walk::reachable;
use crate::restore::{
    Inventory, NoOtherWay, Plan, Progress, RestoreError, Restored, Selected, apply, plan, tip,
};
use crate::store::{LtxObject, Store, StoreError};

/// Restores begun for one point at most.
const TRIES: usize = 8;
/// States that are tried before the newest one, where the heartbeat vouches for none of those that are left out.
const TIPS: usize = 4;

/// Restores what was selected into `output`, as [`apply()`] does, around what is damaged where there is another way. The
/// selection is then what was restored; `latest` says that the newest state was asked for.
///
/// # Errors
/// Those of [`apply()`]; [`RestoreError::NoOtherWay`] where the replica is at fault.
pub async fn restore(
    store: Arc<dyn Store>,
    selected: &mut Selected,
    latest: bool,
    output: &File,
    progress: Arc<dyn Progress>,
) -> Result<Restored, RestoreError> {
    let mut tips = if latest { TIPS } else { 0 };
    loop {
        let mut search = Search::new(&store, &selected.inventory, selected.plan.txid);
        let found = search.run(&selected.plan, output, &progress).await?;
        let Search { faults, first, passed_over, .. } = search;
        if let Some((plan, mut restored)) = found {
            restored.passed_over = passed_over;
            selected.plan = plan;
            return Ok(restored);
        }
        let Some(first) = first else {
            return Err(RestoreError::Chain {
                message: format!("generation {}: no plan", selected.plan.chain),
            });
        };
        tips = match tips.checked_sub(1) {
            Some(left) if step_back(store.as_ref(), selected, &faults, &first).await? => left,
            _ => return Err(stuck(store.as_ref(), selected, &faults, first)),
        };
    }
}

/// One fault that ended a way, and the files that may be to blame.
struct Fault {
    /// Alternatives, the likeliest first.
    suspects: Vec<Vec<LtxObject>>,
    error: RestoreError,
}

/// The search for a way to one point.
struct Search<'a> {
    store: &'a Arc<dyn Store>,
    inventory: &'a Inventory,
    txid: Txid,
    faults: Vec<Vec<Vec<LtxObject>>>,
    first: Option<RestoreError>,
    passed_over: Vec<String>,
}

impl<'a> Search<'a> {
    fn new(store: &'a Arc<dyn Store>, inventory: &'a Inventory, txid: Txid) -> Self {
        let (faults, passed_over) = (Vec::new(), Vec::new());
        Self { store, inventory, txid, faults, first: None, passed_over }
    }

    /// Tries one way after the other; `None` where none leads there.
    async fn run(
        &mut self,
        planned: &Plan,
        output: &File,
        progress: &Arc<dyn Progress>,
    ) -> Result<Option<(Plan, Restored)>, RestoreError> {
        let mut tried: Vec<Plan> = Vec::new();
        let mut ways = vec![(planned.clone(), Vec::new())];
        while let Some((way, without)) = ways.pop() {
            if tried.len() == TRIES || tried.iter().any(|plan| plan.files == way.files) {
                continue;
            }
            let fault = match self.attempt(&way, output, progress).await? {
                Ok(restored) => {
                    self.name(&way, &without);
                    return Ok(Some((way, restored)));
                }
                Err(fault) => fault,
            };
            tried.push(way);
            for suspects in fault.suspects.iter().rev() {
                let without: Vec<LtxObject> = without.iter().chain(suspects).copied().collect();
                if let Ok(way) = plan(&self.inventory.without(&without), Some(self.txid)) {
                    ways.push((way, without));
                }
            }
            let words = in_words(&fault.error);
            if !ways.is_empty() {
                tracing::warn!("{words}\npassed over: trying another way to TXID {}", self.txid);
            }
            self.passed_over.push(words);
            self.faults.push(fault.suspects);
            self.first.get_or_insert(fault.error);
        }
        Ok(None)
    }

    /// Names what was left out, where the faults name others: files that are valid by themselves do not say which is wrong.
    fn name(&mut self, way: &Plan, without: &[LtxObject]) {
        let objects = without.iter().map(|file| self.store.locate(&way.key(file)));
        let unnamed: Vec<String> = objects
            .filter(|object| !self.passed_over.iter().any(|words| words.contains(object)))
            .collect();
        if !unnamed.is_empty() {
            self.passed_over.push(format!("restored without {}", unnamed.join(", ")));
        }
    }

    async fn attempt(
        &self,
        way: &Plan,
        output: &File,
        progress: &Arc<dyn Progress>,
    ) -> Result<Result<Restored, Fault>, RestoreError> {
        let told_again = way.files.iter().filter(|file| is_told_again(file)).copied().collect();
        let mut doubts = doubts(self.store.as_ref(), self.inventory, told_again).await?;
        if !doubts.is_empty() {
            let suspects = vec![doubts.iter().map(|doubt| doubt.file).collect()];
            return Ok(Err(Fault { suspects, error: doubts.swap_remove(0).problem }));
        }
        let output = output.try_clone().map_err(|source| RestoreError::Io {
            path: "restored file".to_owned(),
            action: "open again",
            source,
        })?;
        match apply(Arc::clone(self.store), way, output, Arc::clone(progress)).await {
            Ok(restored) => Ok(Ok(restored)),
            Err(error) => match suspects(self.store.as_ref(), way, &error) {
                Some(suspects) => Ok(Err(Fault { suspects, error })),
                None => Err(error),
            },
        }
    }
}

/// Who may be to blame for an error; `None` where no file is.
fn suspects(store: &dyn Store, plan: &Plan, error: &RestoreError) -> Option<Vec<Vec<LtxObject>>> {
    let (object, others) = match error {
        RestoreError::Store(
            StoreError::NotFound { target } | StoreError::Changed { target, .. },
        ) => (target, false),
        RestoreError::Damaged { object, .. } => (object, false),
        RestoreError::Conflict { object, what, .. } => (object, *what == "pre-apply checksum"),
        RestoreError::Incomplete { object, .. } | RestoreError::DatabaseChecksum { object, .. } => {
            (object, true)
        }
        _ => return None,
    };
    let at = plan.files.iter().position(|file| store.locate(&plan.key(file)) == *object)?;
    let mut suspects = vec![vec![plan.files[at]]];
    if others {
        // Valid by themselves, and not together: what was told again, or the file before it.
        suspects.push(plan.files.iter().filter(|file| is_told_again(file)).copied().collect());
        suspects.extend(at.checked_sub(1).map(|before| vec![plan.files[before]]));
        suspects.retain(|files| !files.is_empty());
    }
    Some(suspects)
}

/// Goes back to the newest state without the tip at fault, where the tip is not known to have been durable.
async fn step_back(
    store: &dyn Store,
    selected: &mut Selected,
    faults: &[Vec<Vec<LtxObject>>],
    first: &RestoreError,
) -> Result<bool, RestoreError> {
    let likeliest: Vec<LtxObject> =
        faults.iter().filter_map(|fault| fault.first()).flatten().copied().collect();
    let left = selected.inventory.without(&likeliest);
    let Some(txid) = reachable(&left).pop() else { return Ok(false) };
    if !tip::may_be_left_out(store, &selected.inventory, &left, txid).await? {
        return Ok(false);
    }
    let remark = format!(
        "TXID {} is left out, and the state before it, TXID {txid}, restored: no heartbeat vouches for its file, which was perhaps cut short while it was written: {}",
        selected.plan.txid,
        in_words(first)
    );
    tracing::warn!("{remark}");
    selected.remarks.push(remark);
    selected.plan = plan(&left, Some(txid))?;
    selected.timestamp = CommitTimes::new(store, &left).time(txid).await?;
    selected.inventory = left;
    Ok(true)
}

/// The error, with what can be had instead.
fn stuck(
    store: &dyn Store,
    selected: &Selected,
    faults: &[Vec<Vec<LtxObject>>],
    first: RestoreError,
) -> RestoreError {
    let blamed: Vec<LtxObject> = faults.iter().flatten().flatten().copied().collect();
    let left = reachable(&selected.inventory.without(&blamed));
    let before = left.partition_point(|state| *state < selected.plan.txid);
    let instead = left[..before].last().or(left.first()).copied();
    RestoreError::NoOtherWay(Box::new(NoOtherWay {
        source: first,
        url: store.url(),
        chain: selected.plan.chain,
        instead,
        left,
    }))
}

/// An error and its causes on one line.
fn in_words(error: &RestoreError) -> String {
    let mut words = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        words = format!("{words}: {cause}");
        source = cause.source();
    }
    words
}
