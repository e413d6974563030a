//! Files that say something wrong, with LZ4, page index and file checksum right.

use jiff::{SignedDuration, Timestamp};
use replica::format::Header;

use super::{Applied, Damage, Expected, FEW_FILES};
use crate::sabotage::forge::Index;
use crate::sabotage::rewrite::{Page, Rewrite, each_page};
use crate::sabotage::scratch::{Scene, Scratch};
use crate::sabotage::source::{newest_holders, root_page};

const NO_TABLE: &str = "the database has no table with rows";

pub(super) fn damages(scene: &Scene) -> Vec<Damage> {
    let by = |plain| Expected::by_checksums(scene, Expected::CHAIN, Expected::Caught(plain));
    vec![
        Damage::new("a page zeroed, checksums right", by(&["integrity_check"]), zero_root),
        Damage::new("a page cut short, checksums right", Expected::CHAIN, |scratch| {
            edit_first_page(scratch, |page| page.truncate(page.len() / 2))
        }),
        Damage::new("a page too long, checksums right", Expected::CHAIN, |scratch| {
            edit_first_page(scratch, |page| page.push(0))
        }),
        Damage::new(
            "fewer pages in the database, checksums right",
            by(&["size", "integrity_check"]),
            |scratch| {
                edit_newest(scratch, |header| header.commit = header.commit.saturating_sub(1))
            },
        ),
        Damage::new("more pages in the database, checksums right", Expected::CHAIN, |scratch| {
            edit_newest(scratch, |header| header.commit += 1)
        }),
        Damage::new("the newest file dated a year ahead", POINT, |scratch| {
            edit_newest(scratch, |header| header.timestamp = later(header.timestamp, 365 * 24))
        }),
        Damage::new("the newest file dated an hour back", POINT, |scratch| {
            edit_newest(scratch, |header| header.timestamp = later(header.timestamp, -1))
        }),
        Damage::new(
            "a page missing from the snapshot, checksums right",
            Expected::CHAIN,
            without_page,
        ),
        Damage::new("a page twice in a file, checksums right", Expected::CHAIN, |scratch| {
            let Some(file) = scratch.scene().last() else { return Applied::not(FEW_FILES) };
            let path = scratch.path(&file);
            let rewrite = Rewrite { page: Box::new(|_, _| Ok(Page::Twice)), ..Rewrite::default() };
            rewrite.run(scratch, &path, &path)?;
            Ok(Applied::Done)
        }),
        Damage::new("a wrong page index, checksums right", Expected::CHAIN, |scratch| {
            let Some(file) = scratch.scene().last() else { return Applied::not(FEW_FILES) };
            let path = scratch.path(&file);
            let rewrite = Rewrite { index: Index::Wrong, ..Rewrite::default() };
            rewrite.run(scratch, &path, &path)?;
            Ok(Applied::Done)
        }),
        Damage::new(
            "a conflicting file of a higher level, checksums right",
            by(&["integrity_check"]),
            conflict,
        ),
    ]
}

const POINT: Expected = Expected::Caught(&["point"]);

pub(super) fn later(timestamp: Timestamp, hours: i64) -> Timestamp {
    timestamp.saturating_add(SignedDuration::from_hours(hours)).unwrap_or(timestamp)
}

/// The snapshot without a page that no later file has.
fn without_page(scratch: &Scratch<'_>) -> anyhow::Result<Applied> {
    let pages: Vec<u32> = (1..=scratch.scene().newest.commit).collect();
    let holders = newest_holders(scratch, &pages)?;
    let (Some(file), Some(dropped)) =
        (scratch.scene().files.first(), holders.get(&0).and_then(|pages| pages.first().copied()))
    else {
        return Applied::not("every page is in a later file, too");
    };
    let path = scratch.path(file);
    let rewrite = Rewrite {
        page: Box::new(move |number, _| {
            Ok(if number == dropped { Page::Drop } else { Page::Keep })
        }),
        ..Rewrite::default()
    };
    rewrite.run(scratch, &path, &path)?;
    Ok(Applied::Done)
}

/// The root page of a table, where the restored copy of it is.
fn zero_root(scratch: &Scratch<'_>) -> anyhow::Result<Applied> {
    let Some(root) = root_page(scratch.scene())? else { return Applied::not(NO_TABLE) };
    for position in newest_holders(scratch, &[root])?.into_keys() {
        if let Some(file) = scratch.scene().files.get(position) {
            let path = scratch.path(file);
            zeroing(root).run(scratch, &path, &path)?;
        }
    }
    Ok(Applied::Done)
}

fn zeroing(root: u32) -> Rewrite<'static> {
    let page = move |number, page: &mut Vec<u8>| {
        if number == root {
            page.fill(0);
        }
        Ok(Page::Keep)
    };
    Rewrite { page: Box::new(page), ..Rewrite::default() }
}

/// Beside the file that has a table's root page, another one of the same TXIDs without its content: the plan takes the
/// one of the higher level.
fn conflict(scratch: &Scratch<'_>) -> anyhow::Result<Applied> {
    let Some(root) = root_page(scratch.scene())? else { return Applied::not(NO_TABLE) };
    let holders = newest_holders(scratch, &[root])?;
    let Some(file) = holders.keys().next().and_then(|at| scratch.scene().files.get(*at)) else {
        return Applied::not(NO_TABLE);
    };
    let above = replica::format::Level::new(file.level.get() + 1);
    let Ok(above) = above else {
        return Applied::not("the page is in a snapshot of the highest level");
    };
    zeroing(root).run(scratch, &scratch.path(file), &scratch.place(above, file.txids))?;
    Ok(Applied::Done)
}

/// Changes the first page of the newest file that has one.
fn edit_first_page(scratch: &Scratch<'_>, edit: impl Fn(&mut Vec<u8>)) -> anyhow::Result<Applied> {
    for file in scratch.scene().files.iter().rev() {
        let path = scratch.path(file);
        let mut first = None;
        each_page(&path, |number, _| first = first.or(Some(number)))?;
        let Some(first) = first else { continue };
        let page = |number, page: &mut Vec<u8>| {
            if number == first {
                edit(page);
            }
            Ok(Page::Keep)
        };
        let rewrite = Rewrite { page: Box::new(page), ..Rewrite::default() };
        rewrite.run(scratch, &path, &path)?;
        return Ok(Applied::Done);
    }
    Applied::not("no file has a page")
}

/// Changes the header of the newest file; pages that it then has no room for are left out.
fn edit_newest(scratch: &Scratch<'_>, edit: fn(&mut Header)) -> anyhow::Result<Applied> {
    let Some(file) = scratch.scene().last() else { return Applied::not(FEW_FILES) };
    let mut header = scratch.scene().newest;
    edit(&mut header);
    let commit = header.commit;
    let keep =
        move |number, _: &mut Vec<u8>| Ok(if number <= commit { Page::Keep } else { Page::Drop });
    let path = scratch.path(&file);
    let rewrite = Rewrite { header: Box::new(edit), page: Box::new(keep), ..Rewrite::default() };
    rewrite.run(scratch, &path, &path)?;
    Ok(Applied::Done)
}
