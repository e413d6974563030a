//! A real `shipper run` with its configuration, and what an operator would look at beside it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use rusqlite::Connection;
use serde_json::Value;

use crate::process::{PATIENCE, Process, program, run};

/// Ships databases of one directory to one replica.
#[derive(Debug)]
pub struct Shipping {
    directory: PathBuf,
    replica: String,
    environment: Vec<(&'static str, String)>,
}

impl Shipping {
    /// Ships to `url` (with further lines of the `[replica]` section in `options`).
    #[must_use]
    pub fn new(
        directory: &Path,
        url: &str,
        options: &str,
        environment: Vec<(&'static str, String)>,
    ) -> Self {
        let replica = format!("url = \"{url}\"\n{options}");
        Self { directory: directory.to_owned(), replica, environment }
    }

    /// Ships to `replica`, a directory in `directory`.
    #[must_use]
    pub fn to_files(directory: &Path) -> Self {
        let url = format!("file://{}", directory.join("replica").display());
        Self::new(directory, &url, "", Vec::new())
    }

    /// Writes a configuration for `databases` (name and path) and returns its path.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn configure(&self, databases: &[(&str, &Path)], interval: &str) -> Result<PathBuf> {
        let mut text = format!(
            "state_dir = \"{}\"\nruntime_dir = \"{}\"\n[replica]\n{}\n",
            self.directory.join("state").display(),
            self.directory.join("run").display(),
            self.replica
        );
        for (name, path) in databases {
            write!(
                text,
                "[[database]]\nname = \"{name}\"\npath = \"{}\"\nsync_interval = \"{interval}\"\n",
                path.display()
            )?;
        }
        let path = self.directory.join("shipper.toml");
        std::fs::write(&path, text).context("write configuration")?;
        Ok(path)
    }

    /// `shipper` with the right to the replica.
    ///
    /// # Errors
    /// It cannot be built.
    pub fn shipper(&self) -> Result<Command> {
        let mut command = program("shipper")?;
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        Ok(command)
    }

    /// Starts `shipper run` and waits until it is ready.
    ///
    /// # Errors
    /// It ends instead.
    pub fn start(&self, databases: &[(&str, &Path)], interval: &str) -> Result<Process> {
        let mut shipper = self.spawn(databases, interval)?;
        shipper.until_it_says("ready")?;
        Ok(shipper)
    }

    /// Starts `shipper run`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(&self, databases: &[(&str, &Path)], interval: &str) -> Result<Process> {
        let config = self.configure(databases, interval)?;
        let mut command = self.shipper()?;
        command.arg("run").arg("--config").arg(config);
        Process::start(command)
    }

    /// `shipper <words>` with this configuration, run to its end.
    ///
    /// # Errors
    /// Its exit code is not `expected`; the message has its output.
    pub fn ask(&self, words: &[&str], expected: i32) -> Result<Output> {
        let mut command = self.shipper()?;
        command.args(words).arg("--config").arg(self.directory.join("shipper.toml"));
        run(&mut command, expected)
    }

    /// `shipper sync` of the databases of these names (none: of all): what is committed is in the replica.
    ///
    /// # Errors
    /// Its exit code is not 0; the message has its output.
    pub fn sync(&self, names: &[&str]) -> Result<Output> {
        let timeout = format!("{}s", PATIENCE.as_secs());
        self.ask(&[&["sync", "--timeout", &timeout], names].concat(), 0)
    }

    /// `shipper status --json`.
    ///
    /// # Errors
    /// Its exit code is not `expected`; the message has its output.
    pub fn status(&self, expected: i32) -> Result<Value> {
        let output = self.ask(&["status", "--json"], expected)?;
        serde_json::from_slice(&output.stdout).context("read the status")
    }

    /// Restores the newest state of `name` to `output`.
    ///
    /// # Errors
    /// The restore's, with its output.
    pub fn restore(&self, name: &str, output: &Path) -> Result<()> {
        self.restore_with(name, output, &[])
    }

    /// Restores `name` to `output`, as `options` ask.
    ///
    /// # Errors
    /// The restore's, with its output.
    pub fn restore_with(&self, name: &str, output: &Path, options: &[&str]) -> Result<()> {
        let mut command = self.shipper()?;
        command.arg("restore").arg(name).arg("--config").arg(self.directory.join("shipper.toml"));
        command.arg("--output").arg(output).args(options);
        run(&mut command, 0).map(|_| ())
    }
}

/// The most memory that a process has had resident, bytes.
///
/// # Errors
/// It is gone.
pub fn peak_memory(process: &Process) -> Result<u64> {
    let path = format!("/proc/{}/status", process.id());
    let status = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .and_then(|number| number.trim().parse::<u64>().ok())
        .context("read VmHWM")?;
    Ok(kib << 10)
}

/// Compares two databases row by row, both ways, and checks the copy's integrity.
///
/// # Errors
/// They differ; the message names the table.
pub fn same_rows(copy: &Path, source: &Path) -> Result<()> {
    let db = Connection::open(copy).context("open copy")?;
    let verdict: String =
        db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).context("check integrity")?;
    ensure!(verdict == "ok", "{}: {verdict}", copy.display());
    db.execute("ATTACH ?1 AS source", [source.display().to_string()]).context("attach source")?;
    let schema = "SELECT type || ' ' || name || ' ' || coalesce(sql, '') FROM";
    let mut sources = vec![(
        "schema".to_owned(),
        format!("{schema} main.sqlite_schema"),
        format!("{schema} source.sqlite_schema"),
    )];
    let mut tables = db.prepare("SELECT name FROM source.sqlite_schema WHERE type = 'table'")?;
    for name in tables.query_map([], |row| row.get::<_, String>(0))? {
        let name = name?;
        sources.push((
            name.clone(),
            format!("SELECT * FROM main.\"{name}\""),
            format!("SELECT * FROM source.\"{name}\""),
        ));
    }
    for (what, ours, theirs) in sources {
        let sql = format!(
            "SELECT (SELECT count(*) FROM ({ours} EXCEPT {theirs})),
                    (SELECT count(*) FROM ({theirs} EXCEPT {ours}))"
        );
        let differing: (i64, i64) = db.query_row(&sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        ensure!(differing == (0, 0), "{what}: rows only in the copy, the source: {differing:?}");
    }
    Ok(())
}
