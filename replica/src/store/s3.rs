//! S3 and S3-compatible stores.

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;

use crate::format::Level;
use crate::store::{
    Access, Body, Chain, Key, LtxAttributes, LtxKey, LtxObject, ObjectInfo, ObjectReader,
    PutOutcome, S3Options, Store, StoreError,
};

#[derive(Debug, Clone)]
pub(super) struct Client {}

impl Client {
    pub(super) async fn connect(_b: &str, _o: &S3Options, _a: Access) -> Result<Self, StoreError> {
        todo!()
    }
    pub(super) async fn directories(&self, _prefix: &str) -> Result<Vec<String>, StoreError> {
        todo!()
    }
}

/// One database below a prefix of a bucket.
#[derive(Debug)]
pub struct S3Store {}

impl S3Store {
    pub(super) fn new(_client: Client, _prefix: String) -> Self {
        todo!()
    }
}

#[async_trait]
impl Store for S3Store {
    fn url(&self) -> String {
        todo!()
    }
    fn locate(&self, _key: &Key) -> String {
        todo!()
    }
    async fn chains(&self) -> Result<Vec<Chain>, StoreError> {
        todo!()
    }
    async fn list_ltx(&self, _chain: Chain, _level: Level) -> Result<Vec<LtxObject>, StoreError> {
        todo!()
    }
    async fn head(&self, _key: &Key) -> Result<ObjectInfo, StoreError> {
        todo!()
    }
    async fn get(
        &self,
        _key: &Key,
        _range: Option<Range<u64>>,
    ) -> Result<Box<dyn ObjectReader>, StoreError> {
        todo!()
    }
    async fn put_ltx(
        &self,
        _key: &LtxKey,
        _body: Body,
        _attributes: LtxAttributes,
    ) -> Result<PutOutcome, StoreError> {
        todo!()
    }
    async fn put_document(&self, _key: &Key, _content: Bytes) -> Result<(), StoreError> {
        todo!()
    }
}
