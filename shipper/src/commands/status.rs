//! `shipper status`: how every database stands, as the running shipper sees it.

use std::fmt::Write;

use anyhow::bail;
use replica::operator::{Exit, LogFormat, init_logging};

use crate::cli::StatusArgs;
use crate::commands::{print, print_json, readable_bytes};
use crate::config::load_state_dir;
use crate::control::{Refused, Reply, Report, Request, StatusReply, ask};

/// Asks, and prints. Exit code 1 where a database is stuck or not attached.
///
/// # Errors
/// No shipper is running, or it does not answer.
pub fn run(args: &StatusArgs) -> anyhow::Result<Exit> {
    init_logging(LogFormat::Text, "warn");
    let state_dir = load_state_dir(&args.config)?;
    let reply = match ask(&state_dir, &Request::Status {}, std::time::Duration::ZERO)? {
        Reply::Status(reply) => reply,
        Reply::Refused(reason) => bail!(reason),
        Reply::Sync(_) | Reply::Reset(_) => bail!("the shipper answered another question"),
    };
    if args.json {
        print_json(&serde_json::to_value(&reply)?)?;
    } else {
        print(&table(&reply))?;
    }
    let bad = reply.databases.iter().any(|report| report.state.is_bad());
    Ok(if bad || !reply.refused.is_empty() { Exit::Fails } else { Exit::Holds })
}

fn table(reply: &StatusReply) -> String {
    let names = reply.databases.iter().map(|report| report.database.len());
    let width = names.max().unwrap_or(0).max("DATABASE".len());
    let mut text = format!(
        "{:width$}  {:12}  {:16}  {:>9}  {:>12}  {:>20}  LAST PROOF\n",
        "DATABASE", "STATE", "TXID", "LAG", "WAL", "SPOOL"
    );
    for report in &reply.databases {
        let _ = writeln!(
            text,
            "{:width$}  {:12}  {:16}  {:>9}  {:>12}  {:>20}  {}",
            report.database,
            report.state,
            report.txid.map_or_else(|| "-".to_owned(), |txid| txid.to_string()),
            report.lag_seconds.map_or_else(|| "-".to_owned(), |lag| format!("{lag:.1} s")),
            readable_bytes(report.wal_bytes),
            spool(report),
            report.receipt.as_ref().map_or_else(
                || "never".to_owned(),
                |receipt| {
                    let txid = receipt.txid.map(|txid| format!(" (TXID {txid})"));
                    format!("{}{}", receipt.finished_at, txid.unwrap_or_default())
                }
            ),
        );
        for note in notes(report) {
            indented(&mut text, &note);
        }
    }
    for Refused { path, reason } in &reply.refused {
        let _ = writeln!(text, "{path}  not shipped");
        indented(&mut text, reason);
    }
    if reply.databases.is_empty() && reply.refused.is_empty() {
        text.push_str("no file matches [[database]] path yet\n");
    }
    text
}

fn spool(report: &Report) -> String {
    match report.spool_files {
        0 => "empty".to_owned(),
        1 => format!("1 file, {}", readable_bytes(report.spool_bytes)),
        files => format!("{files} files, {}", readable_bytes(report.spool_bytes)),
    }
}

fn notes(report: &Report) -> Vec<String> {
    let mut notes: Vec<String> = Vec::new();
    match report.phase.as_str() {
        "snapshotting" => notes.push("the first snapshot of a generation is on its way".to_owned()),
        "catching_up" => notes.push("what changed unseen is on its way".to_owned()),
        _ => {}
    }
    notes.extend(report.reason.clone());
    notes.extend(report.last_error.as_ref().map(|error| format!("last error: {error}")));
    notes.extend(
        report
            .heartbeat_error
            .as_ref()
            .map(|error| format!("no heartbeat (the watch takes this shipper for dead): {error}")),
    );
    notes.extend(report.other_host.as_ref().map(|other| {
        format!(
            "another host, {}, ships this database too (generation {}, last heartbeat at {})\n\
             HINT: stop one of the two, or give it a prefix of its own; where this machine was only renamed, this ends by itself",
            other.host, other.generation, other.written_at
        )
    }));
    if report.unguarded {
        notes.push(
            "the store ignores If-None-Match: nothing keeps a second writer apart\n\
             HINT: use a store that honours conditional writes, or make sure that only this shipper writes there"
                .to_owned(),
        );
    }
    if let Some(scrub) = report.scrub.as_ref().filter(|scrub| scrub.mismatches > 0) {
        notes.push(format!(
            "the comparison that ended at {} found {} pages that differed, and shipped them anew",
            scrub.finished_at, scrub.mismatches
        ));
    }
    notes
}

fn indented(text: &mut String, note: &str) {
    for line in note.lines() {
        let _ = writeln!(text, "  {line}");
    }
}
