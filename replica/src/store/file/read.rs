//! Reading a file in bounded pieces.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::PathBuf;

use async_trait::async_trait;
use bytes::Bytes;

use crate::store::{ObjectReader, StoreError};

use super::access::FileAccess;
use super::failure;

/// Bytes a piece holds at most.
const PIECE: u64 = 256 * 1024;

/// An open file, and how much of it is still to come.
pub(super) struct FileReader {
    path: PathBuf,
    access: FileAccess,
    /// `None` after an error: what follows is unknown.
    file: Option<File>,
    remaining: u64,
}

impl FileReader {
    /// Opens a file at the start of `range`, which ends with the file where it reaches beyond.
    pub(super) fn open(
        path: PathBuf,
        range: Option<Range<u64>>,
        access: FileAccess,
    ) -> Result<Self, StoreError> {
        let fail = |action| {
            let path = path.clone();
            move |source| failure(&path, action, source)
        };
        let mut file = File::open(&path).map_err(fail("open file"))?;
        let size = file.metadata().map_err(fail("read file metadata"))?.len();
        let mut remaining = size;
        if let Some(range) = range {
            let len = range.end.saturating_sub(range.start);
            if len > 0 && range.start >= size {
                return Err(StoreError::OutOfRange {
                    target: path.display().to_string(),
                    start: range.start,
                });
            }
            file.seek(SeekFrom::Start(range.start)).map_err(fail("seek in file"))?;
            remaining = len.min(size.saturating_sub(range.start));
        }
        Ok(Self { path, access, file: Some(file), remaining })
    }
}

#[async_trait]
impl ObjectReader for FileReader {
    async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        if self.remaining == 0 {
            return Ok(None);
        }
        let path = self.path.clone();
        let file = self.file.take();
        let want = self.remaining.min(PIECE);
        let read = move || {
            let ended = || io::Error::from(io::ErrorKind::UnexpectedEof);
            let mut file = file.ok_or_else(|| failure(&path, "read file", ended()))?;
            let mut piece = Vec::with_capacity(usize::try_from(want).unwrap_or_default());
            let got = file.by_ref().take(want).read_to_end(&mut piece);
            match got {
                Ok(0) => Err(failure(&path, "read file", ended())),
                Ok(_) => Ok((file, Bytes::from(piece))),
                Err(source) => Err(failure(&path, "read file", source)),
            }
        };
        let (file, piece) = self.access.run(self.path.clone(), want, read).await?;
        self.file = Some(file);
        self.remaining -= piece.len() as u64;
        Ok(Some(piece))
    }
}
