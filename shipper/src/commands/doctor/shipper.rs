//! The running shipper, and what it says of its databases.

use std::time::Duration;

use super::findings::Findings;
use crate::config::Config;
use crate::control::{Reply, Request, Standing, StatusReply, Unanswered, ask};

/// Asks the running shipper how it stands; `None` where none can be asked.
pub(super) fn examine(config: &Config, findings: &mut Findings) -> Option<StatusReply> {
    let running = match ask(&config.state_dir, &Request::Status {}, Duration::ZERO) {
        Ok(Reply::Status(running)) => running,
        Ok(_) => {
            findings
                .warn("the running shipper did not understand\nHINT: restart it after an update");
            return None;
        }
        Err(unanswered @ Unanswered::NotRunning { .. }) => {
            findings.warn(unanswered.to_string());
            return None;
        }
        Err(unanswered) => {
            findings.fail(unanswered.to_string());
            return None;
        }
    };
    let ours = env!("CARGO_PKG_VERSION");
    if running.shipper_version == ours {
        findings.ok(format!("shipper {ours} runs since {}", running.started_at));
    } else {
        findings.warn(format!(
            "shipper {} runs, and this is {ours}\nHINT: systemctl restart seaworthy-shipper",
            running.shipper_version
        ));
    }
    for report in &running.databases {
        let name = &report.database;
        match report.state {
            Standing::Fresh | Standing::Idle => findings.ok(format!("{name}: {}", report.state)),
            Standing::Stuck | Standing::NotAttached => {
                let why = report.reason.as_ref().or(report.last_error.as_ref());
                let why = why.map_or("behind; see `shipper status`", String::as_str);
                findings.fail(format!("{name}: {}: {why}", report.state));
            }
        }
        if let Some(error) = &report.heartbeat_error {
            findings.fail(format!("{name}: the heartbeat cannot be written: {error}"));
        }
        if let Some(other) = &report.other_host {
            findings.fail(format!(
                "{name}: another host, {}, ships it too (last heartbeat at {})\n\
                 HINT: stop one of the two, or give it a prefix of its own",
                other.host, other.written_at
            ));
        }
    }
    for refused in &running.refused {
        findings.fail(format!("{}: not shipped: {}", refused.path, refused.reason));
    }
    Some(running)
}
