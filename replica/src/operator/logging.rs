//! Logs: to stderr, never to stdout.

use std::io::IsTerminal;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt, registry};

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

/// Starts logging at the level of `RUST_LOG` (`info`, or with targets: `warn,shipper::wal=debug`), else `default`. A second
/// call does nothing.
pub fn init_logging(format: LogFormat, default: &str) {
    let asked = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    let filter = asked.and_then(|asked| filter(&asked)).or_else(|| filter(default));
    let base = fmt::layer().with_writer(std::io::stderr).with_target(false);
    let layer = match format {
        LogFormat::Json => base.json().flatten_event(true).boxed(),
        LogFormat::Text if std::env::var_os("JOURNAL_STREAM").is_some() => {
            base.without_time().with_ansi(false).boxed()
        }
        LogFormat::Text => base.with_ansi(std::io::stderr().is_terminal()).boxed(),
    };
    // Only a second call fails, and the first one's settings are as good.
    let _ = registry().with(layer.with_filter(filter.unwrap_or_default())).try_init();
}

/// `None` where `asked` is no filter. Later directives win over earlier ones for the same target.
fn filter(asked: &str) -> Option<Targets> {
    let quiet = QUIET.join(",");
    format!("{quiet},{asked}").parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tracing::Level;

    use super::*;

    #[test]
    fn libraries_are_quiet_unless_asked_for() {
        let info = filter("info").unwrap();
        assert!(info.would_enable("shipper::ship", &Level::INFO));
        assert!(!info.would_enable("shipper::ship", &Level::DEBUG));
        assert!(!info.would_enable("hyper_util::client", &Level::INFO));
        let asked = filter("warn,hyper_util=debug").unwrap();
        assert!(asked.would_enable("hyper_util::client", &Level::DEBUG));
        assert!(filter("shipper=loud").is_none());
    }
}
