//! The ledger in DynamoDB, over its real protocol, against an emulator in a process of its own.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use seaworthy_tests::drill_support::{
    MailServer, Surroundings, detail, fixture, ship_snapshot, subject, write_heartbeat,
};
use seaworthy_tests::process::{PATIENCE, Process, run, tool};
use serde_json::{Value, json};

/// The emulator, with the ledger's table.
struct DynamoDb {
    port: u16,
    _process: Process,
}

impl DynamoDb {
    fn start() -> Self {
        let serve = |port: u16| {
            let mut command = tool("dynoxide")?;
            command.args(["serve", "--port", &port.to_string()]);
            Ok(command)
        };
        let (process, port) = Process::start_server(serve).unwrap();
        let dynamodb = Self { port, _process: process };
        let key = |name, kind| json!({"AttributeName": name, "KeyType": kind});
        let text = |name| json!({"AttributeName": name, "AttributeType": "S"});
        dynamodb.call(
            "CreateTable",
            &json!({
                "TableName": "seaworthy", "BillingMode": "PAY_PER_REQUEST",
                "KeySchema": [key("pk", "HASH"), key("sk", "RANGE")],
                "AttributeDefinitions": [text("pk"), text("sk")],
            }),
        );
        dynamodb
    }

    /// One request of the JSON protocol.
    fn call(&self, operation: &str, body: &Value) -> Value {
        let body = body.to_string();
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        write!(
            stream,
            "POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Amz-Target: DynamoDB_20120810.{operation}\r\n\
             Content-Type: application/x-amz-json-1.0\r\nContent-Length: {}\r\nX-Amz-Date: 20261122T000000Z\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential=test/20261122/eu-central-1/dynamodb/aws4_request, \
             SignedHeaders=host, Signature=0\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{operation}: {answer}");
        serde_json::from_str(body).unwrap()
    }

    /// The items of a partition (the URL of a database, in an older version its name), by sort key.
    fn items(&self, of: &str) -> Vec<Value> {
        let answer = self.call(
            "Query",
            &json!({
                "TableName": "seaworthy", "KeyConditionExpression": "pk = :pk",
                "ExpressionAttributeValues": {":pk": {"S": format!("DB#{of}")}},
            }),
        );
        answer["Items"].as_array().unwrap().clone()
    }

    fn configure(&self, command: &mut Command) {
        command
            .env("SEAWORTHY_LEDGER__URL", "dynamodb://seaworthy")
            .env("AWS_ENDPOINT_URL_DYNAMODB", format!("http://127.0.0.1:{}", self.port));
    }

    fn drill(&self, world: &Surroundings, database: &str, exit: i32) -> Value {
        let mut command = world.verifier().unwrap();
        self.configure(&mut command);
        let output = run(command.args(["drill", database, "--json"]), exit).unwrap();
        world.nothing_left().unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

fn document(item: &Value) -> Value {
    serde_json::from_str(item["document"]["S"].as_str().unwrap()).unwrap()
}

#[test]
fn items_have_the_published_keys_and_hold_what_was_printed() {
    let (world, dynamodb) = (Surroundings::new().unwrap(), DynamoDb::start());
    world.copy_replica(&fixture("v05-file").join("replica"), "app").unwrap();
    let passed = dynamodb.drill(&world, "app", 0);
    let file = world.replica("app").join("ltx/0/0000000000000017-0000000000000017.ltx");
    let content = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    let failed = dynamodb.drill(&world, "app", 1);
    let items = dynamodb.items(&world.url("app"));
    assert_eq!(items.len(), 3, "two drills and the state: {items:#?}");
    assert_eq!([document(&items[0]), document(&items[1])], [passed.clone(), failed.clone()]);
    assert_eq!(items[0]["verdict"]["S"], "PASS");
    let started: jiff::Timestamp = passed["started_at"].as_str().unwrap().parse().unwrap();
    let sk = items[0]["sk"]["S"].as_str().unwrap();
    assert!(sk.starts_with(&format!("DRILL#{started:.3}#")), "{sk}");
    let expires: i64 = items[0]["expires_at"]["N"].as_str().unwrap().parse().unwrap();
    assert_eq!(expires, started.as_second() + 400 * 86_400);
    let state = &items[2];
    assert_eq!(state["sk"]["S"], "STATE");
    assert!(state.get("expires_at").is_none());
    let pass: Value = serde_json::from_str(state["last_pass"]["S"].as_str().unwrap()).unwrap();
    assert_eq!(pass["txid"], passed["txid"], "the failed drill did not replace it");
    let since: jiff::Timestamp = state["failing_since"]["S"].as_str().unwrap().parse().unwrap();
    assert_eq!(since, failed["started_at"].as_str().unwrap().parse().unwrap());

    std::fs::write(&file, content).unwrap();
    let again = dynamodb.drill(&world, "app", 0);
    let compared =
        format!("as many in each since the PASS of {}", passed["finished_at"].as_str().unwrap());
    assert!(detail(&again, "tables").contains(&compared), "{again:#}");
    assert!(dynamodb.items(&world.url("app"))[3].get("failing_since").is_none(), "it passes again");
}

/// Turns the items of a database into those of an older version, which kept them under its name.
fn as_of_an_older_version(dynamodb: &DynamoDb, url: &str) {
    for mut item in dynamodb.items(url) {
        let key = json!({"pk": item["pk"], "sk": item["sk"]});
        dynamodb.call("DeleteItem", &json!({"TableName": "seaworthy", "Key": key}));
        item["pk"] = json!({"S": "DB#app"});
        if item["sk"]["S"] == "STATE" {
            item["last_pass_url"] = json!({"S": url});
        }
        dynamodb.call("PutItem", &json!({"TableName": "seaworthy", "Item": item}));
    }
}

#[test]
fn what_an_older_version_kept_by_name_is_adopted_by_its_own_url_only() {
    let (world, dynamodb) = (Surroundings::new().unwrap(), DynamoDb::start());
    let [ours, other] = ["a/app", "b/app"].map(|place| world.url(place));
    for place in ["a/app", "b/app"] {
        world.copy_replica(&fixture("v05-file").join("replica"), place).unwrap();
    }
    let first = dynamodb.drill(&world, &ours, 0);
    as_of_an_older_version(&dynamodb, &ours);
    let before = dynamodb.items("app").len();
    let compared = |record: &Value| detail(record, "tables").contains("since the PASS of");
    assert!(!compared(&dynamodb.drill(&world, &other, 0)), "it was never proven");
    assert!(compared(&dynamodb.drill(&world, &ours, 0)));
    assert!(compared(&dynamodb.drill(&world, &ours, 0)), "and its own from then on");
    assert_eq!(dynamodb.items(&ours).len(), 3);
    let kept = dynamodb.items("app");
    assert_eq!(kept.len(), before, "nothing is lost");
    assert_eq!(document(&kept[0]), first);
    assert_eq!(kept[1]["adopted_by"]["S"], ours);
}

#[test]
fn a_record_above_400_kb_is_cut_in_the_ledger_and_says_so() {
    let (world, dynamodb) = (Surroundings::new().unwrap(), DynamoDb::start());
    let mut sql = String::from("BEGIN;");
    for number in 0..6000 {
        write!(sql, "CREATE TABLE a_table_with_a_name_as_long_as_some_tools_generate_them_for_us_{number:06}(x);").unwrap();
    }
    ship_snapshot(&world.replica("wide"), &(sql + "COMMIT"), |_| ()).unwrap();
    let printed = dynamodb.drill(&world, "wide", 0);
    assert_eq!(printed["tables"].as_object().unwrap().len(), 6000);
    let items = dynamodb.items(&world.url("wide"));
    let text = items[0]["document"]["S"].as_str().unwrap();
    assert!(text.len() < 400_000, "{}", text.len());
    let kept = document(&items[0]);
    assert_eq!(kept["truncated"], json!(["tables: 3000 of 6000 left out"]));
    assert_eq!(kept["checks"], printed["checks"]);
}

#[test]
fn two_watchers_at_once_send_one_mail() {
    let (world, dynamodb, mails) =
        (Surroundings::new().unwrap(), DynamoDb::start(), MailServer::start().unwrap());
    for database in 0..5 {
        write_heartbeat(&world.replica(&format!("app-{database}")), "1", 60).unwrap();
    }
    let watch = || {
        let mut command = world.verifier().unwrap();
        dynamodb.configure(&mut command);
        mails.configure(&mut command);
        command.arg("watch");
        Process::start(command).unwrap()
    };
    let mut both = [watch(), watch()];
    for watcher in &mut both {
        let status = watcher.wait(PATIENCE).unwrap();
        assert_eq!(status.code(), Some(1), "{}", watcher.output());
    }
    let mut subjects: Vec<_> = mails.take().iter().map(subject).collect();
    subjects.sort();
    let known = json!({"pk": {"S": "DATABASES"}, "sk": {"S": "STATE"}});
    let known = dynamodb.call("GetItem", &json!({"TableName": "seaworthy", "Key": known}));
    let mut urls: Vec<_> = known["Item"]["urls"]["SS"].as_array().unwrap().clone();
    urls.sort_by_key(Value::to_string);
    let expected: Vec<_> = (0..5).map(|n| json!(world.url(&format!("app-{n}")))).collect();
    assert_eq!(urls, expected, "what both wrote");
    assert_eq!(subjects, (0..5).map(|n| format!("app-{n}: dead")).collect::<Vec<_>>());
    for database in 0..5 {
        let state = &dynamodb.items(&world.url(&format!("app-{database}")))[0];
        let watch: Value = serde_json::from_str(state["watch"]["S"].as_str().unwrap()).unwrap();
        assert_eq!(watch["claim"], Value::Null, "marked as sent");
        assert!(watch["life"]["mailed_at"].is_string());
        assert_eq!(state["version"]["N"], "2");
    }
}

#[test]
fn a_ledger_out_of_reach_leaves_the_record_on_stdout() {
    let world = Surroundings::new().unwrap();
    world.copy_replica(&fixture("v05-file").join("replica"), "app").unwrap();
    let mut command = world.verifier().unwrap();
    command
        .env("SEAWORTHY_LEDGER__URL", "dynamodb://seaworthy")
        // Nobody listens there.
        .env("AWS_ENDPOINT_URL_DYNAMODB", "http://127.0.0.1:1");
    let output = run(command.args(["drill", "app", "--json"]), 3).unwrap();
    let record: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(record["verdict"], "INCONCLUSIVE");
    let statuses: Vec<_> = record["checks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| format!("{} {}", c["name"], c["status"]))
        .collect();
    assert!(statuses.contains(&"\"integrity_check\" \"pass\"".to_owned()), "{statuses:?}");
    assert!(statuses.contains(&"\"ledger\" \"error\"".to_owned()), "{statuses:?}");
    assert!(!world.replica("app").join("receipt.json").exists());
}
