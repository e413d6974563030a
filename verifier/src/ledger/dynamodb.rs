//! The ledger in a DynamoDB table: `pk = DB#<replica URL>/<name>`, `sk = DRILL#<started_at>#<id>` or `STATE`.
//!
//! Items of an older version have `pk = DB#<name>`. They stay where they are; a state that a place adopted says so
//! (`adopted_by`), and the place's own says where the drill of its last PASS is (`last_pass_pk`).
//!
//! Drills carry `document` (the record as JSON), `verdict` and `expires_at` (for the table's TTL). The
//! state item (alarms, the last PASS and the key of its drill, since when none passes) never expires, nor does `pk = DATABASES`, `sk = STATE` with the set of known `urls`. The drill and the last PASS it brings are one transaction. A record too long for an item
//! is cut in the ledger, and says so there.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{BoxError, SdkError};
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{AttributeValue, Put, TransactWriteItem, Update};
use jiff::Timestamp;
use replica::documents::Receipt;

use crate::ledger::{Adopt, ByName, Entry, Ledger, LedgerError, Place, Versioned, fit};
use crate::record::Record;
use crate::watch::WatchState;

/// An item may have 400 KB with all its names; the rest is left for the other attributes.
const DOCUMENT_LIMIT_BYTES: usize = 380 * 1024;

/// How often a transaction is tried again that met another one, and the first pause (doubled each time).
const CONFLICT_RETRIES: u32 = 4;
const CONFLICT_PAUSE: Duration = Duration::from_millis(100);

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

fn text_of<'a>(item: Option<&'a Item>, attribute: &str) -> Option<&'a String> {
    item.and_then(|item| item.get(attribute)).and_then(|value| value.as_s().ok())
}

fn number(value: impl ToString) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

fn state_key(pk: String) -> Item {
    [("pk".into(), text(pk)), ("sk".into(), text("STATE"))].into()
}

fn pk(place: &Place) -> String {
    format!("DB#{}", place.url())
}

fn pk_by_name(place: &Place) -> String {
    format!("DB#{}", place.name())
}

fn drill_sort_key(entry: &Entry) -> String {
    format!("DRILL#{}#{}", entry.sortable_start(), entry.id)
}

fn databases_key() -> Item {
    [("pk".into(), text("DATABASES")), ("sk".into(), text("STATE"))].into()
}

/// Another transaction, or an update, had one of the items at that moment: nothing was written.
fn is_conflict(error: &TransactWriteItemsError) -> bool {
    matches!(error, TransactWriteItemsError::TransactionCanceledException(canceled)
        if canceled
            .cancellation_reasons()
            .iter()
            .any(|reason| reason.code() == Some("TransactionConflict")))
}

/// A condition did not hold, or another transaction was in the way: nothing was written.
fn is_canceled(error: &TransactWriteItemsError) -> bool {
    matches!(error, TransactWriteItemsError::TransactionCanceledException(_))
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

    async fn item(&self, key: Item, action: &'static str) -> Result<Option<Item>, LedgerError> {
        let request = self.client.get_item().table_name(&self.table).consistent_read(true);
        let answer = request.set_key(Some(key)).send().await;
        Ok(answer.map_err(|error| self.unavailable(action, error))?.item)
    }

    async fn state(
        &self,
        place: &Place,
        action: &'static str,
    ) -> Result<Option<Item>, LedgerError> {
        self.item(state_key(pk(place)), action).await
    }

    /// The state kept under the name alone, which nobody adopted.
    async fn state_by_name(
        &self,
        place: &Place,
        action: &'static str,
    ) -> Result<Option<Item>, LedgerError> {
        let item = self.item(state_key(pk_by_name(place)), action).await?;
        Ok(item.filter(|item| !item.contains_key("adopted_by")))
    }

    fn parsed<T: serde::de::DeserializeOwned>(
        &self,
        place: &Place,
        item: Option<&Item>,
        attribute: &str,
    ) -> Result<Option<T>, LedgerError> {
        text_of(item, attribute)
            .map(|text| {
                serde_json::from_str(text).map_err(|error| self.content(place.name(), error))
            })
            .transpose()
    }

    fn drill(&self, entry: &Entry) -> Result<TransactWriteItem, LedgerError> {
        let database = &entry.record.database;
        let document = fit::document(&entry.record, DOCUMENT_LIMIT_BYTES)
            .map_err(|error| self.content(database, error))?;
        let put = Put::builder()
            .table_name(&self.table)
            .item("pk", text(pk(&entry.place)))
            .item("sk", text(drill_sort_key(entry)))
            .item("document", text(document))
            .item("verdict", text(entry.record.verdict.to_string()))
            .item("expires_at", number(entry.expires_at().as_second()))
            .build()
            .map_err(|error| self.unavailable("record drill", error))?;
        Ok(TransactWriteItem::builder().put(put).build())
    }

    /// What a drill changes of its database's state, if anything.
    fn state_change(&self, entry: &Entry) -> Result<Option<TransactWriteItem>, LedgerError> {
        let database = &entry.record.database;
        let key = state_key(pk(&entry.place));
        let update = Update::builder().table_name(&self.table).set_key(Some(key));
        let update = if let Some(pass) = &entry.last_pass {
            let pass =
                serde_json::to_string(pass).map_err(|error| self.content(database, error))?;
            update
                .update_expression(
                    "SET last_pass = :pass, last_pass_drill = :drill REMOVE failing_since, last_pass_pk",
                )
                .expression_attribute_values(":pass", text(pass))
                .expression_attribute_values(":drill", text(drill_sort_key(entry)))
        } else if entry.is_failing() {
            update
                .update_expression("SET failing_since = if_not_exists(failing_since, :now)")
                .expression_attribute_values(":now", text(entry.sortable_start()))
        } else {
            return Ok(None);
        };
        let update = update.build().map_err(|error| self.unavailable("record drill", error))?;
        Ok(Some(TransactWriteItem::builder().update(update).build()))
    }
}

#[async_trait]
impl Ledger for DynamoDbLedger {
    fn url(&self) -> String {
        format!("dynamodb://{}", self.table)
    }

    async fn known_databases(&self) -> Result<BTreeSet<String>, LedgerError> {
        let item = self.item(databases_key(), "read known databases").await?;
        let urls = item.as_ref().and_then(|item| item.get("urls"));
        let urls = urls.and_then(|value| value.as_ss().ok());
        Ok(urls.into_iter().flatten().cloned().collect())
    }

    async fn remember_databases(&self, urls: &[String]) -> Result<(), LedgerError> {
        // A set cannot be empty.
        if urls.is_empty() {
            return Ok(());
        }
        let request = self.client.update_item().table_name(&self.table);
        let request = request.set_key(Some(databases_key())).update_expression("ADD urls :urls");
        let added = AttributeValue::Ss(urls.to_vec());
        let answer = request.expression_attribute_values(":urls", added).send().await;
        answer.map_err(|error| self.unavailable("write known databases", error))?;
        Ok(())
    }

    async fn append(&self, entry: &Entry) -> Result<(), LedgerError> {
        let mut request = self.client.transact_write_items().transact_items(self.drill(entry)?);
        if let Some(change) = self.state_change(entry)? {
            request = request.transact_items(change);
        }
        let mut pause = CONFLICT_PAUSE;
        for _ in 0..CONFLICT_RETRIES {
            match request.clone().send().await {
                // The SDK does not try these again by itself.
                Err(SdkError::ServiceError(error)) if is_conflict(error.err()) => {
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                Err(error) => return Err(self.unavailable("record drill", error)),
                Ok(_) => return Ok(()),
            }
        }
        request.send().await.map_err(|error| self.unavailable("record drill", error))?;
        Ok(())
    }

    async fn last_pass(&self, place: &Place) -> Result<Option<Receipt>, LedgerError> {
        let item = self.state(place, "read last PASS").await?;
        self.parsed(place, item.as_ref(), "last_pass")
    }

    async fn last_pass_record(&self, place: &Place) -> Result<Option<Record>, LedgerError> {
        let action = "read record of last PASS";
        let state = self.state(place, action).await?;
        let Some(drill) = text_of(state.as_ref(), "last_pass_drill") else { return Ok(None) };
        let at = text_of(state.as_ref(), "last_pass_pk").cloned().unwrap_or_else(|| pk(place));
        let key = [("pk".into(), text(at)), ("sk".into(), text(drill))].into();
        let item = self.item(key, action).await?;
        self.parsed(place, item.as_ref(), "document")
    }

    async fn failing_since(&self, place: &Place) -> Result<Option<Timestamp>, LedgerError> {
        let state = self.state(place, "read first failed drill").await?;
        Ok(text_of(state.as_ref(), "failing_since").and_then(|text| text.parse().ok()))
    }

    async fn watch_state(&self, place: &Place) -> Result<Versioned, LedgerError> {
        let item = self.state(place, "read alarms").await?;
        let version =
            item.as_ref().and_then(|item| item.get("version")).and_then(|value| value.as_n().ok());
        Ok(Versioned {
            version: version.and_then(|text| text.parse().ok()).unwrap_or(0),
            state: self.parsed(place, item.as_ref(), "watch")?,
        })
    }

    async fn by_name(&self, place: &Place) -> Result<Option<ByName>, LedgerError> {
        let action = "read state by name";
        if self.state(place, action).await?.is_some() {
            return Ok(None);
        }
        let Some(item) = self.state_by_name(place, action).await? else { return Ok(None) };
        Ok(Some(ByName {
            last_pass: self.parsed(place, Some(&item), "last_pass")?,
            last_pass_url: text_of(Some(&item), "last_pass_url").cloned(),
        }))
    }

    async fn adopt(&self, place: &Place, adopt: Adopt) -> Result<(), LedgerError> {
        let action = "write first state";
        let attributes: &[&str] = match adopt {
            Adopt::Nothing => &[],
            Adopt::Pass => &["last_pass", "last_pass_drill"],
            Adopt::Everything => {
                &["last_pass", "last_pass_drill", "version", "watch", "failing_since"]
            }
        };
        let Some(mut from) = self.state_by_name(place, action).await? else { return Ok(()) };
        let mut first = state_key(pk(place));
        first.extend(attributes.iter().filter_map(|name| from.remove_entry(*name)));
        if first.contains_key("last_pass_drill") {
            first.insert("last_pass_pk".into(), text(pk_by_name(place)));
        }
        let put = Put::builder()
            .table_name(&self.table)
            .set_item(Some(first))
            .condition_expression("attribute_not_exists(pk)")
            .build()
            .map_err(|error| self.unavailable(action, error))?;
        let put = TransactWriteItem::builder().put(put).build();
        let mut request = self.client.transact_write_items().transact_items(put);
        if adopt != Adopt::Nothing {
            let mark = Update::builder()
                .table_name(&self.table)
                .set_key(Some(state_key(pk_by_name(place))))
                .update_expression("SET adopted_by = :url")
                .condition_expression("attribute_not_exists(adopted_by)")
                .expression_attribute_values(":url", text(place.url()))
                .build()
                .map_err(|error| self.unavailable(action, error))?;
            request = request.transact_items(TransactWriteItem::builder().update(mark).build());
        }
        match request.send().await {
            // Somebody else was faster; the next run sees what became of it.
            Err(SdkError::ServiceError(error)) if is_canceled(error.err()) => Ok(()),
            Err(error) => Err(self.unavailable(action, error)),
            Ok(_) => Ok(()),
        }
    }

    async fn replace_watch_state(
        &self,
        place: &Place,
        seen: u64,
        next: &WatchState,
    ) -> Result<bool, LedgerError> {
        let watch =
            serde_json::to_string(next).map_err(|error| self.content(place.name(), error))?;
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
            .set_key(Some(state_key(pk(place))))
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

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::types::CancellationReason;
    use aws_sdk_dynamodb::types::error::{
        RequestLimitExceeded, TransactionCanceledException as Canceled,
    };

    use super::*;

    #[test]
    fn only_a_conflict_is_tried_again() {
        for (codes, conflict) in [
            (vec!["None", "TransactionConflict"], true),
            (vec!["ConditionalCheckFailed", "None"], false),
            (vec![], false),
        ] {
            let reason = |code: &&str| CancellationReason::builder().code(*code).build();
            let reasons = Some(codes.iter().map(reason).collect());
            let canceled = Canceled::builder().set_cancellation_reasons(reasons).build();
            let error = TransactWriteItemsError::TransactionCanceledException(canceled);
            assert_eq!(is_conflict(&error), conflict, "{codes:?}");
        }
        let limit = RequestLimitExceeded::builder().build();
        assert!(!is_conflict(&TransactWriteItemsError::RequestLimitExceeded(limit)));
    }
}
