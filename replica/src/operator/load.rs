//! Configuration from a TOML file, from environment variables, or from both.
//!
//! A key that the type does not know is an error that names it and the nearest known one (the type
//! must have `#[serde(deny_unknown_fields)]`). Variables win over the file. Values are not echoed,
//! except where the type's own message does.

use std::path::Path;

use anyhow::Context;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::operator::{Usage, usage};

/// Largest configuration file, bytes.
const LIMIT: u64 = 1 << 20;

/// Reads a configuration: the file (if any), then what variables with this prefix say (if any).
///
/// `SEAWORTHY_REPLICA__URL` with prefix `SEAWORTHY_` sets `url` in `[replica]`. A variable's value
/// that reads as a TOML number, boolean, array, table or quoted string is one; any other is a string.
///
/// # Errors
/// A file that cannot be read, or a content that does not fit `T`: a [`Usage`] naming the path of
/// the fault, and the line where it is in the file.
pub fn load<T: DeserializeOwned>(
    path: Option<&Path>,
    env_prefix: Option<&str>,
) -> anyhow::Result<T> {
    let text = path.map(read_text).transpose()?.unwrap_or_default();
    let overlay = env_prefix.map(|prefix| overlay(prefix, std::env::vars_os())).transpose()?;
    let name = path.map_or_else(|| "environment".to_owned(), |path| path.display().to_string());
    Ok(parse(&name, &text, overlay.unwrap_or_default())?)
}

fn read_text(path: &Path) -> anyhow::Result<String> {
    use std::io::Read;
    let refuse = || {
        usage(format!("read configuration {}\nHINT: name the file with --config", path.display()))
    };
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(LIMIT).read_to_string(&mut text))
        .with_context(refuse)?;
    Ok(text)
}

/// The variables with this prefix, as tables.
fn overlay(
    prefix: &str,
    variables: impl Iterator<Item = (std::ffi::OsString, std::ffi::OsString)>,
) -> Result<Table, Usage> {
    let mut root = Table::new();
    for (name, value) in variables {
        let (Some(name), Some(value)) = (name.to_str(), value.to_str()) else { continue };
        let Some(path) = name.strip_prefix(prefix).filter(|path| !path.is_empty()) else {
            continue;
        };
        let keys: Vec<String> = path.split("__").map(str::to_ascii_lowercase).collect();
        let conflict = || usage(format!("{name}: conflicts with another {prefix}… variable"));
        let Some((last, parents)) = keys.split_last() else { continue };
        let mut table = &mut root;
        for key in parents {
            let entry = table.entry(key.clone()).or_insert_with(|| Value::Table(Table::new()));
            table = entry.as_table_mut().ok_or_else(conflict)?;
        }
        if table.insert(last.clone(), variable_value(value)).is_some() {
            return Err(conflict());
        }
    }
    Ok(root)
}

fn variable_value(text: &str) -> Value {
    let parsed = toml::from_str::<Table>(&format!("value = {text}"));
    match parsed.ok().and_then(|mut table| table.remove("value")) {
        // Dates are text to us, in a form of our own (RFC 3339).
        Some(Value::Datetime(_)) | None => Value::String(text.to_owned()),
        Some(value) => value,
    }
}

fn merge(base: &mut Table, over: Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(base)), Value::Table(over)) => merge(base, over),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// Reads a document that is no file of this machine; `name` stands before the line in messages.
///
/// # Errors
/// As of [`load`].
pub fn from_toml<T: DeserializeOwned>(name: &str, text: &str) -> Result<T, Usage> {
    parse(name, text, Table::new())
}

fn parse<T: DeserializeOwned>(name: &str, text: &str, overlay: Table) -> Result<T, Usage> {
    let mut track = serde_path_to_error::Track::new();
    let outcome = if overlay.is_empty() {
        // Straight from the text: errors know their line.
        let deserializer =
            toml::de::Deserializer::parse(text).map_err(|error| fault(name, text, None, &error))?;
        T::deserialize(serde_path_to_error::Deserializer::new(deserializer, &mut track))
    } else {
        let mut table: Table =
            toml::from_str(text).map_err(|error| fault(name, text, None, &error))?;
        merge(&mut table, overlay);
        T::deserialize(serde_path_to_error::Deserializer::new(table, &mut track))
    };
    outcome.map_err(|error| fault(name, text, Some(track.path().to_string()), &error))
}

/// `file:line: path: what is wrong`.
fn fault(name: &str, text: &str, path: Option<String>, error: &toml::de::Error) -> Usage {
    let mut place = name.to_owned();
    if let Some(span) = error.span().filter(|span| span.start <= text.len()) {
        let line = text.as_bytes()[..span.start].iter().filter(|byte| **byte == b'\n').count() + 1;
        place.push_str(&format!(":{line}"));
    }
    let message = error.message();
    if let Some((key, known)) = unknown_field(message) {
        let parent = path
            .as_deref()
            .map_or("", |path| path.strip_suffix(key).unwrap_or(path).trim_end_matches(['.', '?']));
        let full = if parent.is_empty() { key.to_owned() } else { format!("{parent}.{key}") };
        let hint = match nearest(key, &known) {
            Some(near) => format!("did you mean {near}?"),
            None if known.is_empty() => "no key is known here".to_owned(),
            None => format!("known keys are {}", known.join(", ")),
        };
        return usage(format!("{place}: unknown key {full}\nHINT: {hint}"));
    }
    match path.filter(|path| !path.is_empty() && path != ".") {
        Some(path) => usage(format!("{place}: {path}: {message}")),
        None => usage(format!("{place}: {message}")),
    }
}

/// Reads serde's "unknown field `x`, expected one of `a`, `b`".
fn unknown_field(message: &str) -> Option<(&str, Vec<&str>)> {
    let rest = message.strip_prefix("unknown field `")?;
    let (key, rest) = rest.split_once('`')?;
    let known = rest.split('`').skip(1).step_by(2).collect();
    Some((key, known))
}

/// The known word that is most like `word`, if any is near enough to be meant.
#[must_use]
pub fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let likeness = |candidate: &str| strsim::jaro_winkler(word, candidate);
    known
        .iter()
        .copied()
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
        .filter(|best| likeness(best) > 0.7)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Config {
        replica: Replica,
        #[serde(default)]
        database: Vec<Database>,
    }
    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Replica {
        url: String,
        port: Option<u16>,
    }
    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Database {
        path: String,
    }

    fn of_text(text: &str) -> Result<Config, String> {
        parse("c.toml", text, Table::new()).map_err(|error| error.to_string())
    }

    #[test]
    fn unknown_keys_name_the_nearest() {
        let error = of_text("[replica]\nurl = \"x\"\nportt = 1\n").unwrap_err();
        assert_eq!(error, "c.toml:3: unknown key replica.portt\nHINT: did you mean port?");
        let error =
            of_text("[replica]\nurl=\"x\"\n[[database]]\npath=\"a\"\n[[database]]\npaht=\"a\"\n")
                .unwrap_err();
        assert_eq!(error, "c.toml:6: unknown key database[1].paht\nHINT: did you mean path?");
        let error = of_text("wholly = 1\n").unwrap_err();
        assert_eq!(error, "c.toml:1: unknown key wholly\nHINT: known keys are replica, database");
    }

    #[test]
    fn faults_name_path_and_line() {
        let error = of_text("[replica]\nurl = \"x\"\nport = \"high\"\n").unwrap_err();
        assert!(error.starts_with("c.toml:3: replica.port: invalid type"), "{error}");
        let error = of_text("[replica\n").unwrap_err();
        assert!(error.starts_with("c.toml:1: "), "{error}");
        let error = of_text("").unwrap_err();
        assert!(error.contains("missing field `replica`"), "{error}");
    }

    #[test]
    fn variables_win_over_the_file() {
        let variables = [
            ("SW_REPLICA__URL", "s3://b/p"),
            ("SW_REPLICA__PORT", "7"),
            ("SW_DATABASE", "[{path = \"a\"}]"),
            ("OTHER", "x"),
        ];
        let over =
            overlay("SW_", variables.iter().map(|(k, v)| ((*k).into(), (*v).into()))).unwrap();
        let config: Config = parse("c.toml", "[replica]\nurl = \"old\"\n", over).unwrap();
        assert_eq!(config.replica, Replica { url: "s3://b/p".into(), port: Some(7) });
        assert_eq!(config.database, [Database { path: "a".into() }]);
    }
}
