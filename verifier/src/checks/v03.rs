//! What can be said of a copy from a replica that Litestream v0.3 wrote: its frames hold, and no more. It has no heartbeat, no
//! TXIDs, and no checksum of the database.

use replica::documents::Receipt;
use replica::restore::{V03Restored, V03Selected};
use replica::store::V03Part;

use crate::record::{Check, Status};

/// `chain`: the restore succeeded.
#[must_use]
pub fn v03_chain(selected: &V03Selected, restored: &V03Restored) -> Check {
    let plan = &selected.plan;
    let first = match plan.objects.first().map(|object| object.part) {
        Some(V03Part::Snapshot { index } | V03Part::Segment { index, .. }) => index,
        None => 0,
    };
    let mut detail = format!(
        "{} object(s), {} bytes of Litestream v0.3 generation {}: the snapshot of WAL {first:08x} and the WALs to {:08x} \
         without a gap, every LZ4 and WAL checksum passed",
        restored.objects,
        restored.bytes,
        plan.generation,
        plan.position().0,
    );
    for remark in &selected.remarks {
        detail.push_str("\nnote: ");
        detail.push_str(remark);
    }
    Check::new("chain", Status::Pass, detail)
}

/// `durable_point`: the only witness is the last PASS, and it knows a time.
#[must_use]
pub fn v03_durable_point(selected: &V03Selected, last_pass: Option<&Receipt>) -> Check {
    const NAME: &str = "durable_point";
    let newest = selected.plan.timestamp;
    match last_pass {
        Some(pass) if pass.restored_at > newest => Check::new(
            NAME,
            Status::Fail,
            format!(
                "the drill of {} restored the state of {}, the newest restorable state is of {newest}: newer objects are missing\n\
                 HINT: look for deleted objects, or for modification times that a copy has changed",
                pass.finished_at, pass.restored_at
            ),
        ),
        Some(pass) => Check::new(
            NAME,
            Status::Pass,
            format!("{newest} is not behind: PASS of {} ({})", pass.finished_at, pass.restored_at),
        ),
        None => Check::new(
            NAME,
            Status::Unchecked,
            "a Litestream v0.3 replica has no heartbeat, and no drill of it has passed: that its newest object is the \
             newest ever written is not known",
        ),
    }
}
