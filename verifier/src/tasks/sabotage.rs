//! Sabotage of one database's scratch copies. Nothing is recorded or mailed.

use replica::operator::DatabaseArg;

use crate::drill::Workspace;
use crate::sabotage::{Inspecting, Report, Show, ShowTrial, sabotage};
use crate::tasks::Verifier;

impl Verifier {
    /// Tries every damage on copies of a database's newest chain; `trial` is told of each.
    ///
    /// # Errors
    /// The database cannot be read, has nothing restorable, or there is no room for the copies.
    pub async fn sabotage(
        &self,
        database: &DatabaseArg,
        trial: ShowTrial,
    ) -> anyhow::Result<Report> {
        let temporary = std::env::temp_dir();
        Workspace::sweep(&temporary);
        let database = self.only(database).await?;
        let witness = self.witness(&database, None).await;
        let last_pass = (witness.last_pass, witness.record);
        let show = Show { copying: self.progress.clone(), trial };
        let inspecting = Inspecting {
            inspector: self.inspector.clone(),
            at_most: self.config.drill.deadline.get(),
        };
        let store = &*database.store;
        sabotage(&database.name, store, last_pass, &temporary, &show, inspecting).await
    }
}
