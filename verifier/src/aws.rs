//! The AWS configuration that ledger and mail share: credentials, region and endpoint the AWS way
//! (environment, profile, role; `AWS_ENDPOINT_URL`), and one TLS stack.

use aws_config::{BehaviorVersion, SdkConfig};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};

/// Reads the configuration; nothing is requested yet.
pub async fn configuration() -> SdkConfig {
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .build_https();
    aws_config::defaults(BehaviorVersion::latest()).http_client(http).load().await
}
