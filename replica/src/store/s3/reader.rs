//! Reading an object, and going on where a connection broke.
//!
//! Invariants: pieces come in order and without a gap; the bytes of one reader are of one version of
//! the object (`If-Match` on every resumption); a body that ends early is an error, never the end.

use std::ops::Range;

use async_trait::async_trait;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;

use crate::store::retry::Budget;
use crate::store::{ObjectReader, StoreError};

use super::client::Client;
use super::failure::{Action, Call, Failed, Failure, Kind, taken};
use super::unsigned;

/// Bytes after which a connection has earned its retries back.
const PROGRESS: u64 = 1024 * 1024;

/// An object being read.
pub(super) struct S3Reader {
    client: Client,
    call: Call,
    /// `None` between a break and its resumption, and at the end.
    body: Option<ByteStream>,
    etag: Option<String>,
    /// The next byte to deliver.
    position: u64,
    /// One after the last byte to deliver.
    end: u64,
    budget: Budget,
    /// Where the last resumption began.
    resumed_at: u64,
}

impl S3Reader {
    /// Requests the object, or a range of it.
    pub(super) async fn open(
        client: Client,
        key: String,
        range: Option<Range<u64>>,
    ) -> Result<Self, StoreError> {
        let call = client.call(&key, Action::GET, 0);
        let budget = client.retry().budget();
        let start = range.as_ref().map_or(0, |range| range.start);
        let mut reader = Self {
            client,
            call,
            body: None,
            etag: None,
            position: start,
            end: start,
            budget,
            resumed_at: start,
        };
        if range.as_ref().is_some_and(Range::is_empty) {
            return Ok(reader);
        }
        let output = reader.request(range).await.map_err(|failed| out_of_range(failed, start))?;
        reader.end = start.saturating_add(unsigned(output.content_length()));
        reader.etag = output.e_tag().map(str::to_owned);
        reader.body = Some(output.body);
        Ok(reader)
    }

    async fn request(&self, range: Option<Range<u64>>) -> Result<GetObjectOutput, Failed> {
        let range = range.map(|range| format!("bytes={}-{}", range.start, range.end - 1));
        self.client
            .run(&self.call, || async {
                let request = self.client.sdk().get_object().bucket(self.client.bucket());
                let request = request.key(&self.call.key).set_if_match(self.etag.clone());
                let request = request.set_range(range.clone());
                let output = request.send().await.map_err(|error| Failure::of(&error))?;
                taken(output.e_tag()).map(|()| output)
            })
            .await
    }

    /// Requests what is still to come.
    async fn resume(&mut self, broken: Failure) -> Result<(), StoreError> {
        if self.position - self.resumed_at >= PROGRESS {
            self.budget = self.client.retry().budget();
        }
        self.resumed_at = self.position;
        let attempts = self.budget.attempts();
        if !self.budget.wait(None).await {
            return Err(self.call.failed(broken, attempts).into());
        }
        tracing::debug!(target = %self.call.target(), position = self.position, %broken, "resuming");
        let output = self.request(Some(self.position..self.end)).await.map_err(|failed| {
            match failed.failure.kind {
                Kind::Exists | Kind::NotFound | Kind::OutOfRange => {
                    StoreError::Changed { target: failed.target, offset: self.position }
                }
                _ => failed.into(),
            }
        })?;
        self.body = Some(output.body);
        Ok(())
    }

    /// The next piece of the present body.
    async fn piece(&mut self) -> Result<Bytes, Failure> {
        let missing = self.end - self.position;
        let short = || Failure::transient(format!("body ended {missing} bytes early"));
        let body = self.body.as_mut().ok_or_else(short)?;
        match tokio::time::timeout(self.call.timeout, body.next()).await {
            Err(_) => Err(Failure::timed_out(self.call.timeout)),
            Ok(None) => Err(short()),
            Ok(Some(Err(error))) => Err(Failure::transient(format!("read body: {error}"))),
            Ok(Some(Ok(piece))) => Ok(piece),
        }
    }
}

#[async_trait]
impl ObjectReader for S3Reader {
    async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        while self.position < self.end {
            match self.piece().await {
                Ok(piece) if piece.is_empty() => {}
                Ok(mut piece) => {
                    // A store that sends more than it announced is cut off.
                    let wanted = usize::try_from(self.end - self.position).unwrap_or(usize::MAX);
                    piece.truncate(wanted);
                    self.position += piece.len() as u64;
                    return Ok(Some(piece));
                }
                Err(broken) => {
                    self.body = None;
                    self.resume(broken).await?;
                }
            }
        }
        self.body = None;
        Ok(None)
    }
}

fn out_of_range(failed: Failed, start: u64) -> StoreError {
    match failed.failure.kind {
        Kind::OutOfRange => StoreError::OutOfRange { target: failed.target, start },
        _ => failed.into(),
    }
}
