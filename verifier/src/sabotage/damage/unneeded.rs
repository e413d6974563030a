//! Damage to files that the newest state does not need. Older restore points may.

use super::harmless::merge_two;
use super::{Applied, Damage, Expected, FEW_FILES};
use crate::sabotage::anatomy::Anatomy;
use crate::sabotage::scratch::{Scratch, flip};

pub(super) fn damages() -> Vec<Damage> {
    vec![
        Damage::new(
            "wrong bytes in a file that only an older point needs",
            Expected::Caught(&["other_files"]),
            |scratch| damage_one(scratch, 0),
        ),
        Damage::new("wrong bytes in a file that no point needs", Expected::Harmless, |scratch| {
            damage_one(scratch, 1)
        }),
    ]
}

/// Of the two newest files, which one of a higher level makes superfluous: the first still is the only way to the state
/// between them; where the second leads to, the one of the higher level does, too.
fn damage_one(scratch: &Scratch<'_>, which: usize) -> anyhow::Result<Applied> {
    let Some(file) = merge_two(scratch)?.and_then(|files| files.get(which).copied()) else {
        return Applied::not(FEW_FILES);
    };
    let path = scratch.path(&file);
    let Some(parts) = Anatomy::of(&path)? else { return Applied::not("the file has no pages") };
    scratch.edit(&path, |own| flip(own, parts.first_literal))?;
    Ok(Applied::Done)
}
