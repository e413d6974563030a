//! `[[database]]`: paths and globs to named databases.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use replica::operator::{FriendlyDuration, usage};
use serde::Deserialize;

/// One database to ship.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseConfig {
    /// Absolute path of the database file (which may not exist).
    pub path: PathBuf,
    /// Its name below the replica: letters, digits, `.`, `-`, `_`.
    pub name: String,
    /// At most one upload each so often.
    pub sync_interval: Duration,
}

/// `[[database]]` as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Section {
    path: String,
    name: Option<String>,
    sync_interval: Option<FriendlyDuration>,
}

/// SQLite's own files beside a database.
const COMPANIONS: [&str; 3] = ["-wal", "-shm", "-journal"];
/// Name of a database unless configured.
const DEFAULT_NAME: &str = "{stem}";
/// Bound on the databases of one process.
const MAX_DATABASES: usize = 10_000;

/// Expands globs and templates, and refuses what cannot be shipped under one roof.
pub(super) fn expand(sections: &[Section]) -> anyhow::Result<Vec<DatabaseConfig>> {
    if sections.is_empty() {
        return Err(usage(
            "no database is configured\nHINT: add a [[database]] section with path = \"/path/to/app.db\"",
        )
        .into());
    }
    let mut by_name: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut databases: Vec<DatabaseConfig> = Vec::new();
    for section in sections {
        let sync_interval =
            section.sync_interval.map_or(Duration::from_secs(1), FriendlyDuration::get);
        super::bounded(
            "sync_interval",
            sync_interval,
            Duration::from_millis(10),
            Duration::from_secs(3600),
        )?;
        for path in paths(&section.path)? {
            let name = name(section.name.as_deref().unwrap_or(DEFAULT_NAME), &path)?;
            if let Some(other) = by_name.insert(name.clone(), path.clone()) {
                return Err(usage(format!(
                    "two databases are named {name}: {} and {}\nHINT: give each [[database]] a name of its own; with a glob, a template as name = \"{{parent}}-{{stem}}\"",
                    other.display(),
                    path.display(),
                ))
                .into());
            }
            if databases.iter().any(|database| database.path == path) {
                return Err(usage(format!(
                    "{} is configured twice\nHINT: ship a database once; remove one [[database]]",
                    path.display()
                ))
                .into());
            }
            databases.push(DatabaseConfig { path, name, sync_interval });
            if databases.len() > MAX_DATABASES {
                return Err(usage(format!("more than {MAX_DATABASES} databases")).into());
            }
        }
    }
    if databases.is_empty() {
        let globs: Vec<&str> = sections.iter().map(|section| section.path.as_str()).collect();
        return Err(usage(format!(
            "no database matches {}\nHINT: check the path, and that this user may read the directories in it",
            globs.join(", ")
        ))
        .into());
    }
    Ok(databases)
}

/// A plain path as it is (whether or not it exists); a glob's matches, by name.
fn paths(pattern: &str) -> anyhow::Result<Vec<PathBuf>> {
    if pattern.is_empty() {
        return Err(usage("database.path is empty").into());
    }
    let absolute =
        std::path::absolute(pattern).with_context(|| usage(format!("database.path {pattern}")))?;
    if !pattern.contains(['*', '?', '[']) {
        return Ok(vec![absolute]);
    }
    let options = glob::MatchOptions {
        case_sensitive: true,
        require_literal_separator: true,
        require_literal_leading_dot: true,
    };
    let text = absolute.to_str().unwrap_or(pattern);
    let found = glob::glob_with(text, options)
        .with_context(|| usage(format!("database.path {pattern}: not a valid glob")))?;
    // A directory that cannot be read holds no database that could be shipped: the rest go on.
    Ok(found
        .filter_map(Result::ok)
        .filter(|path| is_database_name(path) && path.is_file())
        .collect())
}

fn is_database_name(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    !COMPANIONS.iter().any(|end| name.ends_with(end))
}

/// Fills the template in, and refuses a name that cannot be a path segment.
fn name(template: &str, path: &Path) -> anyhow::Result<String> {
    let part = |part: Option<&std::ffi::OsStr>| {
        part.map(|part| part.to_string_lossy().into_owned()).unwrap_or_default()
    };
    let name = template
        .replace("{parent}", &part(path.parent().and_then(Path::file_name)))
        .replace("{stem}", &part(path.file_stem()));
    if let Some(wrong) = name.find(['{', '}']).map(|at| &name[at..]) {
        return Err(usage(format!(
            "name {template:?}: unknown placeholder at {wrong:?}\nHINT: placeholders are {{parent}} and {{stem}}"
        ))
        .into());
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if name.is_empty() || name.starts_with('.') || name.len() > 128 || !name.chars().all(allowed) {
        return Err(usage(format!(
            "{}: {name:?} cannot be a name\nHINT: set name to letters, digits, '.', '-' and '_' (at most 128, not starting with '.')",
            path.display()
        ))
        .into());
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn section(path: &str, name: Option<&str>) -> Section {
        Section { path: path.into(), name: name.map(Into::into), sync_interval: None }
    }

    fn refusal(sections: &[Section]) -> String {
        format!("{:#}", expand(sections).unwrap_err())
    }

    #[test]
    fn a_plain_path_need_not_exist() {
        let databases = expand(&[section("/nowhere/app.db", None)]).unwrap();
        assert_eq!(databases[0].name, "app");
        assert_eq!(databases[0].sync_interval, Duration::from_secs(1));
    }

    #[test]
    fn globs_leave_sqlite_s_own_files_out() {
        let dir = tempfile::tempdir().unwrap();
        for site in ["a", "b"] {
            std::fs::create_dir(dir.path().join(site)).unwrap();
            for file in ["app.db", "app.db-wal", "app.db-shm", "app.db-journal"] {
                std::fs::write(dir.path().join(site).join(file), "").unwrap();
            }
        }
        let glob = format!("{}/*/app.db*", dir.path().display());
        let databases = expand(&[section(&glob, Some("{parent}-{stem}"))]).unwrap();
        let names: Vec<&str> = databases.iter().map(|database| database.name.as_str()).collect();
        assert_eq!(names, ["a-app", "b-app"]);
        assert!(refusal(&[section(&glob, None)]).contains("two databases are named app"));
    }

    #[test]
    fn what_cannot_be_shipped_is_refused() {
        assert!(refusal(&[]).contains("no database is configured"));
        assert!(refusal(&[section("/nowhere/*.db", None)]).contains("no database matches"));
        assert!(refusal(&[section("/srv/my app.db", None)]).contains("cannot be a name"));
        assert!(refusal(&[section("/srv/a.db", Some("x/y"))]).contains("cannot be a name"));
        assert!(refusal(&[section("/srv/a.db", Some("{stm}"))]).contains("unknown placeholder"));
        let twice = [section("/srv/a.db", Some("a")), section("/srv/a.db", Some("b"))];
        assert!(refusal(&twice).contains("configured twice"));
        let mut slow = section("/srv/a.db", None);
        slow.sync_interval = Some(Duration::from_secs(90_000).into());
        assert!(refusal(&[slow]).contains("sync_interval"));
    }
}
