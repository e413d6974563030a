//! The text of a replica's URL: `s3://bucket/prefix` or `file:///dir`. No I/O.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::store::StoreError;

const FORMS: &str = "write s3://bucket/prefix or file:///absolute/directory";

/// A parsed `s3://bucket/prefix` or `file:///dir`. Never an empty prefix on S3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootUrl {
    /// A prefix in a bucket.
    S3 {
        /// The bucket's name.
        bucket: String,
        /// The prefix, without slashes at its ends, not empty.
        prefix: String,
    },
    /// A directory.
    File {
        /// Absolute path.
        path: PathBuf,
    },
}

impl FromStr for RootUrl {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        if let Some(rest) = text.strip_prefix("s3://") {
            s3(text, rest)
        } else if let Some(rest) = text.strip_prefix("file://") {
            file(text, rest)
        } else {
            Err(refuse(text, "is not a replica URL", FORMS))
        }
    }
}

impl std::fmt::Display for RootUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
            Self::File { path } => write!(f, "file://{}", path.display()),
        }
    }
}

fn s3(text: &str, rest: &str) -> Result<RootUrl, StoreError> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    // Credentials in a URL would end up in logs: `user:secret@bucket` must not be echoed.
    if bucket.contains('@') {
        let hint = "credentials come from the environment, a profile or a role, never from the URL";
        return Err(refuse("s3://…", "holds credentials", hint));
    }
    if bucket.is_empty() || !bucket.chars().all(allowed) {
        let hint = "write s3://bucket/prefix; another host than AWS goes into the endpoint option";
        return Err(refuse(text, "has no valid bucket name", hint));
    }
    let prefix = prefix.trim_matches('/');
    if prefix.is_empty() {
        let hint = "give the replica a prefix of its own: s3://bucket/prefix";
        return Err(refuse(text, "has no prefix", hint));
    }
    if prefix.split('/').any(|part| matches!(part, "" | "." | "..")) {
        let hint = "write the prefix as plain names between single slashes";
        return Err(refuse(text, "has an empty or relative part in its prefix", hint));
    }
    if prefix.contains(['?', '#']) || prefix.chars().any(char::is_control) {
        let hint =
            "endpoint and region are options of their own (endpoint, region), not part of the URL";
        return Err(refuse(text, "has characters that no prefix may have", hint));
    }
    Ok(RootUrl::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
}

fn file(text: &str, rest: &str) -> Result<RootUrl, StoreError> {
    if !rest.starts_with('/') {
        let hint = "write three slashes: file:///absolute/directory";
        return Err(refuse(text, "is not an absolute path", hint));
    }
    let path = rest.trim_end_matches('/');
    if path.is_empty() {
        let hint = "give the replica a directory of its own: file:///absolute/directory";
        return Err(refuse(text, "is the root directory", hint));
    }
    if path.contains('\0') {
        return Err(refuse(&text.replace('\0', "\\0"), "has a zero byte in its path", FORMS));
    }
    // One spelling: no doubled slash, no `.` in the middle.
    Ok(RootUrl::File { path: Path::new(path).components().collect() })
}

fn refuse(text: &str, what: &str, hint: &str) -> StoreError {
    StoreError::Configuration { message: format!("replica URL {text:?} {what}\nHINT: {hint}") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn urls_that_name_a_place() {
        let s3 = |bucket: &str, prefix: &str| RootUrl::S3 {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
        };
        let file = |path: &str| RootUrl::File { path: path.into() };
        let cases = [
            ("s3://acme-backups/web-1", s3("acme-backups", "web-1")),
            ("s3://acme-backups/web-1/", s3("acme-backups", "web-1")),
            ("s3://acme.backups//eu/web-1//", s3("acme.backups", "eu/web-1")),
            ("file:///mnt/backups/web-1", file("/mnt/backups/web-1")),
            ("file:///mnt/backups/web 1/", file("/mnt/backups/web 1")),
        ];
        for (text, url) in cases {
            assert_eq!(text.parse::<RootUrl>().unwrap(), url, "{text}");
        }
        assert_eq!(s3("b", "p/q").to_string(), "s3://b/p/q");
        assert_eq!(file("/a/b").to_string(), "file:///a/b");
    }

    #[test]
    fn urls_that_are_refused_say_what_to_write() {
        let cases = [
            ("", "is not a replica URL"),
            ("/mnt/backups", "is not a replica URL"),
            ("https://acme.s3.amazonaws.com/web-1", "is not a replica URL"),
            ("S3://bucket/prefix", "is not a replica URL"),
            ("s3://", "has no valid bucket name"),
            ("s3:///prefix", "has no valid bucket name"),
            ("s3://localhost:9000/bucket", "has no valid bucket name"),
            ("s3://bucket", "has no prefix"),
            ("s3://bucket//", "has no prefix"),
            ("s3://bucket/a//b", "empty or relative part"),
            ("s3://bucket/a/../b", "empty or relative part"),
            ("s3://bucket/web-1?endpoint=x", "characters that no prefix may have"),
            ("file://backups/web-1", "is not an absolute path"),
            ("file://", "is not an absolute path"),
            ("file://./web-1", "is not an absolute path"),
            ("file:///", "is the root directory"),
            ("file:///a\0b", "has a zero byte"),
        ];
        for (text, expected) in cases {
            let error = text.parse::<RootUrl>().unwrap_err();
            let message = error.to_string();
            assert!(matches!(error, StoreError::Configuration { .. }), "{text}: {message}");
            assert!(message.contains(expected), "{text}: {message}");
            assert!(message.contains("\nHINT: "), "{text}: {message}");
        }
    }

    #[test]
    fn credentials_in_a_url_are_not_repeated() {
        let error = "s3://AKIA:topsecret@bucket/prefix".parse::<RootUrl>().unwrap_err();
        assert!(!error.to_string().contains("topsecret"), "{error}");
        assert!(error.to_string().contains("credentials"), "{error}");
    }
}
