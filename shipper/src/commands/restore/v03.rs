//! `shipper restore` from a replica that Litestream v0.3 wrote: no TXIDs, and no checksum of the database.

use std::fmt::Write;
use std::sync::Arc;

use anyhow::Context;
use replica::operator::{Bar, Exit};
use replica::restore::{V03Selected, publish_v03};
use replica::store::Store;
use serde_json::{Value, json};

use super::next_steps;
use crate::cli::RestoreArgs;
use crate::commands::{print, print_json, readable_bytes};

pub(super) async fn restore(
    args: RestoreArgs,
    store: Arc<dyn Store>,
    selected: V03Selected,
) -> anyhow::Result<Exit> {
    let plan = &selected.plan;
    let (json, output) = (args.database.json, &args.output);
    if args.dry_run {
        if json {
            print_json(&plan_json(store.as_ref(), &selected))?;
        } else {
            print(&plan_text(store.as_ref(), &selected))?;
        }
        return Ok(Exit::Holds);
    }
    let restored =
        publish_v03(Arc::clone(&store), plan, output, args.force, Bar::new(plan.bytes()))
            .await
            .with_context(|| format!("restore {}", store.url()))?;
    if json {
        print_json(&json!({
            "output": output,
            "generation": plan.generation.to_string(),
            "txid": null,
            "timestamp": plan.timestamp,
            "page_size": restored.page_size,
            "page_count": restored.page_count,
            "checksum": null,
            "objects": restored.objects,
            "bytes": restored.bytes,
            "seconds": restored.elapsed.as_secs_f64(),
            "remarks": selected.remarks,
        }))?;
        return Ok(Exit::Holds);
    }
    let size = u64::from(restored.page_count) * u64::from(restored.page_size.get());
    print(&format!(
        "Restored {path}\n\
        \x20 state    as of {time} (when its newest object was written)\n\
        \x20 from     Litestream v0.3 generation {generation}\n\
        \x20 size     {pages} pages of {page_size} bytes, {size}\n\
        \x20 fetched  {bytes} in {objects} objects, {seconds:.2} s\n\
        \x20 checked  every object and every WAL frame against its checksum\n\
        {next}",
        path = output.display(),
        time = plan.timestamp,
        generation = plan.generation,
        pages = restored.page_count,
        page_size = restored.page_size,
        size = readable_bytes(size),
        bytes = readable_bytes(restored.bytes),
        objects = restored.objects,
        seconds = restored.elapsed.as_secs_f64(),
        next = next_steps(output),
    ))?;
    Ok(Exit::Holds)
}

fn plan_json(store: &dyn Store, selected: &V03Selected) -> Value {
    let plan = &selected.plan;
    let files: Vec<Value> = plan
        .objects
        .iter()
        .map(|object| json!({ "object": store.locate(&plan.key(object)), "bytes": object.size }))
        .collect();
    json!({
        "replica": store.url(),
        "generation": plan.generation.to_string(),
        "txid": null,
        "timestamp": plan.timestamp,
        "objects": plan.objects.len(),
        "bytes": plan.bytes(),
        "files": files,
        "remarks": selected.remarks,
    })
}

fn plan_text(store: &dyn Store, selected: &V03Selected) -> String {
    let plan = &selected.plan;
    let mut text = format!(
        "Would restore the state of {}\n  from {} (Litestream v0.3 generation {})\n  {} in {} objects, oldest first:\n",
        plan.timestamp,
        store.url(),
        plan.generation,
        readable_bytes(plan.bytes()),
        plan.objects.len(),
    );
    for object in &plan.objects {
        let _ = writeln!(text, "    {}  {:>12}", store.locate(&plan.key(object)), object.size);
    }
    text
}
