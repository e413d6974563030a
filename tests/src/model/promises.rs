//! What must hold in every state: the promises, as predicates.

use crate::model::Protocol;
use crate::model::bucket::{NOTHING, OTHER, apply};
use crate::model::source::Image;
use crate::model::step::Step;
use crate::model::uploader::Stage;
use crate::model::world::World;

/// A predicate.
pub type Promise = fn(&Protocol, &World) -> bool;

/// All of them, by name.
pub const PROMISES: [(&str, Promise); 6] = [
    ("what sync acknowledged restores", acknowledged_restores),
    ("what sync acknowledged is what a plain restore gives", plain_restore_gives_acknowledged),
    ("restore points are committed states in order", restore_points_are_committed_in_order),
    ("no silent gap", no_silent_gap),
    ("a generation has one writer, and an object one content", written_once_by_one),
    ("no catch-up and no new generation without a cause", no_needless_work),
];

/// The state at each TXID of each generation, oldest first; `None` where one does not restore. What another
/// shipper wrote, and what is behind it, is its affair.
fn restore_points(world: &World) -> Option<Vec<Vec<Image>>> {
    let mut all = Vec::new();
    for generation in &world.bucket.generations {
        let mut points = Vec::new();
        let mut state = NOTHING;
        for file in generation {
            let file = file.as_ref()?;
            if file.node == OTHER {
                break;
            }
            if file.before != state {
                return None;
            }
            apply(&mut state, &file.pages);
            if file.after != state {
                return None;
            }
            points.push(state);
        }
        all.push(points);
    }
    Some(all)
}

fn acknowledged_restores(_: &Protocol, world: &World) -> bool {
    let Some(acknowledged) = world.acknowledged else { return true };
    let due = &world.source.timeline[acknowledged..];
    restore_points(world)
        .is_some_and(|points| points.iter().flatten().any(|point| due.contains(point)))
}

/// The generation that a plain restore takes.
fn latest(protocol: &Protocol, world: &World) -> Option<usize> {
    let bucket = &world.bucket;
    let named = bucket.heartbeat.filter(|generation| bucket.head(*generation) > 0);
    if protocol.has(Step::LatestByItsFiles) { bucket.latest } else { named.or(bucket.latest) }
}

fn plain_restore_gives_acknowledged(protocol: &Protocol, world: &World) -> bool {
    let Some(acknowledged) = world.acknowledged else { return true };
    let Some(generation) = latest(protocol, world) else { return false };
    let files = &world.bucket.generations[generation];
    if files.iter().flatten().any(|file| file.node == OTHER) {
        return true; // Whoever restores is told of two writers.
    }
    let mut state = NOTHING;
    for file in files {
        let Some(file) = file else { return false };
        apply(&mut state, &file.pages);
    }
    world.source.timeline[acknowledged..].contains(&state)
}

fn restore_points_are_committed_in_order(_: &Protocol, world: &World) -> bool {
    let Some(points) = restore_points(world) else { return false };
    if world.spent.put_backs > 0 {
        // Two generations may take turns; each is in order.
        return points.iter().all(|points| is_in_commit_order(world, points.iter()));
    }
    is_in_commit_order(world, points.iter().flatten())
}

fn is_in_commit_order<'a>(world: &World, mut points: impl Iterator<Item = &'a Image>) -> bool {
    let mut timeline = world.source.timeline.iter().peekable();
    points.all(|point| {
        while timeline.next_if(|state| *state != point).is_some() {}
        timeline.peek().is_some()
    })
}

/// A shipper with nothing left to do has shipped everything, and knows what the bucket holds. (Not before the next
/// commit if a PUT from before a power cut took effect after the restart: the bucket may then be ahead of the source.)
fn no_silent_gap(_: &Protocol, world: &World) -> bool {
    let Some(engine) = &world.engine else { return true };
    let at_rest = engine.sweep.is_none()
        && engine.position == world.source.position()
        && engine.stage == Stage::Idle
        && world.disk.frozen.is_none()
        && world.disk.waiting().next().is_none();
    let theirs = world.bucket.generations.last().is_some_and(|generation| {
        generation.last().is_some_and(|file| file.as_ref().is_some_and(|file| file.node == OTHER))
    });
    let record = &world.disk.record;
    let late = world.landed_late && world.bucket.head(record.generation) > record.txid;
    if !at_rest || theirs || late {
        return true; // It has something to do, or will learn at its next PUT what it cannot know.
    }
    restore_points(world)
        .is_some_and(|points| points[record.generation].last() == Some(&world.source.image()))
}

fn written_once_by_one(_: &Protocol, world: &World) -> bool {
    let mixed = world.bucket.generations.iter().any(|generation| {
        generation
            .iter()
            .flatten()
            .skip_while(|file| file.node != OTHER)
            .any(|file| file.node != OTHER)
    });
    !mixed && !world.bucket.overwritten
}

fn no_needless_work(_: &Protocol, world: &World) -> bool {
    !world.needless
}
