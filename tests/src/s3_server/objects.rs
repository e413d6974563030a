//! The objects of the one bucket, and uploads in parts under way.

use std::collections::{BTreeMap, HashMap};
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};

/// An object as stored.
#[derive(Debug, Clone)]
pub struct Object {
    /// Its bytes; none of them where the server discards what comes in parts.
    pub content: Bytes,
    /// How many it has.
    pub size: u64,
    /// User metadata, without `x-amz-meta-`.
    pub metadata: HashMap<String, String>,
    /// When it was written.
    pub modified: SystemTime,
    /// Differs between any two writes.
    pub etag: String,
}

#[derive(Debug, Default)]
struct Upload {
    key: String,
    metadata: HashMap<String, String>,
    parts: BTreeMap<i32, (String, Bytes, u64)>,
}

/// Why an upload in parts cannot be completed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum CompletionError {
    NoSuchUpload,
    InvalidPart,
    Exists,
}

/// One page of a listing.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) objects: Vec<(String, Object)>,
    pub(super) prefixes: Vec<String>,
    /// Where the next page goes on; `None` on the last.
    pub(super) next: Option<String>,
}

#[derive(Debug, Default)]
pub(super) struct Objects {
    objects: BTreeMap<String, Object>,
    uploads: HashMap<String, Upload>,
    versions: u64,
}

impl Objects {
    pub(super) fn keys(&self) -> Vec<String> {
        self.objects.keys().cloned().collect()
    }

    pub(super) fn get(&self, key: &str) -> Option<Object> {
        self.objects.get(key).cloned()
    }

    pub(super) fn remove(&mut self, key: &str) {
        self.objects.remove(key);
    }

    pub(super) fn replace(&mut self, key: &str, content: Bytes) {
        let etag = self.version();
        if let Some(object) = self.objects.get_mut(key) {
            object.size = content.len() as u64;
            (object.content, object.etag) = (content, etag);
        } else {
            self.put(key.to_owned(), content, HashMap::new());
        }
    }

    pub(super) fn put(
        &mut self,
        key: String,
        content: Bytes,
        metadata: HashMap<String, String>,
    ) -> String {
        let size = content.len() as u64;
        self.put_sized(key, content, size, metadata)
    }

    fn put_sized(
        &mut self,
        key: String,
        content: Bytes,
        size: u64,
        metadata: HashMap<String, String>,
    ) -> String {
        let etag = self.version();
        let modified = SystemTime::now();
        let object = Object { content, size, metadata, modified, etag: etag.clone() };
        self.objects.insert(key, object);
        etag
    }

    pub(super) fn open_uploads(&self) -> usize {
        self.uploads.len()
    }

    pub(super) fn begin_upload(
        &mut self,
        key: String,
        metadata: HashMap<String, String>,
    ) -> String {
        let id = self.version();
        self.uploads.insert(id.clone(), Upload { key, metadata, parts: BTreeMap::new() });
        id
    }

    pub(super) fn add_part(
        &mut self,
        id: &str,
        number: i32,
        content: Bytes,
        size: u64,
    ) -> Option<String> {
        let etag = self.version();
        self.uploads.get_mut(id)?.parts.insert(number, (etag.clone(), content, size));
        Some(etag)
    }

    pub(super) fn abort_upload(&mut self, id: &str) -> bool {
        self.uploads.remove(id).is_some()
    }

    /// Joins the parts that the client names; the upload stays open where it cannot.
    pub(super) fn complete_upload(
        &mut self,
        id: &str,
        named: &[(i32, String)],
        only_new: bool,
    ) -> Result<String, CompletionError> {
        let upload = self.uploads.get(id).ok_or(CompletionError::NoSuchUpload)?;
        if only_new && self.objects.contains_key(&upload.key) {
            return Err(CompletionError::Exists);
        }
        let mut content = BytesMut::new();
        let mut size = 0;
        let mut last = 0;
        for (number, named_etag) in named {
            match upload.parts.get(number) {
                Some((etag, part, length)) if etag == named_etag && *number > last => {
                    content.extend_from_slice(part);
                    size += length;
                }
                _ => return Err(CompletionError::InvalidPart),
            }
            last = *number;
        }
        let upload = self.uploads.remove(id).ok_or(CompletionError::NoSuchUpload)?;
        Ok(self.put_sized(upload.key, content.freeze(), size, upload.metadata))
    }

    /// Lists keys after `cursor` (a key, or a common prefix whose keys are all skipped).
    pub(super) fn page(&self, prefix: &str, delimiter: &str, cursor: &str, limit: usize) -> Page {
        let mut page = Page::default();
        let mut at = String::new();
        for (key, object) in self.objects.range(prefix.to_owned()..) {
            let Some(rest) = key.strip_prefix(prefix) else { break };
            let skipped = key.as_str() <= cursor
                || (!delimiter.is_empty()
                    && cursor.ends_with(delimiter)
                    && key.starts_with(cursor));
            if skipped || page.prefixes.last().is_some_and(|common| key.starts_with(common)) {
                continue;
            }
            if page.objects.len() + page.prefixes.len() == limit {
                page.next = Some(at);
                break;
            }
            match rest.find(delimiter).filter(|_| !delimiter.is_empty()) {
                Some(end) => {
                    at = format!("{prefix}{}{delimiter}", &rest[..end]);
                    page.prefixes.push(at.clone());
                }
                None => {
                    at.clone_from(key);
                    page.objects.push((key.clone(), object.clone()));
                }
            }
        }
        page
    }

    fn version(&mut self) -> String {
        self.versions += 1;
        format!("{:032x}", self.versions)
    }
}
