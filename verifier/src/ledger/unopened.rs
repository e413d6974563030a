//! A ledger that could not be opened: every use of it fails with the reason, so that a drill still restores and
//! checks, and its record says that it is recorded nowhere.

use std::collections::BTreeSet;

use async_trait::async_trait;
use jiff::Timestamp;
use replica::documents::Receipt;

use crate::ledger::{Adopt, ByName, Entry, Ledger, LedgerError, Place, Versioned};
use crate::record::Record;
use crate::watch::WatchState;

/// See the module.
#[derive(Debug)]
pub struct UnopenedLedger {
    url: String,
    reason: String,
}

impl UnopenedLedger {
    /// Fails every call with `reason`.
    #[must_use]
    pub fn new(url: &str, reason: String) -> Self {
        Self { url: url.to_owned(), reason }
    }

    fn refuse<T>(&self, action: &'static str) -> Result<T, LedgerError> {
        let source = self.reason.clone().into();
        Err(LedgerError::Unavailable { ledger: self.url.clone(), action, source })
    }
}

#[async_trait]
impl Ledger for UnopenedLedger {
    fn url(&self) -> String {
        self.url.clone()
    }

    async fn append(&self, _entry: &Entry) -> Result<(), LedgerError> {
        self.refuse("record drill")
    }

    async fn last_pass(&self, _place: &Place) -> Result<Option<Receipt>, LedgerError> {
        self.refuse("read last PASS")
    }

    async fn last_pass_record(&self, _place: &Place) -> Result<Option<Record>, LedgerError> {
        self.refuse("read record of last PASS")
    }

    async fn failing_since(&self, _place: &Place) -> Result<Option<Timestamp>, LedgerError> {
        self.refuse("read first failed drill")
    }

    async fn watch_state(&self, _place: &Place) -> Result<Versioned, LedgerError> {
        self.refuse("read alarms")
    }

    async fn replace_watch_state(
        &self,
        _place: &Place,
        _seen: u64,
        _next: &WatchState,
    ) -> Result<bool, LedgerError> {
        self.refuse("write alarms")
    }

    async fn by_name(&self, _place: &Place) -> Result<Option<ByName>, LedgerError> {
        self.refuse("read state by name")
    }

    async fn adopt(&self, _place: &Place, _adopt: Adopt) -> Result<(), LedgerError> {
        self.refuse("write first state")
    }

    async fn known_databases(&self) -> Result<BTreeSet<String>, LedgerError> {
        self.refuse("read known databases")
    }

    async fn remember_databases(&self, _urls: &[String]) -> Result<(), LedgerError> {
        self.refuse("write known databases")
    }
}
