//! Before a drill says that something is missing: is it only missing from the listing?
//!
//! Some stores list what was written a moment ago only later, although they give it to whoever asks for its key. A
//! witness (heartbeat, last PASS) names a TXID; what the way to it lacks is asked for.

use replica::format::{Level, Txid, TxidRange};
use replica::restore::Inventory;
use replica::store::{Chain, Key, LtxKey, Store};

use crate::record::{Check, Status};

/// A chain and a TXID in it that a witness saw.
pub(super) type Seen = (Chain, Txid);

/// `check` as it is; or, where it failed and the store has an object that its listing does not show, an error.
pub(super) async fn excuse(check: Check, store: &dyn Store, witnesses: &[Seen]) -> Check {
    if check.status != Status::Fail {
        return check;
    }
    for &(chain, txid) in witnesses {
        if let Some(object) = unlisted(store, chain, txid).await {
            let detail = format!(
                "{object} is there, but the store's listing does not show it (yet): nothing is known of what is missing\n\
                 HINT: drill again in a while; if that goes on, ask the store's operator why listings lag behind\n\
                 {}",
                check.detail.lines().next().unwrap_or_default()
            );
            return Check { status: Status::Error, detail, ..check };
        }
    }
    check
}

/// Whether a chain leads to what was seen of it: that another chain is the latest by now loses nothing then.
pub(super) async fn holds(store: &dyn Store, seen: Seen) -> bool {
    let (chain, txid) = seen;
    match Inventory::read(store, chain).await {
        Ok(inventory) => end(&ranges(&inventory)) >= Some(txid),
        Err(_) => false,
    }
}

fn ranges(inventory: &Inventory) -> Vec<TxidRange> {
    inventory.files.iter().map(|file| file.txids).collect()
}

/// The first object on the way to `txid` that is not listed, if it is there all the same.
async fn unlisted(store: &dyn Store, chain: Chain, txid: Txid) -> Option<String> {
    let inventory = Inventory::read(store, chain).await.ok()?;
    let listed = ranges(&inventory);
    let next = end(&listed).map_or(Txid::FIRST, Txid::next);
    for (level, txids) in [
        (Level::SNAPSHOT, TxidRange::single(Txid::FIRST)),
        (Level::SYNC, TxidRange::single(next)),
        (Level::SYNC, TxidRange::single(txid)),
    ] {
        let key = Key::Ltx(LtxKey { chain, level, txids });
        if txids.max() <= txid && !listed.contains(&txids) && store.head(&key).await.is_ok() {
            return Some(store.locate(&key));
        }
    }
    None
}

/// How far the files lead without a gap.
fn end(listed: &[TxidRange]) -> Option<Txid> {
    let mut files = listed.to_vec();
    files.sort_unstable();
    let mut end: Option<Txid> = None;
    for file in files {
        if file.min() > end.map_or(Txid::FIRST, Txid::next) {
            break;
        }
        end = end.max(Some(file.max()));
    }
    end
}
