//! Copies the newest chain of a replica to this disk: the files of the plan, and the documents beside it.

use std::fs::{self, File, FileTimes};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use replica::format::{HEADER_SIZE, Header};
use replica::restore::{Found, Plan, Progress, Target, find};
use replica::store::{Key, LtxObject, Store, read_all};

use crate::drill::ShowProgress;
use crate::sabotage::room;
use crate::sabotage::scratch::Scene;

/// Objects fetched at once.
const IN_FLIGHT: usize = 8;
/// Far above what a document needs, bytes.
const DOCUMENT_LIMIT_BYTES: usize = 1 << 20;
/// Where the restored database will stand: beside the scratch copies.
const DATABASE: &str = "undamaged.db";

/// There is only a replica of Litestream v0.3, whose files the catalogue knows nothing of.
#[derive(Debug, thiserror::Error)]
#[error(
    "{url}: a replica of Litestream v0.3, and sabotage knows how to damage LTX files only\n\
     HINT: drill it as it is; once the shipper (or Litestream v0.5) ships the database, sabotage can try that replica"
)]
pub struct NotLtx {
    url: String,
}

/// Copies to `dir`, which lies in a private directory on the file system of `temporary`.
pub(super) async fn bring(
    store: &dyn Store,
    dir: &Path,
    temporary: &Path,
    progress: &ShowProgress,
) -> anyhow::Result<Scene> {
    let plan = match find(store, None, Target::Latest).await? {
        Found::Ltx(selected) => selected.plan,
        Found::V03(_) => return Err(NotLtx { url: store.url() }.into()),
    };
    let last = *plan.files.last().context("an empty plan")?;
    let newest = header(store, &plan, &last).await?;
    room::check(temporary, room::needed(&plan, &newest))?;
    let progress = progress(plan.bytes());
    stream::iter(plan.files.iter())
        .map(|file| copy(store, &plan, file, dir, &*progress))
        .buffer_unordered(IN_FLIGHT)
        .try_collect::<()>()
        .await?;
    let mut heartbeat = false;
    for key in [Key::Heartbeat, Key::DrillConfig] {
        match read_all(store, &key, DOCUMENT_LIMIT_BYTES).await {
            Ok(content) => {
                heartbeat |= key == Key::Heartbeat;
                fs::write(dir.join(key.file_path()), content)?;
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
    }
    let database = dir.with_file_name(DATABASE);
    let files = Arc::unwrap_or_clone(plan.files);
    Ok(Scene { chain: plan.chain, files, newest, heartbeat, database })
}

async fn header(store: &dyn Store, plan: &Plan, file: &LtxObject) -> anyhow::Result<Header> {
    let key = plan.key(file);
    let mut reader = store.get(&key, Some(0..HEADER_SIZE as u64)).await?;
    let mut bytes = Vec::with_capacity(HEADER_SIZE);
    while let Some(piece) = reader.next().await? {
        bytes.extend_from_slice(&piece);
    }
    let short = || format!("{}: ends within its header", store.locate(&key));
    let bytes: &[u8; HEADER_SIZE] = bytes.as_slice().try_into().with_context(short)?;
    Header::decode(bytes).with_context(|| format!("{}: damaged", store.locate(&key)))
}

async fn copy(
    store: &dyn Store,
    plan: &Plan,
    file: &LtxObject,
    dir: &Path,
    progress: &dyn Progress,
) -> anyhow::Result<()> {
    let key = plan.key(file);
    let path = dir.join(key.file_path());
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut reader = store.get(&key, None).await?;
    let mut out = File::create(&path)?;
    while let Some(piece) = reader.next().await? {
        out.write_all(&piece).with_context(|| format!("write {}", path.display()))?;
        progress.fetched(piece.len() as u64);
    }
    Ok(out.set_times(FileTimes::new().set_modified(SystemTime::from(file.modified)))?)
}
