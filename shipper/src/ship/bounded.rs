//! A store that all databases share with moderation: so many requests at once, and no more.
//!
//! A thousand databases that all have something to say would open a thousand connections: memory and
//! descriptors that nobody planned for, and a store that answers 503. Large uploads have permits of their own, so
//! that a few snapshots, which take minutes, never keep the small files of the others waiting. Whoever waits for a
//! permit gets it in order.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use replica::format::Level;
use replica::store::{
    Body, Chain, Guard, Key, LtxAttributes, LtxKey, LtxObject, ObjectInfo, ObjectReader,
    PutOutcome, Store, StoreError,
};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Requests at once, of all databases together.
const REQUESTS: usize = 32;
/// Large uploads at once.
const LARGE_UPLOADS: usize = 4;
/// From this size on an upload is large, bytes.
const LARGE: u64 = 8 << 20;

/// The permits.
#[derive(Debug)]
pub struct Moderation {
    requests: Semaphore,
    large: Semaphore,
}

impl Default for Moderation {
    fn default() -> Self {
        Self { requests: Semaphore::new(REQUESTS), large: Semaphore::new(LARGE_UPLOADS) }
    }
}

impl Moderation {
    async fn request(&self) -> Option<SemaphorePermit<'_>> {
        // Never closed; without a permit a request would still be right.
        self.requests.acquire().await.ok()
    }

    async fn upload(&self, body: &Body) -> Option<SemaphorePermit<'_>> {
        match body {
            Body::File { len, .. } if *len >= LARGE => self.large.acquire().await.ok(),
            _ => self.request().await,
        }
    }
}

/// One database's store, moderated.
#[derive(Debug)]
pub struct Moderated {
    store: Arc<dyn Store>,
    moderation: Arc<Moderation>,
}

impl Moderated {
    /// Puts the moderation in front of a store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, moderation: Arc<Moderation>) -> Self {
        Self { store, moderation }
    }
}

#[async_trait]
impl Store for Moderated {
    fn url(&self) -> String {
        self.store.url()
    }

    fn locate(&self, key: &Key) -> String {
        self.store.locate(key)
    }

    fn keeps_time(&self) -> bool {
        self.store.keeps_time()
    }

    async fn chains(&self) -> Result<Vec<Chain>, StoreError> {
        let _permit = self.moderation.request().await;
        self.store.chains().await
    }

    async fn list_ltx(&self, chain: Chain, level: Level) -> Result<Vec<LtxObject>, StoreError> {
        let _permit = self.moderation.request().await;
        self.store.list_ltx(chain, level).await
    }

    async fn head(&self, key: &Key) -> Result<ObjectInfo, StoreError> {
        let _permit = self.moderation.request().await;
        self.store.head(key).await
    }

    /// Moderates the opening only: a reader left standing must not keep the others out.
    async fn get(
        &self,
        key: &Key,
        range: Option<Range<u64>>,
    ) -> Result<Box<dyn ObjectReader>, StoreError> {
        let _permit = self.moderation.request().await;
        self.store.get(key, range).await
    }

    async fn put_ltx(
        &self,
        key: &LtxKey,
        body: Body,
        attributes: LtxAttributes,
    ) -> Result<PutOutcome, StoreError> {
        let _permit = self.moderation.upload(&body).await;
        self.store.put_ltx(key, body, attributes).await
    }

    async fn probe_guard(
        &self,
        key: &LtxKey,
        body: Body,
        attributes: LtxAttributes,
    ) -> Result<Guard, StoreError> {
        let _permit = self.moderation.upload(&body).await;
        self.store.probe_guard(key, body, attributes).await
    }

    async fn put_ltx_unguarded(
        &self,
        key: &LtxKey,
        body: Body,
        attributes: LtxAttributes,
    ) -> Result<PutOutcome, StoreError> {
        let _permit = self.moderation.upload(&body).await;
        self.store.put_ltx_unguarded(key, body, attributes).await
    }

    async fn put_document(&self, key: &Key, content: Bytes) -> Result<(), StoreError> {
        let _permit = self.moderation.request().await;
        self.store.put_document(key, content).await
    }

    async fn is_here(&self) -> Result<(), StoreError> {
        let _permit = self.moderation.request().await;
        self.store.is_here().await
    }

    async fn accept_as_it_is(&self) -> Result<(), StoreError> {
        self.store.accept_as_it_is().await
    }

    async fn may_delete(&self) -> Result<Option<bool>, StoreError> {
        let _permit = self.moderation.request().await;
        self.store.may_delete().await
    }
}
