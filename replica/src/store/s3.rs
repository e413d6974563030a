//! S3 and S3-compatible stores.

/// One database below a prefix of a bucket.
#[derive(Debug)]
pub struct S3Store {}
