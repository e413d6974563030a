//! What looks odd and loses nothing: the drill must pass, or its alarms are not believed.

use std::fs::{self, File, FileTimes};
use std::time::SystemTime;

use replica::format::{Decoder, Level, TxidRange, merge};
use replica::store::LtxObject;

use super::{Applied, Damage, Expected, FEW_FILES};
use crate::sabotage::forge::Form;
use crate::sabotage::rewrite::Rewrite;
use crate::sabotage::scratch::Scratch;

pub(super) fn damages() -> Vec<Damage> {
    let harmless = |name: &str, apply: fn(&Scratch<'_>) -> anyhow::Result<Applied>| {
        Damage::new(name, Expected::Harmless, apply)
    };
    vec![
        harmless("nothing", |_| Ok(Applied::Done)),
        harmless("stray objects and unknown names", strays),
        harmless("a file with a name of 17 digits", |scratch| {
            let Some(file) = scratch.scene().last() else { return Applied::not(FEW_FILES) };
            let path = scratch.path(&file);
            let next = file.txids.max().next();
            scratch.duplicate(&path, &path.with_file_name(format!("0{next}-0{next}.ltx")))?;
            Ok(Applied::Done)
        }),
        harmless("a file twice, at two levels", |scratch| {
            let Some(file) = scratch.scene().last() else { return Applied::not(FEW_FILES) };
            let other = Level::new(file.level.get() + 1).or(Level::new(8))?;
            scratch.duplicate(&scratch.path(&file), &scratch.place(other, file.txids))?;
            Ok(Applied::Done)
        }),
        harmless("an overlap: two files, and both merged at a higher level", overlap),
        harmless("the snapshot at level 1 instead of 9", |scratch| {
            let Some(first) = scratch.scene().files.first() else { return Applied::not(FEW_FILES) };
            let to = scratch.place(Level::new(1)?, first.txids);
            if to.exists() {
                return Applied::not("it is there already");
            }
            scratch.rename(&scratch.path(first), &to)?;
            Ok(Applied::Done)
        }),
        harmless("pages as LZ4 frames", |scratch| recode(scratch, Form::Frame)),
        harmless("pages as LZ4 frames, not compressed", |scratch| {
            recode(scratch, Form::StoredFrame)
        }),
        harmless("pages as LZ4 blocks of another compressor", |scratch| {
            recode(scratch, Form::Block)
        }),
        harmless("lost modification times", |scratch| {
            for file in &scratch.scene().files {
                let now = FileTimes::new().set_modified(SystemTime::now());
                scratch.edit(&scratch.path(file), |_| Ok(()))?;
                File::open(scratch.path(file))?.set_times(now)?;
            }
            Ok(Applied::Done)
        }),
    ]
}

fn strays(scratch: &Scratch<'_>) -> anyhow::Result<Applied> {
    let Some(file) = scratch.scene().last() else { return Applied::not(FEW_FILES) };
    let path = scratch.path(&file);
    for name in [".tmp-x", "README", "0000000000000001.ltx", "Z.ltx", "1-2.ltx"] {
        fs::write(path.with_file_name(name), "stray")?;
    }
    fs::create_dir_all(scratch.dir().join("0a1b/0000"))?;
    fs::write(scratch.dir().join("notes.txt"), "stray")?;
    Ok(Applied::Done)
}

fn overlap(scratch: &Scratch<'_>) -> anyhow::Result<Applied> {
    Ok(match merge_two(scratch)? {
        Some(_) => Applied::Done,
        None => Applied::Not(FEW_FILES.to_owned()),
    })
}

/// Merges the two newest files into one of a higher level, which the newest state then needs instead: they are left over.
/// `None` where there are not two.
pub(super) fn merge_two(scratch: &Scratch<'_>) -> anyhow::Result<Option<[LtxObject; 2]>> {
    let low = |file: &&LtxObject| file.level < Level::SNAPSHOT;
    let files: Vec<LtxObject> = scratch.scene().files.iter().filter(low).copied().collect();
    let [.., one, other] = files.as_slice() else { return Ok(None) };
    let level = Level::new(one.level.max(other.level).get() + 1)?;
    let txids = TxidRange::new(one.txids.min(), other.txids.max())?;
    let inputs =
        [one, other].map(|file| anyhow::Ok(Decoder::new(File::open(scratch.path(file))?)?));
    let inputs = inputs.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    scratch.write(&scratch.place(level, txids), &scratch.path(other), |out| {
        merge(inputs, out, std::io::Cursor::new(Vec::new()))?;
        Ok(())
    })?;
    Ok(Some([*one, *other]))
}

fn recode(scratch: &Scratch<'_>, form: Form) -> anyhow::Result<Applied> {
    for file in &scratch.scene().files {
        let path = scratch.path(file);
        Rewrite { form, ..Rewrite::default() }.run(scratch, &path, &path)?;
    }
    Ok(Applied::Done)
}
