//! `[[database]]`: paths and globs to named databases.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use replica::operator::{FriendlyDuration, usage};
use replica::store::Root;
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
/// Longest name.
const NAME_MAX: usize = 128;
/// How long a start waits for the file system to tell whether two paths lead to one file.
const IDENTITY_WITHIN: Duration = Duration::from_secs(3);
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
            check_template(section.template()).map_err(usage)?;
        }
        Ok(Self(sections))
    }

    /// Whether databases may appear later.
    #[must_use]
    pub fn has_globs(&self) -> bool {
        self.0.iter().any(Section::is_glob)
    }

    /// Everything that is asked for now: what sections name by its own path, in their order, then what globs match. A
    /// path that has a section of its own is no glob's. A glob's matches are in the order of their names, those behind a
    /// link after those that are not, so that a file reached both ways keeps the name of its own path. Blocking: reads the
    /// directories that globs name.
    #[must_use]
    pub fn look(&self) -> Vec<Match> {
        let mut found = self.literal();
        let own: BTreeSet<PathBuf> = found.iter().map(|found| found.path.clone()).collect();
        for section in self.0.iter().filter(|section| section.is_glob()) {
            let paths = matches(section).into_iter().filter(|path| !own.contains(path));
            found.extend(paths.map(|path| section.named(path)));
        }
        found
    }

    /// What sections name by its own path, whether or not it exists.
    #[must_use]
    pub fn literal(&self) -> Vec<Match> {
        let sections = self.0.iter().filter(|section| !section.is_glob());
        sections.map(|section| section.named(section.absolute())).collect()
    }
}

impl Section {
    fn is_glob(&self) -> bool {
        self.path.contains(['*', '?', '['])
    }

    fn template(&self) -> &str {
        self.name.as_deref().unwrap_or(DEFAULT_NAME)
    }

    fn absolute(&self) -> PathBuf {
        // Only an empty path, or a working directory that is gone, has no absolute form.
        std::path::absolute(&self.path).unwrap_or_else(|_| PathBuf::from(&self.path))
    }

    /// One of its files, under the name that the template gives it.
    fn named(&self, path: PathBuf) -> Match {
        let named = name(self.template(), &path, !self.is_glob());
        let database = named.map(|name| DatabaseConfig {
            path: path.clone(),
            name,
            sync_interval: self.sync_interval(),
        });
        Match { path, database, literal: !self.is_glob() }
    }

    fn sync_interval(&self) -> Duration {
        self.sync_interval.map_or(Duration::from_secs(1), FriendlyDuration::get)
    }
}

/// Refuses what the operator wrote wrongly: databases that are named by their own paths. What a glob matches is not written
/// by anybody, and refused one by one: a file that somebody puts there must not end the start for all others.
pub(super) fn check(found: &[Match]) -> anyhow::Result<()> {
    let mut by_name: BTreeMap<&str, &Path> = BTreeMap::new();
    let mut by_path: BTreeMap<&Path, &str> = BTreeMap::new();
    let mut by_file: BTreeMap<(u64, u64), &Path> = BTreeMap::new();
    for Match { path, database, .. } in found {
        let database = database.as_ref().map_err(|reason| usage(reason.as_str()))?;
        if let Some(other) = by_name.insert(&database.name, path) {
            return Err(usage(format!(
                "two databases are named {}: {} and {}\nHINT: give each [[database]] a name of its own",
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
        let Some(file) = identity(path) else { continue };
        if let Some(other) = by_file.insert(file, path) {
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

/// Device and inode, where the file system tells them in time: one that hangs must not keep the others from being shipped.
fn identity(path: &Path) -> Option<(u64, u64)> {
    let (tell, told) = std::sync::mpsc::channel();
    let path = path.to_owned();
    std::thread::spawn(move || {
        let file = std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
        // Too late, nobody listens.
        let _ = tell.send(file);
    });
    told.recv_timeout(IDENTITY_WITHIN).ok().flatten()
}

/// A glob's matches.
fn matches(section: &Section) -> Vec<PathBuf> {
    let absolute = section.absolute();
    let options = glob::MatchOptions {
        case_sensitive: true,
        require_literal_separator: true,
        require_literal_leading_dot: true,
    };
    let text = absolute.to_str().unwrap_or(&section.path);
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

/// Fills the template in, and refuses what cannot be a name in the replica.
fn name(template: &str, path: &Path, literal: bool) -> Result<String, String> {
    let name = filled(template, path);
    if is_name(&name) {
        return Ok(name);
    }
    let prefixed = format!("db-{template}");
    let advice = if literal {
        format!("set name = \"{}\"", plain(&name))
    } else if is_name(&filled(&prefixed, path)) {
        // It is the name of a part of a replica.
        format!("set name = \"{prefixed}\"")
    } else {
        format!(
            "rename the file, or give it a [[database]] section of its own, with path = \"{}\" and name = \"{}\"",
            path.display(),
            plain(&name)
        )
    };
    Err(format!(
        "{}: {name:?} cannot be a name\n\
         HINT: {advice}: a name has letters, digits, '.', '-' and '_' (at most {NAME_MAX}, not starting with '.'), and is \
         none that a replica uses itself (a UUID, 0000 to 0009, ltx, generations)",
        path.display()
    ))
}

fn filled(template: &str, path: &Path) -> String {
    let part = |part: Option<&std::ffi::OsStr>| {
        part.map(|part| part.to_string_lossy().into_owned()).unwrap_or_default()
    };
    template
        .replace("{parent}", &part(path.parent().and_then(Path::file_name)))
        .replace("{stem}", &part(path.file_stem()))
}

fn is_name(name: &str) -> bool {
    name.len() <= NAME_MAX && Root::takes_name(name)
}

/// A name like this one that can be one.
fn plain(name: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let plain: String = name.chars().map(|c| if allowed(c) { c } else { '-' }).collect();
    let short: String = plain.trim_start_matches('.').chars().take(NAME_MAX - 3).collect();
    if is_name(&short) { short } else { format!("db-{short}") }
}

fn check_template(template: &str) -> Result<(), String> {
    let rest = template.replace("{parent}", "").replace("{stem}", "");
    match rest.find(['{', '}']) {
        Some(at) => Err(format!(
            "name {template:?}: unknown placeholder at {:?}\nHINT: placeholders are {{parent}} and {{stem}}",
            &rest[at..]
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn section(path: &str, name: Option<&str>) -> Section {
        Section { path: path.into(), name: name.map(Into::into), sync_interval: None }
    }

    fn expand(sections: &[Section]) -> anyhow::Result<Vec<DatabaseConfig>> {
        let patterns = Patterns::new(sections.to_vec())?;
        check(&patterns.literal())?;
        let found = patterns.look();
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
    }

    #[test]
    fn what_a_glob_matches_and_cannot_be_named_is_refused_alone_with_a_way_to_name_it() {
        let dir = tempfile::tempdir().unwrap();
        let uuid = "3f2b8c1e-9d4a-4c6b-8f1e-2a7b9c0d1e2f";
        let long = "x".repeat(NAME_MAX + 1);
        let odd = [
            "app copy",
            "kunden-müller",
            "0000",
            "ltx",
            "generations",
            uuid,
            &long,
            "a{b",
            "new\nline",
        ];
        for name in odd.into_iter().chain(["app"]) {
            std::fs::write(dir.path().join(format!("{name}.db")), "").unwrap();
        }
        let glob = section(&format!("{}/*.db", dir.path().display()), None);
        let patterns = Patterns::new(vec![glob.clone()]).unwrap();
        check(&patterns.literal()).unwrap();
        let found = patterns.look();
        assert_eq!(found.len(), odd.len() + 1);
        let named: Vec<_> = found.iter().filter_map(|found| found.database.as_ref().ok()).collect();
        assert_eq!(named.iter().map(|named| named.name.as_str()).collect::<Vec<_>>(), ["app"]);
        for found in &found {
            let Err(reason) = &found.database else { continue };
            assert!(reason.contains("cannot be a name\nHINT: "), "{reason}");
            // What the hint says works.
            let (_, advice) = reason.split_once("name = \"").unwrap();
            let (advised, _) = advice.split_once('"').unwrap();
            let own = section(found.path.to_str().unwrap(), Some(advised));
            let patterns = Patterns::new(vec![glob.clone(), own]).unwrap();
            check(&patterns.literal()).unwrap();
            let mut again = patterns.look().into_iter().filter(|other| other.path == found.path);
            assert!(again.next().unwrap().database.is_ok(), "{reason}");
            assert_eq!(again.next(), None, "a path with a section of its own is no glob's");
        }
        let literal = section(&format!("{}/0000.db", dir.path().display()), None);
        assert!(refusal(&[literal]).contains("set name = \"db-0000\""));
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
