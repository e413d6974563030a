//! Files with fewer, or more, bytes than they should have; at each level.

use std::io::{Seek, SeekFrom, Write};

use super::{Applied, Damage, Expected};
use crate::sabotage::anatomy::Anatomy;
use crate::sabotage::scratch::Scene;

/// Where a file ends then.
type End = fn(&Anatomy) -> u64;

const CUTS: [(&str, End); 4] = [
    ("half of a file missing", |parts| parts.length / 2),
    ("the last byte of a file missing", |parts| parts.length - 1),
    ("everything after the pages of a file missing", |parts| parts.pages_end + 6),
    ("an empty file", |_| 0),
];

pub(super) fn damages(scene: &Scene) -> Vec<Damage> {
    let mut damages = Vec::new();
    for file in scene.one_a_level() {
        for (what, end) in CUTS {
            let name = format!("{what} (level {})", file.level);
            damages.push(Damage::new(name, Expected::CHAIN, move |scratch| {
                let path = scratch.path(&file);
                let Some(parts) = Anatomy::of(&path)? else {
                    return Applied::not("the file has no pages");
                };
                scratch.edit(&path, |own| own.set_len(end(&parts)))?;
                Ok(Applied::Done)
            }));
        }
        let name = format!("garbage at the end of a file (level {})", file.level);
        damages.push(Damage::new(name, Expected::CHAIN, move |scratch| {
            scratch.edit(&scratch.path(&file), |own| {
                own.seek(SeekFrom::End(0))?;
                own.write_all(b"garbage")
            })?;
            Ok(Applied::Done)
        }));
    }
    damages
}
