//! `budget: restore` and `budget: lag`: what a disaster would cost now, against what it may cost.

use std::time::Duration;

use replica::operator::FriendlyDuration;

use crate::record::{Check, Status};
use crate::rules::Budget;

/// The measured data loss window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lag {
    /// Its length, seconds.
    pub seconds: f64,
    /// A heartbeat of the restored generation tells since when there was nothing to ship.
    pub is_witnessed: bool,
}

/// One check for each budget that is set; `restore` in seconds, no `lag` at a past point.
#[must_use]
pub fn budgets(budget: &Budget, restore: f64, lag: Option<Lag>) -> Vec<Check> {
    let restore = budget.restore.map(|budget| restore_budget(restore, budget.get()));
    let lag = lag.zip(budget.lag.map(FriendlyDuration::get));
    restore.into_iter().chain(lag.map(|(lag, budget)| lag_budget(lag, budget))).collect()
}

fn restore_budget(seconds: f64, budget: Duration) -> Check {
    judge("budget: restore", "the restore took", seconds, budget)
}

/// Without a heartbeat an idle database looks like one that is not shipped: its age alone fails nothing.
fn lag_budget(lag: Lag, budget: Duration) -> Check {
    let check = judge("budget: lag", "the newest state was behind by", lag.seconds, budget);
    if check.status == Status::Fail && !lag.is_witnessed {
        let detail = format!(
            "{}; no heartbeat of this generation tells whether there was anything to ship since",
            check.detail
        );
        return Check { status: Status::Unchecked, detail, ..check };
    }
    check
}

fn judge(name: &str, what: &str, seconds: f64, budget: Duration) -> Check {
    let allowed = budget.as_secs_f64();
    let status = if seconds <= allowed { Status::Pass } else { Status::Fail };
    Check::new(name, status, format!("{what} {seconds:.3} s, budget {allowed} s"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_budget_fails_where_it_can_be_told() {
        let minute = Some(Duration::from_secs(60).into());
        let budget = Budget { restore: minute, lag: minute };
        let statuses = |restore, seconds, is_witnessed| -> Vec<Status> {
            let lag = Some(Lag { seconds, is_witnessed });
            budgets(&budget, restore, lag).into_iter().map(|check| check.status).collect()
        };
        assert_eq!(statuses(60.0, 59.0, false), [Status::Pass, Status::Pass]);
        assert_eq!(statuses(60.001, 61.0, false), [Status::Fail, Status::Unchecked]);
        assert_eq!(statuses(1.0, 61.0, true), [Status::Pass, Status::Fail]);
        assert_eq!(budgets(&budget, 1.0, None).len(), 1, "a past point has no lag");
        let none = Lag { seconds: 1e9, is_witnessed: true };
        assert!(budgets(&Budget::default(), 1e9, Some(none)).is_empty());
    }
}
