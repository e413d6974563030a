//! `durable_point`: the copy of the latest state holds what was once reported as durable.
//!
//! A missing *newest* file leaves a replica that restores without complaint, only older. Two
//! witnesses remember it: the heartbeat (read before the listing, so that it can only be behind it)
//! and the last PASS.

use replica::documents::{Heartbeat, Receipt};
use replica::format::Txid;
use replica::store::Chain;

use crate::record::{Check, Status};

const NAME: &str = "durable_point";

/// What the copy is compared with.
#[derive(Debug, Clone, Copy)]
pub struct DurablePoint<'a> {
    /// The chain restored.
    pub chain: Chain,
    /// The TXID restored.
    pub txid: Txid,
    /// The heartbeat, read before the chain was listed.
    pub heartbeat: Option<&'a Heartbeat>,
    /// The last PASS, likewise.
    pub last_pass: Option<&'a Receipt>,
    /// Why there is a heartbeat that is no witness.
    pub problem: Option<&'a str>,
}

/// Compares the restored point with its witnesses.
#[must_use]
pub fn durable_point(point: &DurablePoint<'_>) -> Check {
    let check = judged(point);
    match point.problem {
        Some(problem) => Check { detail: format!("{}\nnote: {problem}", check.detail), ..check },
        None => check,
    }
}

fn judged(point: &DurablePoint<'_>) -> Check {
    let DurablePoint { chain, txid, heartbeat, last_pass, problem: _ } = *point;
    let mut witnesses = Vec::new();
    if let Some(heartbeat) = heartbeat
        && let Some(durable) = heartbeat.txid
    {
        let named = Chain::Generation(heartbeat.generation);
        if named != chain {
            return Check::new(
                NAME,
                Status::Fail,
                format!(
                    "the heartbeat of {} names generation {named} with TXID {durable} durable; \
                     the newest restorable state is {chain} TXID {txid}\n\
                     HINT: objects of generation {named} are missing from the bucket: look for their deletion",
                    heartbeat.written_at
                ),
            );
        }
        if durable > txid {
            return behind("the heartbeat", &heartbeat.written_at.to_string(), durable, txid);
        }
        witnesses.push(format!("heartbeat of {} ({durable})", heartbeat.written_at));
    }
    if let Some(pass) = last_pass
        && pass.generation.map_or(Chain::Root, Chain::Generation) == chain
        && let Some(proven) = pass.txid
    {
        if proven > txid {
            return behind("the drill", &pass.finished_at.to_string(), proven, txid);
        }
        witnesses.push(format!("PASS of {} ({proven})", pass.finished_at));
    }
    if witnesses.is_empty() {
        return Check::new(
            NAME,
            Status::Unchecked,
            "no heartbeat and no earlier PASS of this chain: that its newest file is the newest ever written \
             is not known",
        );
    }
    Check::new(NAME, Status::Pass, format!("{txid} is not behind: {}", witnesses.join(", ")))
}

fn behind(witness: &str, when: &str, durable: Txid, txid: Txid) -> Check {
    Check::new(
        NAME,
        Status::Fail,
        format!(
            "{witness} of {when} saw TXID {durable} durable, the newest restorable state is TXID {txid}: \
             newer objects are missing\n\
             HINT: look for deleted objects above TXID {txid}; a new snapshot by the shipper makes the backup whole"
        ),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn generation(last: u8) -> replica::format::GenerationId {
        format!("0192f0c1-2345-7abc-8def-0123456789{last:02x}").parse().unwrap()
    }

    fn heartbeat(generation_: u8, txid: Option<u64>) -> Heartbeat {
        serde_json::from_value(serde_json::json!({
            "version": 1, "generation": generation(generation_), "page_size": 4096, "page_count": 1,
            "txid": txid.map(|txid| Txid::new(txid).unwrap()),
            "written_at": "2026-11-22T09:00:00Z", "synced_at": "2026-11-22T09:00:00Z",
            "last_transaction_at": null, "wal_bytes": 0, "last_error": null,
            "shipper_version": "0.1.0", "sqlite_version": "3", "host": "web-1",
        }))
        .unwrap()
    }

    fn pass(generation_: u8, txid: u64) -> Receipt {
        serde_json::from_value(serde_json::json!({
            "version": 1, "drill_id": "d", "generation": generation(generation_),
            "txid": Txid::new(txid).unwrap(),
            "restored_at": "2026-11-22T09:00:00Z", "finished_at": "2026-11-22T09:00:00Z",
        }))
        .unwrap()
    }

    #[test]
    fn older_than_a_witness_fails() {
        let cases = [
            (Some(heartbeat(1, Some(5))), None, Status::Pass),
            (Some(heartbeat(1, Some(4))), None, Status::Pass),
            (Some(heartbeat(1, Some(6))), None, Status::Fail),
            (Some(heartbeat(2, Some(1))), None, Status::Fail),
            (Some(heartbeat(2, None)), None, Status::Unchecked),
            (None, Some(pass(1, 5)), Status::Pass),
            (None, Some(pass(1, 6)), Status::Fail),
            (None, Some(pass(2, 6)), Status::Unchecked),
            (Some(heartbeat(1, Some(5))), Some(pass(1, 6)), Status::Fail),
            (None, None, Status::Unchecked),
        ];
        for (heartbeat, last_pass, status) in cases {
            let check = durable_point(&DurablePoint {
                chain: Chain::Generation(generation(1)),
                txid: Txid::new(5).unwrap(),
                heartbeat: heartbeat.as_ref(),
                last_pass: last_pass.as_ref(),
                problem: Some("half a heartbeat"),
            });
            assert!(check.detail.ends_with("note: half a heartbeat"), "{}", check.detail);
            assert_eq!(check.status, status, "{heartbeat:?} {last_pass:?} {}", check.detail);
        }
    }
}
