//! `suggest`: restore the newest state, look at it, propose rules. Nothing is recorded, nobody is mailed.

use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use replica::operator::DatabaseArg;

use crate::checks;
use crate::drill::{Asked, Workspace, copy};
use crate::suggest::Survey;
use crate::tasks::Verifier;

impl Verifier {
    /// Surveys the newest state of one database. The copy is gone when this returns.
    ///
    /// # Errors
    /// The database cannot be read or restored, or the copy is no database.
    pub async fn suggest(&self, database: &DatabaseArg) -> anyhow::Result<Survey> {
        let temporary = std::env::temp_dir();
        Workspace::sweep(&temporary);
        let database = self.only(database).await?;
        let url = database.store.url();
        let attempt = || format!("restore {url}");
        let selected = Asked::LATEST.find(&*database.store).await.with_context(attempt)?;
        let (workspace, copied) = copy(&database.store, selected, true, &temporary, &self.progress)
            .await
            .with_context(attempt)?;
        let took = Duration::from_secs_f64(copied.figures().seconds);
        let deadline = self.default_deadline();
        let surveyed = tokio::task::spawn_blocking(move || {
            let survey = checks::open(&workspace.copy(), deadline)
                .and_then(|copy| Survey::of(&copy, &url, Timestamp::now(), took));
            drop(workspace);
            survey
        });
        surveyed.await.context("survey restored copy")?.context("survey restored copy")
    }
}
