//! Replicas to damage: chains of ours and Litestream's, each on a stage of its own, and what `litestream restore`
//! makes of a damaged one.

#![allow(clippy::missing_errors_doc, clippy::unwrap_used)]

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use jiff::Timestamp;
use replica::documents::Heartbeat;
use replica::format::{Decoder, Level, Txid, TxidRange, merge};
use replica::store::{Body, FileStore, Key, LtxAttributes, LtxKey, Store, read_all};
use tokio::runtime::Runtime;
use verifier::drill::{InProcess, ShowProgress};
use verifier::sabotage::{Damage, Inspecting, Scratch, Stage, Trial, catalogue};

use crate::drill_support::fixture;
use crate::process::tool;
use crate::shipped::Shipped;

/// A stage, and the runtime it plays in.
#[derive(Debug)]
pub struct Theatre {
    /// The replica, copied and proven.
    pub stage: Stage,
    runtime: Runtime,
    _directory: tempfile::TempDir,
}

impl Theatre {
    /// Sets the stage for a replica.
    pub fn of(store: &dyn Store) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let silent: ShowProgress = Arc::new(|_| Arc::new(()));
        let inspecting =
            Inspecting { inspector: Arc::new(InProcess), at_most: Duration::from_secs(3600) };
        let setting = Stage::set(store, (None, None), directory.path(), &silent, inspecting);
        let stage = runtime.block_on(setting)?;
        Ok(Self { stage, runtime, _directory: directory })
    }

    /// For a fixture of Litestream v0.5.
    pub fn of_fixture(name: &str) -> Result<Self> {
        Self::of(&FileStore::new(fixture(name).join("replica")))
    }

    /// For a chain that the shipper's own engine made: a snapshot of level 9, a file of level 1, several of level 0, and a
    /// heartbeat.
    pub fn of_ours() -> Result<Self> {
        Self::of(&ours()?.store)
    }

    /// For a chain of ours whose two newest files are too large for a drill to read them every day.
    pub fn of_large_files() -> Result<Self> {
        let mut shipped = Shipped::new();
        for rows in [1, 1, 500, 500] {
            shipped.application.execute_batch(&format!(
                "CREATE TABLE IF NOT EXISTS large (content BLOB);
                 WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)
                 INSERT INTO large SELECT randomblob(70000) FROM n LIMIT {rows}"
            ))?;
            shipped.capture();
            shipped.upload().context("nothing to upload")?;
        }
        Self::of(&shipped.store)
    }

    /// Every damage of the catalogue.
    #[must_use]
    pub fn catalogue(&self) -> Vec<Damage> {
        catalogue(self.stage.scene())
    }

    /// Tries a damage; `look` sees the damaged replica before it is drilled.
    pub fn try_damage(
        &self,
        damage: &Damage,
        look: impl FnOnce(&Scratch<'_>) -> Result<()>,
    ) -> Result<Trial> {
        self.runtime.block_on(self.stage.try_damage(damage, look))
    }
}

/// A database that was shipped for a while, compacted a little.
pub fn ours() -> Result<Shipped> {
    let mut shipped = Shipped::new();
    shipped.application.execute_batch(
        "CREATE TABLE account (id INTEGER PRIMARY KEY, owner TEXT NOT NULL, balance REAL);
         INSERT INTO account VALUES (1, 'ada', 10.5), (2, 'bob', 20.25);",
    )?;
    for _ in 0..7 {
        shipped.commit();
        shipped.capture();
        shipped.upload().context("nothing to upload")?;
    }
    let generation = shipped.chain().generation().context("no generation")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let chain = replica::store::Chain::Generation(generation);
        let txids = |min, max| TxidRange::new(Txid::new(min)?, Txid::new(max)?);
        let mut inputs = Vec::new();
        for txid in [2, 3] {
            let key = LtxKey { chain, level: Level::SYNC, txids: txids(txid, txid)? };
            let file = read_all(&shipped.store, &Key::Ltx(key), 64 << 20).await?;
            inputs.push(Decoder::new(Cursor::new(file))?);
        }
        let timestamp = inputs.last().context("no input")?.header().timestamp;
        let merged = merge(inputs, Vec::new(), Cursor::new(Vec::new()))?;
        let key = LtxKey { chain, level: Level::new(1)?, txids: txids(2, 3)? };
        let attributes = LtxAttributes { timestamp, checksum: merged.trailer.file };
        let body = Body::Bytes(Bytes::from(merged.out));
        shipped.store.put_ltx(&key, body, attributes).await?;
        let heartbeat = heartbeat(&shipped)?;
        shipped.store.put_document(&Key::Heartbeat, heartbeat).await?;
        anyhow::Ok(())
    })?;
    Ok(shipped)
}

fn heartbeat(shipped: &Shipped) -> Result<Bytes> {
    let durable = shipped.chain().durable_state().context("nothing is durable")?;
    let now = Timestamp::now();
    let heartbeat = Heartbeat {
        version: 1,
        generation: shipped.chain().generation().context("no generation")?,
        txid: Some(durable.txid),
        page_size: shipped.chain().page_size(),
        page_count: durable.page_count,
        written_at: now,
        synced_at: Some(now),
        last_transaction_at: Some(now),
        wal_bytes: 0,
        last_error: None,
        shipper_version: "0.1.0".into(),
        sqlite_version: rusqlite::version().into(),
        host: "web-1".into(),
        scrub: None,
        other_host: None,
    };
    Ok(Bytes::from(serde_json::to_vec(&heartbeat)?))
}

/// What `litestream restore` says to a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Litestream {
    /// It refuses.
    Refuses,
    /// It dies of a panic.
    Panics,
    /// It restores what was shipped.
    Right,
    /// It restores something else, and says nothing.
    SilentlyWrong,
}

impl std::fmt::Display for Litestream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Refuses => "refuses",
            Self::Panics => "refuses (panics)",
            Self::Right => "restores it",
            Self::SilentlyWrong => "**restores something else, exit 0**",
        })
    }
}

/// Restores the directory that holds the levels with `litestream restore`.
pub fn litestream(replica: &Path, undamaged: &Path) -> Result<Litestream> {
    let directory = tempfile::tempdir()?;
    let output: PathBuf = directory.path().join("restored.db");
    let mut command: Command = tool("litestream")?;
    command.arg("restore").arg("-o").arg(&output).arg(format!("file://{}", replica.display()));
    let ended = command.output().context("start litestream")?;
    if !ended.status.success() {
        let panicked = String::from_utf8_lossy(&ended.stderr).contains("panic: ");
        return Ok(if panicked { Litestream::Panics } else { Litestream::Refuses });
    }
    let right = fs::read(&output)? == fs::read(undamaged)?;
    Ok(if right { Litestream::Right } else { Litestream::SilentlyWrong })
}
