//! The copy: finding what to restore, and restoring it into a directory of its own.

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use replica::restore::{
    Found, RestoreError, Restored, Selected, V03Restored, V03Selected, apply_v03,
    restore as restore_ltx,
};
use replica::store::Store;

use crate::checks::{self, Told};
use crate::drill::{Asked, Draft, Request, ShowProgress, Workspace};
use crate::record::{Check, RestoreFigures};
use crate::words::millis;

/// A restored copy, and where it came from.
#[derive(Debug)]
pub(crate) enum Copied {
    /// A chain of LTX files.
    Ltx(Selected, Restored),
    /// A replica that Litestream v0.3 wrote.
    V03(V03Selected, V03Restored),
}

impl Copied {
    /// The check that the restore was.
    pub(super) fn chain(&self) -> Check {
        match self {
            Self::Ltx(selected, restored) => checks::chain(selected, restored),
            Self::V03(selected, restored) => checks::v03_chain(selected, restored),
        }
    }

    /// What its files say of it; a v0.3 replica's say nothing.
    pub(super) fn told(&self) -> Option<Told> {
        match self {
            Self::Ltx(selected, restored) => Some(Told {
                chain: selected.plan.chain,
                txid: restored.txid,
                page_size: restored.page_size,
                page_count: restored.page_count,
                checksum: restored.post_apply,
            }),
            Self::V03(..) => None,
        }
    }

    /// The moment it stands for.
    pub(super) fn restored_at(&self) -> Timestamp {
        match self {
            Self::Ltx(selected, _) => selected.timestamp,
            Self::V03(selected, _) => selected.plan.timestamp,
        }
    }

    /// What the restore took.
    pub(crate) fn figures(&self) -> RestoreFigures {
        let (bytes, objects, elapsed) = match self {
            Self::Ltx(_, restored) => (restored.bytes, restored.objects, restored.elapsed),
            Self::V03(_, restored) => (restored.bytes, restored.objects, restored.elapsed),
        };
        RestoreFigures { seconds: millis(elapsed.as_secs_f64()), bytes, objects }
    }
}

/// Chooses what to restore, and restores it.
pub(super) async fn restore(
    request: &Request<'_>,
    draft: &mut Draft,
) -> Result<(Workspace, Copied), RestoreError> {
    let found = request.asked.find(&*request.store).await?;
    draft.note_found(&found);
    let latest = *request.asked == Asked::Latest;
    let copied = copy(&request.store, found, latest, request.temporary, &request.progress).await;
    match &copied {
        Ok((_, Copied::Ltx(selected, _))) => draft.note_selected(selected),
        Ok(_) => {}
        Err(error) => draft.note_stuck(error, request.last_pass.as_ref()),
    }
    copied
}

/// Restores what was found into a directory of its own; `latest` says that the newest state was asked for.
pub(crate) async fn copy(
    store: &Arc<dyn Store>,
    found: Found,
    latest: bool,
    temporary: &Path,
    progress: &ShowProgress,
) -> Result<(Workspace, Copied), RestoreError> {
    let workspace = Workspace::create(temporary)?;
    let output = workspace.create_copy()?;
    let store = Arc::clone(store);
    let copied = match found {
        Found::Ltx(mut selected) => {
            let progress = progress(selected.plan.bytes());
            let restored = restore_ltx(store, &mut selected, latest, &output, progress).await?;
            Copied::Ltx(selected, restored)
        }
        Found::V03(selected) => {
            let progress = progress(selected.plan.bytes());
            let restored = apply_v03(store, &selected.plan, output, progress).await?;
            Copied::V03(selected, restored)
        }
    };
    Ok((workspace, copied))
}
