//! Which databases are shipped: compares what is asked for now with what was asked for before. Pure.
//!
//! *Invariants*: of two databases that want one name, the one that had it first keeps it, also over a restart, and the
//! other is refused; where neither had it, the one that is named by its own path gets it, and of two that a glob matched
//! none: nobody could tell whose backups they are. A database that a glob matched is given up only after it was gone for [`GONE_AFTER`], one named by its own path never;
//! a name that was given up is free from the next look on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::config::{DatabaseConfig, MAX_DATABASES, Match};

/// How long a glob has to match a database no more until its task ends: longer than a deployment or a restore takes.
pub const GONE_AFTER: Duration = Duration::from_secs(600);

/// What is shipped, and what is refused.
#[derive(Debug, Default)]
pub struct Roster {
    shipped: BTreeMap<String, Shipped>,
    refused: BTreeMap<PathBuf, String>,
    /// Who had a name last, in this run or an earlier one.
    known: BTreeMap<String, PathBuf>,
}

#[derive(Debug)]
struct Shipped {
    path: PathBuf,
    literal: bool,
    gone_since: Option<Instant>,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Ship a database.
    Begin(DatabaseConfig),
    /// Say that this file is not shipped, and why.
    Refuse(PathBuf, String),
    /// Say that a database is gone; it is waited for.
    Gone(String),
    /// Give it up.
    End(String),
}

impl Roster {
    /// Nothing yet; of an earlier run it is `known` who had which name.
    #[must_use]
    pub fn new(known: BTreeMap<String, PathBuf>) -> Self {
        Self { known, ..Self::default() }
    }

    /// Who had which name last.
    #[must_use]
    pub fn known(&self) -> &BTreeMap<String, PathBuf> {
        &self.known
    }

    /// Compares with what was found `now`.
    pub fn update(&mut self, found: &[Match], now: Instant) -> Vec<Change> {
        let mut changes = self.missing(found, now);
        let ended: BTreeSet<String> = changes
            .iter()
            .filter_map(|change| match change {
                Change::End(name) => Some(name.clone()),
                _ => None,
            })
            .collect();
        let mut refused = BTreeMap::new();
        let wanted = wanted(found);
        for found in found {
            let Match { path, database, literal } = found;
            let reason = match database {
                Err(reason) => reason.clone(),
                // Its predecessor is still ending: next time.
                Ok(database) if ended.contains(&database.name) => continue,
                Ok(database) => match self.place_for(database, &wanted) {
                    Place::Taken => continue,
                    Place::Refused(reason) => reason,
                    Place::Free => {
                        let shipped =
                            Shipped { path: path.clone(), literal: *literal, gone_since: None };
                        self.shipped.insert(database.name.clone(), shipped);
                        self.known.insert(database.name.clone(), path.clone());
                        changes.push(Change::Begin(database.clone()));
                        continue;
                    }
                },
            };
            if self.refused.get(path) != Some(&reason) {
                changes.push(Change::Refuse(path.clone(), reason.clone()));
            }
            refused.insert(path.clone(), reason);
        }
        self.refused = refused;
        changes
    }

    /// Files that are asked for and not shipped, and why not.
    #[must_use]
    pub fn refused(&self) -> &BTreeMap<PathBuf, String> {
        &self.refused
    }

    /// Forgets a database, so that it begins anew where it is found again.
    pub fn forget(&mut self, name: &str) {
        self.shipped.remove(name);
    }

    fn missing(&mut self, found: &[Match], now: Instant) -> Vec<Change> {
        let there: BTreeSet<&Path> = found.iter().map(|found| found.path.as_path()).collect();
        let mut changes = Vec::new();
        self.shipped.retain(|name, shipped| {
            if shipped.literal || there.contains(shipped.path.as_path()) {
                shipped.gone_since = None;
                return true;
            }
            let Some(since) = shipped.gone_since else {
                shipped.gone_since = Some(now);
                changes.push(Change::Gone(name.clone()));
                return true;
            };
            let keep = now.duration_since(since) < GONE_AFTER;
            if !keep {
                changes.push(Change::End(name.clone()));
            }
            keep
        });
        changes
    }

    fn place_for(&self, database: &DatabaseConfig, wanted: &Wanted<'_>) -> Place {
        let DatabaseConfig { path, name, .. } = database;
        if let Some(first) = self.shipped.get(name) {
            if first.path == *path {
                return Place::Taken;
            }
            return Place::Refused(rivalry(name, &first.path, "is already"));
        }
        let rivals = wanted.get(name.as_str()).map(Vec::as_slice).unwrap_or_default();
        if let Some(other) = rivals.iter().find(|other| **other != path)
            && rivals.contains(&path.as_path())
        {
            let owner = self.known.get(name).filter(|owner| rivals.contains(&owner.as_path()));
            match owner {
                Some(owner) if owner == path => {}
                // It gets the name in this very look.
                Some(owner) => return Place::Refused(rivalry(name, owner, "is already")),
                None => return Place::Refused(rivalry(name, other, "would be")),
            }
        }
        if let Some((other, _)) = self.shipped.iter().find(|(_, shipped)| shipped.path == *path) {
            return Place::Refused(format!(
                "is shipped as {other} already, and asked for as {name}\n\
                 HINT: ship a database once; remove one [[database]]"
            ));
        }
        if self.shipped.len() >= MAX_DATABASES {
            return Place::Refused(format!(
                "{MAX_DATABASES} databases are shipped already\n\
                 HINT: ship the others with a second shipper, with a state_dir of its own"
            ));
        }
        Place::Free
    }
}

fn rivalry(name: &str, other: &Path, how: &str) -> String {
    format!(
        "would be named {name}, as {} {how}\n\
         HINT: give each a name of its own, with a template as name = \"{{parent}}-{{stem}}\", or a [[database]] section of \
         its own",
        other.display()
    )
}

/// Which paths that globs match want a name.
type Wanted<'a> = BTreeMap<&'a str, Vec<&'a Path>>;

fn wanted(found: &[Match]) -> Wanted<'_> {
    let mut wanted = Wanted::new();
    for Match { path, database, literal } in found {
        let Ok(database) = database else { continue };
        let paths = wanted.entry(database.name.as_str()).or_default();
        if !literal && !paths.contains(&path.as_path()) {
            paths.push(path);
        }
    }
    wanted
}

enum Place {
    Free,
    /// By itself.
    Taken,
    Refused(String),
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn found(path: &str, name: &str, literal: bool) -> Match {
        let database = DatabaseConfig {
            path: path.into(),
            name: name.into(),
            sync_interval: Duration::from_secs(1),
        };
        Match { path: path.into(), database: Ok(database), literal }
    }

    fn begun(changes: &[Change]) -> Vec<&str> {
        let names = changes.iter().filter_map(|change| match change {
            Change::Begin(database) => Some(database.name.as_str()),
            _ => None,
        });
        names.collect()
    }

    #[test]
    fn what_appears_is_shipped_and_what_stays_is_left_alone() {
        let (mut roster, now) = (Roster::default(), Instant::now());
        let a = found("/srv/a.db", "a", false);
        let b = found("/srv/b.db", "b", false);
        assert_eq!(begun(&roster.update(std::slice::from_ref(&a), now)), ["a"]);
        assert_eq!(begun(&roster.update(&[a.clone(), b.clone()], now)), ["b"]);
        assert_eq!(roster.update(&[a, b], now), []);
    }

    #[test]
    fn the_second_of_a_name_is_refused_once_and_takes_over_when_the_first_is_given_up() {
        let (mut roster, now) = (Roster::default(), Instant::now());
        let first = found("/srv/1/app.db", "app", false);
        let second = found("/srv/0/app.db", "app", false);
        roster.update(std::slice::from_ref(&first), now);
        let both = [second.clone(), first];
        let changes = roster.update(&both, now);
        let [Change::Refuse(path, reason)] = changes.as_slice() else { panic!("{changes:?}") };
        assert_eq!(path, Path::new("/srv/0/app.db"));
        assert!(reason.contains("/srv/1/app.db") && reason.contains("\nHINT: "), "{reason}");
        assert_eq!(roster.update(&both, now), [], "said once");
        assert_eq!(roster.refused().len(), 1);
        let alone = std::slice::from_ref(&second);
        assert_eq!(roster.update(alone, now), [Change::Gone("app".into())]);
        assert_eq!(roster.update(alone, now + GONE_AFTER), [Change::End("app".into())]);
        assert_eq!(begun(&roster.update(alone, now + GONE_AFTER)), ["app"]);
        assert!(roster.refused().is_empty());
    }

    #[test]
    fn of_two_that_appear_at_once_the_one_that_had_the_name_before_gets_it_and_else_none() {
        let now = Instant::now();
        let both = [found("/srv/0/app.db", "app", false), found("/srv/1/app.db", "app", false)];
        let mut roster = Roster::default();
        let changes = roster.update(&both, now);
        assert_eq!(begun(&changes), [""; 0], "nobody could tell which");
        assert_eq!((changes.len(), roster.refused().len()), (2, 2));
        let known = [("app".to_owned(), PathBuf::from("/srv/1/app.db"))].into();
        let mut roster = Roster::new(known);
        let changes = roster.update(&both, now);
        assert_eq!(begun(&changes), ["app"]);
        assert_eq!(roster.shipped["app"].path, Path::new("/srv/1/app.db"));
        assert!(matches!(&changes[0], Change::Refuse(path, _) if path.ends_with("0/app.db")));
        assert_eq!(roster.update(&both, now), [], "it stays so");
        // The one that is written down by its own path is meant.
        let literal = found("/srv/2/app.db", "app", true);
        let mut roster = Roster::default();
        let all = [literal, both[0].clone(), both[1].clone()];
        assert_eq!(begun(&roster.update(&all, now)), ["app"]);
        assert_eq!(roster.known()["app"], Path::new("/srv/2/app.db"));
        assert_eq!(roster.refused().len(), 2);
    }

    #[test]
    fn a_path_is_shipped_under_one_name() {
        let (mut roster, now) = (Roster::default(), Instant::now());
        let both = [found("/srv/a.db", "a", false), found("/srv/a.db", "srv-a", false)];
        let changes = roster.update(&both, now);
        assert_eq!(begun(&changes), ["a"]);
        assert!(matches!(&changes[1], Change::Refuse(..)), "{changes:?}");
    }

    #[test]
    fn what_is_gone_for_a_while_comes_back_and_a_literal_path_is_waited_for() {
        let (mut roster, now) = (Roster::default(), Instant::now());
        let a = found("/srv/a.db", "a", false);
        let literal = found("/srv/l.db", "l", true);
        roster.update(&[a.clone(), literal.clone()], now);
        let without = std::slice::from_ref(&literal);
        assert_eq!(roster.update(without, now), [Change::Gone("a".into())]);
        let soon = now + GONE_AFTER / 2;
        assert_eq!(roster.update(&[a, literal.clone()], soon), []);
        assert_eq!(roster.update(without, soon), [Change::Gone("a".into())], "counted anew");
        assert_eq!(roster.update(without, soon + GONE_AFTER / 2), []);
        assert_eq!(roster.update(without, soon + GONE_AFTER), [Change::End("a".into())]);
        assert_eq!(roster.update(&[], soon + GONE_AFTER * 3), []);
    }
}
