//! The bucket: whether it answers, the rights it gives and should not give, and its clock.

use std::sync::Arc;
use std::time::Duration;

use replica::documents::Heartbeat;
use replica::store::{Access, Key, RetryPolicy, Root, RootUrl, Store, StoreError, read_all};

use super::findings::Findings;
use crate::config::{Config, Match};
use crate::control::{Report, StatusReply};

/// A heartbeat is far smaller.
const DOCUMENT_LIMIT: usize = 64 << 10;
/// Clocks this far apart are the same: the store tells whole seconds, and a write takes its time. Seconds.
const SAME_CLOCK: (i64, i64) = (-2, 30);

/// Somebody is waiting for the answer.
const IMPATIENT: RetryPolicy = RetryPolicy {
    attempts: 2,
    first_delay: Duration::from_millis(200),
    max_delay: Duration::from_secs(1),
    total: Duration::from_secs(10),
    attempt_timeout: Duration::from_secs(8),
};

/// Examines the place of the first database: the rights are given by prefix, to all of them alike.
///
/// # Errors
/// A configuration that cannot work.
pub(super) async fn examine(
    config: &Config,
    found: &[Match],
    running: Option<&StatusReply>,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    let Some(database) = found.iter().find_map(|found| found.database.as_ref().ok()) else {
        return Ok(());
    };
    let access = Access { retry: IMPATIENT, ..Access::default() };
    let root = Root::open_with(&config.replica.url, &config.replica.options, access).await?;
    let store = root.database(&database.name)?;
    let report = running.and_then(|running| {
        running.databases.iter().find(|report| report.database == database.name)
    });
    if !reads(&store, report, findings).await {
        return Ok(());
    }
    writes(&store, report, findings);
    if matches!(config.replica.url, RootUrl::S3 { .. }) {
        too_much(&store, findings).await;
    }
    Ok(())
}

/// Whether the store answers, so that there is more to ask.
async fn reads(store: &Arc<dyn Store>, report: Option<&Report>, findings: &mut Findings) -> bool {
    let url = store.url();
    let content = match read_all(store.as_ref(), &Key::Heartbeat, DOCUMENT_LIMIT).await {
        Ok(content) => content,
        Err(error) if error.is_not_found() => {
            findings.ok(format!("{url}: can be read; nothing was shipped there yet"));
            return true;
        }
        // Without the right to list, S3 answers the same for what is not there.
        Err(StoreError::Denied { reason, .. })
            if reason == "AccessDenied" && report.is_none_or(|report| report.txid.is_none()) =>
        {
            findings.ok(format!(
                "{url}: answers; nothing was shipped there yet, or it may not be read"
            ));
            return true;
        }
        Err(error) => {
            findings.fail(format!("{url}: {:#}", anyhow::Error::new(error)));
            return false;
        }
    };
    findings.ok(format!("{url}: can be read"));
    match serde_json::from_slice::<Heartbeat>(&content) {
        Ok(heartbeat) => clock(store, &heartbeat, findings).await,
        Err(error) => findings.warn(format!(
            "{}: not a heartbeat: {error}\nHINT: something else writes there; the next heartbeat replaces it",
            store.locate(&Key::Heartbeat)
        )),
    }
    true
}

/// The time in the last heartbeat is this machine's, that of the object the store's.
async fn clock(store: &Arc<dyn Store>, heartbeat: &Heartbeat, findings: &mut Findings) {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if heartbeat.host != host {
        findings.warn(format!(
            "the last heartbeat is of {}, and this is {host}\n\
             HINT: fine after a move; otherwise two servers ship under one name",
            heartbeat.host
        ));
        return;
    }
    let Ok(object) = store.head(&Key::Heartbeat).await else { return };
    let behind = object.modified.duration_since(heartbeat.written_at).as_secs();
    if (SAME_CLOCK.0..=SAME_CLOCK.1).contains(&behind) {
        findings.ok("this machine's clock agrees with the store's");
    } else {
        findings.warn(format!(
            "this machine's clock was {} s {} the store's at the heartbeat of {}\n\
             HINT: set it (timedatectl set-ntp true): S3 refuses requests of a clock that is off by 15 minutes",
            behind.unsigned_abs(),
            if behind < 0 { "before" } else { "behind" },
            heartbeat.written_at
        ));
    }
}

/// Only a write tells: the running shipper's.
fn writes(store: &Arc<dyn Store>, report: Option<&Report>, findings: &mut Findings) {
    let url = store.url();
    let wrote = |report: &&Report| report.synced_at.is_some() && report.heartbeat_error.is_none();
    let Some(report) = report.filter(wrote) else {
        findings.ok(format!(
            "{url}: whether it can be written is not tried here; `shipper status` tells once the shipper runs"
        ));
        return;
    };
    findings.ok(format!("{url}: the running shipper writes to it"));
    if report.unguarded {
        findings.warn(format!(
            "{url}: the store ignores If-None-Match: nothing keeps a second writer apart\n\
             HINT: use a store that honours conditional writes, or make sure that only this shipper writes there"
        ));
    } else if report.guarded {
        findings.ok(format!("{url}: what is there cannot be overwritten (conditional writes)"));
    } else {
        findings.ok(format!(
            "{url}: whether what is there can be overwritten is found out with the first small upload after a start"
        ));
    }
}

/// Rights that whoever takes this server over should not find on it.
async fn too_much(store: &Arc<dyn Store>, findings: &mut Findings) {
    let url = store.url();
    match store.chains().await {
        Ok(_) => findings.warn(format!(
            "{url}: these credentials may list it, which the shipper needs not\n\
             HINT: give the server the ship policy and nothing more; fine if this shell has the restore policy"
        )),
        Err(error) if error.is_denied() => findings.ok(format!("{url}: may not be listed")),
        Err(error) => {
            findings.warn(format!("{url}: list: {:#}", anyhow::Error::new(error)));
        }
    }
    match store.may_delete().await {
        Ok(Some(true)) => findings.warn(format!(
            "{url}: these credentials may delete from it: who takes the server over takes the backup, too\n\
             HINT: take s3:DeleteObject away; the ship policy has no such right"
        )),
        Ok(Some(false)) => findings.ok(format!("{url}: may not be deleted from")),
        Ok(None) => {}
        Err(error) => {
            findings.warn(format!("{url}: delete: {:#}", anyhow::Error::new(error)));
        }
    }
}
