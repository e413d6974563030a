//! Files that are not there.

use std::fs;

use super::{Applied, Damage, Expected, FEW_FILES, three};

pub(super) fn damages() -> Vec<Damage> {
    vec![
        Damage::new("a file in the middle missing", Expected::CHAIN, |scratch| {
            let Some((_, middle, _)) = three(scratch.scene()) else {
                return Applied::not(FEW_FILES);
            };
            fs::remove_file(scratch.path(&middle))?;
            Ok(Applied::Done)
        }),
        Damage::new("the newest file missing", Expected::Caught(&["durable_point"]), |scratch| {
            match scratch.scene().files.as_slice() {
                [_, .., newest] => fs::remove_file(scratch.path(newest))?,
                _ => return Applied::not(FEW_FILES),
            }
            Ok(Applied::Done)
        }),
        Damage::new("no file that starts at TXID 1", Expected::CHAIN, |scratch| {
            for file in scratch.scene().files.iter().filter(|file| file.txids.is_snapshot()) {
                fs::remove_file(scratch.path(file))?;
            }
            Ok(Applied::Done)
        }),
        Damage::new("every file missing", Expected::CHAIN, |scratch| {
            for file in &scratch.scene().files {
                fs::remove_file(scratch.path(file))?;
            }
            Ok(Applied::Done)
        }),
    ]
}
