//! Copies the newest chain of a replica to this disk: the files of the plan, and the documents beside it.

use std::fs::{self, File, FileTimes};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, bail};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use replica::format::{HEADER_SIZE, Header};
use replica::restore::{Found, Plan, Target, find};
use replica::store::{Key, LtxObject, Store, read_all};

use crate::sabotage::room;
use crate::sabotage::scratch::Scene;

/// Objects fetched at once.
const IN_FLIGHT: usize = 8;
/// Far above what a document needs, bytes.
const DOCUMENT_LIMIT_BYTES: usize = 1 << 20;
/// Where the restored database will stand: beside the scratch copies.
const DATABASE: &str = "undamaged.db";

/// Copies to `dir`, which lies in a private directory on the file system of `temporary`.
pub(super) async fn bring(
    store: &dyn Store,
    dir: &Path,
    temporary: &Path,
) -> anyhow::Result<Scene> {
    let plan = match find(store, None, Target::Latest).await? {
        Found::Ltx(selected) => selected.plan,
        Found::V03(_) => bail!(
            "{}: written by Litestream v0.3, and sabotage knows how to damage LTX files only",
            store.url()
        ),
    };
    let last = *plan.files.last().context("an empty plan")?;
    let newest = header(store, &plan, &last).await?;
    room::check(temporary, room::needed(&plan, &newest))?;
    stream::iter(plan.files.iter())
        .map(|file| copy(store, &plan, file, dir))
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

async fn copy(store: &dyn Store, plan: &Plan, file: &LtxObject, dir: &Path) -> anyhow::Result<()> {
    let key = plan.key(file);
    let path = dir.join(key.file_path());
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut reader = store.get(&key, None).await?;
    let mut out = File::create(&path)?;
    while let Some(piece) = reader.next().await? {
        out.write_all(&piece).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(out.set_times(FileTimes::new().set_modified(SystemTime::from(file.modified)))?)
}
