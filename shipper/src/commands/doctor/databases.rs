//! The databases: what can be attached, and what their owners should know.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::findings::Findings;
use crate::commands::readable_bytes;
use crate::config::{Config, Match};
use crate::wal::attach;

pub(super) fn examine(config: &Config, found: &[Match], findings: &mut Findings) {
    if found.is_empty() {
        findings.warn(
            "no file matches [[database]] path\n\
             HINT: check the path, and that this user may read its directories; what appears later is shipped",
        );
        return;
    }
    let mut attachable = false;
    let mut files: BTreeMap<(u64, u64), &str> = BTreeMap::new();
    let mut names: BTreeMap<&str, &Path> = BTreeMap::new();
    for found in found {
        let path = found.path.as_path();
        let database = match &found.database {
            Ok(database) => database,
            Err(reason) => {
                findings.fail(reason);
                continue;
            }
        };
        let name = &database.name;
        if let Some(other) = names.insert(name, path).filter(|other| *other != path) {
            findings.fail(format!(
                "{name}: two databases would have this name: {} and {}\n\
                 HINT: give each a name of its own, with a template as name = \"{{parent}}-{{stem}}\"",
                other.display(),
                path.display()
            ));
            continue;
        }
        if let Ok(file) = std::fs::metadata(path)
            && let Some(other) = files.insert((file.dev(), file.ino()), name)
        {
            findings.fail(format!(
                "{name}: {} is the same file as database {other}\n\
                 HINT: ship a database once; let the glob not match the link",
                path.display()
            ));
            continue;
        }
        match attach::check(path) {
            Ok(header) => {
                attachable = true;
                let size = readable_bytes(size(&header.real));
                findings.ok(format!(
                    "{name}: {} can be attached: WAL mode, {size}, pages of {} bytes",
                    path.display(),
                    header.page_size
                ));
                match header.warning() {
                    Some(warning) => findings.warn(format!("{name}: {warning}")),
                    None => findings
                        .ok(format!("{name}: the application's SQLite is not known to lose pages")),
                }
            }
            Err(refusal) => findings.fail(format!("{name}: {refusal}")),
        }
    }
    if attachable {
        if rustix::process::geteuid().is_root() {
            findings.warn(
                "this is root, who may do what the shipper's user may not\n\
                 HINT: for the rights on the databases: sudo -u <User= of the unit> shipper doctor",
            );
        }
        findings.ok(
            "while the shipper is attached, PRAGMA journal_mode=DELETE fails in the application (\"database is \
             locked\"): stop the shipper first",
        );
    }
    if config.databases.has_globs() {
        findings.ok("databases that match a glob later are shipped within seconds");
    }
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |file| file.len())
}
