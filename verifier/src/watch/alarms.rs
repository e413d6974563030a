//! Which mails are due: a pure state machine over what was last said.
//!
//! Invariants: at most one claim is alive; an alarm that was mailed is mailed again only as a reminder or when
//! it ends; what could not be observed changes nothing.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::clock::TOLERANCE;

/// How long a claimed mail is left to its sender: well above the time that sending takes.
const LEASE: SignedDuration = SignedDuration::from_mins(3);

/// What an alarm is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Alarm {
    /// Stuck or dead.
    Life,
    /// No recent PASS.
    Proof,
    /// Two hosts ship it.
    #[serde(rename = "two_shippers")]
    TwoShippers,
}

/// An alarm that was mailed and has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Raised {
    /// When it was first mailed.
    pub since: Timestamp,
    /// When it was last mailed.
    pub mailed_at: Timestamp,
}

/// Somebody is sending a mail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Who.
    pub id: String,
    /// From then on anybody may claim again.
    pub until: Timestamp,
}

/// What is remembered of a database between two watches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchState {
    /// When it was first watched.
    pub first_seen: Timestamp,
    /// The alarm for stuck or dead.
    pub life: Option<Raised>,
    /// The alarm for a missing proof.
    pub proof: Option<Raised>,
    /// The alarm for two hosts that ship it.
    #[serde(default)]
    pub two_shippers: Option<Raised>,
    /// The mail being sent.
    pub claim: Option<Claim>,
}

/// What is wrong now; `None` where it could not be found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Findings {
    /// Stuck or dead.
    pub life: Option<bool>,
    /// No recent PASS.
    pub proof: Option<bool>,
    /// Two hosts ship it.
    pub two_shippers: Option<bool>,
}

/// Where an alarm stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// It began.
    Began,
    /// It goes on.
    Reminder,
    /// It ended.
    Recovered,
}

/// One thing to be said in a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Notice {
    /// About what.
    pub alarm: Alarm,
    /// Where it stands.
    pub stage: Stage,
}

impl WatchState {
    /// The state at first sight.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self { first_seen: now, life: None, proof: None, two_shippers: None, claim: None }
    }

    /// Whether it was first watched by a clock that was ahead: nothing would be overdue until that time comes.
    #[must_use]
    pub fn is_to_come(&self, now: Timestamp) -> bool {
        self.first_seen.duration_since(now) > TOLERANCE
    }

    /// What must be mailed now; nothing while another sender holds a claim.
    #[must_use]
    pub fn due(&self, now: Timestamp, findings: Findings, remind_every: Duration) -> Vec<Notice> {
        // One that ends later than any that begins now was made by a wrong clock.
        let latest = now.saturating_add(LEASE + TOLERANCE).unwrap_or(Timestamp::MAX);
        if self.claim.as_ref().is_some_and(|claim| claim.until > now && claim.until <= latest) {
            return Vec::new();
        }
        let alarms = [
            (Alarm::Life, self.life, findings.life),
            (Alarm::Proof, self.proof, findings.proof),
            (Alarm::TwoShippers, self.two_shippers, findings.two_shippers),
        ];
        let notice = |(alarm, raised, wrong)| {
            stage(now, raised, wrong, remind_every).map(|stage| Notice { alarm, stage })
        };
        alarms.into_iter().filter_map(notice).collect()
    }

    /// This state with the mail claimed by `id`.
    #[must_use]
    pub fn claimed(&self, now: Timestamp, id: &str) -> Self {
        let until = now.saturating_add(LEASE).unwrap_or(Timestamp::MAX);
        Self { claim: Some(Claim { id: id.to_owned(), until }), ..self.clone() }
    }

    /// This state once `notices` were mailed.
    #[must_use]
    pub fn settled(&self, now: Timestamp, notices: &[Notice]) -> Self {
        let mut next = Self { claim: None, ..self.clone() };
        for notice in notices {
            let alarm = match notice.alarm {
                Alarm::Life => &mut next.life,
                Alarm::Proof => &mut next.proof,
                Alarm::TwoShippers => &mut next.two_shippers,
            };
            *alarm = match notice.stage {
                Stage::Began => Some(Raised { since: now, mailed_at: now }),
                Stage::Reminder => alarm.map(|raised| Raised { mailed_at: now, ..raised }),
                Stage::Recovered => None,
            };
        }
        next
    }
}

fn stage(
    now: Timestamp,
    raised: Option<Raised>,
    wrong: Option<bool>,
    remind_every: Duration,
) -> Option<Stage> {
    match (raised, wrong?) {
        (None, true) => Some(Stage::Began),
        (Some(raised), true) => {
            let since = now.duration_since(raised.mailed_at);
            let quiet = Duration::try_from(since).unwrap_or(Duration::ZERO);
            // Mailed by a clock that was ahead: not silent until that time comes.
            (quiet >= remind_every || -since > TOLERANCE).then_some(Stage::Reminder)
        }
        (Some(_), false) => Some(Stage::Recovered),
        (None, false) => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    const REMIND: Duration = Duration::from_secs(24 * 3600);

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + minute * 60).unwrap()
    }

    fn wrong(life: bool, proof: bool) -> Findings {
        Findings { life: Some(life), proof: Some(proof), ..Findings::default() }
    }

    fn two(shippers: bool) -> Findings {
        Findings { two_shippers: Some(shippers), ..Findings::default() }
    }

    /// One watch by one watcher, everything going well.
    fn watch(state: &mut WatchState, minute: i64, findings: Findings) -> Vec<Notice> {
        let notices = state.due(at(minute), findings, REMIND);
        if !notices.is_empty() {
            *state = state.claimed(at(minute), "w").settled(at(minute), &notices);
        }
        notices
    }

    #[test]
    fn transitions() {
        use Alarm::{Life, Proof, TwoShippers};
        use Stage::{Began, Recovered, Reminder};
        let mut state = WatchState::new(at(0));
        let day = 24 * 60;
        for (minute, findings, expected) in [
            (0, wrong(false, false), vec![]),
            (5, wrong(true, false), vec![(Life, Began)]),
            (10, wrong(true, false), vec![]),
            (15, Findings { proof: Some(true), ..Findings::default() }, vec![(Proof, Began)]),
            (5 + day, wrong(true, true), vec![(Life, Reminder)]),
            (10 + day, wrong(true, true), vec![]),
            (15 + day, wrong(false, true), vec![(Life, Recovered), (Proof, Reminder)]),
            (20 + day, Findings::default(), vec![]),
            (25 + day, wrong(false, false), vec![(Proof, Recovered)]),
            (30 + day, wrong(false, false), vec![]),
            (35 + day, wrong(true, true), vec![(Life, Began), (Proof, Began)]),
            (40 + day, two(true), vec![(TwoShippers, Began)]),
            (45 + day, two(true), vec![]),
            (50 + day, two(false), vec![(TwoShippers, Recovered)]),
        ] {
            let said: Vec<_> = watch(&mut state, minute, findings)
                .iter()
                .map(|notice| (notice.alarm, notice.stage))
                .collect();
            assert_eq!(said, expected, "minute {minute}");
        }
    }

    #[test]
    fn a_claim_silences_others_until_its_lease_ends() {
        let state = WatchState::new(at(0)).claimed(at(5), "first");
        assert!(state.due(at(7), wrong(true, true), REMIND).is_empty());
        assert_eq!(state.due(at(8), wrong(true, true), REMIND).len(), 2, "its sender died");
    }

    #[test]
    fn what_a_clock_that_was_ahead_left_behind_silences_nothing() {
        let far = at(1_000_000);
        let began = [Notice { alarm: Alarm::Life, stage: Stage::Began }];
        let state = WatchState::new(far).claimed(far, "died").settled(far, &began);
        assert!(state.is_to_come(at(0)) && !state.is_to_come(far));
        let due = state.claimed(far, "died").due(at(0), wrong(true, false), REMIND);
        assert_eq!(due, [Notice { alarm: Alarm::Life, stage: Stage::Reminder }]);
        let seconds_apart = state.settled(at(1), &began);
        assert!(seconds_apart.due(at(0), wrong(true, false), REMIND).is_empty());
    }

    #[test]
    fn the_state_survives_the_ledger() {
        let state = WatchState::new(at(0))
            .settled(at(1), &[Notice { alarm: Alarm::Proof, stage: Stage::Began }]);
        let text = serde_json::to_string(&state.claimed(at(2), "w")).unwrap();
        assert_eq!(serde_json::from_str::<WatchState>(&text).unwrap(), state.claimed(at(2), "w"));
    }

    /// What one of several watchers does next.
    #[derive(Debug, Clone)]
    enum Step {
        /// The world changes.
        World(bool),
        /// Time passes, minutes.
        Wait(i64),
        /// Watcher reads the state and remembers it.
        Read(usize),
        /// Watcher tries to claim by compare-and-swap what it found due.
        Claim(usize),
        /// Watcher sends and marks; or dies before sending.
        Send(usize, bool),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            any::<bool>().prop_map(Step::World),
            (0_i64..3).prop_map(Step::Wait),
            (0_usize..3).prop_map(Step::Read),
            (0_usize..3).prop_map(Step::Claim),
            (0_usize..3, any::<bool>()).prop_map(|(who, lives)| Step::Send(who, lives)),
        ]
    }

    #[derive(Default)]
    struct Watcher {
        read: Option<(u64, WatchState, Findings)>,
        claimed: Option<(u64, WatchState, Vec<Notice>, Timestamp)>,
    }

    proptest! {
        /// Three watchers that interleave in any order over one ledger row: never two claims alive at
        /// once, and (as each sends within its lease) mails alternate: began, recovered, began, …
        #[test]
        fn one_mail_a_transition(steps in prop::collection::vec(step(), 1..200)) {
            let (mut version, mut row) = (0_u64, WatchState::new(at(0)));
            let (mut minute, mut world) = (0, false);
            let mut watchers: [Watcher; 3] = Default::default();
            let mut mails: Vec<Stage> = Vec::new();
            for step in steps {
                match step {
                    Step::World(wrong) => world = wrong,
                    Step::Wait(minutes) => minute += minutes,
                    Step::Read(who) => {
                        let findings = Findings { life: Some(world), ..Findings::default() };
                        watchers[who] = Watcher { read: Some((version, row.clone(), findings)), claimed: None };
                    }
                    Step::Claim(who) => {
                        let Some((seen, state, findings)) = watchers[who].read.take() else { continue };
                        let notices = state.due(at(minute), findings, Duration::MAX);
                        if notices.is_empty() || seen != version {
                            continue;
                        }
                        prop_assert!(row.claim.as_ref().is_none_or(|claim| claim.until <= at(minute)));
                        let next = state.claimed(at(minute), &who.to_string());
                        (version, row) = (version + 1, next.clone());
                        watchers[who].claimed = Some((version, next, notices, at(minute)));
                    }
                    Step::Send(who, lives) => {
                        let Some((seen, state, notices, since)) = watchers[who].claimed.take() else { continue };
                        if !lives || at(minute).duration_since(since) >= LEASE {
                            continue;
                        }
                        mails.extend(notices.iter().map(|notice| notice.stage));
                        prop_assert_eq!(seen, version, "nobody else claimed meanwhile");
                        (version, row) = (version + 1, state.settled(at(minute), &notices));
                    }
                }
            }
            for (index, stage) in mails.iter().enumerate() {
                let expected = if index % 2 == 0 { Stage::Began } else { Stage::Recovered };
                prop_assert_eq!(*stage, expected, "mail {} of {:?}", index, mails);
            }
        }
    }
}
