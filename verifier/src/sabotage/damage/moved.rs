//! Files under the names of others.

use std::fs;

use replica::format::TxidRange;

use super::{Applied, Damage, Expected, FEW_FILES, NO_CHECKSUMS, three};
use crate::sabotage::rewrite::Rewrite;
use crate::sabotage::scratch::{Scene, Scratch};

pub(super) fn damages(scene: &Scene) -> Vec<Damage> {
    let claimed = Expected::by_checksums(scene, Expected::CHAIN, Expected::ByChance(NO_CHECKSUMS));
    vec![
        Damage::new("two files swapped", Expected::CHAIN, |scratch| {
            let Some((_, middle, last)) = three(scratch.scene()) else {
                return Applied::not(FEW_FILES);
            };
            let (one, other) = (scratch.path(&middle), scratch.path(&last));
            let aside = scratch.dir().join("aside");
            fs::rename(&one, &aside)?;
            fs::rename(&other, &one)?;
            fs::rename(&aside, &other)?;
            Ok(Applied::Done)
        }),
        Damage::new("a gap hidden by a renamed file", Expected::CHAIN, |scratch| {
            let Some((gap, from, to)) = gap(scratch)? else { return Applied::not(FEW_FILES) };
            fs::remove_file(gap)?;
            scratch.rename(&from, &to)?;
            Ok(Applied::Done)
        }),
        Damage::new("a gap hidden by a file that claims to cover it", claimed, |scratch| {
            let Some((gap, from, to)) = gap(scratch)? else { return Applied::not(FEW_FILES) };
            fs::remove_file(gap)?;
            let name = to.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let txids = TxidRange::from_file_name(name)?;
            let rewrite = Rewrite {
                header: Box::new(move |header| header.txids = txids),
                ..Rewrite::default()
            };
            rewrite.run(scratch, &from, &to)?;
            fs::remove_file(from)?;
            Ok(Applied::Done)
        }),
        Damage::new(
            "the newest file under the name of the next TXID",
            // A generation's heartbeat vouches for what is before it, and for nothing behind that.
            if scene.heartbeat { Expected::Harmless } else { Expected::CHAIN },
            |scratch| {
                let [.., newest] = scratch.scene().files.as_slice() else {
                    return Applied::not(FEW_FILES);
                };
                let next = TxidRange::single(newest.txids.max().next());
                scratch.duplicate(&scratch.path(newest), &scratch.place(newest.level, next))?;
                Ok(Applied::Done)
            },
        ),
    ]
}

/// A file in the middle, the one after it, and the name that would cover both.
fn gap(
    scratch: &Scratch<'_>,
) -> anyhow::Result<Option<(std::path::PathBuf, std::path::PathBuf, std::path::PathBuf)>> {
    let files = &scratch.scene().files;
    let middle = files.len() / 2;
    let [Some(before), Some(gone), Some(next)] =
        [middle.checked_sub(1), Some(middle), Some(middle + 1)].map(|at| files.get(at?))
    else {
        return Ok(None);
    };
    let txids = TxidRange::new(before.txids.max().next(), next.txids.max())?;
    Ok(Some((scratch.path(gone), scratch.path(next), scratch.place(next.level, txids))))
}
