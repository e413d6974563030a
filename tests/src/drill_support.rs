//! What the drill suites need: replicas to drill, `verifier` with surroundings of its own, and servers
//! that speak the protocols of the services around it.

#![allow(clippy::missing_errors_doc)]

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use replica::format::{Encoder, Header, PageNumber, PageSize, TxidRange};
use serde_json::Value;
use tempfile::TempDir;

use crate::process::{program, repository, run};

/// A private world for `verifier`: replicas, ledger and temporary directory.
#[derive(Debug)]
pub struct Surroundings {
    directory: TempDir,
}

impl Surroundings {
    /// An empty world.
    pub fn new() -> Result<Self> {
        let directory = tempfile::tempdir().context("create surroundings")?;
        for part in ["replicas", "tmp"] {
            fs::create_dir(directory.path().join(part))?;
        }
        Ok(Self { directory })
    }

    /// Where a database's replica stands.
    #[must_use]
    pub fn replica(&self, name: &str) -> PathBuf {
        self.directory.path().join("replicas").join(name)
    }

    /// The replica's URL.
    #[must_use]
    pub fn url(&self, name: &str) -> String {
        format!("file://{}", self.replica(name).display())
    }

    /// The ledger's file.
    #[must_use]
    pub fn ledger(&self) -> PathBuf {
        self.directory.path().join("ledger.db")
    }

    /// Where copies are restored.
    #[must_use]
    pub fn temporary(&self) -> PathBuf {
        self.directory.path().join("tmp")
    }

    /// Copies the replica of a fixture, or another replica of this world.
    pub fn copy_replica(&self, from: &Path, name: &str) -> Result<()> {
        copy_tree(from, &self.replica(name))
    }

    /// `verifier`, configured by its environment for this world.
    pub fn verifier(&self) -> Result<Command> {
        let mut command = program("verifier")?;
        command
            .env("TMPDIR", self.temporary())
            .env("SEAWORTHY_REPLICA__URL", self.url(""))
            .env("SEAWORTHY_LEDGER__URL", format!("sqlite://{}", self.ledger().display()))
            .env("AWS_REGION", "eu-central-1")
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test");
        Ok(command)
    }

    /// Drills one database; the record, after the temporary directory was found empty.
    pub fn drill(&self, arguments: &[&str], expected_exit: i32) -> Result<Value> {
        let mut command = self.verifier()?;
        let output = run(command.arg("drill").args(arguments).arg("--json"), expected_exit)?;
        self.nothing_left()?;
        serde_json::from_slice(&output.stdout).context("read record from stdout")
    }

    /// Fails if anything of a copy is left.
    pub fn nothing_left(&self) -> Result<()> {
        let left: Vec<_> = fs::read_dir(self.temporary())?.collect::<io::Result<_>>()?;
        ensure!(left.is_empty(), "left behind: {left:?}");
        Ok(())
    }

    /// The documents of the ledger's rows, by start.
    pub fn recorded(&self) -> Result<Vec<Value>> {
        let ledger = rusqlite::Connection::open(self.ledger())?;
        let mut rows = ledger.prepare("SELECT document FROM drill ORDER BY started_at, id")?;
        let rows = rows.query_map((), |row| row.get::<_, String>(0))?;
        rows.map(|text| serde_json::from_str(&text?).context("read document")).collect()
    }
}

/// The status of a check in a record, `absent` where it was not made.
#[must_use]
pub fn status<'a>(record: &'a Value, check: &str) -> &'a str {
    field(record, check, "status").unwrap_or("absent")
}

/// The detail of a check in a record.
#[must_use]
pub fn detail<'a>(record: &'a Value, check: &str) -> &'a str {
    field(record, check, "detail").unwrap_or_default()
}

fn field<'a>(record: &'a Value, check: &str, field: &str) -> Option<&'a str> {
    let checks = record.get("checks")?.as_array()?;
    checks.iter().find(|found| found["name"] == check)?.get(field)?.as_str()
}

/// A fixture's folder.
#[must_use]
pub fn fixture(name: &str) -> PathBuf {
    repository().join("tests/fixtures").join(name)
}

/// What Litestream restores from a fixture.
pub fn expected(name: &str) -> Result<Value> {
    let text = fs::read(fixture(name).join("expected.json"))?;
    serde_json::from_slice(&text).context("read expected.json")
}

/// Copies a directory with all that is in it.
pub fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("read {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// The generation that [`ship_snapshot`] writes.
pub const GENERATION: &str = "0192f0c1-2345-7abc-8def-0123456789ab";

/// Makes a database from `sql`, lets `damage` change its bytes, and writes it as the only snapshot of a
/// generation, with every checksum right.
pub fn ship_snapshot(replica: &Path, sql: &str, damage: impl Fn(&mut Vec<u8>)) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("source.db");
    rusqlite::Connection::open(&path)?.execute_batch(sql)?;
    let mut bytes = fs::read(&path)?;
    damage(&mut bytes);
    let page_size = PageSize::new(4096)?;
    let txids = TxidRange::single(replica::format::Txid::FIRST);
    let level = replica.join(GENERATION).join("ltx/9");
    fs::create_dir_all(&level)?;
    let header = Header {
        page_size,
        commit: u32::try_from(bytes.len() / page_size.len())?,
        txids,
        timestamp: Timestamp::from_millisecond(Timestamp::now().as_millisecond())?,
        checksummed: false,
        pre_apply: None,
        wal: None,
        node_id: 0,
    };
    let out = BufWriter::new(File::create(level.join(txids.file_name()))?);
    let mut encoder = Encoder::new(out, io::Cursor::new(Vec::new()), header)?;
    for (number, page) in (1..).zip(bytes.chunks(page_size.len())) {
        encoder.page(PageNumber::new(number)?, page)?;
    }
    encoder.finish(None)?.out.flush()?;
    Ok(())
}

/// A call that SQLite computes for hours, and does not interrupt.
pub const UNINTERRUPTIBLE: &str =
    "instr(printf('%.*c', 16000000, 'a'), printf('%.*c', 8000000, 'a') || 'b')";

/// As [`ship_snapshot`], a database with an index over such a call: that it was made is a lie of its bytes.
pub fn ship_uninterruptible(replica: &Path) -> Result<()> {
    let sql = "CREATE TABLE t(x, n INT); \
        CREATE INDEX i ON t(instr(printf('%.*c', n & 16777215, 'a'), printf('%.*c', (n & 16777215) / 2, 'a') || x)); \
        INSERT INTO t VALUES ('b', 0x01000000)";
    ship_snapshot(replica, sql, |bytes| {
        let cheap = [b'b', 1, 0, 0, 0];
        let at = bytes.windows(cheap.len()).position(|window| window == cheap);
        if let Some(number) = at.and_then(|at| bytes.get_mut(at + 2..at + 5)) {
            number.copy_from_slice(&[0xf4, 0x24, 0]);
        }
    })
}

/// Writes a heartbeat of [`GENERATION`]: TXID, and times as minutes before now.
pub fn write_heartbeat(replica: &Path, txid: &str, minutes_ago: i64) -> Result<()> {
    let at = Timestamp::from_second(Timestamp::now().as_second() - minutes_ago * 60)?;
    // As the snapshot says, where there is one.
    let name = TxidRange::single(replica::format::Txid::FIRST).file_name();
    let snapshot = fs::read(replica.join(GENERATION).join("ltx/9").join(name)).unwrap_or_default();
    let commit = snapshot.get(12..16).and_then(|bytes| bytes.try_into().ok());
    let pages = commit.map_or(2, u32::from_be_bytes);
    let heartbeat = serde_json::json!({
        "version": 1, "generation": GENERATION, "txid": txid, "page_size": 4096, "page_count": pages,
        "written_at": at, "synced_at": at, "last_transaction_at": at, "wal_bytes": 0,
        "last_error": null, "shipper_version": "0.1.0", "sqlite_version": "3.54.1", "host": "web-1",
    });
    fs::create_dir_all(replica)?;
    let path = replica.join("heartbeat.json");
    fs::write(&path, heartbeat.to_string())?;
    // The store's time of it.
    Ok(fs::File::options().write(true).open(path)?.set_modified(at.into())?)
}

/// An HTTP request as a server sees it.
#[derive(Debug, Clone)]
pub struct Request {
    /// `GET`, `POST`, …
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Request {
    /// A value of a form body.
    #[must_use]
    pub fn form(&self, name: &str) -> Option<String> {
        let body = String::from_utf8_lossy(&self.body).into_owned();
        let pairs = body.split('&').filter_map(|pair| pair.split_once('='));
        pairs.into_iter().find(|(key, _)| unescaped(key) == name).map(|(_, value)| unescaped(value))
    }
}

fn unescaped(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits: Vec<u8> = rest.by_ref().take(2).collect();
                let digits = String::from_utf8_lossy(&digits).into_owned();
                bytes.push(u8::from_str_radix(&digits, 16).unwrap_or(b'?'));
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// An HTTP answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Headers beside `Content-Length`.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// Serves HTTP/1.1 on a port of its own until the test process ends.
pub fn serve(handler: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let handler = Arc::new(handler);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let handler = handler.clone();
            // A client that goes away ends its connection, nothing else.
            std::thread::spawn(move || drop(converse(&stream, &*handler)));
        }
    });
    Ok(address)
}

fn converse(stream: &TcpStream, handler: &dyn Fn(&Request) -> Answer) -> Result<()> {
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader)? {
        let answer = handler(&request);
        let mut head =
            format!("HTTP/1.1 {} .\r\nContent-Length: {}\r\n", answer.status, answer.body.len());
        for (name, value) in &answer.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let mut stream = stream;
        stream.write_all(format!("{head}\r\n").as_bytes())?;
        stream.write_all(&answer.body)?;
    }
    Ok(())
}

fn read_request(reader: &mut impl BufRead) -> Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next().context("method")?, words.next().context("path")?);
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.trim_end().split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Some(Request { method, path, body }))
}

/// A server that takes mails as SES does (`SendEmail` of the Query API), or refuses them.
#[derive(Debug, Clone)]
pub struct MailServer {
    /// Its URL.
    pub url: String,
    taken: Arc<Mutex<Vec<Request>>>,
    refusing: Arc<Mutex<bool>>,
}

impl MailServer {
    /// Starts one that takes mails.
    pub fn start() -> Result<Self> {
        let (taken, refusing) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(false)));
        let (seen, refuse) = (taken.clone(), refusing.clone());
        let address = serve(move |request| {
            let (status, body) = if *lock(&refuse) {
                (
                    400,
                    "<ErrorResponse><Error><Type>Sender</Type><Code>MessageRejected</Code>\
                       <Message>not verified</Message></Error></ErrorResponse>",
                )
            } else {
                lock(&seen).push(request.clone());
                (
                    200,
                    "<SendEmailResponse><SendEmailResult><MessageId>m</MessageId></SendEmailResult>\
                       </SendEmailResponse>",
                )
            };
            Answer { status, headers: vec![("Content-Type", "text/xml".into())], body: body.into() }
        })?;
        Ok(Self { url: format!("http://{address}"), taken, refusing })
    }

    /// Takes no more mails, or takes them again.
    pub fn refuse(&self, refuse: bool) {
        *lock(&self.refusing) = refuse;
    }

    /// The mails taken since the last call.
    #[must_use]
    pub fn take(&self) -> Vec<Request> {
        std::mem::take(&mut *lock(&self.taken))
    }

    /// Configures `verifier` to mail here.
    pub fn configure(&self, command: &mut Command) {
        command
            .env("AWS_ENDPOINT_URL_SES", &self.url)
            .env("SEAWORTHY_ALERT__FROM", "backups@acme.example")
            .env("SEAWORTHY_ALERT__TO", "ops@acme.example,boss@acme.example");
    }
}

/// The subject of a mail.
#[must_use]
pub fn subject(mail: &Request) -> String {
    mail.form("Message.Subject.Data").unwrap_or_default()
}

/// Locks, whatever happened to another thread.
pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
