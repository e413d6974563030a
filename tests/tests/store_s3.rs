//! What the S3 backend promises beyond the common contract: requests, metadata, parts, rights.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use bytes::Bytes;
use replica::format::Level;
use replica::store::{
    Access, Body, Chain, Credentials, Key, PutOutcome, Root, S3Options, Store, StoreError, read_all,
};
use seaworthy_tests::process;
use seaworthy_tests::s3_server::S3Server;
use seaworthy_tests::stores::{
    attributes, body, content, generation, impatient, key, ltx, s3_root,
};
use tempfile::TempDir;

const MIB: usize = 1024 * 1024;

async fn store(server: &S3Server) -> Arc<dyn Store> {
    s3_root(server, &server.endpoint, "backups/web-1").await.database("app").unwrap()
}

fn object(name: &str) -> String {
    format!("backups/web-1/app/{}/{name}", generation())
}

#[tokio::test]
async fn an_object_carries_what_litestream_and_a_retry_need() {
    let server = S3Server::start();
    let store = store(&server).await;
    assert_eq!(store.url(), "s3://test-bucket/backups/web-1/app");
    store.put_ltx(&ltx(1), body(7, 1000), attributes(7)).await.unwrap();
    let name = object("0000/0000000000000001-0000000000000001.ltx");
    assert_eq!(store.locate(&key(1)), format!("s3://test-bucket/{name}"));
    let stored = server.object(&name).unwrap();
    assert_eq!(stored.metadata["litestream-timestamp"], "2025-11-24T16:00:00.123456789Z");
    assert_eq!(stored.metadata["seaworthy-checksum"], "8000000000000007");
    assert_eq!(stored.content, content(7, 1000));
}

#[tokio::test]
async fn requests_are_as_few_as_they_can_be() {
    let server = S3Server::start();
    let store = store(&server).await;
    let counted = || {
        let counts = server.counts();
        (counts.put(), counts.head(), counts.get(), counts.list(), counts.total())
    };
    assert_eq!(counted(), (0, 0, 0, 0, 0), "opening a store asks nothing");
    store.put_ltx(&ltx(1), body(1, 1000), attributes(1)).await.unwrap();
    assert_eq!(counted(), (1, 0, 0, 0, 1));
    store.put_ltx(&ltx(1), body(1, 1000), attributes(1)).await.unwrap();
    assert_eq!(counted(), (2, 1, 0, 0, 3));
    store.put_document(&Key::Heartbeat, Bytes::from_static(b"{}")).await.unwrap();
    assert_eq!(counted(), (3, 1, 0, 0, 4));
    read_all(&*store, &key(1), 1000).await.unwrap();
    assert_eq!(counted(), (3, 1, 1, 0, 5));
    store.list_ltx(Chain::Generation(generation()), Level::SYNC).await.unwrap();
    store.chains().await.unwrap();
    assert_eq!(counted(), (3, 1, 1, 2, 7));
}

#[tokio::test]
async fn a_listing_has_all_its_pages_and_only_our_names() {
    let server = S3Server::start();
    let store = store(&server).await;
    for txid in 1..=2500 {
        server.replace(&object(&format!("0000/{txid:016x}-{txid:016x}.ltx")), "x");
    }
    for junk in [
        "0000/README",
        "0000/0000000000000001.ltx",
        "0000/old/0000000000000001-0000000000000001.ltx",
        "0001/x",
    ] {
        server.replace(&object(junk), "x");
    }
    let listed = store.list_ltx(Chain::Generation(generation()), Level::SYNC).await.unwrap();
    let txids: Vec<u64> = listed.iter().map(|object| object.txids.min().get()).collect();
    assert_eq!(txids, (1..=2500).collect::<Vec<_>>());
    assert_eq!(server.counts().list(), 3);
}

#[tokio::test]
async fn chains_are_found_among_many_names() {
    let server = S3Server::start();
    let store = store(&server).await;
    let ids: Vec<_> = (0..1500).map(|n| format!("01938c5e-7a00-7000-8000-{n:012x}")).collect();
    for id in &ids {
        server.replace(&format!("backups/web-1/app/{id}/0000/x"), "x");
    }
    for junk in ["heartbeat.json", "generations/0123456789abcdef/x", "000a/x", "0001/x", "0009/x"] {
        server.replace(&format!("backups/web-1/app/{junk}"), "x");
    }
    let mut expected = vec![Chain::Root];
    expected.extend(ids.iter().map(|id| Chain::Generation(id.parse().unwrap())));
    assert_eq!(store.chains().await.unwrap(), expected);
}

#[tokio::test]
async fn a_large_file_goes_up_in_parts_once() {
    let server = S3Server::start();
    let store = store(&server).await;
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("snapshot");
    let len = 40 * MIB + 1;
    std::fs::write(&path, content(3, len)).unwrap();
    let file = Body::File { path, len: len as u64 };

    let outcome = store.put_ltx(&ltx(1), file.clone(), attributes(3)).await.unwrap();
    assert_eq!(outcome, PutOutcome::Created);
    let counts = server.counts();
    assert_eq!(counts.of("CreateMultipartUpload"), 1);
    assert_eq!(counts.of("UploadPart"), 6);
    assert_eq!(counts.of("CompleteMultipartUpload"), 1);
    assert_eq!((counts.head(), counts.total()), (1, 9), "one look before so many parts");
    let stored = server.object(&object("0000/0000000000000001-0000000000000001.ltx")).unwrap();
    assert_eq!(stored.content, content(3, len));
    assert_eq!(stored.metadata["seaworthy-checksum"], "8000000000000003");

    let outcome = store.put_ltx(&ltx(1), file, attributes(3)).await.unwrap();
    assert_eq!(outcome, PutOutcome::AlreadyOurs);
    let error = store.put_ltx(&ltx(1), body(4, 20 * MIB), attributes(4)).await.unwrap_err();
    assert!(error.is_precondition(), "{error:?}");
    assert_eq!(server.open_uploads(), 0, "parts of refused uploads stay");
    let stored = server.object(&object("0000/0000000000000001-0000000000000001.ltx")).unwrap();
    assert_eq!(stored.content, content(3, len));
}

#[tokio::test]
async fn sixteen_mebibytes_are_one_request() {
    let server = S3Server::start();
    let store = store(&server).await;
    store.put_ltx(&ltx(1), body(1, 16 * MIB), attributes(1)).await.unwrap();
    assert_eq!(server.counts().of("PutObject"), 1);
    store.put_ltx(&ltx(2), body(2, 16 * MIB + 1), attributes(2)).await.unwrap();
    assert_eq!((server.counts().of("PutObject"), server.counts().of("UploadPart")), (1, 3));
    assert_eq!(read_all(&*store, &key(2), 17 * MIB).await.unwrap(), content(2, 16 * MIB + 1));
}

/// Opens the server's bucket, or another, with a key of the caller's.
async fn open(server: &S3Server, bucket: &str, id: &str, secret: &str) -> Arc<dyn Store> {
    let credentials = Credentials::Key { id: id.to_owned(), secret: secret.to_owned() };
    let options = S3Options { endpoint: Some(server.endpoint.clone()), ..S3Options::default() };
    let url = format!("s3://{bucket}/backups/web-1").parse().unwrap();
    let access = Access { credentials, retry: impatient() };
    Root::open_with(&url, &options, access).await.unwrap().database("app").unwrap()
}

/// Every operation's error, by its name.
async fn errors(store: &dyn Store) -> Vec<(&'static str, StoreError)> {
    let chain = Chain::Generation(generation());
    vec![
        ("chains", store.chains().await.unwrap_err()),
        ("list", store.list_ltx(chain, Level::SYNC).await.unwrap_err()),
        ("get", store.get(&key(1), None).await.err().unwrap()),
        ("head", store.head(&key(1)).await.unwrap_err()),
        ("put", store.put_ltx(&ltx(1), body(1, 100), attributes(1)).await.unwrap_err()),
        ("parts", store.put_ltx(&ltx(1), body(1, 17 * MIB), attributes(1)).await.unwrap_err()),
        ("document", store.put_document(&Key::Heartbeat, Bytes::new()).await.unwrap_err()),
    ]
}

#[tokio::test]
async fn wrong_credentials_are_denied_with_a_hint_and_without_a_retry() {
    let server = S3Server::start();
    for (id, secret) in
        [(server.access_key.as_str(), "wrong-secret"), ("AKIDSTRANGER", "wrong-secret")]
    {
        let store = open(&server, &server.bucket, id, secret).await;
        for (operation, error) in errors(&*store).await {
            let text = format!("{error} {error:?}");
            assert!(error.is_denied() && error.is_permanent(), "{operation}: {text}");
            assert!(text.contains("\nHINT: "), "{operation}: {text}");
            assert!(
                !text.contains("wrong-secret") && !text.contains("X-Amz"),
                "{operation}: {text}"
            );
        }
    }
    assert_eq!(server.keys(), Vec::<String>::new());
}

#[tokio::test]
async fn a_missing_bucket_is_not_a_missing_object() {
    let server = S3Server::start();
    let store = open(&server, "no-such-bucket", &server.access_key, &server.secret).await;
    for (operation, error) in errors(&*store).await {
        if operation == "head" {
            // The answer to HEAD has no body: the store itself does not say which of the two it is.
            continue;
        }
        let text = error.to_string();
        assert!(matches!(error, StoreError::Configuration { .. }), "{operation}: {error:?}");
        assert!(
            text.contains("no-such-bucket")
                && text.contains("\nHINT: check the bucket in replica.url"),
            "{operation}: {text}"
        );
    }
}

#[tokio::test]
async fn missing_rights_name_the_right() {
    let server = S3Server::start();
    let store = store(&server).await;
    let all = ["PutObject", "CreateMultipartUpload", "GetObject", "HeadObject", "ListObjectsV2"];
    server.deny(&all);
    for (operation, error) in errors(&*store).await {
        let (right, advice) = match operation {
            "chains" | "list" => ("s3:ListBucket", "grant s3:ListBucket"),
            "get" => {
                ("s3:GetObject", "without s3:ListBucket a missing object is answered like this")
            }
            "head" => ("s3:GetObject", "grant s3:GetObject"),
            _ => ("s3:PutObject", "grant s3:PutObject"),
        };
        let text = error.to_string();
        let (_, hint) = text.split_once("\nHINT: ").unwrap();
        assert!(
            matches!(&error, StoreError::Denied { action, .. } if *action == right),
            "{error:?}"
        );
        assert!(hint.contains(advice), "{operation}: {text}");
    }
    // The look before an upload in parts is the eighth.
    assert_eq!(server.counts().total(), 8, "a denied request is not repeated");
}

#[tokio::test]
async fn an_object_that_cannot_be_looked_at_is_not_taken_for_ours() {
    let server = S3Server::start();
    let store = store(&server).await;
    store.put_ltx(&ltx(1), body(1, 100), attributes(1)).await.unwrap();
    server.deny(&["HeadObject", "ListObjectsV2"]);
    let error = store.put_ltx(&ltx(1), body(1, 100), attributes(1)).await.unwrap_err();
    assert!(matches!(error, StoreError::Denied { action: "s3:GetObject", .. }), "{error:?}");
}

#[tokio::test]
async fn without_the_right_to_list_a_missing_object_is_denied() {
    let server = S3Server::start();
    let store = store(&server).await;
    server.deny(&["ListObjectsV2"]);
    let error = store.get(&key(1), None).await.err().unwrap();
    assert!(error.is_denied() && error.to_string().contains("missing object"), "{error}");
    // Putting needs no look at what is not there.
    store.put_ltx(&ltx(1), body(1, 100), attributes(1)).await.unwrap();
    store.head(&key(1)).await.unwrap();
}

#[tokio::test]
async fn without_region_and_endpoint_the_configuration_is_refused() {
    let dir = TempDir::new().unwrap();
    let probe = probe(&dir).args(["s3://bucket/prefix", "", "/dev/null"]).output().unwrap();
    let text = String::from_utf8_lossy(&probe.stderr).into_owned();
    assert!(text.contains("region is not known\nHINT: set region"), "{text}");
}

#[tokio::test]
async fn an_endpoint_that_is_no_url_is_refused() {
    let url = "s3://bucket/prefix".parse().unwrap();
    for endpoint in ["", "minio.example:9000", "ftp://minio.example"] {
        let options = S3Options { endpoint: Some(endpoint.to_owned()), ..S3Options::default() };
        let error = Root::open(&url, &options).await.unwrap_err();
        assert!(error.to_string().contains("\nHINT: write https://"), "{endpoint}: {error}");
    }
}

#[tokio::test]
async fn an_https_endpoint_is_spoken_to_in_tls() {
    let server = S3Server::start();
    let endpoint = server.endpoint.replace("http://", "https://");
    let store = s3_root(&server, &endpoint, "backups/web-1").await.database("app").unwrap();
    let error = store.head(&key(1)).await.unwrap_err();
    // The server does not know TLS: what matters is that the client insisted.
    let StoreError::Unavailable { source, .. } = error else { panic!("{error:?}") };
    assert!(source.to_string().contains("corrupt message"), "{source}");
    assert_eq!(server.counts().total(), 0);
}

#[tokio::test]
async fn without_credentials_the_operator_is_told_where_they_come_from() {
    let server = S3Server::start();
    let dir = TempDir::new().unwrap();
    let url = server.url("backups/web-1");
    let probe = probe(&dir).args([&url, &server.endpoint, "/dev/null"]).output().unwrap();
    let text = String::from_utf8_lossy(&probe.stderr).into_owned();
    assert!(!probe.status.success(), "{text}");
    assert!(text.contains("no AWS credentials found\nHINT: set AWS_ACCESS_KEY_ID"), "{text}");
    assert_eq!(server.counts().total(), 0);
}

#[tokio::test]
async fn the_environment_gives_credentials_and_memory_stays_small() {
    let server = S3Server::start();
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("snapshot");
    let len = megabytes() * MIB;
    // Sparse, and not kept by the server: this may be larger than memory and disk.
    std::fs::File::create(&path).unwrap().set_len(len as u64).unwrap();
    server.discard_parts();
    let url = server.url("backups/web-1");
    let mut probe = probe(&dir);
    probe.envs(server.environment()).args([&url, &server.endpoint]).arg(&path);
    let output = probe.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{errors}");
    let memory: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let kib = |field: &str| memory[field].as_u64().unwrap();
    let growth = kib("peak_kib") - kib("before_kib");
    println!(
        "{} MiB uploaded: {} KiB resident before, {growth} KiB more at the peak",
        len / MIB,
        kib("before_kib")
    );
    assert!(growth < 12 * 1024, "an upload of {len} bytes took {growth} KiB");
    let stored = server.object(&object("0000/0000000000000002-0000000000000002.ltx")).unwrap();
    assert_eq!(stored.size, len as u64);
    assert_eq!(server.open_uploads(), 0);
}

/// What the memory test uploads; larger by hand (`UPLOAD_MIB=5200`: more than one request may carry): the figure must
/// not depend on it.
fn megabytes() -> usize {
    std::env::var("UPLOAD_MIB").ok().map_or(100, |text| text.parse().unwrap())
}

/// The probe without the caller's AWS identity, its home a directory without configuration.
fn probe(dir: &TempDir) -> std::process::Command {
    let mut command = process::command(env!("CARGO_BIN_EXE_upload-probe"));
    command.env("HOME", dir.path()).env("AWS_EC2_METADATA_DISABLED", "true");
    command
}
