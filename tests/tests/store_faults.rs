//! Every operation on S3 against every kind of fault, on the wire.
//!
//! What must hold: a passing fault is survived, a lasting one ends as the right kind of error within
//! the retries, an object is written once however the connection breaks, and no body that ended
//! early passes for a whole one.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use replica::format::Level;
use replica::store::{
    Access, Body, Chain, Key, PutOutcome, Root, S3Options, Store, StoreError, UploadChecksum,
    read_all,
};
use seaworthy_tests::fault_proxy::{Fault, FaultProxy, Rule};
use seaworthy_tests::s3_server::S3Server;
use seaworthy_tests::stores::{
    attributes, body, content, generation, impatient, key, ltx, s3_root_within,
};

const MIB: usize = 1024 * 1024;
/// How long a silent server is waited for, several times in a test: an answer that takes longer fails it.
const SILENCE: Duration = Duration::from_secs(4);

/// No store's answer, although it says that all is well.
const PORTAL: Fault = Fault::Answer(200, "LogInFirst");

/// Faults after which trying again helps.
const PASSING: [Fault; 8] = [
    // A portal, or a proxy, that answers anything with a page of its own.
    PORTAL,
    Fault::Answer(500, "InternalError"),
    Fault::Answer(503, "SlowDown"),
    Fault::Answer(429, "TooManyRequests"),
    Fault::Answer(400, "RequestTimeout"),
    Fault::ResetBefore,
    Fault::ResetAfter,
    Fault::Silence,
];

struct Setup {
    server: S3Server,
    proxy: FaultProxy,
    store: Arc<dyn Store>,
}

impl Setup {
    async fn new() -> Self {
        Self::within(impatient().attempt_timeout).await
    }

    /// Who says nothing is waited for only this long: [`SILENCE`].
    async fn to_meet(fault: Fault) -> Self {
        match fault {
            Fault::Silence | Fault::Stall(_) => Self::within(SILENCE).await,
            _ => Self::new().await,
        }
    }

    async fn within(attempt_timeout: Duration) -> Self {
        let server = S3Server::start();
        let proxy = FaultProxy::start(server.address());
        let root = s3_root_within(&server, &proxy.endpoint, "backups/web-1", attempt_timeout).await;
        let store = root.database("app").unwrap();
        Self { server, proxy, store }
    }

    fn once(&self, method: &'static str, target: &'static str, fault: Fault) {
        self.proxy.fault(Rule { method, target, skip: 0, times: 1, fault });
    }

    fn always(&self, method: &'static str, target: &'static str, fault: Fault) {
        self.proxy.fault(Rule { method, target, skip: 0, times: u32::MAX, fault });
    }

    async fn put(&self, txid: u64, len: usize) -> Result<PutOutcome, StoreError> {
        self.store.put_ltx(&ltx(txid), body(txid, len), attributes(txid)).await
    }

    /// The same from a file.
    async fn put_file(&self, txid: u64, len: usize) -> Result<PutOutcome, StoreError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content(txid, len)).unwrap();
        let body = Body::File { path: file.path().to_owned(), len: len as u64 };
        self.store.put_ltx(&ltx(txid), body, attributes(txid)).await
    }

    async fn read(&self, txid: u64) -> Result<Bytes, StoreError> {
        read_all(&*self.store, &key(txid), 64 * MIB).await
    }

    async fn txids(&self) -> Result<Vec<u64>, StoreError> {
        let listed = self.store.list_ltx(Chain::Generation(generation()), Level::SYNC).await?;
        Ok(listed.iter().map(|object| object.txids.min().get()).collect())
    }
}

#[tokio::test]
async fn a_passing_fault_on_a_put_is_survived() {
    for fault in PASSING {
        let setup = Setup::to_meet(fault).await;
        setup.once("PUT", ".ltx", fault);
        let expected = match fault {
            Fault::ResetAfter => PutOutcome::AlreadyOurs,
            _ => PutOutcome::Created,
        };
        assert_eq!(setup.put(1, 5000).await.unwrap(), expected, "{fault:?}");
        assert_eq!(setup.proxy.fired(), 1, "{fault:?}");
        assert_eq!(setup.read(1).await.unwrap(), content(1, 5000), "{fault:?}");
    }
}

#[tokio::test]
async fn a_portal_that_answers_everything_is_believed_nothing() {
    let setup = Setup::new().await;
    for method in ["PUT", "POST", "GET", "HEAD"] {
        setup.always(method, "", PORTAL);
    }
    for len in [5000, 20 * MIB] {
        let error = setup.put(1, len).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{len}: {error:?}");
    }
    let document = setup.store.put_document(&Key::Heartbeat, Bytes::from_static(b"{}")).await;
    assert!(matches!(document, Err(StoreError::Unavailable { .. })), "{document:?}");
    let head = setup.store.head(&key(1)).await;
    assert!(matches!(head, Err(StoreError::Unavailable { .. })), "{head:?}");
    let get = setup.read(1).await;
    assert!(matches!(get, Err(StoreError::Unavailable { .. })), "{get:?}");
}

#[tokio::test]
async fn a_byte_that_changes_on_the_way_is_sent_again() {
    let setup = Setup::new().await;
    for (txid, len) in [(1, 5000), (2, 20 * MIB)] {
        setup.server.change_bytes(1);
        assert_eq!(setup.put_file(txid, len).await.unwrap(), PutOutcome::Created);
        assert_eq!(setup.read(txid).await.unwrap(), content(txid, len));
    }
    setup.server.change_bytes(1);
    setup.store.put_document(&Key::Heartbeat, Bytes::from_static(b"{}")).await.unwrap();
    setup.server.change_bytes(u32::MAX);
    setup.put(3, 5000).await.unwrap_err();
    assert!(setup.store.head(&key(3)).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn a_bucket_that_asks_for_checksums_gets_them_unless_they_are_switched_off() {
    let setup = Setup::new().await;
    setup.server.ask_for_checksums();
    setup.put(1, 5000).await.unwrap();
    setup.put_file(2, 20 * MIB).await.unwrap();
    setup.store.put_document(&Key::Heartbeat, Bytes::from_static(b"{}")).await.unwrap();

    let options = S3Options {
        endpoint: Some(setup.server.endpoint.clone()),
        checksum: Some(UploadChecksum::None),
        ..S3Options::default()
    };
    let url = setup.server.url("backups/web-2").parse().unwrap();
    let access = Access { credentials: setup.server.credentials(), retry: impatient() };
    let root = Root::open_with(&url, &options, access).await.unwrap();
    let store = root.database("app").unwrap();
    let error = store.put_ltx(&ltx(1), body(1, 5000), attributes(1)).await.unwrap_err();
    assert!(error.to_string().contains("Content-MD5"), "{error}");
}

#[tokio::test]
async fn a_passing_fault_on_any_other_operation_is_survived() {
    for fault in PASSING {
        let setup = Setup::to_meet(fault).await;
        setup.put(1, 5000).await.unwrap();
        setup.once("PUT", "heartbeat.json", fault);
        let document = Bytes::from_static(b"{}");
        setup.store.put_document(&Key::Heartbeat, document.clone()).await.unwrap();
        assert_eq!(read_all(&*setup.store, &Key::Heartbeat, 10).await.unwrap(), document);
        setup.once("GET", ".ltx", fault);
        assert_eq!(setup.read(1).await.unwrap(), content(1, 5000), "{fault:?}");
        setup.once("HEAD", ".ltx", fault);
        assert_eq!(setup.store.head(&key(1)).await.unwrap().size, 5000, "{fault:?}");
        setup.once("GET", "list-type=2", fault);
        assert_eq!(setup.txids().await.unwrap(), [1], "{fault:?}");
        setup.once("GET", "list-type=2", fault);
        assert_eq!(setup.store.chains().await.unwrap().len(), 1, "{fault:?}");
        assert_eq!(setup.proxy.fired(), 5, "{fault:?}");
    }
}

#[tokio::test]
async fn a_lasting_fault_ends_as_unavailable_after_the_retries() {
    for fault in [Fault::Answer(503, "SlowDown"), Fault::ResetBefore] {
        let setup = Setup::new().await;
        for method in ["GET", "HEAD", "PUT"] {
            setup.always(method, "backups", fault);
        }
        let results = [
            ("s3:PutObject", setup.put(1, 5000).await.err()),
            ("s3:PutObject", setup.store.put_document(&Key::Heartbeat, Bytes::new()).await.err()),
            ("s3:GetObject", setup.store.get(&key(1), None).await.err()),
            ("s3:GetObject", setup.store.head(&key(1)).await.err()),
            ("s3:ListBucket", setup.txids().await.err()),
            ("s3:ListBucket", setup.store.chains().await.err()),
        ];
        let allowed = impatient().attempts;
        assert_eq!(setup.proxy.fired(), 6 * allowed);
        assert_eq!(setup.server.counts().total(), 0);
        for (right, error) in results {
            let error = error.unwrap();
            assert!(!error.is_permanent());
            let StoreError::Unavailable { target, action, attempts, source } = error else {
                panic!("{fault:?}: {error:?}")
            };
            assert_eq!((action, attempts), (right, allowed));
            assert!(target.starts_with("s3://test-bucket/backups/web-1/app"), "{target}");
            assert!(!source.to_string().is_empty() && !source.to_string().contains("http://"));
        }
    }
}

#[tokio::test]
async fn a_store_that_says_nothing_is_given_up() {
    let setup = Setup::to_meet(Fault::Silence).await;
    setup.always("HEAD", "backups", Fault::Silence);
    let error = setup.store.head(&key(1)).await.unwrap_err();
    let StoreError::Unavailable { attempts, source, .. } = error else { panic!("{error:?}") };
    assert_eq!(attempts, impatient().attempts);
    assert!(source.to_string().starts_with("no answer within"), "{source}");
}

#[tokio::test]
async fn a_store_that_is_not_there_is_unavailable() {
    let setup = Setup::new().await;
    let Setup { server, proxy, store } = setup;
    drop((server, proxy));
    let error = store.head(&key(1)).await.unwrap_err();
    let StoreError::Unavailable { source, .. } = error else { panic!("{error:?}") };
    assert!(source.to_string().to_lowercase().contains("connection refused"), "{source}");
}

#[tokio::test]
async fn a_refusal_is_not_repeated_and_keeps_its_kind() {
    type IsRight = fn(&StoreError) -> bool;
    let cases: [(u16, &str, IsRight); 9] = [
        (403, "AccessDenied", StoreError::is_denied),
        (401, "Unauthorized", StoreError::is_denied),
        (400, "ExpiredToken", StoreError::is_denied),
        (404, "NoSuchKey", StoreError::is_not_found),
        (404, "NoSuchBucket", |error| matches!(error, StoreError::Configuration { .. })),
        (301, "PermanentRedirect", |error| matches!(error, StoreError::Configuration { .. })),
        (403, "RequestTimeTooSkewed", |error| matches!(error, StoreError::Configuration { .. })),
        (501, "NotImplemented", |error| matches!(error, StoreError::Configuration { .. })),
        (416, "InvalidRange", |error| matches!(error, StoreError::OutOfRange { .. })),
    ];
    let setup = Setup::new().await;
    for (index, (status, code, is_right)) in (1..).zip(cases) {
        setup.once("GET", ".ltx", Fault::Answer(status, code));
        let error = setup.read(1).await.unwrap_err();
        assert!(is_right(&error) && error.is_permanent(), "{status} {code}: {error:?}");
        assert_eq!(setup.proxy.fired(), index, "{status} {code} was repeated");
    }
}

#[tokio::test]
async fn a_conflict_is_looked_into() {
    // 409 while another request is under way, 412 from an object that was gone again: nothing is
    // there, so the put is tried again.
    for fault in
        [Fault::Answer(409, "ConditionalRequestConflict"), Fault::Answer(412, "PreconditionFailed")]
    {
        let setup = Setup::new().await;
        setup.once("PUT", ".ltx", fault);
        assert_eq!(setup.put(1, 5000).await.unwrap(), PutOutcome::Created, "{fault:?}");
        assert_eq!((setup.proxy.fired(), setup.server.counts().head()), (1, 1));

        // Something else is there.
        setup.server.replace(&setup.server.keys()[0], content(2, 5000));
        setup.once("PUT", ".ltx", fault);
        let other = setup.store.put_ltx(&ltx(1), body(2, 5001), attributes(2)).await.unwrap_err();
        assert!(other.is_precondition(), "{fault:?}: {other:?}");
    }
    // A conflict that lasts is not another writer's object.
    let setup = Setup::new().await;
    setup.always("PUT", ".ltx", Fault::Answer(409, "ConditionalRequestConflict"));
    let error = setup.put(1, 5000).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    assert_eq!(setup.proxy.fired(), impatient().attempts);
}

#[tokio::test]
async fn a_conflict_without_the_right_to_list_is_tried_again() {
    let setup = Setup::new().await;
    setup.server.deny(&["ListObjectsV2"]);
    setup.once("PUT", ".ltx", Fault::Answer(409, "ConditionalRequestConflict"));
    assert_eq!(setup.put(1, 5000).await.unwrap(), PutOutcome::Created);
}

#[tokio::test]
async fn a_fault_on_any_request_of_an_upload_in_parts_is_survived() {
    let requests = [
        ("POST", "?uploads"),
        ("PUT", "partNumber=1"),
        ("PUT", "partNumber=3"),
        ("POST", "?uploadId="),
    ];
    let len = 17 * MIB;
    for (method, target) in requests {
        for fault in [Fault::Answer(500, "InternalError"), Fault::ResetBefore, Fault::ResetAfter] {
            let setup = Setup::new().await;
            setup.once(method, target, fault);
            let outcome = setup.put_file(1, len).await.unwrap();
            let context = format!("{method} {target} {fault:?}");
            let completed_unheard = target == "?uploadId=" && fault == Fault::ResetAfter;
            let expected =
                if completed_unheard { PutOutcome::AlreadyOurs } else { PutOutcome::Created };
            assert_eq!((outcome, setup.proxy.fired()), (expected, 1), "{context}");
            assert_eq!(setup.read(1).await.unwrap(), content(1, len), "{context}");
            // An upload whose id never arrived cannot be aborted: the lifecycle rule's case.
            let unheard = usize::from(target == "?uploads" && fault == Fault::ResetAfter);
            assert_eq!(setup.server.open_uploads(), unheard, "{context}");
        }
    }
}

#[tokio::test]
async fn an_upload_in_parts_that_fails_is_aborted() {
    for (method, target) in [("PUT", "partNumber=2"), ("POST", "?uploadId=")] {
        let setup = Setup::new().await;
        setup.always(method, target, Fault::Answer(503, "SlowDown"));
        let error = setup.put_file(1, 17 * MIB).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
        assert_eq!(setup.server.open_uploads(), 0, "{target}");
        assert_eq!(setup.server.counts().of("AbortMultipartUpload"), 1, "{target}");
        assert_eq!(setup.server.keys(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_body_that_ends_early_is_resumed_where_it_broke() {
    for fault in
        [Fault::Truncate(0), Fault::Truncate(1), Fault::Truncate(250_000), Fault::Stall(100_000)]
    {
        let setup = Setup::to_meet(fault).await;
        setup.put(1, 600_000).await.unwrap();
        setup.proxy.fault(Rule { method: "GET", target: ".ltx", skip: 0, times: 2, fault });
        assert_eq!(setup.read(1).await.unwrap(), content(1, 600_000), "{fault:?}");
        assert_eq!((setup.proxy.fired(), setup.server.counts().get()), (2, 3), "{fault:?}");
    }
}

#[tokio::test]
async fn a_range_is_resumed_within_itself() {
    let setup = Setup::new().await;
    setup.put(1, 600_000).await.unwrap();
    setup.once("GET", ".ltx", Fault::Truncate(1000));
    let mut reader = setup.store.get(&key(1), Some(100_000..300_000)).await.unwrap();
    let mut read = Vec::new();
    while let Some(piece) = reader.next().await.unwrap() {
        read.extend_from_slice(&piece);
    }
    assert_eq!(setup.proxy.fired(), 1);
    assert_eq!(read, content(1, 600_000)[100_000..300_000]);
}

#[tokio::test]
async fn a_body_that_never_gets_further_ends_as_unavailable() {
    let setup = Setup::new().await;
    setup.put(1, 600_000).await.unwrap();
    setup.always("GET", ".ltx", Fault::Truncate(10));
    let error = setup.read(1).await.unwrap_err();
    let StoreError::Unavailable { attempts, source, .. } = error else { panic!("{error:?}") };
    assert_eq!((attempts, setup.proxy.fired()), (impatient().attempts, impatient().attempts));
    assert!(source.to_string().contains("body"), "{source}");
}

#[tokio::test]
async fn progress_earns_new_retries() {
    let setup = Setup::new().await;
    let len = 12 * MIB;
    setup.put_file(1, len).await.unwrap();
    let fault = Fault::Truncate(3 * MIB / 2);
    setup.proxy.fault(Rule { method: "GET", target: ".ltx", skip: 0, times: 7, fault });
    assert_eq!(setup.read(1).await.unwrap(), content(1, len));
    assert_eq!(setup.proxy.fired(), 7);
    assert!(setup.proxy.fired() > impatient().attempts);
}

#[tokio::test]
async fn an_object_that_changes_under_a_reader_is_an_error() {
    for removed in [false, true] {
        let setup = Setup::new().await;
        setup.put(1, 600_000).await.unwrap();
        setup.once("GET", ".ltx", Fault::Truncate(250_000));
        let mut reader = setup.store.get(&key(1), None).await.unwrap();
        let name = setup.server.keys()[0].clone();
        if removed {
            setup.server.remove(&name);
        } else {
            setup.server.replace(&name, content(2, 600_000));
        }
        let mut read = 0;
        let error = loop {
            match reader.next().await {
                Ok(piece) => read += piece.unwrap().len() as u64,
                Err(error) => break error,
            }
        };
        assert!(matches!(error, StoreError::Changed { offset, .. } if offset == read), "{error:?}");
        assert_eq!(read, 250_000);
    }
}

#[tokio::test]
async fn a_listing_that_breaks_between_pages_goes_on() {
    let setup = Setup::new().await;
    for txid in 1..=2100_u64 {
        let name = format!("{txid:016x}-{txid:016x}.ltx");
        setup.server.replace(&format!("backups/web-1/app/{}/0000/{name}", generation()), "x");
    }
    for fault in [Fault::Answer(500, "InternalError"), Fault::ResetAfter, Fault::Truncate(5000)] {
        setup.once("GET", "continuation-token", fault);
        assert_eq!(setup.txids().await.unwrap(), (1..=2100).collect::<Vec<_>>(), "{fault:?}");
    }
    assert_eq!(setup.proxy.fired(), 3);
}

/// A writer that goes on after every failure, as the shipper does, through random faults: whatever
/// was reported durable is there, whole, and nothing else is.
#[tokio::test]
async fn random_faults_lose_and_invent_nothing() {
    let faults = [
        Fault::Answer(500, "InternalError"),
        Fault::Answer(503, "SlowDown"),
        Fault::ResetBefore,
        Fault::ResetAfter,
    ];
    for seed in 0..8 {
        let setup = Setup::new().await;
        setup.proxy.random(seed, 3, &faults);
        let mut written = BTreeMap::new();
        for txid in 1..=25 {
            let len = 100 + usize::try_from(txid).unwrap() * 997;
            for _ in 0..20 {
                match setup.put(txid, len).await {
                    Ok(_) => {
                        written.insert(txid, len);
                        break;
                    }
                    Err(StoreError::Unavailable { .. }) => {}
                    Err(error) => panic!("seed {seed}, txid {txid}: {error:?}"),
                }
            }
        }
        assert_eq!(written.len(), 25, "seed {seed}");
        for (txid, len) in &written {
            let read = loop {
                match setup.read(*txid).await {
                    Ok(read) => break read,
                    Err(error) => assert!(!error.is_permanent(), "seed {seed}: {error:?}"),
                }
            };
            assert_eq!(read, content(*txid, *len), "seed {seed}, txid {txid}");
        }
        assert!(setup.proxy.fired() > 10, "seed {seed}: {} faults", setup.proxy.fired());
        setup.proxy.heal();
        assert_eq!(setup.txids().await.unwrap(), (1..=25).collect::<Vec<_>>(), "seed {seed}");
        assert_eq!(setup.server.keys().len(), 25, "seed {seed}");
    }
}
