//! What the store verifies an upload with: `Content-MD5`, a header that every S3 store knows and that Object Lock accepts.
//! (MD5 finds damage on the way; it is no signature, and an LTX file has a checksum of its own.)

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use md5::{Digest, Md5};

use crate::store::{Body, UploadChecksum};

use super::failure::Failure;

const BLOCK: usize = 64 * 1024;

/// The header's value for a range of a body; `None` where none is to be sent.
pub(super) async fn of(
    body: &Body,
    range: Range<u64>,
    checksum: UploadChecksum,
) -> Result<Option<String>, Failure> {
    if checksum == UploadChecksum::None {
        return Ok(None);
    }
    let digest = match body {
        Body::Bytes(bytes) => {
            let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
            Md5::digest(&bytes[at(range.start)..at(range.end)])
        }
        Body::File { path, .. } => {
            let file = path.clone();
            let read = tokio::task::spawn_blocking(move || of_file(&file, range)).await;
            let read = read.map_err(io::Error::other).flatten();
            read.map_err(|error| Failure::local(path, error))?
        }
    };
    Ok(Some(BASE64_STANDARD.encode(digest)))
}

fn of_file(path: &Path, range: Range<u64>) -> io::Result<md5::digest::Output<Md5>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(range.start))?;
    let mut file = file.take(range.end - range.start);
    let mut digest = Md5::new();
    let mut block = vec![0; BLOCK];
    loop {
        match file.read(&mut block)? {
            0 => return Ok(digest.finalize()),
            read => digest.update(&block[..read]),
        }
    }
}
