//! The one S3 client of a root: how it connects, signs and repeats requests.
//!
//! Choices that matter beyond AWS: checksums only where an operation requires them (other stores
//! refuse the SDK's trailing checksums), path style with an endpoint, the SDK's own retries off
//! (ours tell 412, 409, 404 and 403 apart and know what an upload has already achieved).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::config::{
    RequestChecksumCalculation, ResponseChecksumValidation, SharedHttpClient,
    StalledStreamProtectionConfig,
};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};

use crate::store::{Access, Credentials, RetryPolicy, S3Options, StoreError, UploadChecksum};

use super::failure::{Action, Call, Failed, Failure};
use super::resolver::Resolver;

/// S3-compatible stores rarely care, but a signature needs one.
const REGION_WITH_ENDPOINT: &str = "us-east-1";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// AWS closes an idle connection after some 20 s: a heartbeat should not find a dead one.
const IDLE_CONNECTION: Duration = Duration::from_secs(15);

/// A connection to one bucket; clones share it.
#[derive(Clone)]
pub(in crate::store) struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    sdk: aws_sdk_s3::Client,
    bucket: String,
    retry: RetryPolicy,
    checksum: UploadChecksum,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("bucket", &self.inner.bucket).finish_non_exhaustive()
    }
}

impl Client {
    /// Reads the AWS environment and prepares the client; no request to the store yet.
    pub(in crate::store) async fn connect(
        bucket: &str,
        options: &S3Options,
        access: Access,
    ) -> Result<Self, StoreError> {
        if let Some(endpoint) = &options.endpoint {
            check_endpoint(endpoint)?;
        }
        let sdk = load(options, access.credentials).await;
        let has_endpoint = endpoint_is_known(options) || sdk.endpoint_url().is_some();
        let mut config = aws_sdk_s3::config::Builder::from(&sdk)
            .force_path_style(options.force_path_style.unwrap_or(has_endpoint));
        if sdk.region().is_none() {
            if !has_endpoint {
                let message = "the bucket's AWS region is not known\nHINT: set region (or AWS_REGION); \
                               for a store other than AWS set endpoint";
                return Err(StoreError::Configuration { message: message.to_owned() });
            }
            config = config.region(Region::new(REGION_WITH_ENDPOINT));
        }
        let sdk = aws_sdk_s3::Client::from_conf(config.build());
        let checksum = options.checksum.unwrap_or_default();
        let inner = Inner { sdk, bucket: bucket.to_owned(), retry: access.retry, checksum };
        Ok(Self { inner: Arc::new(inner) })
    }

    pub(super) fn sdk(&self) -> &aws_sdk_s3::Client {
        &self.inner.sdk
    }

    pub(super) fn bucket(&self) -> &str {
        &self.inner.bucket
    }

    pub(super) fn retry(&self) -> &RetryPolicy {
        &self.inner.retry
    }

    pub(super) fn checksum(&self) -> UploadChecksum {
        self.inner.checksum
    }

    /// A key with its bucket, for messages.
    pub(super) fn locate(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.inner.bucket)
    }

    /// One operation on one key, moving `bytes`.
    pub(super) fn call(&self, key: &str, action: Action, bytes: u64) -> Call {
        let timeout = self.inner.retry.timeout(bytes);
        Call { bucket: self.inner.bucket.clone(), key: key.to_owned(), action, timeout }
    }

    /// Attempts an operation until it succeeds, fails for good or the budget is spent.
    pub(super) async fn run<T, F>(&self, call: &Call, attempt: impl Fn() -> F) -> Result<T, Failed>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let mut budget = self.inner.retry.budget();
        loop {
            let result = match tokio::time::timeout(call.timeout, attempt()).await {
                Ok(result) => result,
                Err(_) => Err(Failure::timed_out(call.timeout)),
            };
            let failure = match result {
                Ok(value) => return Ok(value),
                Err(failure) => failure,
            };
            let attempts = budget.attempts();
            if !failure.is_transient() || !budget.wait(failure.retry_after()).await {
                return Err(call.failed(failure, attempts));
            }
            tracing::debug!(target = %call.target(), action = call.action.name, attempts, %failure, "trying again");
        }
    }
}

/// The AWS configuration. The SDK's guard against stalled streams is off too: every attempt has a
/// limit of ours that grows with its bytes, so that a slow uplink is not taken for a dead one.
async fn load(options: &S3Options, credentials: Credentials) -> SdkConfig {
    let timeouts = TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).build();
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(http_client())
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts)
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    if let Some(endpoint) = &options.endpoint {
        loader = loader.endpoint_url(endpoint);
    }
    if let Some(region) = &options.region {
        loader = loader.region(Region::new(region.clone()));
    } else if endpoint_is_known(options) {
        // Without the instance metadata service, which elsewhere takes seconds to not answer.
        let chain = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
            .or_else(ProfileFileRegionProvider::new())
            .or_else(Region::new(REGION_WITH_ENDPOINT));
        loader = loader.region(chain);
    }
    if let Credentials::Key { id, secret } = credentials {
        let key = aws_sdk_s3::config::Credentials::new(id, secret, None, None, "caller");
        loader = loader.credentials_provider(key);
    }
    loader.load().await
}

fn check_endpoint(endpoint: &str) -> Result<(), StoreError> {
    let host = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://"));
    if host.is_some_and(|host| !host.is_empty()) {
        return Ok(());
    }
    let message = format!(
        "endpoint {endpoint:?} is not a URL\nHINT: write https://host or https://host:port"
    );
    Err(StoreError::Configuration { message })
}

/// An endpoint of ours or of the environment (a profile may still name one).
fn endpoint_is_known(options: &S3Options) -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    options.endpoint.is_some() || set("AWS_ENDPOINT_URL_S3") || set("AWS_ENDPOINT_URL")
}

fn http_client() -> SharedHttpClient {
    aws_smithy_http_client::Builder::new()
        .pool_idle_timeout(IDLE_CONNECTION)
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .build_with_resolver(Resolver::default())
}
