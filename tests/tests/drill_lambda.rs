//! `verifier` as a Lambda, over the real runtime API protocol, with a mail server beside it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs;
use std::net::TcpListener;
use std::time::Duration;

use seaworthy_tests::drill_support::{
    MailServer, Surroundings, fixture, ship_uninterruptible, subject, write_heartbeat,
};
use seaworthy_tests::lambda_runtime::Function;
use seaworthy_tests::process::{children_of, nameless_files_of};
use serde_json::json;

const AMPLE: Duration = Duration::from_secs(600);
const MIDDLE: &str = "ltx/0/0000000000000017-0000000000000017.ltx";

fn function(world: &Surroundings, mails: &MailServer) -> Function {
    let mut command = world.verifier().unwrap();
    mails.configure(&mut command);
    Function::start(command).unwrap()
}

#[test]
fn a_drill_answers_with_its_record_and_mails_what_did_not_pass() {
    let (world, mails) = (Surroundings::new().unwrap(), MailServer::start().unwrap());
    world.copy_replica(&fixture("v05-file").join("replica"), "app").unwrap();
    let function = function(&world, &mails);
    let event = json!({"task": "drill", "database": "app"});
    let passed = function.invoke(&event, AMPLE).unwrap().unwrap();
    assert_eq!(passed["verdict"], "PASS", "{passed:#}");
    assert!(mails.take().is_empty());

    fs::remove_file(world.replica("app").join(MIDDLE)).unwrap();
    let failed = function.invoke(&json!({"task": "drill"}), AMPLE).unwrap().unwrap();
    assert_eq!(failed["verdict"], "FAIL", "a FAIL is an answer");
    assert_eq!(world.recorded().unwrap(), [passed, failed["records"][0].clone()]);
    let sent = mails.take();
    assert_eq!(sent.len(), 1);
    assert!(subject(&sent[0]).starts_with("FAIL: app: "), "{}", subject(&sent[0]));
    let to: Vec<_> = [1, 2]
        .map(|n| sent[0].form(&format!("Destination.ToAddresses.member.{n}")).unwrap_or_default())
        .into();
    assert_eq!(to, ["ops@acme.example", "boss@acme.example"]);
    let restore =
        format!("shipper restore {} --output app.db --txid 000000000000001a", world.url("app"));
    for body in ["Message.Body.Text.Data", "Message.Body.Html.Data"] {
        let body = sent[0].form(body).unwrap();
        assert!(body.contains(&restore) && body.contains("0000000000000017"), "{body}");
    }

    mails.refuse(true);
    let error = function.invoke(&json!({"task": "drill"}), AMPLE).unwrap().unwrap_err();
    let message = error["errorMessage"].as_str().unwrap();
    assert!(message.contains("verdict is FAIL and its mail could not be sent"), "{message}");
    world.nothing_left().unwrap();
}

#[test]
fn an_event_that_asks_for_nothing_known_is_an_error() {
    let (world, mails) = (Surroundings::new().unwrap(), MailServer::start().unwrap());
    let function = function(&world, &mails);
    let error = function.invoke(&json!({"task": "dril"}), AMPLE).unwrap().unwrap_err();
    assert_eq!(
        error["errorMessage"],
        "error: event: unknown task \"dril\"\nHINT: did you mean drill?"
    );
}

#[test]
fn the_deadline_ends_a_drill_in_an_answer() {
    let (world, mails) = (Surroundings::new().unwrap(), MailServer::start().unwrap());
    // A store that takes connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = world.verifier().unwrap();
    mails.configure(&mut command);
    command
        .env("SEAWORTHY_REPLICA__URL", "s3://acme/web-1")
        .env("SEAWORTHY_REPLICA__DATABASES", "app,second")
        .env("SEAWORTHY_REPLICA__ENDPOINT", format!("http://{}", silent.local_addr().unwrap()));
    let function = Function::start(command).unwrap();
    let answer =
        function.invoke(&json!({"task": "drill"}), Duration::from_secs(20)).unwrap().unwrap();
    assert_eq!(answer["verdict"], "INCONCLUSIVE");
    for record in answer["records"].as_array().unwrap() {
        let detail = record["checks"][0]["detail"].as_str().unwrap();
        assert!(detail.starts_with("deadline reached\nHINT: "), "{record:#}");
    }
    assert_eq!(answer["records"].as_array().unwrap().len(), 2);
    assert_eq!(world.recorded().unwrap().len(), 2);
    world.nothing_left().unwrap();
    assert_eq!(mails.take().len(), 2);
}

#[test]
fn what_sqlite_does_not_interrupt_ends_at_the_deadline_and_leaves_nothing() {
    let (world, mails) = (Surroundings::new().unwrap(), MailServer::start().unwrap());
    ship_uninterruptible(&world.replica("evil")).unwrap();
    world.copy_replica(&fixture("v05-file").join("replica"), "good").unwrap();
    let function = function(&world, &mails);
    for _ in 0..2 {
        let event = json!({"task": "drill", "database": "evil"});
        let record = function.invoke(&event, Duration::from_secs(4)).unwrap().unwrap();
        assert_eq!(record["verdict"], "INCONCLUSIVE", "{record:#}");
        let said = record["checks"].as_array().unwrap().iter().filter(|c| c["status"] == "error");
        let said: Vec<_> = said.map(|check| check["detail"].as_str().unwrap()).collect();
        assert!(said.iter().all(|detail| detail.starts_with("deadline reached")), "{said:?}");
        assert!(children_of(function.process.id()).is_empty(), "what made the checks is gone");
        assert!(nameless_files_of(function.process.id()).is_empty());
        world.nothing_left().unwrap();
    }
    let event = json!({"task": "drill", "database": "good"});
    let record = function.invoke(&event, AMPLE).unwrap().unwrap();
    assert_eq!(record["verdict"], "PASS", "{record:#}");
}

#[test]
fn what_goes_stale_is_mailed_once_and_once_more_when_it_recovers() {
    let (world, mails) = (Surroundings::new().unwrap(), MailServer::start().unwrap());
    let function = function(&world, &mails);
    let watch = || {
        let answer = function.invoke(&json!({"task": "watch"}), AMPLE).unwrap().unwrap();
        let subjects: Vec<_> = mails.take().iter().map(subject).collect();
        (answer["databases"][0]["state"].as_str().unwrap_or("null").to_owned(), subjects)
    };
    let nothing = Vec::<String>::new();
    let app = world.replica("app");
    write_heartbeat(&app, "1", 0).unwrap();
    assert_eq!(watch(), ("fresh".to_owned(), nothing.clone()));
    write_heartbeat(&app, "1", 30).unwrap();
    mails.refuse(true);
    let failed = function.invoke(&json!({"task": "watch"}), AMPLE).unwrap().unwrap_err();
    assert!(failed["errorMessage"].as_str().unwrap().contains("could not be mailed"), "{failed}");
    mails.refuse(false);
    assert_eq!(
        watch(),
        ("dead".to_owned(), nothing.clone()),
        "the failed sender's claim is still alive"
    );
    expire_claim(&world);
    assert_eq!(watch(), ("dead".to_owned(), vec!["app: dead".to_owned()]));
    assert_eq!(watch(), ("dead".to_owned(), nothing.clone()));
    write_heartbeat(&app, "1", 0).unwrap();
    assert_eq!(watch(), ("fresh".to_owned(), vec!["app: recovered, fresh".to_owned()]));
    assert_eq!(watch(), ("fresh".to_owned(), nothing));
}

#[test]
fn a_watch_that_sees_nothing_is_a_failed_invocation() {
    let (world, mails) = (Surroundings::new().unwrap(), MailServer::start().unwrap());
    let function = function(&world, &mails);
    let watch = || function.invoke(&json!({"task": "watch"}), AMPLE).unwrap();
    let blind = || watch().unwrap_err()["errorMessage"].as_str().unwrap().to_owned();
    assert!(blind().contains("no database is there"), "{}", blind());
    let app = world.replica("app");
    write_heartbeat(&app, "1", 0).unwrap();
    assert_eq!(watch().unwrap()["databases"][0]["state"], "fresh");
    fs::write(app.join("heartbeat.json"), "{").unwrap();
    assert!(blind().contains("not a heartbeat"), "{}", blind());
    assert!(mails.take().is_empty());
    // What is gone was seen: it is dead.
    fs::remove_dir_all(app).unwrap();
    let answer = watch().unwrap();
    assert_eq!(answer["databases"][0]["state"], "dead", "{answer:#}");
    assert_eq!(mails.take().iter().map(subject).collect::<Vec<_>>(), ["app: dead"]);
}

/// Lets the lease of the claim end, as minutes would.
fn expire_claim(world: &Surroundings) {
    let ledger = rusqlite::Connection::open(world.ledger()).unwrap();
    let sql = "UPDATE place SET watch = json_set(watch, '$.claim.until', '2020-01-01T00:00:00Z') \
               WHERE json_extract(watch, '$.claim.until') IS NOT NULL";
    assert_eq!(ledger.execute(sql, ()).unwrap(), 1);
}
