//! Drills of what a database may hold: every kind of table, what this SQLite does not know, and what is no SQLite
//! database at all.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use seaworthy_tests::drill_support::{
    Surroundings, detail, ship_snapshot, status, write_heartbeat,
};
use serde_json::{Value, json};

/// Drills a database made from `sql`, its bytes changed by `change`.
fn drill(sql: &str, change: impl Fn(&mut Vec<u8>), exit: i32) -> Value {
    let world = Surroundings::new().unwrap();
    ship_snapshot(&world.replica("app"), sql, change).unwrap();
    write_heartbeat(&world.replica("app"), "1", 0).unwrap();
    world.drill(&["app"], exit).unwrap()
}

/// Replaces every occurrence of one text in the file, as an application's own extension would have it.
fn replace(bytes: &mut [u8], from: &str, to: &str) {
    assert_eq!(from.len(), to.len());
    let places: Vec<usize> = bytes
        .windows(from.len())
        .enumerate()
        .filter_map(|(at, window)| (window == from.as_bytes()).then_some(at))
        .collect();
    assert!(!places.is_empty(), "{from} is in the file");
    for at in places {
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    }
}

const CHECKS: [&str; 7] = [
    "chain",
    "size",
    "integrity_check",
    "check_constraints",
    "foreign_key_check",
    "schema",
    "tables",
];

#[test]
fn every_kind_of_table_passes() {
    let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)";
    let cases = [
        (
            "WITHOUT ROWID",
            format!(
                "CREATE TABLE w(a TEXT, b INTEGER, PRIMARY KEY (a, b)) WITHOUT ROWID;
                 CREATE INDEX w_b ON w(b); {many} INSERT INTO w SELECT 'key ' || i, i FROM n;"
            ),
            json!({"w": 500}),
        ),
        (
            "generated columns",
            format!(
                "CREATE TABLE g(a INTEGER, twice AS (a * 2) VIRTUAL, half AS (a / 2) STORED);
                 CREATE INDEX g_twice ON g(twice); CREATE INDEX g_sum ON g(a + half);
                 {many} INSERT INTO g(a) SELECT i FROM n;"
            ),
            json!({"g": 500}),
        ),
        (
            "views, triggers, partial indexes",
            "CREATE TABLE t(id INTEGER PRIMARY KEY, x); CREATE TABLE log(x);
             CREATE VIEW v AS SELECT max(x) AS newest FROM t; CREATE VIEW broken AS SELECT * FROM gone;
             CREATE INDEX t_x ON t(x) WHERE x > 1;
             CREATE TRIGGER added AFTER INSERT ON t BEGIN INSERT INTO log VALUES (new.x); END;
             INSERT INTO t(x) VALUES (1), (2), (3);"
                .to_owned(),
            json!({"t": 3, "log": 3}),
        ),
        (
            "STRICT",
            format!("CREATE TABLE s(i INTEGER, t TEXT, a ANY) STRICT; {many} INSERT INTO s SELECT i, 'x', NULL FROM n;"),
            json!({"s": 500}),
        ),
        (
            "FTS5",
            format!(
                "CREATE TABLE posts(id INTEGER PRIMARY KEY, body TEXT);
                 CREATE VIRTUAL TABLE search USING fts5(body, content='posts', content_rowid='id');
                 CREATE VIRTUAL TABLE notes USING fts5(body, tokenize='trigram');
                 {many} INSERT INTO posts(body) SELECT 'post number ' || i FROM n;
                 INSERT INTO search(rowid, body) SELECT id, body FROM posts;
                 INSERT INTO notes SELECT body FROM posts;"
            ),
            json!({"posts": 500}),
        ),
        (
            "R-tree",
            format!(
                "CREATE VIRTUAL TABLE places USING rtree(id, x0, x1, y0, y1, +name TEXT);
                 {many} INSERT INTO places SELECT i, i, i + 1, -i, i, 'place ' || i FROM n;
                 CREATE TABLE t(x);"
            ),
            json!({"t": 0}),
        ),
    ];
    for (what, sql, tables) in cases {
        let record = drill(&sql, |_| (), 0);
        assert_eq!(record["verdict"], "PASS", "{what}: {record:#}");
        for check in CHECKS {
            assert_eq!(status(&record, check), "pass", "{what}: {check}: {record:#}");
        }
        assert_eq!(record["tables"], tables, "{what}");
    }
    let fts = drill("CREATE VIRTUAL TABLE notes USING fts5(body);", |_| (), 0);
    assert!(detail(&fts, "tables").contains("virtual, not counted: notes"), "{fts:#}");
}

#[test]
fn what_this_sqlite_does_not_know_is_unchecked_and_no_alarm() {
    type Case<'a> = (&'a str, &'a str, (&'a str, &'a str), &'a str, &'a str);
    let cases: [Case<'_>; 3] = [
        (
            "collation",
            "CREATE TABLE t(x COLLATE NOCASE UNIQUE); INSERT INTO t VALUES ('a'), ('b');",
            ("COLLATE NOCASE", "COLLATE APPCOL"),
            "integrity_check",
            "APPCOL",
        ),
        (
            "function",
            "CREATE TABLE t(x, y); INSERT INTO t VALUES ('a', 1); CREATE INDEX i ON t(upper(x));",
            ("upper(x)", "appfn(x)"),
            "integrity_check",
            "appfn",
        ),
        (
            "module",
            "CREATE TABLE t(x); INSERT INTO t VALUES (1); CREATE VIRTUAL TABLE n USING fts5(body); \
             INSERT INTO n VALUES ('hello');",
            ("USING fts5(", "USING app5("),
            "tables",
            "no such module: app5",
        ),
    ];
    for (what, sql, (known, unknown), check, named) in cases {
        let record = drill(sql, |bytes| replace(bytes, known, unknown), 0);
        assert_eq!(record["verdict"], "PASS", "{what}: {record:#}");
        assert_eq!(status(&record, check), "unchecked", "{what}: {record:#}");
        assert!(detail(&record, check).contains(named), "{what}: {}", detail(&record, check));
        assert!(record["tables"]["t"].as_u64().unwrap() >= 1, "{what}: {record:#}");
    }
}

#[test]
fn what_is_no_sqlite_database_fails_and_says_what_it_may_be() {
    // As SQLCipher leaves it: every page looks random, page 1 with its salt first.
    let encrypted = |bytes: &mut Vec<u8>| {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for byte in bytes {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = state.to_be_bytes()[0];
        }
    };
    let text = |bytes: &mut Vec<u8>| bytes.fill(b'x');
    let only_first_page = |bytes: &mut Vec<u8>| bytes[..4096].fill(0);
    let sql = "CREATE TABLE t(x); INSERT INTO t VALUES (1);";
    type Change<'a> = (&'a str, &'a dyn Fn(&mut Vec<u8>));
    let changes: [Change<'_>; 3] =
        [("encrypted", &encrypted), ("text", &text), ("page 1 zeroed", &only_first_page)];
    for (what, change) in changes {
        let record = drill(sql, change, 1);
        assert_eq!(record["verdict"], "FAIL", "{what}");
        assert_eq!(status(&record, "chain"), "pass", "{what}: the files themselves are whole");
        assert_eq!(status(&record, "size"), "fail", "{what}: {record:#}");
        assert_eq!(status(&record, "integrity_check"), "fail", "{what}: {record:#}");
        let said = detail(&record, "size");
        assert!(said.contains("no SQLite database\nHINT: is it encrypted"), "{what}: {said}");
    }
}

#[test]
fn what_one_table_refuses_hides_no_damage_in_another() {
    let sound =
        "CREATE TABLE t(x); CREATE INDEX t_x ON t(x); INSERT INTO t VALUES ('a note in an index');";
    let damaged = |bytes: &mut Vec<u8>| {
        let at = bytes.windows(18).position(|window| window == b"a note in an index").unwrap();
        bytes[at] = b'b';
    };
    type Change = fn(&mut Vec<u8>);
    let cases: [(&str, &str, Change, &str, &str); 3] = [
        (
            "a value of 20 MB",
            "CREATE TABLE long(x); INSERT INTO long VALUES (zeroblob(20000000));",
            |_| (),
            "pass",
            "ok",
        ),
        (
            "a key that memory cannot hold",
            "CREATE TABLE long(x UNIQUE); INSERT INTO long VALUES (zeroblob(60000000));",
            |_| (),
            "unchecked",
            "1 of 2 table(s) checked; only their structure (quick_check), 1: long",
        ),
        (
            "a tokenizer of the application's",
            "CREATE VIRTUAL TABLE notes USING fts5(x, tokenize='porter'); INSERT INTO notes VALUES ('a');",
            |bytes| replace(bytes, "tokenize='porter'", "tokenize='appown'"),
            "unchecked",
            "6 of 7 table(s) checked; only that their rows can be read, 1: notes",
        ),
    ];
    for (what, sql, change, expected, words) in cases {
        let sql = format!("{sound} {sql}");
        let record = drill(&sql, change, 0);
        assert_eq!(status(&record, "integrity_check"), expected, "{what}: {record:#}");
        assert!(detail(&record, "integrity_check").contains(words), "{what}: {record:#}");
        let both = |bytes: &mut Vec<u8>| {
            change(bytes);
            damaged(bytes);
        };
        let record = drill(&sql, both, 1);
        assert!(detail(&record, "integrity_check").contains("index t_x"), "{what}: {record:#}");
    }
    let broken = "PRAGMA ignore_check_constraints = ON; CREATE TABLE t(x CHECK (x > 0)); INSERT INTO t VALUES (-1);";
    let record = drill(broken, |_| (), 1);
    assert_eq!(status(&record, "check_constraints"), "fail", "{record:#}");
    assert_eq!(detail(&record, "check_constraints"), "t row 1 breaks CHECK (x > 0)");
}
