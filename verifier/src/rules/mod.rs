//! `drill.toml`: what its operator says must be true of a restored copy.
//!
//! It lies beside the generations and is read anew by every drill. It is untrusted like everything there: bounded in
//! size, and its SQL runs only where nothing can be written. A key that is not known is an error that names it, since
//! a rule that is silently ignored would be a proof that is silently missing.

mod expectation;
mod moment;

use std::collections::BTreeSet;
use std::time::Duration;

use glob::Pattern;
use replica::format::GenerationId;
use replica::operator::{FriendlyDuration, Usage, from_toml, usage};
use replica::store::{Key, Store, StoreError, read_all};
use serde::{Deserialize, Deserializer};

pub use expectation::{Bound, Expectation, Judged};
pub use moment::moment;

/// Largest `drill.toml` that is read, bytes.
const LIMIT_BYTES: usize = 256 << 10;

/// How long one assertion may run unless it says otherwise.
const ASSERTION_TIMEOUT: Duration = Duration::from_secs(30);

/// The content of `drill.toml`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rules {
    /// Of generations that were alive at once, the one that counts.
    pub generation: Option<GenerationId>,
    /// `[[table]]`.
    #[serde(rename = "table")]
    pub tables: Vec<TableRule>,
    /// `[[assert]]`.
    #[serde(rename = "assert")]
    pub assertions: Vec<Assertion>,
    /// `[budget]`.
    pub budget: Budget,
    /// `[schema]`.
    pub schema: SchemaRules,
    /// What they were read from.
    #[serde(skip)]
    pub text: String,
}

/// `[[table]]`: it exists, and has the rows it should have.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableRule {
    /// The table.
    pub name: String,
    /// It has at least so many rows.
    pub min_rows: Option<u64>,
    /// Its row count differs from the last PASS by at most this share, up or down.
    pub max_change: Option<Percent>,
}

/// `[[assert]]`: a query and what it must answer.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assertion {
    /// What it says, for people; the check is called `assert: <name>`.
    pub name: String,
    /// One statement that only reads.
    pub sql: String,
    /// The value is a time at most this long ago.
    pub max_age: Option<FriendlyDuration>,
    /// The value is at least this.
    pub min: Option<Bound>,
    /// The value is at most this.
    pub max: Option<Bound>,
    /// The value is this.
    pub equals: Option<Bound>,
    /// The query answers with so many rows.
    pub rows: Option<u64>,
    /// How long it may run.
    #[serde(default = "assertion_timeout")]
    pub timeout: FriendlyDuration,
}

fn assertion_timeout() -> FriendlyDuration {
    ASSERTION_TIMEOUT.into()
}

impl Assertion {
    /// What it expects.
    #[must_use]
    pub fn expectation(&self) -> Expectation<'_> {
        Expectation {
            max_age: self.max_age.map(FriendlyDuration::get),
            min: self.min.as_ref(),
            max: self.max.as_ref(),
            equals: self.equals.as_ref(),
            rows: self.rows,
        }
    }
}

/// `[budget]`: what a disaster may cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Budget {
    /// The restore takes at most this long.
    pub restore: Option<FriendlyDuration>,
    /// At most the changes of this long are lost.
    pub lag: Option<FriendlyDuration>,
}

/// `[schema]`: which losses are meant.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SchemaRules {
    /// Names (or patterns with `*`) of tables that may be gone since the last PASS.
    #[serde(deserialize_with = "patterns")]
    pub dropped: Vec<Pattern>,
}

fn patterns<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Pattern>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    let parsed = |text: String| {
        Pattern::new(&text)
            .map_err(|error| serde::de::Error::custom(format!("{text:?} is no pattern: {error}")))
    };
    texts.into_iter().map(parsed).collect()
}

/// A share, written like `20%`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Percent(f64);

impl Percent {
    /// In hundredths: 20 for `20%`.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let number = text.trim().strip_suffix('%').and_then(|digits| digits.trim().parse().ok());
        number.filter(|share: &f64| share.is_finite() && *share >= 0.0).map(Self).ok_or_else(|| {
            serde::de::Error::custom(format!("not a share: {text:?} (write it like 20%)"))
        })
    }
}

impl Rules {
    /// Reads the text of a `drill.toml`; `name` (its key) stands in messages.
    ///
    /// # Errors
    /// A fault, with its line where the text has one, its path, and the nearest known key.
    pub fn parse(name: &str, text: &str) -> Result<Self, Usage> {
        let rules: Self = from_toml(name, text)?;
        let rules = Self { text: text.to_owned(), ..rules };
        let mut seen = BTreeSet::new();
        for table in &rules.tables {
            if !seen.insert(("table", &table.name)) {
                return Err(usage(format!("{name}: table {:?} has two rules", table.name)));
            }
        }
        for assertion in &rules.assertions {
            let named = &assertion.name;
            if !seen.insert(("assert", named)) {
                return Err(usage(format!("{name}: two assertions are called {named:?}")));
            }
            if assertion.expectation().is_empty() {
                return Err(usage(format!(
                    "{name}: assertion {named:?} expects nothing\nHINT: add max_age, min, max, equals or rows"
                )));
            }
        }
        Ok(rules)
    }
}

/// Why a `drill.toml` that is there cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// The store refused or failed.
    #[error("read drill.toml")]
    Store(#[from] StoreError),
    /// It is no text.
    #[error("{0}: not UTF-8 text")]
    NoText(String),
    /// It cannot be understood.
    #[error(transparent)]
    Content(#[from] Usage),
}

/// The rules of a database; none where nobody wrote any.
///
/// # Errors
/// The store's, or a content that cannot be understood.
pub async fn read(store: &dyn Store) -> Result<Rules, RulesError> {
    let bytes = match read_all(store, &Key::DrillConfig, LIMIT_BYTES).await {
        Ok(bytes) => bytes,
        Err(error) if error.is_not_found() => return Ok(Rules::default()),
        Err(error) => return Err(error.into()),
    };
    let name = store.locate(&Key::DrillConfig);
    let text = std::str::from_utf8(&bytes).map_err(|_| RulesError::NoText(name.clone()))?;
    Ok(Rules::parse(&name, text)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn parse(text: &str) -> Result<Rules, String> {
        Rules::parse("app/drill.toml", text).map_err(|error| error.to_string())
    }

    #[test]
    fn the_published_example_is_read() {
        let rules = parse(
            r#"
            [[table]]
            name = "orders"
            min_rows = 1
            max_change = "20%"
            [[assert]]
            name = "orders keep coming"
            sql = "SELECT max(created_at) FROM orders"
            max_age = "24h"
            [budget]
            restore = "5m"
            lag = "1m"
            [schema]
            dropped = ["events_*"]
            "#,
        )
        .unwrap();
        let table = &rules.tables[0];
        assert_eq!((table.min_rows, table.max_change), (Some(1), Some(Percent(20.0))));
        let assertion = &rules.assertions[0];
        assert_eq!(assertion.expectation().max_age, Some(Duration::from_secs(86_400)));
        assert_eq!(assertion.timeout.get(), ASSERTION_TIMEOUT);
        assert_eq!(rules.budget.lag.map(FriendlyDuration::get), Some(Duration::from_secs(60)));
        assert!(rules.schema.dropped[0].matches("events_2026"));
        assert_eq!(parse("").unwrap(), Rules::default());
    }

    #[test]
    fn a_fault_is_named_with_its_place() {
        for (text, said) in [
            (
                "[[table]]\nname = \"a\"\nmin_row = 1\n",
                "app/drill.toml:3: unknown key table[0].min_row\nHINT: did you mean min_rows?",
            ),
            ("[[assert]]\nname = \"a\"\n", "missing field `sql`"),
            (
                "[[assert]]\nname = \"a\"\nsql = \"SELECT 1\"\n",
                "expects nothing\nHINT: add max_age",
            ),
            ("[[table]]\nname = \"a\"\nmax_change = \"20\"\n", "app/drill.toml:3: "),
            ("[[table]]\nname = \"a\"\nmax_change = \"-1%\"\n", "write it like 20%"),
            ("[[table]]\nname = \"a\"\n[[table]]\nname = \"a\"\n", "\"a\" has two rules"),
            ("[budget]\nlag = \"soon\"\n", "not a duration"),
            ("[schema]\ndropped = [\"***\"]\n", "is no pattern"),
            ("[[assert]]\nname = \"a\"\nsql = \"x\"\nequals = [1]\n", "app/drill.toml:4: "),
            ("[[table", "app/drill.toml:1: "),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(said), "{text:?}: {error}");
        }
    }
}
