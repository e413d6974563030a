//! `shipper points`: what a database can be restored to.

use std::fmt::Write;

use anyhow::Context;
use jiff::Timestamp;
use replica::format::Txid;
use replica::operator::{Exit, LogFormat, block_on, init_logging};
use replica::restore::{RestorePoint, V03Point, all_points};
use replica::store::Chain;
use serde_json::{Value, json};

use crate::cli::PointsArgs;
use crate::commands::{print, print_json, readable_bytes};
use crate::config::ReplicaConfig;

/// Lists the restore points.
///
/// # Errors
/// A replica that cannot be read, or that holds nothing that can be restored.
pub fn run(args: PointsArgs) -> anyhow::Result<Exit> {
    init_logging(LogFormat::Text, "warn");
    block_on(list(args))
}

async fn list(args: PointsArgs) -> anyhow::Result<Exit> {
    let database = &args.database;
    let configured = || {
        let replica = ReplicaConfig::load(&database.config)?;
        Ok((replica.url, replica.options))
    };
    let store = database.database.open(configured, &database.options()).await?;
    let points = all_points(store.as_ref())
        .await
        .with_context(|| format!("list restore points of {}", store.url()))?;
    for remark in &points.remarks {
        tracing::warn!("{remark}");
    }
    let rows: Vec<Row> =
        points.v03.iter().map(Row::from).chain(points.ltx.iter().map(Row::from)).collect();
    if database.json {
        let points: Vec<Value> = rows
            .iter()
            .map(|row| {
                json!({
                    "generation": row.generation,
                    "txid": row.txid,
                    "timestamp": row.timestamp,
                    "bytes": row.bytes,
                })
            })
            .collect();
        print_json(&json!({ "replica": store.url(), "points": points }))?;
        return Ok(Exit::Holds);
    }
    let mut text =
        format!("{:36}  {:16}  {:24}  {:>12}\n", "GENERATION", "TXID", "TIMESTAMP", "SIZE");
    for row in &rows {
        let txid = row.txid.map_or_else(|| "-".to_owned(), |txid| txid.to_string());
        let _ = writeln!(
            text,
            "{:36}  {:16}  {:24}  {:>12}",
            row.generation.as_deref().unwrap_or("(root)"),
            txid,
            row.timestamp.to_string(),
            readable_bytes(row.bytes)
        );
    }
    print(&text)?;
    Ok(Exit::Holds)
}

/// One point of either kind of replica.
struct Row {
    /// `None` for LTX files that Litestream wrote.
    generation: Option<String>,
    /// `None` where Litestream v0.3 wrote it.
    txid: Option<Txid>,
    timestamp: Timestamp,
    bytes: u64,
}

impl From<&RestorePoint> for Row {
    fn from(point: &RestorePoint) -> Self {
        let generation = match point.chain {
            Chain::Root => None,
            Chain::Generation(id) => Some(id.to_string()),
        };
        let RestorePoint { timestamp, bytes, .. } = *point;
        Self { generation, txid: Some(point.txid), timestamp, bytes }
    }
}

impl From<&V03Point> for Row {
    fn from(point: &V03Point) -> Self {
        let generation = Some(point.generation.to_string());
        Self { generation, txid: None, timestamp: point.timestamp, bytes: point.bytes }
    }
}
