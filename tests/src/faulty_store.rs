//! A store that fails as S3 does: before the effect, after it, with the answer lost, or with the effect much later.
//!
//! [`Faults`] is the test's end: it counts calls, fails one of them exactly, or some by chance (the same seed and
//! calls meet the same faults), takes the bucket away, or stops everything, as the death of the process would.

mod plan;

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use replica::format::Level;
use replica::store::{
    Body, Chain, Guard, Key, LtxAttributes, LtxKey, LtxObject, ObjectInfo, ObjectReader,
    PutOutcome, Store, StoreError,
};

use crate::memory_store::read;

pub use plan::Faults;

use plan::Verdict;

/// How a call goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails without an effect (500, 503, a timeout, a connection that ends).
    Before,
    /// It takes effect, and the answer is lost.
    After,
    /// It fails, and takes effect only when so many further calls were made: a request that was on its way for long.
    /// (Of calls that write an LTX object; of others, [`Fault::Before`].)
    Late(u32),
    /// The rights are missing: 403, without an effect.
    Denied,
    /// What is read ends with an error in the middle. (Of calls that do not read, [`Fault::Before`].)
    Truncated,
}

/// When a process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Just before the effect of a call.
    Before,
    /// Just after it.
    After,
}

/// A store that fails.
#[derive(Debug, Clone)]
pub struct FaultyStore {
    store: Arc<dyn Store>,
    faults: Faults,
}

impl FaultyStore {
    /// `store` with these faults.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, faults: Faults) -> Self {
        Self { store, faults }
    }

    /// What was on its way for long arrives, then this call is decided about.
    async fn begin(&self) -> Verdict {
        let (verdict, arrived) = {
            let mut plan = self.faults.plan();
            let verdict = plan.next();
            (verdict, plan.arrived())
        };
        for (key, content, attributes) in arrived {
            // Nobody reads the answer.
            drop(self.store.put_ltx(&key, Body::Bytes(content), attributes).await);
        }
        verdict
    }

    /// Carries a call out, or not, and answers.
    async fn call<T>(
        &self,
        key: String,
        action: &'static str,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let verdict = self.begin().await;
        self.conclude(verdict, key, action, call).await
    }

    async fn conclude<T>(
        &self,
        verdict: Verdict,
        target: String,
        action: &'static str,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        match verdict.fault {
            None => call.await,
            Some(Fault::After) => {
                drop(call.await);
                if verdict.stops {
                    self.faults.stop();
                }
                Err(unavailable(target, action))
            }
            Some(Fault::Denied) => {
                Err(StoreError::Denied { target, action, reason: "AccessDenied".to_owned() })
            }
            Some(Fault::Before | Fault::Late(_) | Fault::Truncated) => {
                Err(unavailable(target, action))
            }
        }
    }

    /// Writes an object by `put`, or lets it be on its way for long.
    async fn write<T>(
        &self,
        key: &LtxKey,
        body: Body,
        attributes: LtxAttributes,
        put: impl AsyncFnOnce(Body) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let content = read(body)?;
        let verdict = self.begin().await;
        if let Some(Fault::Late(calls)) = verdict.fault {
            let mut plan = self.faults.plan();
            let due = plan.calls + u64::from(calls);
            plan.late.push((due, *key, content.clone(), attributes));
        }
        let target = self.store.locate(&Key::Ltx(*key));
        self.conclude(verdict, target, "s3:PutObject", put(Body::Bytes(content))).await
    }
}

fn unavailable(target: String, action: &'static str) -> StoreError {
    StoreError::Unavailable { target, action, attempts: 1, source: "injected fault".into() }
}

#[async_trait]
impl Store for FaultyStore {
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
        self.call(self.url(), "s3:ListBucket", self.store.chains()).await
    }

    async fn list_ltx(&self, chain: Chain, level: Level) -> Result<Vec<LtxObject>, StoreError> {
        self.call(self.url(), "s3:ListBucket", self.store.list_ltx(chain, level)).await
    }

    async fn head(&self, key: &Key) -> Result<ObjectInfo, StoreError> {
        self.call(self.locate(key), "s3:GetObject", self.store.head(key)).await
    }

    async fn get(
        &self,
        key: &Key,
        range: Option<Range<u64>>,
    ) -> Result<Box<dyn ObjectReader>, StoreError> {
        let verdict = self.begin().await;
        let target = self.locate(key);
        if verdict.fault == Some(Fault::Truncated) {
            let reader = self.store.get(key, range).await?;
            return Ok(Box::new(Broken { reader: Some(reader), target }));
        }
        self.conclude(verdict, target, "s3:GetObject", self.store.get(key, range)).await
    }

    async fn put_ltx(
        &self,
        key: &LtxKey,
        body: Body,
        attributes: LtxAttributes,
    ) -> Result<PutOutcome, StoreError> {
        let put = async |body| self.store.put_ltx(key, body, attributes).await;
        self.write(key, body, attributes, put).await
    }

    async fn probe_guard(
        &self,
        key: &LtxKey,
        body: Body,
        attributes: LtxAttributes,
    ) -> Result<Guard, StoreError> {
        let target = self.locate(&Key::Ltx(*key));
        self.call(target, "s3:PutObject", self.store.probe_guard(key, body, attributes)).await
    }

    async fn put_ltx_unguarded(
        &self,
        key: &LtxKey,
        body: Body,
        attributes: LtxAttributes,
    ) -> Result<PutOutcome, StoreError> {
        let put = async |body| self.store.put_ltx_unguarded(key, body, attributes).await;
        self.write(key, body, attributes, put).await
    }

    async fn is_here(&self) -> Result<(), StoreError> {
        self.store.is_here().await
    }

    async fn accept_as_it_is(&self) -> Result<(), StoreError> {
        self.store.accept_as_it_is().await
    }

    async fn put_document(&self, key: &Key, content: Bytes) -> Result<(), StoreError> {
        let target = self.locate(key);
        self.call(target, "s3:PutObject", self.store.put_document(key, content)).await
    }
}

/// Gives the first piece, then fails.
struct Broken {
    reader: Option<Box<dyn ObjectReader>>,
    target: String,
}

#[async_trait]
impl ObjectReader for Broken {
    async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        if let Some(mut reader) = self.reader.take()
            && let Some(mut piece) = reader.next().await?
        {
            piece.truncate(piece.len() / 2);
            return Ok(Some(piece));
        }
        Err(unavailable(self.target.clone(), "s3:GetObject"))
    }
}
