//! The damage catalogue: every way to damage a replica is caught by the check that should catch it; what is harmless
//! passes, and so does the undamaged twin.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;

use seaworthy_tests::damaged::Theatre;
use verifier::sabotage::Outcome;

/// Tries the whole catalogue; the damages that this chain has nothing for.
fn try_all(theatre: &Theatre) -> Vec<String> {
    assert!(theatre.stage.is_sound(), "undamaged: {:#?}", theatre.stage.undamaged());
    let catalogue = theatre.catalogue();
    let names: BTreeSet<&str> = catalogue.iter().map(|damage| damage.name.as_str()).collect();
    assert_eq!(names.len(), catalogue.len(), "two damages of one name");
    let (mut wrong, mut not_applicable) = (Vec::new(), Vec::new());
    for damage in &catalogue {
        let trial = theatre.try_damage(damage, |_| Ok(())).unwrap();
        if trial.outcome == Outcome::NotApplicable {
            not_applicable.push(damage.name.clone());
        } else if !trial.is_as_expected(damage) {
            wrong.push(format!("expected {:?}: {trial:#?}", damage.expected));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), catalogue.len(), wrong.join("\n"));
    not_applicable
}

#[test]
fn damage_to_a_chain_of_ours_is_caught() {
    let theatre = Theatre::of_ours().unwrap();
    let scene = theatre.stage.scene();
    assert!(scene.is_checksummed() && scene.heartbeat && scene.files.len() >= 5, "{scene:#?}");
    assert_eq!(scene.one_a_level().len(), 3, "levels 9, 1 and 0: {scene:#?}");
    assert_eq!(try_all(&theatre), Vec::<String>::new());
}

#[test]
fn damage_to_a_replica_of_litestreams_is_caught() {
    let theatre = Theatre::of_fixture("v05-file").unwrap();
    assert!(!theatre.stage.scene().is_checksummed());
    assert_eq!(try_all(&theatre), Vec::<String>::new());
}

#[test]
fn damage_to_a_replica_with_small_pages_is_caught() {
    assert_eq!(try_all(&Theatre::of_fixture("v05-pages512").unwrap()), Vec::<String>::new());
}

/// A drill reads files that the newest state does not need a share a day; sabotage must not find that too late is missed.
#[test]
fn damage_to_large_files_is_not_left_to_a_later_day() {
    let theatre = Theatre::of_large_files().unwrap();
    assert!(theatre.stage.is_sound(), "undamaged: {:#?}", theatre.stage.undamaged());
    let files = &theatre.stage.scene().files;
    let newest: u64 = files.iter().rev().take(2).map(|file| file.size).sum();
    assert!(newest > 64 << 20, "{files:#?}");
    let catalogue = theatre.catalogue();
    let name = "wrong bytes in a file that only an older point needs";
    let damage = catalogue.iter().find(|damage| damage.name == name).unwrap();
    let trial = theatre.try_damage(damage, |_| Ok(())).unwrap();
    assert_eq!(trial.outcome, Outcome::Caught, "{trial:#?}");
    assert!(trial.is_as_expected(damage), "{trial:#?}");
}
