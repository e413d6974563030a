//! What the file backend promises beyond the common contract.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;
use replica::format::Level;
use replica::store::{Body, Chain, Key, StoreError};
use seaworthy_tests::process;
use seaworthy_tests::stores::{attributes, body, content, file_root, generation, key, ltx};
use tempfile::TempDir;

/// Every file and directory below, sorted, relative.
fn tree(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(at) = todo.pop() {
        for entry in fs::read_dir(dir.join(&at)).unwrap() {
            let entry = entry.unwrap();
            let path = at.join(entry.file_name());
            found.push(path.to_str().unwrap().to_owned());
            if entry.file_type().unwrap().is_dir() {
                todo.push(path);
            }
        }
    }
    found.sort_unstable();
    found
}

#[tokio::test]
async fn files_stand_where_litestream_looks_for_them() {
    let dir = TempDir::new().unwrap();
    let store = file_root(dir.path()).await.database("app").unwrap();
    store.put_ltx(&ltx(0x2a), body(1, 100), attributes(1)).await.unwrap();
    store.put_document(&Key::Heartbeat, Bytes::from_static(b"{}")).await.unwrap();
    let id = generation();
    let file = format!("app/{id}/ltx/0/000000000000002a-000000000000002a.ltx");
    let expected = [
        "app".to_owned(),
        format!("app/{id}"),
        format!("app/{id}/ltx"),
        format!("app/{id}/ltx/0"),
        file.clone(),
        "app/heartbeat.json".to_owned(),
    ];
    assert_eq!(tree(dir.path()), expected);
    assert_eq!(store.locate(&key(0x2a)), dir.path().join(&file).to_str().unwrap());

    let metadata = fs::metadata(dir.path().join(&file)).unwrap();
    let timestamp = attributes(1).timestamp;
    assert_eq!(
        metadata.modified().unwrap(),
        SystemTime::from(timestamp),
        "Litestream's creation time"
    );
    assert_eq!(store.head(&key(0x2a)).await.unwrap().modified, timestamp);
    let listed = store.list_ltx(Chain::Generation(id), Level::SYNC).await.unwrap();
    assert_eq!(listed[0].modified, timestamp);

    // A replica is as secret as its database, whatever the umask says.
    for name in tree(dir.path()) {
        let metadata = fs::metadata(dir.path().join(&name)).unwrap();
        let expected = if metadata.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(metadata.permissions().mode() & 0o777, expected, "{name}");
    }
}

#[tokio::test]
async fn what_is_not_ours_is_left_out_of_listings() {
    let dir = TempDir::new().unwrap();
    let root = file_root(dir.path()).await;
    let store = root.database("app").unwrap();
    store.put_ltx(&ltx(1), body(1, 100), attributes(1)).await.unwrap();
    let level = dir.path().join(format!("app/{}/ltx/0", generation()));
    for name in
        [".tmp-0000000000000002", "0000000000000002-0000000000000002.ltx.tmp", "2-2.ltx", "README"]
    {
        fs::write(level.join(name), "x").unwrap();
    }
    fs::create_dir(level.join("0000000000000003-0000000000000003.ltx")).unwrap();
    fs::create_dir_all(dir.path().join("app/01938c5e-7a00-7000-8000-00000000000c")).unwrap();
    fs::create_dir_all(dir.path().join("app/generations/0123456789abcdef")).unwrap();
    fs::create_dir_all(dir.path().join("lost+found")).unwrap();
    fs::write(dir.path().join("notes"), "x").unwrap();

    let chain = Chain::Generation(generation());
    let listed = store.list_ltx(chain, Level::SYNC).await.unwrap();
    assert_eq!(listed.iter().map(|object| object.txids.min().get()).collect::<Vec<_>>(), [1]);
    assert_eq!(store.chains().await.unwrap(), [chain], "a generation without ltx/ is none");
    assert_eq!(root.databases().await.unwrap(), ["app"]);
}

#[tokio::test]
async fn a_failed_write_leaves_no_temporary_file() {
    let dir = TempDir::new().unwrap();
    let store = file_root(dir.path()).await.database("app").unwrap();
    store.put_ltx(&ltx(1), body(1, 100), attributes(1)).await.unwrap();
    let before = tree(dir.path());

    let source = dir.path().join("short");
    fs::write(&source, "short").unwrap();
    let short = Body::File { path: source.clone(), len: 6 };
    store.put_ltx(&ltx(2), short, attributes(2)).await.unwrap_err();
    store.put_ltx(&ltx(1), body(2, 100), attributes(2)).await.unwrap_err();
    // A directory stands where the document belongs: the rename fails.
    fs::create_dir(dir.path().join("app/receipt.json")).unwrap();
    let error = store.put_document(&Key::Receipt, Bytes::from_static(b"{}")).await.unwrap_err();
    assert!(matches!(error, StoreError::Io { action: "rename file", .. }), "{error:?}");
    fs::remove_dir(dir.path().join("app/receipt.json")).unwrap();
    fs::remove_file(source).unwrap();
    assert_eq!(tree(dir.path()), before);
}

#[tokio::test]
async fn a_file_in_the_place_of_a_directory_is_named() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("app"), "not a directory").unwrap();
    let store = file_root(dir.path()).await.database("app").unwrap();
    let put = store.put_ltx(&ltx(1), body(1, 100), attributes(1)).await.unwrap_err();
    let list = store.chains().await.unwrap_err();
    for error in [put, list] {
        assert!(matches!(error, StoreError::Io { .. }), "{error:?}");
        assert!(error.to_string().contains(dir.path().join("app").to_str().unwrap()), "{error}");
    }
}

#[tokio::test]
async fn a_file_that_shrinks_under_a_reader_is_an_error() {
    let dir = TempDir::new().unwrap();
    let store = file_root(dir.path()).await.database("app").unwrap();
    store.put_ltx(&ltx(1), body(1, 1_000_000), attributes(1)).await.unwrap();
    let mut reader = store.get(&key(1), None).await.unwrap();
    let first = reader.next().await.unwrap().unwrap();
    let path = store.locate(&key(1));
    fs::File::options().write(true).open(path).unwrap().set_len(first.len() as u64).unwrap();
    let error = reader.next().await.unwrap_err();
    assert!(matches!(error, StoreError::Io { action: "read file", .. }), "{error:?}");
}

/// The limit on a file's size stands in for a full disk: the write fails in the middle.
#[tokio::test]
async fn a_write_that_fails_in_the_middle_leaves_nothing() {
    let dir = TempDir::new().unwrap();
    let source = dir.path().join("snapshot");
    fs::write(&source, content(2, 1024 * 1024)).unwrap();
    let script = "trap '' XFSZ; ulimit -f 100; exec \"$0\" \"$@\"";
    let url = format!("file://{}/backups", dir.path().display());
    let output = process::command("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_upload-probe"), &url, ""])
        .arg(&source)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("write file"), "{text}");
    let files = tree(&dir.path().join("backups"));
    let names: Vec<_> =
        files.iter().filter(|name| name.contains(".ltx") || name.contains(".tmp")).collect();
    let first = format!("app/{}/ltx/0/0000000000000001-0000000000000001.ltx", generation());
    assert_eq!(names, [&first], "the first file is whole, the second left nothing");
}
