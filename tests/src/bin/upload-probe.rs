//! Uploads one file to an S3 store as the shipper would, alone in its process, and says what that
//! took in memory: `upload-probe URL ENDPOINT FILE` prints `{"before_kib": …, "peak_kib": …}`.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use replica::store::{Body, RetryPolicy, Root, S3Options};
use seaworthy_tests::stores::{attributes, ltx};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, endpoint, file] = arguments.as_slice() else { bail!("URL ENDPOINT FILE") };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(upload(url, endpoint, file.into()))
}

async fn upload(url: &str, endpoint: &str, path: PathBuf) -> Result<()> {
    let endpoint = Some(endpoint.to_owned()).filter(|endpoint| !endpoint.is_empty());
    let options = S3Options { endpoint, ..S3Options::default() };
    let access = replica::store::Access {
        retry: RetryPolicy { attempts: 2, ..RetryPolicy::default() },
        ..Default::default()
    };
    let store = Root::open_with(&url.parse()?, &options, access).await?.database("app")?;
    let len = std::fs::metadata(&path)?.len();
    // The first request pays for the connection and the client's own parts.
    store.put_ltx(&ltx(1), seaworthy_tests::stores::body(1, 1000), attributes(1)).await?;
    let before = memory_kib("VmRSS:")?;
    store.put_ltx(&ltx(2), Body::File { path, len }, attributes(2)).await?;
    println!("{{\"before_kib\": {before}, \"peak_kib\": {}}}", memory_kib("VmHWM:")?);
    Ok(())
}

fn memory_kib(field: &str) -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)).context("memory field")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}
