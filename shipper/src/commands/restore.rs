//! `shipper restore`: a database back into a file.

use std::fmt::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use replica::operator::{Bar, Exit, LogFormat, block_on, init_logging};
use replica::restore::{
    Found, Restored, Rival, Selected, Target, V03Selected, find, find_v03, publish_selected,
};
use replica::store::{Chain, Store};
use serde_json::{Value, json};

use crate::cli::{GenerationArg, RestoreArgs};
use crate::commands::{print, print_json, readable_bytes};
use crate::config::ReplicaConfig;

mod v03;

/// Restores a database, or says what it would fetch.
///
/// # Errors
/// Nothing to restore, a damaged replica, or an output that cannot be written.
pub fn run(args: RestoreArgs) -> anyhow::Result<Exit> {
    init_logging(LogFormat::Text, "warn");
    block_on(restore(args))
}

async fn restore(args: RestoreArgs) -> anyhow::Result<Exit> {
    let database = &args.database;
    let configured = || {
        let replica = ReplicaConfig::load(&database.config)?;
        Ok((replica.url, replica.options))
    };
    let store = database.database.open(configured, &database.options()).await?;
    let target = match (args.timestamp, args.txid) {
        (Some(timestamp), _) => Target::AtOrBefore(timestamp),
        (None, Some(txid)) => Target::Txid(txid),
        (None, None) => Target::Latest,
    };
    let found = match args.generation {
        None => find(store.as_ref(), None, target).await,
        Some(GenerationArg::Ltx(id)) => {
            find(store.as_ref(), Some(Chain::Generation(id)), target).await
        }
        Some(GenerationArg::V03(id)) => find_v03(store.as_ref(), id, target).await.map(Found::V03),
    };
    let found = found.with_context(|| format!("restore {}", store.url()))?;
    let (Found::Ltx(Selected { remarks, .. }) | Found::V03(V03Selected { remarks, .. })) = &found;
    for remark in remarks {
        tracing::warn!("{remark}");
    }
    if let Found::Ltx(Selected { rivals, .. }) = &found
        && !rivals.is_empty()
    {
        tracing::warn!("{}", choice(rivals));
    }
    match found {
        Found::Ltx(selected) => restore_ltx(args, store, selected, target == Target::Latest).await,
        Found::V03(selected) => v03::restore(args, store, selected).await,
    }
}

async fn restore_ltx(
    args: RestoreArgs,
    store: Arc<dyn Store>,
    mut selected: Selected,
    latest: bool,
) -> anyhow::Result<Exit> {
    let database = &args.database;
    if args.dry_run {
        if database.json {
            print_json(&plan_json(store.as_ref(), &selected))?;
        } else {
            print(&plan_text(store.as_ref(), &selected))?;
        }
        return Ok(Exit::Holds);
    }
    let bar = Bar::new(selected.plan.bytes());
    let (from, output, force) = (Arc::clone(&store), &args.output, args.force);
    let restored = publish_selected(from, &mut selected, latest, output, force, bar)
        .await
        .with_context(|| format!("restore {}", store.url()))?;
    if database.json {
        print_json(&result_json(&args.output, &selected, &restored))?;
    } else {
        print(&result_text(&args.output, &selected, &restored))?;
    }
    Ok(Exit::Holds)
}

/// What there is to choose from where generations were alive at once.
fn choice(rivals: &[Rival]) -> String {
    let mut text = format!(
        "{} generations were written to at once: two hosts ship under this name, or a copy of one does, and each has commits that the others have not. The first is taken:",
        rivals.len()
    );
    for rival in rivals {
        let _ = write!(text, "\n  {rival}");
    }
    text.push_str("\nHINT: look at each, and keep one: stop the other shipper for good, then begin anew where the database goes on (`shipper reset`)");
    text
}

fn rivals_json(rivals: &[Rival]) -> Vec<Value> {
    let rival = |rival: &Rival| {
        json!({
            "generation": generation(rival.chain),
            "txid": rival.txid,
            "timestamp": rival.timestamp,
            "command": rival.command,
        })
    };
    rivals.iter().map(rival).collect()
}

fn generation(chain: Chain) -> Value {
    match chain {
        Chain::Root => Value::Null,
        Chain::Generation(id) => json!(id),
    }
}

fn plan_json(store: &dyn Store, selected: &Selected) -> Value {
    let plan = &selected.plan;
    let files: Vec<Value> = plan
        .files
        .iter()
        .map(|file| {
            json!({
                "object": store.locate(&plan.key(file)),
                "level": file.level.get(),
                "min_txid": file.txids.min(),
                "max_txid": file.txids.max(),
                "bytes": file.size,
            })
        })
        .collect();
    json!({
        "replica": store.url(),
        "generation": generation(plan.chain),
        "txid": plan.txid,
        "timestamp": selected.timestamp,
        "objects": plan.files.len(),
        "bytes": plan.bytes(),
        "files": files,
        "remarks": selected.remarks,
        "rivals": rivals_json(&selected.rivals),
    })
}

fn plan_text(store: &dyn Store, selected: &Selected) -> String {
    let plan = &selected.plan;
    let mut text = format!(
        "Would restore TXID {}, as of {}\n  from {} (generation {})\n  {} in {} objects, oldest first:\n",
        plan.txid,
        selected.timestamp,
        store.url(),
        plan.chain,
        readable_bytes(plan.bytes()),
        plan.files.len(),
    );
    for file in plan.files.iter() {
        let _ = writeln!(text, "    level {}  {}  {:>12}", file.level, file.txids, file.size);
    }
    text.push_str("Before it:\n  0. stop the application and its shipper: a database in use is not replaced\n");
    text
}

fn result_json(output: &Path, selected: &Selected, restored: &Restored) -> Value {
    json!({
        "output": output,
        "generation": generation(selected.plan.chain),
        "txid": restored.txid,
        "timestamp": selected.timestamp,
        "page_size": restored.page_size,
        "page_count": restored.page_count,
        "checksum": restored.post_apply.map(|checksum| format!("{:016x}", checksum.raw())),
        "objects": restored.objects,
        "bytes": restored.bytes,
        "seconds": restored.elapsed.as_secs_f64(),
        "remarks": selected.remarks,
        "passed_over": restored.passed_over,
        "rivals": rivals_json(&selected.rivals),
    })
}

fn result_text(output: &Path, selected: &Selected, restored: &Restored) -> String {
    let size = u64::from(restored.page_count) * u64::from(restored.page_size.get());
    let proof = if restored.post_apply.is_some() {
        "every object and the whole database checked against their checksums"
    } else {
        "every object checked against its checksum"
    };
    format!(
        "Restored {path}\n\
        \x20 state    TXID {txid}, as of {time}\n\
        \x20 from     generation {chain}\n\
        \x20 size     {pages} pages of {page_size} bytes, {size}\n\
        \x20 fetched  {bytes} in {objects} objects, {seconds:.2} s\n\
        \x20 checked  {proof}\n\
        {next}",
        path = output.display(),
        next = next_steps(output),
        txid = restored.txid,
        time = selected.timestamp,
        chain = selected.plan.chain,
        pages = restored.page_count,
        page_size = restored.page_size,
        size = readable_bytes(size),
        bytes = readable_bytes(restored.bytes),
        objects = restored.objects,
        seconds = restored.elapsed.as_secs_f64(),
    )
}

/// What is left to be done once the file is there.
fn next_steps(output: &Path) -> String {
    let path = output.display();
    let owner = std::fs::metadata(output).map_or_else(
        |_| String::new(),
        |meta| format!(" (now {}:{}, mode {:04o})", meta.uid(), meta.gid(), meta.mode() & 0o7777),
    );
    format!(
        "Next:\n\
        \x20 0. the application and the shipper must still be stopped: what has the old file open goes on in it\n\
        \x20 1. let the application's user own it{owner}: chown USER: {path}\n\
        \x20 2. look into it: sqlite3 {path} 'PRAGMA integrity_check'\n\
        \x20 3. start the shipper, then the application\n"
    )
}
