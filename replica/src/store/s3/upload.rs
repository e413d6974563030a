//! Writing an LTX object exactly once, in one request or in parts.
//!
//! Invariants: what is sent bears its checksum, which the store verifies; success means that the object under this key has our size and checksum; nothing is
//! ever replaced; a file is streamed from disk, no part of it is in memory whole; parts of an upload
//! that failed are removed again (unless the store cannot be reached: the bucket's lifecycle rule).

use aws_sdk_s3::primitives::{ByteStream, Length};
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use futures_util::stream::{self, StreamExt, TryStreamExt};

use crate::store::{Body, Guard, Key, LtxAttributes, ObjectInfo, PutOutcome, Store, StoreError};

use super::failure::{Action, Call, Failed, Failure, Kind, taken};
use super::{CHECKSUM_METADATA, S3Store, TIMESTAMP_METADATA, digest};

const MIB: u64 = 1024 * 1024;
/// Above this, an object goes up in parts, bytes.
const ONE_REQUEST: u64 = 16 * MIB;
/// A part's size until the store's limit of parts makes it larger, bytes.
const PART: u64 = 8 * MIB;
/// No store takes more parts than this.
const MAX_PARTS: u64 = 10_000;
/// Parts under way at once: the second hides the first one's round trip; more would only hold buffers.
const PARTS_AT_ONCE: usize = 2;
/// Completing a large upload takes the store minutes, whatever its size; in bytes of upload time.
const COMPLETION: u64 = 16 * MIB;

/// Puts an object whose key nobody may have used before.
pub(super) async fn put_once(
    store: &S3Store,
    key: &Key,
    body: &Body,
    attributes: LtxAttributes,
    guard: Guard,
) -> Result<PutOutcome, StoreError> {
    let upload = Upload { store, key, object: store.object(key), body, attributes, guard };
    let mut budget = store.client.retry().budget();
    loop {
        if let Some(outcome) = upload.look_first().await? {
            return Ok(outcome);
        }
        let failed = match upload.send().await {
            Ok(()) => return Ok(PutOutcome::Created),
            Err(failed) => failed,
        };
        if let Some(outcome) = upload.settle(&failed).await? {
            return Ok(outcome);
        }
        if !is_open(&failed.failure.kind) || !budget.wait(None).await {
            return Err(failed.into());
        }
    }
}

/// Puts an object of ours a second time, to see whether the store lets that pass.
pub(super) async fn probe(
    store: &S3Store,
    key: &Key,
    body: &Body,
    attributes: LtxAttributes,
) -> Result<Guard, StoreError> {
    let guard = Guard::Guarded;
    let upload = Upload { store, key, object: store.object(key), body, attributes, guard };
    let mut budget = store.client.retry().budget();
    let there = store.info(key).await?;
    upload.outcome(&there)?;
    loop {
        let failed = match upload.send().await {
            Ok(()) => return Ok(Guard::Unguarded),
            Err(failed) => failed,
        };
        match failed.failure.kind {
            Kind::Exists => return Ok(Guard::Guarded),
            Kind::ConditionUnknown => return Ok(Guard::Unguarded),
            Kind::Conflict | Kind::NoSuchUpload if budget.wait(None).await => {}
            _ => return Err(failed.into()),
        }
    }
}

/// The failure leaves open whether an object is there.
fn is_open(kind: &Kind) -> bool {
    matches!(kind, Kind::Exists | Kind::Conflict | Kind::NoSuchUpload)
}

struct Upload<'a> {
    store: &'a S3Store,
    key: &'a Key,
    object: String,
    body: &'a Body,
    attributes: LtxAttributes,
    /// Whether the condition is sent.
    guard: Guard,
}

impl Upload<'_> {
    async fn send(&self) -> Result<(), Failed> {
        if self.body.len() > ONE_REQUEST {
            self.in_parts().await
        } else {
            self.in_one_request().await
        }
    }

    /// Looks before sending where the condition does not protect what is there, and where a look spares
    /// many parts.
    async fn look_first(&self) -> Result<Option<PutOutcome>, StoreError> {
        if self.guard == Guard::Guarded && self.body.len() <= ONE_REQUEST {
            return Ok(None);
        }
        match self.store.info(self.key).await {
            Ok(there) => self.outcome(&there).map(Some),
            Err(head) => match (&head.failure.kind, self.guard) {
                // Without the right to list, a missing object is answered as denied: the condition decides.
                (Kind::NotFound, _) | (Kind::Denied, Guard::Guarded) => Ok(None),
                _ => Err(head.into()),
            },
        }
    }

    fn outcome(&self, there: &ObjectInfo) -> Result<PutOutcome, StoreError> {
        if there.size == self.body.len() && there.checksum == Some(self.attributes.checksum) {
            return Ok(PutOutcome::AlreadyOurs);
        }
        Err(StoreError::Precondition { target: self.store.locate(self.key) })
    }

    /// The condition, where it is sent.
    fn only_new(&self) -> Option<String> {
        (self.guard == Guard::Guarded).then(|| "*".to_owned())
    }

    /// Looks at what is under the key: our own earlier attempt, another writer's object, or (`None`)
    /// nothing that could be seen.
    async fn settle(&self, failed: &Failed) -> Result<Option<PutOutcome>, StoreError> {
        let kind = &failed.failure.kind;
        if !is_open(kind) {
            return Ok(None);
        }
        match (self.store.info(self.key).await, kind) {
            (Ok(there), _) => self.outcome(&there).map(Some),
            // Without the right to list, a missing object is answered as denied.
            (Err(head), _) if matches!(head.failure.kind, Kind::NotFound) => Ok(None),
            (Err(head), Kind::Conflict | Kind::NoSuchUpload)
                if matches!(head.failure.kind, Kind::Denied) =>
            {
                Ok(None)
            }
            (Err(head), _) => Err(head.into()),
        }
    }

    /// The failure of a request that carries the condition.
    fn conditional(&self, mut failure: Failure) -> Failure {
        if self.guard == Guard::Guarded && matches!(failure.kind, Kind::NotImplemented) {
            failure.kind = Kind::ConditionUnknown;
        }
        failure
    }

    fn checksum(&self) -> String {
        format!("{:016x}", self.attributes.checksum.raw())
    }

    fn timestamp(&self) -> String {
        format!("{:.9}", self.attributes.timestamp)
    }

    async fn in_one_request(&self) -> Result<(), Failed> {
        let client = &self.store.client;
        let call = client.call(&self.object, Action::PUT, self.body.len());
        let md5 = self.digest(&call, 0, self.body.len()).await?;
        client
            .run(&call, || async {
                let body = self.bytes(0, self.body.len()).await?;
                let request = client.sdk().put_object().bucket(client.bucket()).key(&self.object);
                let request = request
                    .metadata(TIMESTAMP_METADATA, self.timestamp())
                    .metadata(CHECKSUM_METADATA, self.checksum());
                let request = request.set_if_none_match(self.only_new());
                let request = request.set_content_md5(md5.clone()).body(body);
                let sent = request.send().await;
                let output = sent.map_err(|error| self.conditional(Failure::of(&error)))?;
                taken(output.e_tag())
            })
            .await?;
        Ok(())
    }

    async fn in_parts(&self) -> Result<(), Failed> {
        let client = &self.store.client;
        let call = client.call(&self.object, Action::PUT, 0);
        let created = client
            .run(&call, || async {
                let request = client.sdk().create_multipart_upload().bucket(client.bucket());
                let request = request
                    .key(&self.object)
                    .metadata(TIMESTAMP_METADATA, self.timestamp())
                    .metadata(CHECKSUM_METADATA, self.checksum());
                request.send().await.map_err(|error| Failure::of(&error))
            })
            .await?;
        let Some(id) = created.upload_id() else {
            return Err(call.failed(Failure::transient("no upload id in the answer".to_owned()), 1));
        };
        let result = async { self.complete(id, self.parts(id).await?).await }.await;
        if result.is_err() {
            self.abort(id).await;
        }
        result
    }

    async fn parts(&self, id: &str) -> Result<Vec<CompletedPart>, Failed> {
        let mut parts: Vec<CompletedPart> = stream::iter(part_ranges(self.body.len()))
            .map(|(number, offset, len)| self.part(id, number, offset, len))
            .buffer_unordered(PARTS_AT_ONCE)
            .try_collect()
            .await?;
        parts.sort_unstable_by_key(CompletedPart::part_number);
        Ok(parts)
    }

    async fn part(
        &self,
        id: &str,
        number: i32,
        offset: u64,
        len: u64,
    ) -> Result<CompletedPart, Failed> {
        let client = &self.store.client;
        let call = client.call(&self.object, Action::PUT, len);
        let md5 = self.digest(&call, offset, len).await?;
        let output = client
            .run(&call, || async {
                let body = self.bytes(offset, len).await?;
                let request = client.sdk().upload_part().bucket(client.bucket()).key(&self.object);
                let request = request.upload_id(id).part_number(number);
                let request = request.set_content_md5(md5.clone()).body(body);
                let output = request.send().await.map_err(|error| Failure::of(&error))?;
                taken(output.e_tag()).map(|()| output)
            })
            .await?;
        let part = CompletedPart::builder().part_number(number);
        Ok(part.set_e_tag(output.e_tag().map(str::to_owned)).build())
    }

    async fn complete(&self, id: &str, parts: Vec<CompletedPart>) -> Result<(), Failed> {
        let client = &self.store.client;
        let call = client.call(&self.object, Action::PUT, COMPLETION);
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        client
            .run(&call, || async {
                let request = client.sdk().complete_multipart_upload().bucket(client.bucket());
                let request = request.key(&self.object).upload_id(id);
                let request =
                    request.set_if_none_match(self.only_new()).multipart_upload(parts.clone());
                let sent = request.send().await;
                let output = sent.map_err(|error| self.conditional(Failure::of(&error)))?;
                taken(output.e_tag())
            })
            .await?;
        Ok(())
    }

    async fn abort(&self, id: &str) {
        let client = &self.store.client;
        let call = client.call(&self.object, Action::ABORT, 0);
        let aborted = client
            .run(&call, || async {
                let request = client.sdk().abort_multipart_upload().bucket(client.bucket());
                let request = request.key(&self.object).upload_id(id);
                request.send().await.map_err(|error| Failure::of(&error))
            })
            .await;
        match aborted {
            Ok(_) => {}
            Err(failed) if matches!(failed.failure.kind, Kind::NoSuchUpload | Kind::NotFound) => {}
            Err(failed) => tracing::warn!(
                object = failed.target,
                error = %failed.failure,
                "parts of a failed upload stay until the bucket's lifecycle rule removes them"
            ),
        }
    }

    async fn digest(&self, call: &Call, offset: u64, len: u64) -> Result<Option<String>, Failed> {
        let checksum = self.store.client.checksum();
        let digest = digest::of(self.body, offset..offset + len, checksum).await;
        digest.map_err(|failure| call.failed(failure, 1))
    }

    /// A range of the body, read anew for each attempt.
    async fn bytes(&self, offset: u64, len: u64) -> Result<ByteStream, Failure> {
        match self.body {
            Body::Bytes(bytes) => {
                let at =
                    |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                Ok(ByteStream::from(bytes.slice(at(offset)..at(offset + len))))
            }
            Body::File { path, .. } => ByteStream::read_from()
                .path(path)
                .offset(offset)
                .length(Length::Exact(len))
                .build()
                .await
                .map_err(|error| Failure::local(path, error.into())),
        }
    }
}

/// Number, offset and length of each part.
fn part_ranges(len: u64) -> impl Iterator<Item = (i32, u64, u64)> {
    let size = part_size(len);
    (1..)
        .zip((0..len.div_ceil(size)).map(move |index| index * size))
        .map(move |(number, offset)| (number, offset, size.min(len - offset)))
}

fn part_size(len: u64) -> u64 {
    PART.max(len.div_ceil(MAX_PARTS).next_multiple_of(MIB))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_an_object_without_gap_and_stay_within_the_limits() {
        let gib = 1024 * MIB;
        for len in [ONE_REQUEST + 1, 3 * PART, 500 * MIB - 7, 5 * gib + 1, 79 * gib, 5000 * gib] {
            let mut end = 0;
            let mut count = 0;
            for (number, offset, part) in part_ranges(len) {
                assert_eq!(offset, end);
                assert!(part > 0 && part <= 5 * gib, "{len}: part of {part}");
                end += part;
                count += 1;
                assert_eq!(number, count);
            }
            assert_eq!(end, len);
            assert!(count <= 10_000, "{len}: {count} parts");
        }
        assert_eq!(part_size(500 * MIB), PART);
    }
}
