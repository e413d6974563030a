//! The mail about a drill that did not pass.

use replica::documents::Receipt;

use crate::alert::{Mail, page::Page};
use crate::record::{Record, Verdict};
use crate::words::shell_quoted;

/// Lines of one check's detail that a mail shows.
const DETAIL_LINES: usize = 12;

/// Renders the mail. `url` is the database's, for the restore command of `last_pass`.
#[must_use]
pub fn drill_mail(record: &Record, url: &str, last_pass: Option<&Receipt>) -> Mail {
    let findings = record.findings();
    let first = findings
        .first()
        .and_then(|check| check.detail.lines().next())
        .unwrap_or("no check was made");
    let mut page = Page {
        title: format!("{}: {}: {first}", record.verdict, record.database),
        ..Page::default()
    };
    page.paragraphs.push(match record.verdict {
        Verdict::Fail => format!("The drill of {} found that its backup is not what it must be.", record.database),
        _ => format!(
            "The drill of {} could not find out whether its backup is good. Nothing is said against the backup yet.",
            record.database
        ),
    });
    for check in &findings {
        let mut lines: Vec<&str> = check.detail.lines().take(DETAIL_LINES).collect();
        // The hint is what to do: never the part that is cut off.
        let hints =
            check.detail.lines().skip(DETAIL_LINES).filter(|line| line.starts_with("HINT: "));
        lines.extend(hints.take(1));
        page.paragraphs.push(format!("{} ({}):\n{}", check.name, check.status, lines.join("\n")));
    }
    page.command = last_pass.map(|pass| {
        let txid = pass.txid.map_or_else(String::new, |txid| format!("TXID {txid} "));
        let sentence = format!(
            "The last point that was proven is {txid}of {} (drilled {}). To restore it:",
            pass.restored_at, pass.finished_at
        );
        (sentence, restore_command(&record.database, url, pass))
    });
    if page.command.is_none() {
        page.paragraphs
            .push("No drill of this database has passed yet: no point is proven.".to_owned());
    }
    page.facts = facts(record, url);
    page.into_mail()
}

/// The command that restores a proven point, from anywhere.
fn restore_command(database: &str, url: &str, pass: &Receipt) -> String {
    let output = shell_quoted(&format!("{database}.db"));
    // Litestream v0.3 knows times only.
    let point = pass.txid.map_or_else(
        || format!("--timestamp {}", pass.restored_at),
        |txid| format!("--txid {txid}"),
    );
    let generation = pass.generation.map_or(String::new(), |id| format!(" --generation {id}"));
    format!("shipper restore {} --output {output} {point}{generation}", shell_quoted(url))
}

fn facts(record: &Record, url: &str) -> Vec<(String, String)> {
    let mut facts = vec![
        ("database".to_owned(), url.to_owned()),
        ("asked for".to_owned(), record.point.asked.clone()),
        ("started at".to_owned(), record.started_at.to_string()),
    ];
    if let Some(txid) = record.point.txid {
        facts.push(("restore point".to_owned(), txid.to_string()));
    }
    if let Some(generation) = record.generation {
        facts.push(("generation".to_owned(), generation.to_string()));
    }
    for check in &record.checks {
        facts.push((format!("check {}", check.name), check.status.to_string()));
    }
    facts
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::drill::{Asked, Draft};
    use crate::record::{Check, Status};

    fn record(checks: Vec<Check>) -> Record {
        let mut draft = Draft::new("app", &Asked::LATEST, "2026-11-22T09:00:00Z".parse().unwrap());
        draft.record.checks = checks;
        draft.finish(std::time::Duration::ZERO)
    }

    #[test]
    fn it_says_which_object_and_how_to_restore_what_was_proven() {
        let what =
            "s3://acme/web-1/app/0000/x.ltx: damaged: page 7 at offset 912: expected 1, actual 2";
        let record = record(vec![
            Check::new("durable_point", Status::Pass, "fine"),
            Check::new("chain", Status::Fail, format!("{what}\nHINT: do this")),
        ]);
        let pass: Receipt = serde_json::from_value(serde_json::json!({
            "version": 1, "drill_id": "d", "generation": "0192f0c1-2345-7abc-8def-0123456789ab",
            "txid": "1a", "restored_at": "2026-11-15T09:00:00Z", "finished_at": "2026-11-15T09:00:05Z",
        }))
        .unwrap();
        let mail = drill_mail(&record, "s3://acme/web-1/app", Some(&pass));
        assert_eq!(mail.subject, format!("FAIL: app: {what}"));
        let command = "shipper restore s3://acme/web-1/app --output app.db --txid 000000000000001a \
                       --generation 0192f0c1-2345-7abc-8def-0123456789ab";
        for body in [&mail.text, &mail.html] {
            for part in [what, "HINT: do this", command] {
                assert!(body.contains(part), "{part} in {body}");
            }
        }
    }

    #[test]
    fn inconclusive_accuses_nobody_and_admits_that_nothing_is_proven() {
        let mail = drill_mail(
            &record(vec![Check::new("chain", Status::Error, "unreachable")]),
            "file:///b/app",
            None,
        );
        assert_eq!(mail.subject, "INCONCLUSIVE: app: unreachable");
        assert!(mail.text.contains("Nothing is said against the backup"));
        assert!(mail.text.contains("no point is proven"));
    }

    #[test]
    fn a_long_detail_is_cut_but_keeps_its_hint() {
        let detail = format!("{}HINT: do this", "row\n".repeat(100));
        let mail =
            drill_mail(&record(vec![Check::new("x", Status::Fail, detail)]), "file:///b/app", None);
        assert_eq!(mail.text.matches("\nrow").count(), DETAIL_LINES);
        assert!(mail.text.contains("HINT: do this"));
    }
}
