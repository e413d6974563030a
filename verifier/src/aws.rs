//! The AWS configuration that ledger and mail share: credentials, region and endpoint the AWS way
//! (environment, profile, role; `AWS_ENDPOINT_URL`), and one TLS stack.

use std::time::Duration;

use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Bounds one attempt; the SDK makes three. Both services answer in milliseconds, and a Lambda keeps
/// back some 20 s for them.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads the configuration; nothing is requested yet.
pub async fn configuration() -> SdkConfig {
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .build_https();
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(ATTEMPT_TIMEOUT)
        .build();
    aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(http)
        .timeout_config(timeouts)
        .load()
        .await
}
