//! Litestream, the independent reader and writer of the same format, and versitygw, an S3 server
//! that neither it nor this project wrote.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::process::{Process, run, tool};

const ACCESS_KEY: &str = "litestream-tests";
const SECRET_KEY: &str = "not-a-secret";
const REGION: &str = "us-east-1";

/// An S3 server with one bucket; dropped, it is gone with all it held.
#[derive(Debug)]
pub struct S3Server {
    _process: Process,
    port: u16,
    directory: TempDir,
}

impl S3Server {
    /// The only bucket.
    pub const BUCKET: &'static str = "backups";

    /// Starts a server on a free port.
    ///
    /// # Errors
    /// The tool is missing, or the server does not answer.
    pub fn start() -> Result<Self> {
        let directory = tempfile::tempdir().context("create directory for the S3 server")?;
        let (data, sidecar) = (directory.path().join("data"), directory.path().join("sidecar"));
        std::fs::create_dir_all(data.join(Self::BUCKET)).context("create bucket")?;
        std::fs::create_dir_all(&sidecar).context("create sidecar directory")?;
        let serve = |port: u16| {
            let mut server = tool("versitygw")?;
            server
                .env("ROOT_ACCESS_KEY", ACCESS_KEY)
                .env("ROOT_SECRET_KEY", SECRET_KEY)
                .args(["--port", &format!("127.0.0.1:{port}"), "--region", REGION])
                .args(["posix", "--sidecar"])
                .arg(&sidecar)
                .arg(&data);
            Ok(server)
        };
        let (process, port) = Process::start_server(serve).context("start the S3 server")?;
        Ok(Self { _process: process, port, directory })
    }

    /// Its base URL.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Names one level below a prefix of the bucket, read from the server's own directory.
    ///
    /// # Errors
    /// There is nothing below it.
    pub fn names_below(&self, prefix: &str) -> Result<Vec<String>> {
        let path = self.directory.path().join("data").join(Self::BUCKET).join(prefix);
        std::fs::read_dir(&path)
            .with_context(|| format!("list {prefix} in the bucket"))?
            .map(|entry| {
                Ok(entry.context("list bucket")?.file_name().to_string_lossy().into_owned())
            })
            .collect()
    }

    /// The credentials and the region.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
            ("AWS_REGION", REGION.to_owned()),
        ]
    }

    /// Gives a child the credentials and the region.
    pub fn authorize(&self, command: &mut Command) {
        command.envs(self.environment());
    }
}

/// Where a Litestream replica is.
#[derive(Debug, Clone, Copy)]
pub enum Replica<'a> {
    /// In a directory.
    File(&'a Path),
    /// Under this prefix of [`S3Server::BUCKET`].
    S3(&'a S3Server, &'a str),
}

impl Replica<'_> {
    /// The URL as both programs know it, without endpoint.
    #[must_use]
    pub fn url(self) -> String {
        match self {
            Self::File(path) => format!("file://{}", path.display()),
            Self::S3(_, prefix) => format!("s3://{}/{prefix}", S3Server::BUCKET),
        }
    }

    fn config(self) -> String {
        match self {
            Self::File(path) => format!("      path: {}\n", path.display()),
            Self::S3(server, prefix) => format!(
                "      type: s3\n      bucket: {}\n      path: {prefix}\n      region: {REGION}\n      \
                 endpoint: {}\n      force-path-style: true\n",
                S3Server::BUCKET,
                server.endpoint(),
            ),
        }
    }

    fn prepare(self, command: &mut Command) {
        if let Self::S3(server, _) = self {
            server.authorize(command);
        }
    }
}

/// A configuration file for one database; short intervals give several levels within seconds.
fn write_config(directory: &Path, database: &Path, replica: Replica<'_>) -> Result<PathBuf> {
    let mut text = String::from(
        "levels:\n  - interval: 1s\n  - interval: 3s\nsnapshot:\n  interval: 4s\n  retention: 1h\n\
         l0-retention: 1h\ndbs:\n",
    );
    write!(
        text,
        "  - path: {}\n    monitor-interval: 100ms\n    checkpoint-interval: 3s\n    replica:\n\
         {}      sync-interval: 200ms\n",
        database.display(),
        replica.config(),
    )
    .context("write configuration")?;
    let path = directory.join("litestream.yml");
    std::fs::write(&path, text).context("write configuration")?;
    Ok(path)
}

/// Litestream for one database, with its configuration in `directory`.
#[derive(Debug)]
pub struct Litestream<'a> {
    config: PathBuf,
    database: PathBuf,
    replica: Replica<'a>,
}

impl<'a> Litestream<'a> {
    /// Writes the configuration; nothing runs yet.
    ///
    /// # Errors
    /// The configuration cannot be written.
    pub fn new(directory: &Path, database: &Path, replica: Replica<'a>) -> Result<Self> {
        let config = write_config(directory, database, replica)?;
        Ok(Self { config, database: database.to_path_buf(), replica })
    }

    fn command(&self, verb: &str) -> Result<Command> {
        let mut command = tool("litestream")?;
        command.arg(verb).arg("-config").arg(&self.config);
        self.replica.prepare(&mut command);
        Ok(command)
    }

    /// `litestream replicate`.
    ///
    /// # Errors
    /// The tool is missing.
    pub fn replicate(&self) -> Result<Process> {
        Process::start(self.command("replicate")?)
    }

    /// `litestream restore` to `output`, at `txid` (16 hex digits) or the latest.
    ///
    /// # Errors
    /// Litestream refuses.
    pub fn restore(&self, txid: Option<&str>, output: &Path) -> Result<()> {
        let mut command = self.command("restore")?;
        if let Some(txid) = txid {
            command.args(["-txid", txid]);
        }
        run(command.arg("-o").arg(output).arg(&self.database), 0)?;
        Ok(())
    }

    /// What `litestream ltx` lists: level and last TXID of each file.
    ///
    /// # Errors
    /// Litestream refuses, or its answer is not the JSON that version 0.5.18 gives.
    pub fn files(&self) -> Result<Vec<(u64, String)>> {
        let mut command = self.command("ltx")?;
        let output = run(command.args(["-level", "all", "-json"]).arg(&self.database), 0)?;
        let answer: serde_json::Value =
            serde_json::from_slice(&output.stdout).context("parse `litestream ltx`")?;
        answer
            .as_array()
            .context("`litestream ltx` gave no list")?
            .iter()
            .map(|file| {
                let level = file["level"].as_u64().context("file without level")?;
                let txid = file["max_txid"].as_str().context("file without max_txid")?;
                Ok((level, txid.to_owned()))
            })
            .collect()
    }
}

/// `litestream restore` of a bare replica URL, as somebody would use it who has no configuration left.
///
/// # Errors
/// Litestream refuses.
pub fn restore_url(replica: Replica<'_>, output: &Path) -> Result<()> {
    let url = match replica {
        Replica::File(_) => replica.url(),
        Replica::S3(server, _) => {
            format!(
                "{}?endpoint={}&region={REGION}&forcePathStyle=true",
                replica.url(),
                server.endpoint()
            )
        }
    };
    let mut litestream = tool("litestream")?;
    replica.prepare(&mut litestream);
    run(litestream.arg("restore").arg("-o").arg(output).arg(url), 0)?;
    Ok(())
}

/// `shipper restore` of a URL to `output`, at `txid` or the latest.
///
/// # Errors
/// The restore fails.
pub fn shipper_restore(replica: Replica<'_>, txid: Option<&str>, output: &Path) -> Result<()> {
    let mut shipper = crate::process::program("shipper")?;
    shipper.arg("restore").arg(replica.url()).arg("--output").arg(output);
    if let Replica::S3(server, _) = replica {
        shipper.args(["--endpoint", &server.endpoint(), "--region", REGION]);
    }
    if let Some(txid) = txid {
        shipper.args(["--txid", txid]);
    }
    replica.prepare(&mut shipper);
    run(&mut shipper, 0)?;
    Ok(())
}
