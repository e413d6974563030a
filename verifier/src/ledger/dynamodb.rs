//! The ledger in a DynamoDB table: `pk = DB#<name>`, `sk = DRILL#<started_at>#<id>` or `STATE`.
//!
//! Drills carry `document` (the record as JSON), `verdict` and `expires_at` (for the table's TTL). The
//! state item never expires. The drill and the last PASS it brings are one transaction. A record too long for an item
//! is cut in the ledger, and says so there.

use std::collections::HashMap;

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{BoxError, SdkError};
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{AttributeValue, Put, TransactWriteItem, Update};
use replica::documents::Receipt;

use crate::ledger::{Entry, Ledger, LedgerError, Versioned, fit};
use crate::watch::WatchState;

/// An item may have 400 KB with all its names; the rest is left for the other attributes.
const DOCUMENT_LIMIT_BYTES: usize = 380 * 1024;

/// A table.
#[derive(Debug)]
pub struct DynamoDbLedger {
    table: String,
    client: Client,
}

type Item = HashMap<String, AttributeValue>;

fn text(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

fn number(value: impl ToString) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

fn state_key(database: &str) -> Item {
    [("pk".into(), text(format!("DB#{database}"))), ("sk".into(), text("STATE"))].into()
}

impl DynamoDbLedger {
    /// Prepares access to `table`; nothing is requested yet.
    pub async fn new(table: &str) -> Self {
        Self { table: table.to_owned(), client: Client::new(&crate::aws::configuration().await) }
    }

    fn unavailable(&self, action: &'static str, source: impl Into<BoxError>) -> LedgerError {
        LedgerError::Unavailable { ledger: self.url(), action, source: source.into() }
    }

    fn content(&self, database: &str, source: serde_json::Error) -> LedgerError {
        LedgerError::Content { ledger: self.url(), database: database.to_owned(), source }
    }

    async fn state(
        &self,
        database: &str,
        action: &'static str,
    ) -> Result<Option<Item>, LedgerError> {
        let request = self.client.get_item().table_name(&self.table).consistent_read(true);
        let answer = request.set_key(Some(state_key(database))).send().await;
        Ok(answer.map_err(|error| self.unavailable(action, error))?.item)
    }

    fn parsed<T: serde::de::DeserializeOwned>(
        &self,
        database: &str,
        item: Option<&Item>,
        attribute: &str,
    ) -> Result<Option<T>, LedgerError> {
        let text = item.and_then(|item| item.get(attribute)).and_then(|value| value.as_s().ok());
        text.map(|text| serde_json::from_str(text).map_err(|error| self.content(database, error)))
            .transpose()
    }

    fn drill(&self, entry: &Entry) -> Result<TransactWriteItem, LedgerError> {
        let database = &entry.record.database;
        let document = fit::document(&entry.record, DOCUMENT_LIMIT_BYTES)
            .map_err(|error| self.content(database, error))?;
        let put = Put::builder()
            .table_name(&self.table)
            .item("pk", text(format!("DB#{database}")))
            .item("sk", text(format!("DRILL#{}#{}", entry.sortable_start(), entry.id)))
            .item("document", text(document))
            .item("verdict", text(entry.record.verdict.to_string()))
            .item("expires_at", number(entry.expires_at().as_second()))
            .build()
            .map_err(|error| self.unavailable("record drill", error))?;
        Ok(TransactWriteItem::builder().put(put).build())
    }

    fn pass(&self, database: &str, pass: &Receipt) -> Result<TransactWriteItem, LedgerError> {
        let pass = serde_json::to_string(pass).map_err(|error| self.content(database, error))?;
        let update = Update::builder()
            .table_name(&self.table)
            .set_key(Some(state_key(database)))
            .update_expression("SET last_pass = :pass")
            .expression_attribute_values(":pass", text(pass))
            .build()
            .map_err(|error| self.unavailable("record PASS", error))?;
        Ok(TransactWriteItem::builder().update(update).build())
    }
}

#[async_trait]
impl Ledger for DynamoDbLedger {
    fn url(&self) -> String {
        format!("dynamodb://{}", self.table)
    }

    async fn append(&self, entry: &Entry) -> Result<(), LedgerError> {
        let mut request = self.client.transact_write_items().transact_items(self.drill(entry)?);
        if let Some(pass) = &entry.last_pass {
            request = request.transact_items(self.pass(&entry.record.database, pass)?);
        }
        request.send().await.map_err(|error| self.unavailable("record drill", error))?;
        Ok(())
    }

    async fn last_pass(&self, database: &str) -> Result<Option<Receipt>, LedgerError> {
        let item = self.state(database, "read last PASS").await?;
        self.parsed(database, item.as_ref(), "last_pass")
    }

    async fn watch_state(&self, database: &str) -> Result<Versioned, LedgerError> {
        let item = self.state(database, "read alarms").await?;
        let version =
            item.as_ref().and_then(|item| item.get("version")).and_then(|value| value.as_n().ok());
        Ok(Versioned {
            version: version.and_then(|text| text.parse().ok()).unwrap_or(0),
            state: self.parsed(database, item.as_ref(), "watch")?,
        })
    }

    async fn replace_watch_state(
        &self,
        database: &str,
        seen: u64,
        next: &WatchState,
    ) -> Result<bool, LedgerError> {
        let watch = serde_json::to_string(next).map_err(|error| self.content(database, error))?;
        // The item may exist without a version: a PASS was recorded before the first watch.
        let (condition, seen_value) = match seen {
            0 => ("attribute_not_exists(version)", None),
            seen => ("version = :seen", Some((":seen".to_owned(), number(seen)))),
        };
        let mut values: Item =
            [(":watch".into(), text(watch)), (":next".into(), number(seen.saturating_add(1)))]
                .into();
        values.extend(seen_value);
        let answer = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(state_key(database)))
            .update_expression("SET watch = :watch, version = :next")
            .condition_expression(condition)
            .set_expression_attribute_values(Some(values))
            .send()
            .await;
        match answer {
            Ok(_) => Ok(true),
            Err(SdkError::ServiceError(error))
                if matches!(error.err(), UpdateItemError::ConditionalCheckFailedException(_)) =>
            {
                Ok(false)
            }
            Err(error) => Err(self.unavailable("write alarms", error)),
        }
    }
}
