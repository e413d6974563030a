//! What a failed request means: worth another attempt, an answer, or a mistake of the operator's.
//!
//! Texts come from the store's error code and message and from the transport's errors; a request's
//! URL and headers are never part of them.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use crate::store::StoreError;

/// A message of the store's is cut after this many characters.
const MESSAGE_LIMIT: usize = 300;

const CREDENTIALS: &str = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, \
                           AWS_SHARED_CREDENTIALS_FILE, or run with an instance or container role";

/// What is done to an object, by the right that it takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Action {
    /// As a policy names it.
    pub(super) name: &'static str,
}

impl Action {
    pub(super) const GET: Self = Self { name: "s3:GetObject" };
    pub(super) const PUT: Self = Self { name: "s3:PutObject" };
    pub(super) const DELETE: Self = Self { name: "s3:DeleteObject" };
    pub(super) const LIST: Self = Self { name: "s3:ListBucket" };
    pub(super) const ABORT: Self = Self { name: "s3:AbortMultipartUpload" };
}

/// One operation on one key.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) bucket: String,
    pub(super) key: String,
    pub(super) action: Action,
    /// Of one attempt.
    pub(super) timeout: Duration,
}

impl Call {
    pub(super) fn target(&self) -> String {
        format!("s3://{}/{}", self.bucket, self.key)
    }

    pub(super) fn failed(&self, failure: Failure, attempts: u32) -> Failed {
        Failed {
            target: self.target(),
            bucket: self.bucket.clone(),
            action: self.action.name,
            attempts,
            failure,
        }
    }
}

/// The kinds that are acted on differently.
#[derive(Debug)]
pub(super) enum Kind {
    /// 404 of an object.
    NotFound,
    /// 404 of an upload in parts: completed or aborted before.
    NoSuchUpload,
    /// 412: the condition does not hold.
    Exists,
    /// 409: another request on this key was under way.
    Conflict,
    /// 501: the store does not know what the request asks for.
    NotImplemented,
    /// The same of a request that carries the condition.
    ConditionUnknown,
    /// 401 or 403, or credentials that ran out.
    Denied,
    /// 416.
    OutOfRange,
    /// A local file, not the store.
    Local { path: String, source: io::Error },
    /// The operator must act.
    Misconfigured { hint: String },
    /// Refused for a reason that has no hint.
    Refused,
    /// May go better the next time.
    Transient,
}

/// One failed attempt.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) kind: Kind,
    /// The store's error code, where it gave one.
    code: String,
    text: String,
    after: Option<Duration>,
}

impl Failure {
    /// Classifies an error of the SDK's.
    pub(super) fn of<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let SdkError::ServiceError(service) = error else { return Self::of_transport(error) };
        let raw = service.raw();
        let status = raw.status().as_u16();
        let code = service.err().code().unwrap_or_default();
        let message = service.err().message().unwrap_or_default();
        let message: String = message.chars().take(MESSAGE_LIMIT).collect();
        let header = |name| raw.headers().get(name);
        Self {
            kind: classify(status, code, header("x-amz-bucket-region")),
            code: code.to_owned(),
            text: format!("{status} {code}: {message}").trim_end_matches([':', ' ']).to_owned(),
            after: header("retry-after")
                .and_then(|text| text.parse().ok())
                .map(Duration::from_secs),
        }
    }

    fn of_transport(error: &(dyn Error + 'static)) -> Self {
        let act = |hint: &str| Kind::Misconfigured { hint: hint.to_owned() };
        let chain = chain_text(error);
        let (kind, text) = match find(error) {
            Some(CredentialsError::CredentialsNotLoaded(_)) => {
                (act(CREDENTIALS), "no AWS credentials found".to_owned())
            }
            Some(CredentialsError::InvalidConfiguration(_)) => {
                (act("check AWS_PROFILE and the AWS configuration files"), chain)
            }
            // A role's service may answer the next time; elsewhere there is none to answer.
            Some(_) => (Kind::Transient, format!("{chain}\nHINT: {CREDENTIALS}")),
            None => (Kind::Transient, chain),
        };
        Self { kind, code: String::new(), text, after: None }
    }

    pub(super) fn local(path: &std::path::Path, source: io::Error) -> Self {
        let kind = Kind::Local { path: path.display().to_string(), source };
        Self { kind, code: String::new(), text: String::new(), after: None }
    }

    pub(super) fn transient(text: String) -> Self {
        Self { kind: Kind::Transient, code: String::new(), text, after: None }
    }

    pub(super) fn timed_out(timeout: Duration) -> Self {
        Self::transient(format!("no answer within {timeout:?}"))
    }

    pub(super) fn is_transient(&self) -> bool {
        matches!(self.kind, Kind::Transient)
    }

    /// The delay that the store asked for.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        self.after
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Every S3 store names an object's ETag where it wrote or has one; a portal or a proxy that answers in its place does not.
pub(super) fn taken(etag: Option<&str>) -> Result<(), Failure> {
    if etag.is_some_and(|etag| !etag.is_empty()) {
        return Ok(());
    }
    let text = "the answer bears no ETag, so it is not an object store's\n\
                HINT: what answers at this address? A login page, or a proxy in between?";
    Err(Failure::transient(text.to_owned()))
}

/// An operation that failed for good, or too often.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) target: String,
    bucket: String,
    action: &'static str,
    attempts: u32,
    pub(super) failure: Failure,
}

impl From<Failed> for StoreError {
    fn from(failed: Failed) -> Self {
        let Failed { target, bucket, action, attempts, failure } = failed;
        let Failure { kind, code, text, .. } = failure;
        match kind {
            Kind::NotFound => Self::NotFound { target },
            Kind::Exists => Self::Precondition { target },
            Kind::ConditionUnknown => Self::Unguarded { target },
            Kind::Denied => {
                let reason = if code.is_empty() { "no reason given".to_owned() } else { code };
                Self::Denied { target, action, reason }
            }
            Kind::OutOfRange => Self::OutOfRange { target, start: 0 },
            Kind::Local { path, source } => Self::Io { path, action: "read file", source },
            Kind::Misconfigured { hint } => {
                Self::Configuration { message: format!("bucket {bucket:?}: {text}\nHINT: {hint}") }
            }
            Kind::NotImplemented => Self::Configuration {
                message: format!(
                    "{target}: {action}: {text}\nHINT: the store must know uploads in parts and user metadata"
                ),
            },
            Kind::Refused => Self::Configuration { message: format!("{target}: {action}: {text}") },
            Kind::Transient | Kind::Conflict | Kind::NoSuchUpload => {
                Self::Unavailable { target, action, attempts, source: text.into() }
            }
        }
    }
}

fn classify(status: u16, code: &str, bucket_region: Option<&str>) -> Kind {
    let act = |hint: &str| Kind::Misconfigured { hint: hint.to_owned() };
    match (status, code) {
        (_, "NoSuchBucket") => act("check the bucket in replica.url, and the endpoint"),
        (_, "InvalidBucketName") => act("check the bucket in replica.url"),
        (_, "RequestTimeTooSkewed") => act("set this machine's clock (it is off by minutes)"),
        (_, "NoSuchUpload") => Kind::NoSuchUpload,
        (_, "AuthorizationHeaderMalformed" | "PermanentRedirect") | (301, _) => {
            let region = bucket_region
                .map_or("the bucket's own region".to_owned(), |region| format!("{region:?}"));
            act(&format!("set region to {region}"))
        }
        (_, "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired") => Kind::Denied,
        (_, "RequestTimeout" | "SlowDown" | "Throttling" | "IncompleteBody" | "BadDigest") => {
            Kind::Transient
        }
        (404, _) => Kind::NotFound,
        (412, _) => Kind::Exists,
        (409, _) => Kind::Conflict,
        (401 | 403, _) => Kind::Denied,
        (416, _) => Kind::OutOfRange,
        (501, _) | (_, "NotImplemented") => Kind::NotImplemented,
        (408 | 425 | 429, _) => Kind::Transient,
        // An answer to HEAD has no body, so no code: this may be a slow request as well as a bad one.
        (400, "") => Kind::Transient,
        (300..=499, _) => Kind::Refused,
        // 5xx, and errors inside a 200.
        _ => Kind::Transient,
    }
}

/// The error of this type in a chain of sources.
fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// The messages of a chain of sources, each once.
fn chain_text(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let message = error.to_string();
        if !text.ends_with(&message) {
            text = format!("{text}: {message}");
        }
        next = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_credentials_are_told_from_a_role_that_does_not_answer() {
        let missing = Failure::of_transport(&CredentialsError::not_loaded("nothing set"));
        assert!(matches!(missing.kind, Kind::Misconfigured { .. }));
        let broken =
            Failure::of_transport(&CredentialsError::invalid_configuration("no such profile"));
        assert!(matches!(broken.kind, Kind::Misconfigured { .. }));
        let silent =
            Failure::of_transport(&CredentialsError::provider_error("no metadata service"));
        assert!(silent.is_transient());
        assert!(silent.to_string().contains("no metadata service"), "{silent}");
        assert!(silent.to_string().contains("\nHINT: set AWS_ACCESS_KEY_ID"), "{silent}");
    }
}
