//! The copy: finding what to restore, and restoring it into a directory of its own.

use replica::restore::{
    Found, RestoreError, Restored, Selected, V03Restored, V03Selected, apply, apply_v03,
};

use crate::drill::{Draft, Request, Workspace};
use crate::record::RestoreFigures;
use crate::words::millis;

/// A restored copy, and where it came from.
#[derive(Debug)]
pub(super) enum Copied {
    /// A chain of LTX files.
    Ltx(Selected, Restored),
    /// A replica that Litestream v0.3 wrote.
    V03(V03Selected, V03Restored),
}

impl Copied {
    /// What the restore took.
    pub(super) fn figures(&self) -> RestoreFigures {
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
    let workspace = Workspace::create(request.temporary)?;
    let output = workspace.create_copy()?;
    let store = request.store.clone();
    let copied = match found {
        Found::Ltx(selected) => {
            let progress = (request.progress)(selected.plan.bytes());
            let restored = apply(store, &selected.plan, output, progress).await?;
            Copied::Ltx(selected, restored)
        }
        Found::V03(selected) => {
            let progress = (request.progress)(selected.plan.bytes());
            let restored = apply_v03(store, &selected.plan, output, progress).await?;
            Copied::V03(selected, restored)
        }
    };
    Ok((workspace, copied))
}
