//! The mail about a drill that did not pass.

use jiff::Timestamp;
use replica::documents::Receipt;
use replica::format::GenerationId;
use replica::store::S3Options;

use crate::alert::{Mail, page::Page};
use crate::record::{Instead, Record, Verdict};
use crate::words::shell_quoted;

/// Lines of one check's detail that a mail shows.
const DETAIL_LINES: usize = 12;

/// What a mail says beside the record.
#[derive(Debug, Clone, Copy)]
pub struct Story<'a> {
    /// The database's URL, for the restore command.
    pub url: &'a str,
    /// How its store is reached, for the same.
    pub options: &'a S3Options,
    /// The last PASS.
    pub last_pass: Option<&'a Receipt>,
    /// When the first drill of the newest state began that did not pass since then; `None`: not known, or this one.
    pub failing_since: Option<Timestamp>,
}

/// Renders the mail.
#[must_use]
pub fn drill_mail(record: &Record, story: &Story<'_>) -> Mail {
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
    if let Some(since) = story.failing_since.filter(|since| *since < record.started_at) {
        let since = format!(
            "No drill of its newest state has passed since the one of {since}, which did not either."
        );
        page.paragraphs.push(since);
    }
    for check in &findings {
        let mut lines: Vec<&str> = check.detail.lines().take(DETAIL_LINES).collect();
        // The hint is what to do: never the part that is cut off.
        let hints =
            check.detail.lines().skip(DETAIL_LINES).filter(|line| line.starts_with("HINT: "));
        lines.extend(hints.take(1));
        page.paragraphs.push(format!("{} ({}):\n{}", check.name, check.status, lines.join("\n")));
    }
    page.command = instead(record, story).or_else(|| {
        story.last_pass.map(|pass| {
            let txid = pass.txid.map_or_else(String::new, |txid| format!("TXID {txid} "));
            let sentence = format!(
                "The last point that was proven is {txid}of {} (drilled {}). To restore it:",
                pass.restored_at, pass.finished_at
            );
            // Litestream v0.3 knows times only.
            let point = pass.txid.map_or_else(
                || format!("--timestamp {}", pass.restored_at),
                |txid| format!("--txid {txid}"),
            );
            (sentence, restore_command(&record.database, story, &point, pass.generation))
        })
    });
    if page.command.is_none() {
        page.paragraphs.push(
            "No drill of this database is known to have passed: no point is proven.".to_owned(),
        );
    }
    page.facts = facts(record, story.url);
    page.into_mail()
}

/// What to restore where the last PASS needs what is damaged.
fn instead(record: &Record, story: &Story<'_>) -> Option<(String, String)> {
    let (sentence, Instead { generation, txid }) = match (record.instead, record.txid) {
        (Some(instead), _) => (
            "The last point that was proven needs the damaged object, too. The newest one that does not, although no drill of it is known to have passed:",
            instead,
        ),
        (None, Some(txid)) if record.spoils(story.last_pass?) => (
            "The last point that was proven needs a damaged object. The one that this drill restored does not:",
            Instead { generation: record.generation, txid },
        ),
        _ => return None,
    };
    let point = format!("--txid {txid}");
    let command = restore_command(&record.database, story, &point, generation);
    Some((sentence.to_owned(), command))
}

/// The command that restores a point, from anywhere.
fn restore_command(
    database: &str,
    story: &Story<'_>,
    point: &str,
    generation: Option<GenerationId>,
) -> String {
    let output = shell_quoted(&format!("{database}.db"));
    let generation = generation.map_or(String::new(), |id| format!(" --generation {id}"));
    let mut command = format!(
        "shipper restore {} --output {output} {point}{generation}",
        shell_quoted(story.url)
    );
    if story.url.starts_with("s3://") {
        let options =
            [("--endpoint", &story.options.endpoint), ("--region", &story.options.region)];
        for (name, value) in
            options.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?)))
        {
            command.push_str(&format!(" {name} {}", shell_quoted(value)));
        }
    }
    command
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
    use crate::record::{Check, DamagedFile, OtherFiles, Status};

    fn record(checks: Vec<Check>) -> Record {
        let mut draft = Draft::new("app", &Asked::LATEST, "2026-11-22T09:00:00Z".parse().unwrap());
        draft.record.checks = checks;
        draft.finish(std::time::Duration::ZERO)
    }

    fn story(options: &S3Options) -> Story<'_> {
        Story { url: "file:///b/app", options, last_pass: None, failing_since: None }
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
        let options =
            S3Options { endpoint: Some("https://s3.example".to_owned()), ..S3Options::default() };
        let mut told = Story {
            url: "s3://acme/web-1/app",
            options: &options,
            last_pass: Some(&pass),
            failing_since: Some("2026-11-21T09:00:00Z".parse().unwrap()),
        };
        let mail = drill_mail(&record, &told);
        assert_eq!(mail.subject, format!("FAIL: app: {what}"));
        let command = "shipper restore s3://acme/web-1/app --output app.db --txid 000000000000001a \
                       --generation 0192f0c1-2345-7abc-8def-0123456789ab --endpoint https://s3.example";
        for body in [&mail.text, &mail.html] {
            let since = "has passed since the one of 2026-11-21T09:00:00Z";
            for part in [what, "HINT: do this", command, since] {
                assert!(body.contains(part), "{part} in {body}");
            }
        }
        told.failing_since = Some(record.started_at);
        assert!(!drill_mail(&record, &told).text.contains("has passed since"), "this is the first");
    }

    #[test]
    fn a_command_goes_around_the_damage() {
        let generation = "0192f0c1-2345-7abc-8def-0123456789ab";
        let txid = |number| replica::format::Txid::new(number).unwrap();
        let pass: Receipt = serde_json::from_value(serde_json::json!({
            "version": 1, "drill_id": "d", "generation": generation,
            "txid": "1a", "restored_at": "2026-11-15T09:00:00Z", "finished_at": "2026-11-15T09:00:05Z",
        }))
        .unwrap();
        let options = S3Options::default();
        let told = Story { last_pass: Some(&pass), ..story(&options) };
        let command = |record: &Record| {
            let text = drill_mail(record, &told).text;
            let at = text.find("--txid ").unwrap();
            text[at..at + "--txid 0000000000000000".len()].to_owned()
        };
        let mut stuck = record(vec![Check::new("chain", Status::Fail, "damaged")]);
        assert_eq!(command(&stuck), "--txid 000000000000001a", "it may need none of it");
        let generation = Some(generation.parse().unwrap());
        stuck.instead = Some(Instead { generation, txid: txid(0x17) });
        assert_eq!(command(&stuck), "--txid 0000000000000017");
        // The newest state is there, and what was proven is not any more.
        let mut passed = record(vec![Check::new("other_files", Status::Fail, "damaged")]);
        (passed.generation, passed.txid) = (generation, Some(txid(0x20)));
        let spoiling = |first, last| DamagedFile {
            object: "x.ltx".to_owned(),
            problem: "cut".to_owned(),
            spoiled_points: 1,
            first: Some(txid(first)),
            last: Some(txid(last)),
        };
        for (first, last, expected) in [(0x18, 0x1f, 0x20), (0x1a, 0x1a, 0x20), (2, 0x19, 0x1a)] {
            let damaged = vec![spoiling(first, last)];
            passed.other_files = Some(OtherFiles { damaged, ..OtherFiles::default() });
            assert_eq!(command(&passed), format!("--txid {expected:016x}"));
        }
    }

    #[test]
    fn inconclusive_accuses_nobody_and_admits_that_nothing_is_proven() {
        let mail = drill_mail(
            &record(vec![Check::new("chain", Status::Error, "unreachable")]),
            &story(&S3Options::default()),
        );
        assert_eq!(mail.subject, "INCONCLUSIVE: app: unreachable");
        assert!(mail.text.contains("Nothing is said against the backup"));
        assert!(mail.text.contains("no point is proven"));
    }

    #[test]
    fn a_long_detail_is_cut_but_keeps_its_hint() {
        let detail = format!("{}HINT: do this", "row\n".repeat(100));
        let mail = drill_mail(
            &record(vec![Check::new("x", Status::Fail, detail)]),
            &story(&S3Options::default()),
        );
        assert_eq!(mail.text.matches("\nrow").count(), DETAIL_LINES);
        assert!(mail.text.contains("HINT: do this"));
    }
}
