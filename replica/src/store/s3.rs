//! S3 and S3-compatible stores: `<prefix>/<database>/<generation>/0000/<min>-<max>.ltx`.
//!
//! Invariants: an LTX object is written with `If-None-Match: *` (or, where the caller knows that the store
//! does not guard, after a look that finds nothing) and never replaced; only the small documents are
//! overwritten. An answer without an ETag is no store's: nothing is believed written or there because of one. Only this module and those below it name AWS SDK types.
//!
//! Does not promise that a store honours the condition (some ignore it: see [`Store::probe_guard`]), nor that a listing shows
//! what was written a moment ago (AWS does; others may not).
//! A crash during an upload in parts leaves parts that no listing of objects shows; the bucket's
//! lifecycle rule for aborted uploads removes them.

mod client;
mod digest;
mod failure;
mod list;
mod reader;
mod resolver;
mod upload;

use std::ops::Range;

use async_trait::async_trait;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::primitives::{ByteStream, DateTime, DateTimeFormat};
use bytes::Bytes;
use jiff::Timestamp;

use crate::format::{Checksum, Level, TxidRange};
use crate::store::key::level_of_s3_dir;
use crate::store::v03::GENERATIONS_DIR;
use crate::store::{
    Body, Chain, Guard, Key, LtxAttributes, LtxKey, LtxObject, ObjectInfo, ObjectReader,
    PutOutcome, Store, StoreError, V03Generation, V03Object, V03Part,
};

pub(super) use client::Client;

use failure::{Action, Failure};

/// User metadata that holds the file checksum, 16 hexadecimal digits.
const CHECKSUM_METADATA: &str = "seaworthy-checksum";
/// User metadata that Litestream reads an object's time from.
const TIMESTAMP_METADATA: &str = "litestream-timestamp";

/// One database below a prefix of a bucket.
#[derive(Debug, Clone)]
pub struct S3Store {
    client: Client,
    prefix: String,
}

impl S3Store {
    /// The database whose objects stand below `prefix` (no slash at its end).
    pub(super) fn new(client: Client, prefix: String) -> Self {
        Self { client, prefix }
    }

    fn object(&self, key: &Key) -> String {
        format!("{}/{}", self.prefix, key.s3_path())
    }

    /// The objects directly below `directory` whose names `read` understands; `object` takes size and time.
    async fn objects<N, T>(
        &self,
        directory: &str,
        read: impl Fn(&str) -> Option<N> + Send,
        object: impl Fn(N, u64, Timestamp) -> T + Send,
    ) -> Result<Vec<T>, StoreError>
    where
        T: Send,
    {
        let below = format!("{}/{directory}", self.prefix);
        let mut objects = Vec::new();
        let mut pages = self.client.pages(&below);
        while let Some(page) = pages.next().await? {
            for listed in page.contents() {
                let name = listed.key().and_then(|key| key.rsplit('/').next()).unwrap_or_default();
                if let Some(meaning) = read(name) {
                    let modified = timestamp(listed.last_modified());
                    objects.push(object(meaning, unsigned(listed.size()), modified));
                }
            }
        }
        Ok(objects)
    }

    async fn info(&self, key: &Key) -> Result<ObjectInfo, failure::Failed> {
        let object = self.object(key);
        let call = self.client.call(&object, Action::GET, 0);
        let head = self
            .client
            .run(&call, || async {
                let request = self.client.sdk().head_object().bucket(self.client.bucket());
                let request = request.key(&object);
                let head = request.send().await.map_err(|error| Failure::of(&error))?;
                failure::taken(head.e_tag()).map(|()| head)
            })
            .await?;
        let checksum = head.metadata().and_then(|all| all.get(CHECKSUM_METADATA));
        let checksum = checksum.and_then(|text| u64::from_str_radix(text, 16).ok());
        Ok(ObjectInfo {
            size: unsigned(head.content_length()),
            modified: timestamp(head.last_modified()),
            checksum: checksum.and_then(Checksum::from_raw),
        })
    }
}

#[async_trait]
impl Store for S3Store {
    fn url(&self) -> String {
        self.client.locate(&self.prefix)
    }

    fn locate(&self, key: &Key) -> String {
        self.client.locate(&self.object(key))
    }

    async fn chains(&self) -> Result<Vec<Chain>, StoreError> {
        let mut chains = Vec::new();
        for name in self.client.directories(&self.prefix).await? {
            if let Ok(id) = name.parse() {
                chains.push(Chain::Generation(id));
            } else if level_of_s3_dir(&name).is_some() {
                chains.push(Chain::Root);
            }
        }
        chains.sort_unstable();
        chains.dedup();
        Ok(chains)
    }

    async fn list_ltx(&self, chain: Chain, level: Level) -> Result<Vec<LtxObject>, StoreError> {
        let read = |name: &str| TxidRange::from_file_name(name).ok();
        let mut objects = self
            .objects(&chain.s3_level_path(level), read, |txids, size, modified| LtxObject {
                level,
                txids,
                size,
                modified,
            })
            .await?;
        objects.sort_unstable_by_key(|object| object.txids);
        Ok(objects)
    }

    async fn v03_generations(&self) -> Result<Vec<V03Generation>, StoreError> {
        let below = format!("{}/{GENERATIONS_DIR}", self.prefix);
        let names = self.client.directories(&below).await?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    async fn list_v03(&self, generation: V03Generation) -> Result<Vec<V03Object>, StoreError> {
        let object = |part, size, modified| V03Object { part, size, modified };
        let mut objects = Vec::new();
        for directory in generation.directories() {
            objects.extend(self.objects(&directory, V03Part::from_name, object).await?);
        }
        objects.sort_unstable_by_key(|object| object.part);
        Ok(objects)
    }

    async fn head(&self, key: &Key) -> Result<ObjectInfo, StoreError> {
        Ok(self.info(key).await?)
    }

    async fn time(&self) -> Result<Option<Timestamp>, StoreError> {
        // Every answer bears the time. To a key that never was there is none out of a cache.
        let object = format!("{}/{}", self.prefix, uuid::Uuid::now_v7());
        let call = self.client.call(&object, Action::GET, 0);
        let answer = self
            .client
            .run(&call, || async {
                let request = self.client.sdk().head_object().bucket(self.client.bucket());
                match request.key(&object).send().await {
                    Ok(_) => Ok(None),
                    Err(error) => date(&error).map(Some).ok_or_else(|| Failure::of(&error)),
                }
            })
            .await?;
        Ok(answer)
    }

    async fn get(
        &self,
        key: &Key,
        range: Option<Range<u64>>,
    ) -> Result<Box<dyn ObjectReader>, StoreError> {
        let reader = reader::S3Reader::open(self.client.clone(), self.object(key), range).await?;
        Ok(Box::new(reader))
    }

    async fn put_ltx(
        &self,
        key: &LtxKey,
        body: Body,
        attributes: LtxAttributes,
    ) -> Result<PutOutcome, StoreError> {
        upload::put_once(self, &Key::Ltx(*key), &body, attributes, Guard::Guarded).await
    }

    async fn probe_guard(
        &self,
        key: &LtxKey,
        body: Body,
        attributes: LtxAttributes,
    ) -> Result<Guard, StoreError> {
        upload::probe(self, &Key::Ltx(*key), &body, attributes).await
    }

    async fn put_ltx_unguarded(
        &self,
        key: &LtxKey,
        body: Body,
        attributes: LtxAttributes,
    ) -> Result<PutOutcome, StoreError> {
        upload::put_once(self, &Key::Ltx(*key), &body, attributes, Guard::Unguarded).await
    }

    async fn put_document(&self, key: &Key, content: Bytes) -> Result<(), StoreError> {
        let object = self.object(key);
        let call = self.client.call(&object, Action::PUT, content.len() as u64);
        let body = Body::Bytes(content.clone());
        let md5 = digest::of(&body, 0..body.len(), self.client.checksum());
        let md5 = md5.await.map_err(|failure| call.failed(failure, 1))?;
        self.client
            .run(&call, || async {
                let request = self.client.sdk().put_object().bucket(self.client.bucket());
                let request = request.key(&object).set_content_md5(md5.clone());
                let request = request.body(ByteStream::from(content.clone()));
                let output = request.send().await.map_err(|error| Failure::of(&error))?;
                failure::taken(output.e_tag())
            })
            .await?;
        Ok(())
    }

    async fn may_delete(&self) -> Result<Option<bool>, StoreError> {
        // Rights are looked at first. Under a condition that cannot hold, a versioned bucket does not even note that
        // something that never was is gone.
        let object = format!("{}/{}", self.prefix, uuid::Uuid::now_v7());
        let call = self.client.call(&object, Action::DELETE, 0);
        let answer = self
            .client
            .run(&call, || async {
                let request = self.client.sdk().delete_object().bucket(self.client.bucket());
                let request = request.key(&object).if_match("\"never\"");
                request.send().await.map_err(|error| Failure::of(&error))
            })
            .await;
        match answer.map_err(StoreError::from) {
            Ok(_) | Err(StoreError::NotFound { .. } | StoreError::Precondition { .. }) => {
                Ok(Some(true))
            }
            Err(StoreError::Denied { .. }) => Ok(Some(false)),
            Err(failure) => Err(failure),
        }
    }
}

/// The `Date` of an answer.
fn date<E>(error: &SdkError<E, HttpResponse>) -> Option<Timestamp> {
    let date = error.raw_response()?.headers().get("date")?;
    DateTime::from_str(date, DateTimeFormat::HttpDate).ok().map(|date| timestamp(Some(&date)))
}

/// A size as the SDK has it; never negative in practice.
fn unsigned(size: Option<i64>) -> u64 {
    size.and_then(|size| u64::try_from(size).ok()).unwrap_or_default()
}

/// A time as the SDK has it; the epoch where the store gave none.
fn timestamp(time: Option<&DateTime>) -> Timestamp {
    let nanos = |time: &DateTime| i32::try_from(time.subsec_nanos()).unwrap_or_default();
    time.and_then(|time| Timestamp::new(time.secs(), nanos(time)).ok()).unwrap_or_default()
}
