//! A replica that Litestream v0.3 left beside the chain. It is older, but its objects may look newer (a copy renews
//! modification times), which is all that Litestream goes by.

use std::fs::{self, File};
use std::io::Read;

use super::{Applied, Damage, Expected};
use crate::sabotage::forge;
use crate::sabotage::scratch::Scratch;
use crate::sabotage::source::Changed;

pub(super) fn damages() -> Vec<Damage> {
    vec![Damage::new(
        "an older v0.3 replica beside the chain, modified later",
        Expected::Harmless,
        v03_beside,
    )]
}

/// Its only snapshot is a database without the rows of a table.
fn v03_beside(scratch: &Scratch<'_>) -> anyhow::Result<Applied> {
    let Some(older) = Changed::by(scratch.scene(), super::content::delete_rows)? else {
        return Applied::not(super::content::NOTHING_CHANGED);
    };
    let snapshots = scratch.dir().join("generations/0123456789abcdef/snapshots");
    fs::create_dir_all(&snapshots)?;
    let mut out = File::create(snapshots.join("00000000.snapshot.lz4"))?;
    let mut database = older.open()?;
    forge::lz4_frame(&mut out, |block| database.read(block))?;
    Ok(Applied::Done)
}
