//! The mail about a database that went stale, stays so, or recovered.

use crate::alert::{Mail, page::Page};
use crate::watch::{Alarm, Notice, Stage, Standing};

/// Renders one mail for all notices of a database (never empty).
#[must_use]
pub fn watch_mail(
    database: &str,
    url: &str,
    notices: &[Notice],
    standing: Option<&Standing>,
) -> Mail {
    let said: Vec<String> = notices.iter().map(|notice| headline(*notice, standing)).collect();
    let mut page = Page { title: format!("{database}: {}", said.join("; ")), ..Page::default() };
    for notice in notices {
        page.paragraphs.push(advice(*notice).to_owned());
    }
    if let Some(standing) = standing {
        page.facts = vec![
            ("shipping".to_owned(), format!("{} ({})", standing.life, standing.life_detail)),
            ("proof".to_owned(), standing.proof_detail.clone()),
        ];
        let hosts = standing.other_host.clone();
        page.facts.extend(hosts.map(|hosts| ("hosts".to_owned(), hosts)));
    }
    page.facts.push(("database".to_owned(), url.to_owned()));
    page.into_mail()
}

fn headline(notice: Notice, standing: Option<&Standing>) -> String {
    let life = standing.map_or("unknown".to_owned(), |standing| standing.life.to_string());
    match (notice.alarm, notice.stage) {
        (Alarm::Life, Stage::Began) => life,
        (Alarm::Life, Stage::Reminder) => format!("still {life}"),
        (Alarm::Life, Stage::Recovered) => format!("recovered, {life}"),
        (Alarm::Proof, Stage::Began) => "no recent proof".to_owned(),
        (Alarm::Proof, Stage::Reminder) => "still no recent proof".to_owned(),
        (Alarm::Proof, Stage::Recovered) => "proven again".to_owned(),
        (Alarm::TwoShippers, Stage::Began) => "two hosts ship it".to_owned(),
        (Alarm::TwoShippers, Stage::Reminder) => "two hosts still ship it".to_owned(),
        (Alarm::TwoShippers, Stage::Recovered) => "one host ships it".to_owned(),
    }
}

fn advice(notice: Notice) -> &'static str {
    match (notice.alarm, notice.stage) {
        (Alarm::Life, Stage::Recovered) => "The database is being shipped again.",
        (Alarm::Life, _) => {
            "Transactions are not reaching the bucket (stuck: the shipper lives; dead: it gives no sign of life). What is \
             committed now would be lost with the server.\n\
             HINT: on the server, look at `systemctl status shipper` and its journal."
        }
        (Alarm::Proof, Stage::Recovered) => "A drill has passed.",
        (Alarm::TwoShippers, Stage::Recovered) => {
            "The other host has not been seen for a while. What it shipped stays restorable by its generation."
        }
        (Alarm::TwoShippers, _) => {
            "Two hosts ship a database to the same place, each into a generation of its own: the newest state is that of \
             whichever writes last.\n\
             HINT: stop the shipper on the host that should not (a clone, an old server), or give it a prefix of its own."
        }
        (Alarm::Proof, _) => {
            "No drill of this database has passed for longer than [stale] proof_after.\n\
             HINT: run `verifier drill` for it, and look why the scheduled drills do not pass."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::Life;

    fn standing(life: Life) -> Standing {
        Standing {
            life,
            life_detail: "the last heartbeat is of <then>".to_owned(),
            pending: false,
            other_host: None,
            proof_overdue: false,
            proof_detail: "last PASS".to_owned(),
        }
    }

    #[test]
    fn it_says_what_began_and_what_ended() {
        let notice = |alarm, stage| Notice { alarm, stage };
        let began = [notice(Alarm::Life, Stage::Began), notice(Alarm::Proof, Stage::Began)];
        let mail = watch_mail("app", "s3://b/p/app", &began, Some(&standing(Life::Dead)));
        assert_eq!(mail.subject, "app: dead; no recent proof");
        assert!(mail.text.contains("HINT: on the server") && mail.text.contains("of <then>"));
        assert!(mail.html.contains("of &lt;then&gt;"));
        let ended = [notice(Alarm::Life, Stage::Recovered)];
        let mail = watch_mail("app", "s3://b/p/app", &ended, Some(&standing(Life::Idle)));
        assert_eq!(mail.subject, "app: recovered, idle");
    }
}
