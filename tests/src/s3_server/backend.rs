//! The operations of S3 that the replica (and Litestream) use, on objects in memory.

use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use md5::{Digest, Md5};
use s3s::access::{S3Access, S3AccessContext};
use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, CommonPrefix,
    CompleteMultipartUploadInput, CompleteMultipartUploadOutput, CreateMultipartUploadInput,
    CreateMultipartUploadOutput, DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput,
    DeleteObjectsOutput, DeletedObject, ETag, ETagCondition, GetObjectInput, GetObjectOutput,
    HeadObjectInput, HeadObjectOutput, ListObjectsV2Input, ListObjectsV2Output, PutObjectInput,
    PutObjectOutput, StreamingBlob, UploadPartInput, UploadPartOutput,
};
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};

use super::objects::{CompletionError, Object};
use super::{Conditions, State, lock};

/// Bytes of an object that are sent at a time.
const PIECE: usize = 64 * 1024;

/// Counts requests and refuses what the test denied.
#[derive(Debug)]
pub(super) struct Gate {
    state: Arc<Mutex<State>>,
}

impl Gate {
    pub(super) fn new(state: Arc<Mutex<State>>) -> Self {
        Self { state }
    }
}

#[async_trait::async_trait]
impl S3Access for Gate {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        let name = context.s3_op().name().to_owned();
        let mut state = lock(&self.state);
        let denied = state.denied.contains(&name);
        *state.counts.entry(name).or_default() += 1;
        if denied || context.credentials().is_none() {
            return Err(s3_error!(AccessDenied, "Access Denied"));
        }
        Ok(())
    }
}

#[derive(Debug)]
pub(super) struct Backend {
    bucket: String,
    state: Arc<Mutex<State>>,
}

impl Backend {
    pub(super) fn new(bucket: String, state: Arc<Mutex<State>>) -> Self {
        Self { bucket, state }
    }

    fn in_bucket(&self, bucket: &str) -> S3Result<()> {
        if bucket == self.bucket { Ok(()) } else { Err(s3_error!(NoSuchBucket)) }
    }

    fn object(&self, bucket: &str, key: &str) -> S3Result<Object> {
        self.in_bucket(bucket)?;
        let state = lock(&self.state);
        state.objects.get(key).ok_or_else(|| {
            if state.denied.iter().any(|name| name == "ListObjectsV2") {
                s3_error!(AccessDenied, "Access Denied")
            } else {
                s3_error!(NoSuchKey)
            }
        })
    }
}

/// Whether the request may only create; other conditions are not known here.
fn only_new(
    condition: Option<&ETagCondition>,
    known: Conditions,
    in_parts: bool,
) -> S3Result<bool> {
    match (condition, known) {
        (None, _) => Ok(false),
        (Some(ETagCondition::ETag(_)), _) => Err(s3_error!(NotImplemented)),
        (_, Conditions::Honoured) => Ok(true),
        (_, Conditions::Ignored) => Ok(false),
        (_, Conditions::IgnoredForParts) => Ok(!in_parts),
        (_, Conditions::Refused(status)) => {
            let mut error = s3_error!(NotImplemented, "a header implies what is not implemented");
            error.set_status_code(status.try_into().map_err(s3s::S3Error::internal_error)?);
            Err(error)
        }
    }
}

/// Refuses what does not have the checksum that came with it, and where the bucket asks for one, what has none.
fn verify(state: &mut State, md5: Option<&str>, content: &Bytes) -> S3Result<()> {
    let Some(expected) = md5 else {
        let asked = state.asks_for_checksums;
        let refused = s3_error!(InvalidRequest, "Content-MD5 HTTP header is required");
        return if asked { Err(refused) } else { Ok(()) };
    };
    let mut received = content.to_vec();
    if state.bytes_to_change > 0
        && let Some(byte) = received.first_mut()
    {
        state.bytes_to_change -= 1;
        *byte ^= 1;
    }
    let right = BASE64_STANDARD.encode(Md5::digest(&received)) == expected;
    if right { Ok(()) } else { Err(s3_error!(BadDigest)) }
}

async fn read(body: Option<StreamingBlob>) -> S3Result<Bytes> {
    let mut content = BytesMut::new();
    let Some(mut body) = body else { return Ok(Bytes::new()) };
    while let Some(piece) = body.next().await {
        content.extend_from_slice(&piece.map_err(|_| s3_error!(IncompleteBody))?);
    }
    Ok(content.freeze())
}

/// Bytes of a body that nobody keeps.
async fn count(body: Option<StreamingBlob>) -> S3Result<u64> {
    let mut size = 0;
    let Some(mut body) = body else { return Ok(0) };
    while let Some(piece) = body.next().await {
        size += piece.map_err(|_| s3_error!(IncompleteBody))?.len() as u64;
    }
    Ok(size)
}

fn length(content: &Bytes) -> Option<i64> {
    i64::try_from(content.len()).ok()
}

#[async_trait::async_trait]
impl S3 for Backend {
    async fn put_object(
        &self,
        request: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        let input = request.input;
        self.in_bucket(&input.bucket)?;
        let known = lock(&self.state).conditions;
        let only_new = only_new(input.if_none_match.as_ref(), known, false)?;
        let content = read(input.body).await?;
        if input.content_length.is_some_and(|announced| Some(announced) != length(&content)) {
            return Err(s3_error!(IncompleteBody));
        }
        let mut state = lock(&self.state);
        verify(&mut state, input.content_md5.as_deref(), &content)?;
        if only_new && state.objects.get(&input.key).is_some() {
            return Err(s3_error!(PreconditionFailed));
        }
        let etag = state.objects.put(input.key, content, input.metadata.unwrap_or_default());
        Ok(S3Response::new(PutObjectOutput {
            e_tag: Some(ETag::Strong(etag)),
            ..Default::default()
        }))
    }

    async fn get_object(
        &self,
        request: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        let input = request.input;
        let object = self.object(&input.bucket, &input.key)?;
        if let Some(ETagCondition::ETag(wanted)) = &input.if_match
            && wanted.value() != object.etag
        {
            return Err(s3_error!(PreconditionFailed));
        }
        let whole = object.content.len();
        let mut content = object.content;
        let mut content_range = None;
        if let Some(range) = input.range {
            let range = range.check(whole as u64)?;
            content_range = Some(format!("bytes {}-{}/{whole}", range.start, range.end - 1));
            let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX);
            content = content.slice(at(range.start)..at(range.end));
        }
        let content_length = length(&content);
        let pieces: Vec<_> = (0..content.len())
            .step_by(PIECE)
            .map(|at| content.slice(at..content.len().min(at + PIECE)))
            .collect();
        let body = stream::iter(pieces.into_iter().map(Ok::<_, std::io::Error>));
        Ok(S3Response::new(GetObjectOutput {
            body: Some(StreamingBlob::wrap(body)),
            content_length,
            content_range,
            e_tag: Some(ETag::Strong(object.etag)),
            last_modified: Some(object.modified.into()),
            metadata: Some(object.metadata),
            ..Default::default()
        }))
    }

    async fn head_object(
        &self,
        request: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let object = self.object(&request.input.bucket, &request.input.key)?;
        Ok(S3Response::new(HeadObjectOutput {
            content_length: i64::try_from(object.size).ok(),
            e_tag: Some(ETag::Strong(object.etag)),
            last_modified: Some(object.modified.into()),
            metadata: Some(object.metadata),
            ..Default::default()
        }))
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = request.input;
        self.in_bucket(&input.bucket)?;
        let cursor = input.continuation_token.or(input.start_after).unwrap_or_default();
        let limit =
            input.max_keys.and_then(|keys| usize::try_from(keys).ok()).unwrap_or(1000).min(1000);
        let prefix = input.prefix.unwrap_or_default();
        let delimiter = input.delimiter.unwrap_or_default();
        let page = lock(&self.state).objects.page(&prefix, &delimiter, &cursor, limit);
        let entry = |(key, object): (String, Object)| s3s::dto::Object {
            key: Some(key),
            size: length(&object.content),
            e_tag: Some(ETag::Strong(object.etag)),
            last_modified: Some(object.modified.into()),
            ..Default::default()
        };
        let common = |prefix| CommonPrefix { prefix: Some(prefix) };
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: Some(prefix),
            is_truncated: Some(page.next.is_some()),
            next_continuation_token: page.next,
            contents: Some(page.objects.into_iter().map(entry).collect()),
            common_prefixes: Some(page.prefixes.into_iter().map(common).collect()),
            ..Default::default()
        }))
    }

    async fn delete_object(
        &self,
        request: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        self.in_bucket(&request.input.bucket)?;
        lock(&self.state).objects.remove(&request.input.key);
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn delete_objects(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        self.in_bucket(&request.input.bucket)?;
        let mut state = lock(&self.state);
        let mut deleted = Vec::new();
        for object in request.input.delete.objects {
            state.objects.remove(&object.key);
            deleted.push(DeletedObject { key: Some(object.key), ..Default::default() });
        }
        Ok(S3Response::new(DeleteObjectsOutput { deleted: Some(deleted), ..Default::default() }))
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let input = request.input;
        self.in_bucket(&input.bucket)?;
        let metadata = input.metadata.unwrap_or_default();
        let id = lock(&self.state).objects.begin_upload(input.key.clone(), metadata);
        Ok(S3Response::new(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(id),
            ..Default::default()
        }))
    }

    async fn upload_part(
        &self,
        request: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        let input = request.input;
        self.in_bucket(&input.bucket)?;
        let (content, size) = if lock(&self.state).discards_parts {
            (Bytes::new(), count(input.body).await?)
        } else {
            let content = read(input.body).await?;
            verify(&mut lock(&self.state), input.content_md5.as_deref(), &content)?;
            let size = content.len() as u64;
            (content, size)
        };
        let mut state = lock(&self.state);
        let etag = state.objects.add_part(&input.upload_id, input.part_number, content, size);
        drop(state);
        let etag = ETag::Strong(etag.ok_or_else(|| s3_error!(NoSuchUpload))?);
        Ok(S3Response::new(UploadPartOutput { e_tag: Some(etag), ..Default::default() }))
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = request.input;
        self.in_bucket(&input.bucket)?;
        let known = lock(&self.state).conditions;
        let only_new = only_new(input.if_none_match.as_ref(), known, true)?;
        let named: Vec<(i32, String)> = input
            .multipart_upload
            .and_then(|upload| upload.parts)
            .unwrap_or_default()
            .into_iter()
            .filter_map(|part| Some((part.part_number?, part.e_tag?.value().to_owned())))
            .collect();
        let completed =
            lock(&self.state).objects.complete_upload(&input.upload_id, &named, only_new);
        let etag = completed.map_err(|error| match error {
            CompletionError::NoSuchUpload => s3_error!(NoSuchUpload),
            CompletionError::InvalidPart => s3_error!(InvalidPart),
            CompletionError::Exists => s3_error!(PreconditionFailed),
        })?;
        Ok(S3Response::new(CompleteMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag: Some(ETag::Strong(etag)),
            ..Default::default()
        }))
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        self.in_bucket(&request.input.bucket)?;
        if !lock(&self.state).objects.abort_upload(&request.input.upload_id) {
            return Err(s3_error!(NoSuchUpload));
        }
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }
}
