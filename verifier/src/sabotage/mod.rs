//! Sabotage: shows that the drill notices damage, by doing damage.
//!
//! Copies the newest chain of a replica into a private directory, drills the copy as it is, then once for each damage
//! of the [`damage::catalogue`]: a scratch copy is damaged and drilled, and the check that caught it is written down.
//!
//! Invariants: the replica itself is only read; nothing is recorded, mailed or uploaded; the scratch directory is gone at the
//! end, also after an error (a killed process leaves it to the next drill's sweep). Scratch copies share their bytes by
//! hard links, and what is damaged is copied first: beside the copied chain there are at most
//! two of its largest files and three databases at once.
//!
//! Does not promise that what is not in the catalogue would be caught.

mod anatomy;
mod bring;
pub mod damage;
mod forge;
mod outcome;
mod report;
mod rewrite;
mod room;
mod scratch;
mod source;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use replica::documents::Receipt;
use replica::store::{FileStore, Store};

use crate::checks::Share;
use crate::drill::{Asked, Drilled, Inspector, Request, ShowProgress, Workspace, drill};
use crate::record::{Record, Verdict};

pub use bring::NotLtx;
pub use damage::{Applied, Damage, Expected, catalogue};
pub use outcome::{Outcome, Trial};
pub use report::Report;
pub use room::NoRoom;
pub use scratch::{Scene, Scratch};

/// How the copies are inspected.
#[derive(Debug, Clone)]
pub struct Inspecting {
    /// Who asks SQLite about them.
    pub inspector: Arc<dyn Inspector>,
    /// How long one drill may take.
    pub at_most: Duration,
}

/// The replica's newest chain in a private directory, undamaged and proven.
#[derive(Debug)]
pub struct Stage {
    inspecting: Inspecting,
    workspace: Workspace,
    scene: Scene,
    undamaged: Record,
}

impl Stage {
    /// Copies the chain of `store` below `temporary`, and drills the copy, with what is known of the last PASS.
    ///
    /// # Errors
    /// The store's or the file system's, and [`NoRoom`]. That the undamaged copy does not pass is no error:
    /// see [`Stage::is_sound`].
    pub async fn set(
        store: &dyn Store,
        last_pass: (Option<Receipt>, Option<Record>),
        temporary: &Path,
        progress: &ShowProgress,
        inspecting: Inspecting,
    ) -> anyhow::Result<Self> {
        let workspace = Workspace::create(temporary).context("create scratch directory")?;
        let undamaged = workspace.path().join("undamaged");
        let scene = bring::bring(store, &undamaged, temporary, progress).await?;
        let drilled = probe(&undamaged, last_pass, workspace.path(), &inspecting).await;
        if let Some(proven) = drilled.proven {
            fs::rename(proven.workspace.copy(), &scene.database).context("keep restored copy")?;
        }
        Ok(Self { inspecting, workspace, scene, undamaged: drilled.record })
    }

    /// What was copied.
    #[must_use]
    pub fn scene(&self) -> &Scene {
        &self.scene
    }

    /// The drill of the undamaged copy.
    #[must_use]
    pub fn undamaged(&self) -> &Record {
        &self.undamaged
    }

    /// Whether the undamaged copy passed: else no damage could be told from what is wrong already.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.undamaged.verdict == Verdict::Pass
    }

    /// Damages one scratch copy, lets `look` see it, and drills it.
    ///
    /// # Errors
    /// The file system's.
    pub async fn try_damage(
        &self,
        damage: &Damage,
        look: impl FnOnce(&Scratch<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<Trial> {
        let base = self.workspace.path();
        let scratch = Scratch::link(&base.join("undamaged"), &base.join("damaged"), &self.scene)
            .context("link scratch copy")?;
        let applied = damage.apply(&scratch).with_context(|| format!("damage: {}", damage.name))?;
        let trial = match applied {
            Applied::Not(reason) => Trial::not_applicable(damage, reason),
            Applied::Done => {
                look(&scratch)?;
                let drilled = probe(scratch.dir(), self.last_pass(), base, &self.inspecting).await;
                Trial::judge(damage, &drilled.record, scratch.dir())
            }
        };
        scratch.clear().context("clear scratch copy")?;
        Ok(trial)
    }

    /// The undamaged copy's PASS.
    fn last_pass(&self) -> (Option<Receipt>, Option<Record>) {
        let record = &self.undamaged;
        let receipt = record.point.restored_at.map(|restored_at| Receipt {
            version: 1,
            drill_id: "undamaged".to_owned(),
            generation: record.generation,
            txid: record.txid,
            restored_at,
            finished_at: record.finished_at,
        });
        (receipt, Some(record.clone()))
    }
}

/// Is told which damage is tried next: its number (from 1), how many there are, its name.
pub type ShowTrial = Arc<dyn Fn(usize, usize, &str) + Send + Sync>;

/// What is shown meanwhile.
#[derive(Clone)]
pub struct Show {
    /// The copying of the chain.
    pub copying: ShowProgress,
    /// The damages.
    pub trial: ShowTrial,
}

/// Tries every damage of the catalogue on copies of a replica's newest chain.
///
/// # Errors
/// Those of [`Stage::set`] and [`Stage::try_damage`].
pub async fn sabotage(
    database: &str,
    store: &dyn Store,
    last_pass: (Option<Receipt>, Option<Record>),
    temporary: &Path,
    show: &Show,
    inspecting: Inspecting,
) -> anyhow::Result<Report> {
    let stage = Stage::set(store, last_pass, temporary, &show.copying, inspecting).await?;
    let mut trials = Vec::new();
    if stage.is_sound() {
        let damages = catalogue(stage.scene());
        for (number, damage) in (1..).zip(&damages) {
            tracing::info!(db = database, damage = damage.name, "damaging a scratch copy");
            (show.trial)(number, damages.len(), &damage.name);
            trials.push(stage.try_damage(damage, |_| Ok(())).await?);
        }
    }
    Ok(Report::new(database, &stage, trials))
}

/// A drill of a replica on this disk, as any other but for its witness, and that it leaves no file to a later day.
async fn probe(
    dir: &Path,
    (last_pass, last_pass_record): (Option<Receipt>, Option<Record>),
    temporary: &Path,
    inspecting: &Inspecting,
) -> Drilled {
    let store = Arc::new(FileStore::new(dir.to_owned()));
    let inspector = Arc::clone(&inspecting.inspector);
    let request = Request::new("scratch", store, &Asked::LATEST, temporary, inspector);
    let (other_files, deadline) =
        (Share::Everything, Instant::now().checked_add(inspecting.at_most));
    drill(&Request { last_pass, last_pass_record, other_files, deadline, ..request }).await
}
