//! `shipper points`: what a database can be restored to.

use std::fmt::Write;

use anyhow::Context;
use replica::operator::{Exit, LogFormat, block_on, init_logging};
use replica::restore::points;
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
    let points = points(store.as_ref())
        .await
        .with_context(|| format!("list restore points of {}", store.url()))?;
    if database.json {
        let points: Vec<Value> = points
            .iter()
            .map(|point| {
                json!({
                    "generation": match point.chain {
                        Chain::Root => Value::Null,
                        Chain::Generation(id) => json!(id),
                    },
                    "txid": point.txid,
                    "timestamp": point.timestamp,
                    "bytes": point.bytes,
                })
            })
            .collect();
        print_json(&json!({ "replica": store.url(), "points": points }))?;
        return Ok(Exit::Holds);
    }
    let mut text =
        format!("{:36}  {:16}  {:24}  {:>12}\n", "GENERATION", "TXID", "TIMESTAMP", "SIZE");
    for point in &points {
        let _ = writeln!(
            text,
            "{:36}  {:16}  {:24}  {:>12}",
            point.chain.to_string(),
            point.txid.to_string(),
            point.timestamp.to_string(),
            readable_bytes(point.bytes)
        );
    }
    print(&text)?;
    Ok(Exit::Holds)
}
