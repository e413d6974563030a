//! One bit flipped, in each part of a file, at each level.

use super::{Applied, Damage, Expected};
use crate::sabotage::anatomy::Anatomy;
use crate::sabotage::scratch::{Scene, flip};

/// Which byte.
type Place = fn(&Anatomy) -> u64;

/// Offset of the timestamp's last byte in the header: any value of it is valid by itself.
const TIMESTAMP: u64 = 39;
/// Offset of the first page's number.
const PAGE_NUMBER: u64 = 103;

const PLACES: [(&str, Place); 9] = [
    ("magic", |_| 0),
    ("header", |_| TIMESTAMP),
    ("page number", |_| PAGE_NUMBER),
    ("LZ4 size of a page", |parts| parts.first_size),
    ("LZ4 data of a page", |parts| parts.first_literal),
    ("end of the pages", |parts| parts.pages_end),
    ("page index", |parts| parts.index),
    ("post-apply checksum", |parts| parts.trailer + 1),
    ("file checksum", |parts| parts.trailer + 9),
];

pub(super) fn damages(scene: &Scene) -> Vec<Damage> {
    let mut damages = Vec::new();
    for file in scene.one_a_level() {
        for (part, place) in PLACES {
            let name = format!("one bit flipped in the {part} (level {})", file.level);
            damages.push(Damage::new(name, Expected::CHAIN, move |scratch| {
                let path = scratch.path(&file);
                let Some(parts) = Anatomy::of(&path)? else {
                    return Applied::not("the file has no pages");
                };
                scratch.edit(&path, |own| flip(own, place(&parts)))?;
                Ok(Applied::Done)
            }));
        }
    }
    damages
}
