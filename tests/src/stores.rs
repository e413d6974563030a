//! Stores to test against: roots with short retries, keys and bodies.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use replica::format::{Checksum, GenerationId, Level, Txid, TxidRange};
use replica::store::{
    Access, Body, Chain, Key, LtxAttributes, LtxKey, RetryPolicy, Root, S3Options,
};

use crate::drill_support::fixture;
use crate::s3_server::S3Server;

/// Longer than a loaded machine takes for any request: a request that is repeated after it took effect has tests of its own.
const ANSWER: Duration = Duration::from_secs(30);

/// Retries without waiting.
#[must_use]
pub fn impatient() -> RetryPolicy {
    RetryPolicy {
        attempts: 4,
        first_delay: Duration::from_millis(1),
        max_delay: Duration::from_millis(5),
        total: Duration::from_secs(600),
        attempt_timeout: ANSWER,
    }
}

/// A root on a server, reached through `endpoint` (the server's own or a proxy's).
///
/// # Panics
/// Where the root cannot be opened.
pub async fn s3_root(server: &S3Server, endpoint: &str, prefix: &str) -> Root {
    s3_root_within(server, endpoint, prefix, ANSWER).await
}

/// The same for a server that may never answer: a request is given up after `attempt_timeout`.
///
/// # Panics
/// Where the root cannot be opened.
pub async fn s3_root_within(
    server: &S3Server,
    endpoint: &str,
    prefix: &str,
    attempt_timeout: Duration,
) -> Root {
    let retry = RetryPolicy { attempt_timeout, ..impatient() };
    let access = Access { credentials: server.credentials(), retry };
    let options = S3Options {
        endpoint: Some(endpoint.to_owned()),
        region: Some("us-east-1".to_owned()),
        ..S3Options::default()
    };
    let url = server.url(prefix).parse().unwrap();
    Root::open_with(&url, &options, access).await.unwrap()
}

/// A server with the bucket as Litestream left it (the fixture `v05-s3`): the database `app.db` below `prod`.
///
/// # Panics
/// Where the fixture cannot be read.
#[must_use]
pub fn litestreams_bucket() -> S3Server {
    let server = S3Server::start();
    let objects = fixture("v05-s3").join("objects");
    for level in std::fs::read_dir(objects.join("prod/app.db")).unwrap() {
        for file in std::fs::read_dir(level.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            let key = path.strip_prefix(&objects).unwrap().to_str().unwrap();
            server.replace(key, std::fs::read(&path).unwrap());
        }
    }
    server
}

/// A root in a directory.
///
/// # Panics
/// Where the path is not Unicode.
pub async fn file_root(dir: &Path) -> Root {
    let url = format!("file://{}", dir.to_str().unwrap()).parse().unwrap();
    Root::open(&url, &S3Options::default()).await.unwrap()
}

/// The generation that keys are made in.
///
/// # Panics
/// Never.
#[must_use]
pub fn generation() -> GenerationId {
    "01938c5e-7a00-7000-8000-00000000000a".parse().unwrap()
}

/// A key of level 0 in [`generation`].
///
/// # Panics
/// For TXID 0.
#[must_use]
pub fn ltx(txid: u64) -> LtxKey {
    let txids = TxidRange::single(Txid::new(txid).unwrap());
    LtxKey { chain: Chain::Generation(generation()), level: Level::SYNC, txids }
}

/// The same as a [`Key`].
#[must_use]
pub fn key(txid: u64) -> Key {
    ltx(txid).into()
}

/// Bytes that end as an LTX file does: in their file checksum.
#[must_use]
pub fn content(seed: u64, len: usize) -> Bytes {
    let mut bytes: Vec<u8> = (0..len.saturating_sub(8) as u64)
        .map(|at| (at.wrapping_mul(31).wrapping_add(at >> 8).wrapping_add(seed) & 0xff) as u8)
        .collect();
    bytes.extend_from_slice(&checksum(seed).raw().to_be_bytes());
    bytes.into()
}

/// What goes with [`content`] of the same seed.
///
/// # Panics
/// Never.
#[must_use]
pub fn attributes(seed: u64) -> LtxAttributes {
    let timestamp = Timestamp::new(1_764_000_000, 123_456_789).unwrap();
    LtxAttributes { timestamp, checksum: checksum(seed) }
}

/// [`content`] as a body in memory.
#[must_use]
pub fn body(seed: u64, len: usize) -> Body {
    Body::Bytes(content(seed, len))
}

fn checksum(seed: u64) -> Checksum {
    Checksum::from_raw(1 << 63 | seed).unwrap()
}
