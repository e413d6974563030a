//! Logs: to stderr, never to stdout.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// The shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For a terminal or journald (which has a clock of its own).
    Text,
    /// One JSON object a line, for CloudWatch.
    Json,
}

/// What is logged unless `RUST_LOG` says otherwise. The libraries below us log requests at `info`
/// and signatures at `debug`; neither belongs into an operator's log.
const QUIET: [&str; 7] = [
    "aws_config=warn",
    "aws_credential_types=warn",
    "aws_sdk_s3=warn",
    "aws_smithy_runtime=warn",
    "aws_smithy_runtime_api=warn",
    "hyper_util=warn",
    "rustls=warn",
];

/// Starts logging at the level of `RUST_LOG`, else `default` (`info`, `warn`). A second call does nothing.
pub fn init_logging(format: LogFormat, default: &str) {
    let asked = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    let mut directives: Vec<&str> = QUIET.to_vec();
    // Later directives win over earlier ones for the same target.
    directives.push(asked.as_deref().unwrap_or(default));
    let filter = EnvFilter::new(directives.join(","));
    let base = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false);
    // Only a second call fails, and the first one's settings are as good.
    let _ = match format {
        LogFormat::Json => base.json().flatten_event(true).try_init(),
        LogFormat::Text if std::env::var_os("JOURNAL_STREAM").is_some() => {
            base.without_time().with_ansi(false).try_init()
        }
        LogFormat::Text => base.with_ansi(std::io::stderr().is_terminal()).try_init(),
    };
}
