//! `docs/DAMAGE.md` says what the drill and `litestream restore` make of each damage. It is made from the catalogue, so that
//! it cannot go stale: on a difference this test fails and shows the table as it should be.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::fmt::Write as _;

use replica::store::Chain;
use seaworthy_tests::damaged::{Theatre, litestream};
use seaworthy_tests::process::repository;
use verifier::sabotage::{Outcome, Trial};

/// A damage at each level is one row.
fn row(damage: &str) -> &str {
    damage.split(" (level ").next().unwrap()
}

fn words(trial: &Trial) -> String {
    match trial.outcome {
        Outcome::Caught => format!("`{}`", trial.checks.first().unwrap()),
        Outcome::Harmless => "passes: harmless".to_owned(),
        other => other.to_string(),
    }
}

/// Adds what is not said yet.
fn say(cell: &mut String, words: &str) {
    if !cell.split(" / ").any(|said| said == words) {
        let separator = if cell.is_empty() { "" } else { " / " };
        let _ = write!(cell, "{separator}{words}");
    }
}

/// What each damage comes to: with Litestream 0.5.18, and in the drill.
fn outcomes(theatre: &Theatre) -> Vec<(String, String, String)> {
    let scene = theatre.stage.scene();
    let mut order: Vec<String> = Vec::new();
    let mut cells: BTreeMap<String, (String, String)> = BTreeMap::new();
    for damage in theatre.catalogue() {
        let mut theirs = None;
        let trial = theatre.try_damage(&damage, |scratch| {
            // Litestream is given a generation as its replica.
            let replica = match scene.chain {
                Chain::Root => scratch.dir().to_owned(),
                Chain::Generation(id) => scratch.dir().join(id.to_string()),
            };
            theirs = Some(litestream(&replica, &scene.database)?);
            Ok(())
        });
        let trial = trial.unwrap();
        let name = row(&damage.name).to_owned();
        if !order.contains(&name) {
            order.push(name.clone());
        }
        let (litestreams, ours) = cells.entry(name).or_default();
        if let Some(theirs) = theirs {
            say(litestreams, &theirs.to_string());
        }
        say(ours, &words(&trial));
    }
    order
        .into_iter()
        .map(|name| {
            let (theirs, ours) = cells.remove(&name).unwrap();
            (name, theirs, ours)
        })
        .collect()
}

#[test]
fn the_table_of_damage_is_what_happens() {
    let plain = outcomes(&Theatre::of_fixture("v05-file").unwrap());
    let ours = outcomes(&Theatre::of_ours().unwrap());
    let mut table = "| damage | `litestream restore` 0.5.18 | drill of Litestream's replica | drill of ours |\n|---|---|---|---|\n".to_owned();
    for (name, theirs, drill) in &ours {
        let of_plain = plain.iter().find(|(other, ..)| other == name);
        let (litestream, foreign) = match of_plain {
            Some((_, theirs, drill)) => (theirs.as_str(), drill.as_str()),
            // Generations are ours alone.
            None => (theirs.as_str(), ""),
        };
        let litestream = if of_plain.is_none() { "(has no generations)" } else { litestream };
        writeln!(table, "| {name} | {litestream} | {foreign} | {drill} |").unwrap();
    }
    let path = repository().join("docs/DAMAGE.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (_, rest) = text.split_once("<!-- table -->\n").expect("the table's beginning");
    let (documented, _) = rest.split_once("<!-- end of table -->").expect("the table's end");
    assert!(documented == table, "docs/DAMAGE.md should have this table:\n{table}");
}
