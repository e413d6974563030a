//! Which database a row is about, and whose the rows are that an older version keyed by name alone.

use std::collections::BTreeSet;

use replica::documents::Receipt;
use replica::store::{Chain, RootUrl};

/// A database's place. Two servers may both have a database `app`: only the URL of its place in its replica is unique.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    url: String,
    name: String,
}

impl Place {
    /// The database called `name` whose objects are below `url`.
    #[must_use]
    pub fn new(url: &str, name: &str) -> Self {
        Self { url: normalized(url), name: name.to_owned() }
    }

    /// Its URL, always spelled the same way.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// One spelling of a URL (it holds no credentials: no URL with any is accepted).
#[must_use]
pub fn normalized(url: &str) -> String {
    let plain = || url.trim_end_matches('/').to_owned();
    url.parse::<RootUrl>().map_or_else(|_| plain(), |url| url.to_string())
}

/// The state that an older version kept under the database's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByName {
    /// The last PASS.
    pub last_pass: Option<Receipt>,
    /// Where that was, as far as it was written down.
    pub last_pass_url: Option<String>,
}

/// How much of such a state becomes a place's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adopt {
    /// Nothing: whose it is cannot be told.
    Nothing,
    /// The last PASS; the alarms may be another database's.
    Pass,
    /// All of it.
    Everything,
}

impl ByName {
    /// How much of this is the state of `place`, which has these chains. `known` are the URLs of all databases that the
    /// ledger ever saw.
    #[must_use]
    pub fn of(&self, place: &Place, chains: &[Chain], known: &BTreeSet<String>) -> Adopt {
        let named: BTreeSet<String> = known
            .iter()
            .map(|url| normalized(url))
            .filter(|url| url.rsplit('/').next() == Some(place.name()))
            .collect();
        let generation = self.last_pass.as_ref().and_then(|pass| pass.generation);
        let ours = match (&self.last_pass_url, generation) {
            (Some(url), _) => normalized(url) == place.url(),
            (None, Some(generation)) => chains.contains(&Chain::Generation(generation)),
            (None, None) => named.contains(place.url()) && named.len() == 1,
        };
        if !ours {
            Adopt::Nothing
        } else if named.iter().any(|url| url != place.url()) {
            Adopt::Pass
        } else {
            Adopt::Everything
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const GENERATION: &str = "0192f0c1-2345-7abc-8def-0123456789ab";

    #[test]
    fn one_place_has_one_spelling() {
        for (url, expected) in [
            ("s3://b/web-1/app", "s3://b/web-1/app"),
            ("s3://b/web-1/app/", "s3://b/web-1/app"),
            ("file:///mnt/backups/app/", "file:///mnt/backups/app"),
            ("file:///mnt//backups/./app", "file:///mnt/backups/app"),
        ] {
            assert_eq!(Place::new(url, "app").url(), expected);
        }
    }

    #[test]
    fn a_state_by_name_is_adopted_only_by_its_own_place() {
        let place = Place::new("file:///a/app", "app");
        let state = |url: Option<&str>, generation: Option<&str>| ByName {
            last_pass: Some(
                serde_json::from_value(serde_json::json!({
                    "version": 1, "drill_id": "d", "generation": generation, "txid": "1a",
                    "restored_at": "2026-11-22T09:00:00Z", "finished_at": "2026-11-22T09:00:00Z",
                }))
                .unwrap(),
            ),
            last_pass_url: url.map(str::to_owned),
        };
        let never = ByName { last_pass: None, last_pass_url: None };
        let chains = [Chain::Generation(GENERATION.parse().unwrap())];
        let set = |urls: &[&str]| urls.iter().map(|url| (*url).to_owned()).collect();
        let (none, one) = (set(&[]), set(&["file:///a/app", "file:///b/web"]));
        let two: BTreeSet<String> = set(&["file:///a/app", "file:///b/app"]);
        let (ours, other) = (Some("file:///a/app/"), Some("file:///b/app"));
        for (state, chains, known, adopt) in [
            (state(ours, None), &[][..], &none, Adopt::Everything),
            (state(ours, None), &[], &two, Adopt::Pass),
            (state(other, Some(GENERATION)), &chains, &one, Adopt::Nothing),
            (state(None, Some(GENERATION)), &chains, &none, Adopt::Everything),
            (state(None, Some(GENERATION)), &chains, &two, Adopt::Pass),
            (state(None, Some(GENERATION)), &[], &one, Adopt::Nothing),
            (never.clone(), &[], &one, Adopt::Everything),
            (never.clone(), &[], &two, Adopt::Nothing),
            (never, &[], &none, Adopt::Nothing),
        ] {
            assert_eq!(state.of(&place, chains, known), adopt, "{state:?} {known:?}");
        }
    }
}
