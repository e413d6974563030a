//! `[[database]]`: paths and globs to named databases.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
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
#[derive(Debug, Clone, Deserialize)]
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
pub const MAX_DATABASES: usize = 10_000;

/// The `[[database]]` sections, to be looked for again and again: a glob's matches come and go.
#[derive(Debug, Clone)]
pub struct Patterns(Vec<Section>);

/// A file that a section asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// Absolute path of the database file.
    pub path: PathBuf,
    /// How it is shipped, or why it cannot be named.
    pub database: Result<DatabaseConfig, String>,
    /// Named by its own path: it is waited for where it does not exist.
    pub literal: bool,
}

impl Patterns {
    /// Checks what can be checked without looking for files.
    pub(super) fn new(sections: Vec<Section>) -> anyhow::Result<Self> {
        if sections.is_empty() {
            return Err(usage(
                "no database is configured\nHINT: add a [[database]] section with path = \"/path/to/app.db\"",
            )
            .into());
        }
        for section in &sections {
            super::bounded(
                "sync_interval",
                section.sync_interval(),
                Duration::from_millis(10),
                Duration::from_secs(3600),
            )?;
            if section.path.is_empty() {
                return Err(usage("database.path is empty").into());
            }
            glob::Pattern::new(&section.path).with_context(|| {
                usage(format!("database.path {}: not a valid glob", section.path))
            })?;
        }
        Ok(Self(sections))
    }

    /// Whether databases may appear later.
    #[must_use]
    pub fn has_globs(&self) -> bool {
        self.0.iter().any(Section::is_glob)
    }

    /// Everything that is asked for now, in the order of the sections; a glob's matches by name, those behind a link
    /// after those that are not, so that a file reached both ways keeps the name of its own path. Blocking: reads
    /// the directories that globs name.
    #[must_use]
    pub fn look(&self) -> Vec<Match> {
        let mut found = Vec::new();
        for section in &self.0 {
            let literal = !section.is_glob();
            for path in paths(section) {
                let template = section.name.as_deref().unwrap_or(DEFAULT_NAME);
                let database = name(template, &path).map(|name| DatabaseConfig {
                    path: path.clone(),
                    name,
                    sync_interval: section.sync_interval(),
                });
                found.push(Match { path, database, literal });
            }
        }
        found
    }
}

impl Section {
    fn is_glob(&self) -> bool {
        self.path.contains(['*', '?', '['])
    }

    fn sync_interval(&self) -> Duration {
        self.sync_interval.map_or(Duration::from_secs(1), FriendlyDuration::get)
    }
}

/// Refuses at the start what the operator wrote wrongly; what appears later is refused one by one.
pub(super) fn check(found: &[Match]) -> anyhow::Result<()> {
    let mut by_name: BTreeMap<&str, &Path> = BTreeMap::new();
    let mut by_path: BTreeMap<&Path, &str> = BTreeMap::new();
    let mut by_file: BTreeMap<(u64, u64), &Path> = BTreeMap::new();
    for Match { path, database, literal } in found {
        let database = database.as_ref().map_err(|reason| usage(reason.as_str()))?;
        if let Some(other) = by_name.insert(&database.name, path) {
            return Err(usage(format!(
                "two databases are named {}: {} and {}\nHINT: give each [[database]] a name of its own; with a glob, a template as name = \"{{parent}}-{{stem}}\"",
                database.name,
                other.display(),
                path.display(),
            ))
            .into());
        }
        if by_path.insert(path, &database.name).is_some() {
            return Err(usage(format!(
                "{} is configured twice\nHINT: ship a database once; remove one [[database]]",
                path.display()
            ))
            .into());
        }
        let Some(file) = std::fs::metadata(path).ok().filter(|_| *literal) else { continue };
        if let Some(other) = by_file.insert((file.dev(), file.ino()), path) {
            return Err(usage(format!(
                "{} and {} are the same file\nHINT: ship a database once; remove one [[database]]",
                other.display(),
                path.display(),
            ))
            .into());
        }
    }
    if found.len() > MAX_DATABASES {
        return Err(usage(format!("more than {MAX_DATABASES} databases")).into());
    }
    Ok(())
}

/// A plain path as it is (whether or not it exists); a glob's matches.
fn paths(section: &Section) -> Vec<PathBuf> {
    let pattern = &section.path;
    // Only an empty path, or a working directory that is gone, has no absolute form.
    let absolute = std::path::absolute(pattern).unwrap_or_else(|_| PathBuf::from(pattern));
    if !section.is_glob() {
        return vec![absolute];
    }
    let options = glob::MatchOptions {
        case_sensitive: true,
        require_literal_separator: true,
        require_literal_leading_dot: true,
    };
    let text = absolute.to_str().unwrap_or(pattern);
    // A directory that cannot be read holds no database that could be shipped: the rest go on.
    let mut found: Vec<PathBuf> = glob::glob_with(text, options)
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .filter(|path| is_database_name(path) && path.is_file())
        .collect();
    found.sort_by_cached_key(|path| std::fs::canonicalize(path).is_ok_and(|real| real != *path));
    found
}

fn is_database_name(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    !COMPANIONS.iter().any(|end| name.ends_with(end))
}

/// Fills the template in, and refuses a name that cannot be a path segment.
fn name(template: &str, path: &Path) -> Result<String, String> {
    let part = |part: Option<&std::ffi::OsStr>| {
        part.map(|part| part.to_string_lossy().into_owned()).unwrap_or_default()
    };
    let name = template
        .replace("{parent}", &part(path.parent().and_then(Path::file_name)))
        .replace("{stem}", &part(path.file_stem()));
    if let Some(wrong) = name.find(['{', '}']).map(|at| &name[at..]) {
        return Err(format!(
            "name {template:?}: unknown placeholder at {wrong:?}\nHINT: placeholders are {{parent}} and {{stem}}"
        ));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if name.is_empty() || name.starts_with('.') || name.len() > 128 || !name.chars().all(allowed) {
        return Err(format!(
            "{}: {name:?} cannot be a name\nHINT: set name to letters, digits, '.', '-' and '_' (at most 128, not starting with '.')",
            path.display()
        ));
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

    fn expand(sections: &[Section]) -> anyhow::Result<Vec<DatabaseConfig>> {
        let found = Patterns::new(sections.to_vec())?.look();
        check(&found)?;
        Ok(found.into_iter().map(|found| found.database.unwrap()).collect())
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
    fn a_glob_may_match_nothing_yet() {
        assert_eq!(expand(&[section("/nowhere/*.db", None)]).unwrap(), []);
    }

    #[test]
    fn one_file_by_two_paths_is_refused_and_of_a_glob_its_own_path_comes_first() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("b.db"), dir.path().join("a.db"));
        std::fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let both = [&file, &link].map(|path| section(path.to_str().unwrap(), None));
        assert!(refusal(&both).contains("are the same file"));
        let glob = format!("{}/*.db", dir.path().display());
        let databases = expand(&[section(&glob, None)]).unwrap();
        let paths: Vec<&Path> = databases.iter().map(|database| database.path.as_path()).collect();
        assert_eq!(paths, [&file, &link]);
    }

    #[test]
    fn what_cannot_be_shipped_is_refused() {
        assert!(refusal(&[]).contains("no database is configured"));
        assert!(refusal(&[section("/nowhere/***.db", None)]).contains("not a valid glob"));
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
