//! Generations and heartbeats that do not belong together. Only chains of ours have them.

use std::fs;

use replica::documents::Heartbeat;
use replica::format::{Decoder, GenerationId, Header, Txid};
use replica::store::{Chain, Key};

use super::{Applied, Damage, Expected, FEW_FILES};
use crate::sabotage::damage::forged::later;
use crate::sabotage::rewrite::Rewrite;
use crate::sabotage::scratch::{Scene, Scratch};

/// A restore goes by the files: it is the drill that holds the heartbeat against them.
const DURABLE_POINT: Expected = Expected::Caught(&["durable_point"]);
const NO_HEARTBEAT: &str = "the replica has no heartbeat";

pub(super) fn damages(scene: &Scene) -> Vec<Damage> {
    if scene.chain == Chain::Root {
        return Vec::new();
    }
    vec![
        Damage::new("a heartbeat that saw more than there is", DURABLE_POINT, |scratch| {
            edit_heartbeat(scratch, |heartbeat| heartbeat.txid = heartbeat.txid.map(Txid::next))
        }),
        Damage::new("a heartbeat of a generation that is gone", DURABLE_POINT, |scratch| {
            edit_heartbeat(scratch, |heartbeat| {
                heartbeat.generation = shifted(heartbeat.generation, 1)
            })
        }),
        Damage::new("the generation gone, an older one there", DURABLE_POINT, |scratch| {
            let Some(generation) = generation(scratch) else { return Applied::not(NO_HEARTBEAT) };
            if !scratch.at(&Key::Heartbeat).exists() {
                return Applied::not(NO_HEARTBEAT);
            }
            let older = shifted(generation, -1).to_string();
            fs::rename(scratch.dir().join(generation.to_string()), scratch.dir().join(older))?;
            Ok(Applied::Done)
        }),
        Damage::new(
            "an older state in a generation of its own, and its heartbeat",
            Expected::Caught(&["point"]),
            older_state,
        ),
    ]
}

fn generation(scratch: &Scratch<'_>) -> Option<GenerationId> {
    match scratch.scene().chain {
        Chain::Generation(generation) => Some(generation),
        Chain::Root => None,
    }
}

/// Another id, made before or after.
fn shifted(generation: GenerationId, by: i128) -> GenerationId {
    // The upper 48 bits are the time.
    let id = generation.uuid().as_u128().wrapping_add_signed(by << 80);
    GenerationId::from_uuid(uuid::Uuid::from_u128(id))
}

fn edit_heartbeat(
    scratch: &Scratch<'_>,
    edit: impl FnOnce(&mut Heartbeat),
) -> anyhow::Result<Applied> {
    let path = scratch.at(&Key::Heartbeat);
    if !path.exists() {
        return Applied::not(NO_HEARTBEAT);
    }
    let mut heartbeat: Heartbeat = serde_json::from_slice(&fs::read(&path)?)?;
    edit(&mut heartbeat);
    let bytes = serde_json::to_vec(&heartbeat)?;
    scratch.write(&path, &path, |out| Ok(std::io::Write::write_all(out, &bytes)?))?;
    Ok(Applied::Done)
}

/// Everything but the newest file, dated an hour back, under a newer generation's name, which the heartbeat names as
/// current.
fn older_state(scratch: &Scratch<'_>) -> anyhow::Result<Applied> {
    let (Some(generation), [older @ .., newest]) =
        (generation(scratch), scratch.scene().files.as_slice())
    else {
        return Applied::not(FEW_FILES);
    };
    let Some(last) = older.last() else { return Applied::not(FEW_FILES) };
    fs::remove_file(scratch.path(newest))?;
    for file in older {
        let path = scratch.path(file);
        let header = |header: &mut Header| header.timestamp = later(header.timestamp, -1);
        Rewrite { header: Box::new(header), ..Rewrite::default() }.run(scratch, &path, &path)?;
    }
    let pages = Decoder::new(fs::File::open(scratch.path(last))?)?.header().commit;
    let newer = shifted(generation, 1);
    fs::rename(scratch.dir().join(generation.to_string()), scratch.dir().join(newer.to_string()))?;
    edit_heartbeat(scratch, |heartbeat| {
        heartbeat.generation = newer;
        heartbeat.txid = Some(last.txids.max());
        heartbeat.page_count = pages;
        heartbeat.scrub = None;
    })
}
