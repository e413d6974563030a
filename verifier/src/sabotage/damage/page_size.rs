//! Files that tell another page size.

use std::io::{Seek, SeekFrom, Write};

use replica::format::PageSize;

use super::{Applied, Damage, Expected, FEW_FILES};
use crate::sabotage::rewrite::{Page, Rewrite};
use crate::sabotage::scratch::{Scene, Scratch};

/// Offset of the page size in a header.
const PAGE_SIZE: u64 = 8;

pub(super) fn damages(scene: &Scene) -> Vec<Damage> {
    let everywhere = Expected::by_checksums(
        scene,
        Expected::CHAIN,
        Expected::Caught(&["size", "integrity_check"]),
    );
    vec![
        Damage::new("another page size in a header", Expected::CHAIN, |scratch| {
            let Some(file) = scratch.scene().last() else { return Applied::not(FEW_FILES) };
            let other = other(scratch)?;
            scratch.edit(&scratch.path(&file), |own| {
                own.seek(SeekFrom::Start(PAGE_SIZE))?;
                own.write_all(&other.get().to_be_bytes())
            })?;
            Ok(Applied::Done)
        }),
        Damage::new(
            "another page size in a file, its checksum right",
            Expected::CHAIN,
            |scratch| {
                match scratch.scene().files.as_slice() {
                    [_, .., newest] => resize(scratch, &scratch.path(newest))?,
                    _ => return Applied::not(FEW_FILES),
                }
                Ok(Applied::Done)
            },
        ),
        Damage::new("another page size in every file, checksums right", everywhere, |scratch| {
            for file in &scratch.scene().files {
                resize(scratch, &scratch.path(file))?;
            }
            Ok(Applied::Done)
        }),
    ]
}

fn other(scratch: &Scratch<'_>) -> anyhow::Result<PageSize> {
    let size = scratch.scene().newest.page_size.get();
    Ok(PageSize::new(size * 2).or_else(|_| PageSize::new(size / 2))?)
}

/// Writes a file with another page size: pages filled up with zeros, or cut.
fn resize(scratch: &Scratch<'_>, path: &std::path::Path) -> anyhow::Result<()> {
    let other = other(scratch)?;
    let rewrite = Rewrite {
        header: Box::new(move |header| header.page_size = other),
        page: Box::new(move |_, page| {
            page.resize(other.len(), 0);
            Ok(Page::Keep)
        }),
        ..Rewrite::default()
    };
    rewrite.run(scratch, path, path)
}
