//! An S3 server in this process, for tests: real protocol, real signatures, objects in memory.
//!
//! It knows what the replica relies on (conditional writes, user metadata, ranges, `If-Match`,
//! listings with delimiter and pages, uploads in parts), counts every request by operation, and lets
//! a test look at objects, damage them and take rights away. Objects are gone when it is dropped.

#![allow(clippy::unwrap_used)]

mod backend;
mod objects;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use replica::store::Credentials;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::sync::oneshot;

pub use objects::Object;

use backend::{Backend, Gate};
use objects::Objects;

/// A running server; stops when dropped.
pub struct S3Server {
    /// Base URL, `http://127.0.0.1:<port>`.
    pub endpoint: String,
    /// The only access key that it knows.
    pub access_key: String,
    /// Its secret.
    pub secret: String,
    /// The only bucket that it has.
    pub bucket: String,
    state: Arc<Mutex<State>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What handlers and tests share.
#[derive(Debug, Default)]
struct State {
    objects: Objects,
    counts: BTreeMap<String, u64>,
    denied: Vec<String>,
    conditions: Conditions,
    discards_parts: bool,
    asks_for_checksums: bool,
    bytes_to_change: u32,
}

/// What the server makes of `If-None-Match: *`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Conditions {
    /// Refuses to write over an object, as AWS does.
    #[default]
    Honoured,
    /// Writes over it.
    Ignored,
    /// Refuses the request as not implemented, with this status.
    Refused(u16),
    /// Honours it for an object sent in one request, ignores it for one in parts.
    IgnoredForParts,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Requests by operation, as S3 names them (`PutObject`, `ListObjectsV2`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts(BTreeMap<String, u64>);

impl Counts {
    /// Requests of one operation.
    #[must_use]
    pub fn of(&self, operation: &str) -> u64 {
        self.0.get(operation).copied().unwrap_or_default()
    }

    /// Requests billed as PUT: objects, parts, the begin and end of uploads in parts.
    #[must_use]
    pub fn put(&self) -> u64 {
        ["PutObject", "UploadPart", "CreateMultipartUpload", "CompleteMultipartUpload"]
            .iter()
            .map(|operation| self.of(operation))
            .sum()
    }

    /// `GetObject` requests.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.of("GetObject")
    }

    /// `HeadObject` requests.
    #[must_use]
    pub fn head(&self) -> u64 {
        self.of("HeadObject")
    }

    /// Listings of objects.
    #[must_use]
    pub fn list(&self) -> u64 {
        self.of("ListObjectsV2") + self.of("ListObjects")
    }

    /// All requests.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }
}

impl S3Server {
    /// Starts a server on a free port, with one empty bucket, on a thread and runtime of its own.
    ///
    /// # Panics
    /// Where no port can be bound.
    #[must_use]
    pub fn start() -> Self {
        let (access_key, secret) =
            ("AKIDSEAWORTHYTESTS".to_owned(), "not-a-real-secret".to_owned());
        let bucket = "test-bucket".to_owned();
        let state = Arc::new(Mutex::new(State::default()));
        let service = {
            let mut builder =
                S3ServiceBuilder::new(Backend::new(bucket.clone(), Arc::clone(&state)));
            builder.set_auth(SimpleAuth::from_single(access_key.clone(), secret.clone()));
            builder.set_access(Gate::new(Arc::clone(&state)));
            builder.build()
        };
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || serve(listener, service, stopped));
        Self {
            endpoint: endpoint(address),
            access_key,
            secret,
            bucket,
            state,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Where it listens.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.endpoint.trim_start_matches("http://").parse().unwrap()
    }

    /// The environment that gives a child process access.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ACCESS_KEY_ID", self.access_key.clone()),
            ("AWS_SECRET_ACCESS_KEY", self.secret.clone()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        ]
    }

    /// The same for a client in this process.
    #[must_use]
    pub fn credentials(&self) -> Credentials {
        Credentials::Key { id: self.access_key.clone(), secret: self.secret.clone() }
    }

    /// `s3://<bucket>/<prefix>`.
    #[must_use]
    pub fn url(&self, prefix: &str) -> String {
        format!("s3://{}/{prefix}", self.bucket)
    }

    /// Requests since the start, refused ones included (not those with a wrong signature).
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts(lock(&self.state).counts.clone())
    }

    /// Every key, ascending.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        lock(&self.state).objects.keys()
    }

    /// An object as stored.
    #[must_use]
    pub fn object(&self, key: &str) -> Option<Object> {
        lock(&self.state).objects.get(key)
    }

    /// Puts or replaces an object behind everybody's back, keeping its metadata and time.
    pub fn replace(&self, key: &str, content: impl Into<Bytes>) {
        lock(&self.state).objects.replace(key, content.into());
    }

    /// Removes an object behind everybody's back.
    pub fn remove(&self, key: &str) {
        lock(&self.state).objects.remove(key);
    }

    /// Uploads in parts that were begun and neither completed nor aborted.
    #[must_use]
    pub fn open_uploads(&self) -> usize {
        lock(&self.state).objects.open_uploads()
    }

    /// From now on treats conditional writes like this.
    pub fn conditions(&self, conditions: Conditions) {
        lock(&self.state).conditions = conditions;
    }

    /// From now on refuses what comes without a checksum, as a bucket with Object Lock does.
    pub fn ask_for_checksums(&self) {
        lock(&self.state).asks_for_checksums = true;
    }

    /// A byte of so many uploads changes on the way.
    pub fn change_bytes(&self, uploads: u32) {
        lock(&self.state).bytes_to_change = uploads;
    }

    /// From now on keeps only the size of what comes in parts, so that an upload may be larger than the memory.
    pub fn discard_parts(&self) {
        lock(&self.state).discards_parts = true;
    }

    /// From now on answers these operations with 403 (`ListObjectsV2` among them makes a missing
    /// object 403 too, as on AWS). Replaces what was denied before.
    pub fn deny(&self, operations: &[&str]) {
        lock(&self.state).denied = operations.iter().map(|name| (*name).to_owned()).collect();
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

pub(crate) fn endpoint(address: SocketAddr) -> String {
    format!("http://{address}")
}

fn serve(listener: std::net::TcpListener, service: S3Service, mut stopped: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async move {
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        loop {
            let socket = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = &mut stopped => return,
            };
            let Ok((socket, _)) = socket else { continue };
            let service = service.clone();
            tokio::spawn(async move {
                let server = auto::Builder::new(TokioExecutor::new());
                // A client that hangs up is its own business.
                let _ = server.serve_connection(TokioIo::new(socket), service).await;
            });
        }
    });
}
