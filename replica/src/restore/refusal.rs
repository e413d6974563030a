//! What a restore says where it cannot give what was asked for: each refusal with a way to go on.

use jiff::Timestamp;

use crate::format::Txid;
use crate::restore::{Inventory, RestoreError, Target};
use crate::store::{Chain, Store};

/// The newest state of a generation, and how to get it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rival {
    /// The generation.
    pub chain: Chain,
    /// Its newest state.
    pub txid: Txid,
    /// When that was committed.
    pub timestamp: Timestamp,
    /// The command that restores it.
    pub command: String,
}

impl Rival {
    pub(super) fn new(store: &dyn Store, chain: Chain, txid: Txid, timestamp: Timestamp) -> Self {
        Self { chain, txid, timestamp, command: command(store, chain, txid) }
    }
}

impl std::fmt::Display for Rival {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { chain, txid, timestamp, command } = self;
        write!(f, "generation {chain} up to TXID {txid}, as of {timestamp}: `{command}`")
    }
}

/// The command that restores exactly this.
fn command(store: &dyn Store, chain: Chain, txid: Txid) -> String {
    let url = store.url();
    match chain {
        Chain::Root => format!("shipper restore {url} --txid {txid} --output FILE"),
        Chain::Generation(id) => {
            format!("shipper restore {url} --generation {id} --txid {txid} --output FILE")
        }
    }
}

pub(super) fn too_early(target: Target) -> RestoreError {
    let what = match target {
        Target::AtOrBefore(limit) => format!("no restore point at or before {limit}"),
        Target::Latest | Target::Txid(_) => "no restore point".to_owned(),
    };
    RestoreError::Chain {
        message: format!("{what}\nHINT: `shipper points` lists the times that can be asked for"),
    }
}

pub(super) fn nothing(store: &dyn Store, chains: &[Chain]) -> RestoreError {
    let url = store.url();
    let message = if chains.is_empty() {
        format!(
            "no replica at {url}\nHINT: check the database's name and the URL; it is the directory that holds the generations"
        )
    } else {
        format!(
            "no files in any of the {} generations at {url}\nHINT: the first snapshot may still be on its way; otherwise its files are lost",
            chains.len()
        )
    };
    RestoreError::Chain { message }
}

/// The snapshot is a generation's first upload, so where there is anything else, it was there.
pub(super) fn no_snapshot(
    store: &dyn Store,
    inventory: &Inventory,
    newest: Option<Rival>,
) -> RestoreError {
    let hint = match newest {
        Some(point) => {
            format!("its snapshot is lost; the newest point that can be had is older data: {point}")
        }
        None => "its snapshot is lost, and no other generation can be restored".to_owned(),
    };
    RestoreError::Chain {
        message: format!(
            "generation {} at {}: no snapshot (no file starts at TXID {}), although later files are there\nHINT: {hint}",
            inventory.chain,
            store.url(),
            Txid::FIRST
        ),
    }
}

pub(super) fn unknown_chain(store: &dyn Store, chain: Chain, chains: &[Chain]) -> RestoreError {
    let known: Vec<String> = chains.iter().rev().take(5).map(ToString::to_string).collect();
    let url = store.url();
    let hint = if known.is_empty() {
        "there is none; check the URL".to_owned()
    } else {
        format!("the newest there are {}", known.join(", "))
    };
    RestoreError::Chain { message: format!("no generation {chain} at {url}\nHINT: {hint}") }
}
