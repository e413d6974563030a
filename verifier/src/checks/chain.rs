//! `chain`: the files lead from nothing to the point without a gap, and every checksum passed.
//!
//! The restore itself is this check; here it is put into words.

use replica::restore::{RestoreError, Restored, Selected};
use replica::store::StoreError;

use crate::record::{Check, Status};
use crate::words::in_words;

const NAME: &str = "chain";

/// The restore succeeded.
#[must_use]
pub fn chain(selected: &Selected, restored: &Restored) -> Check {
    let mut detail = format!(
        "{} object(s), {} bytes, TXIDs {} to {} without a gap, every checksum passed",
        restored.objects,
        restored.bytes,
        replica::format::Txid::FIRST,
        restored.txid,
    );
    for remark in &selected.remarks {
        detail.push_str("\nnote: ");
        detail.push_str(remark);
    }
    if restored.passed_over.is_empty() {
        return Check::new(NAME, Status::Pass, detail);
    }
    // The data can be had; an object is damaged all the same, and the next damage may have no way around it.
    let damaged = restored.passed_over.join("\n");
    let hint = "HINT: the point was restored by another way, as `shipper restore` does; find out what damaged the object, and bring it back (an older version of it in the bucket, another copy)";
    Check::new(NAME, Status::Fail, format!("{damaged}\n{hint}\nnote: {detail}"))
}

/// There is no copy. What is wrong with the backup is `fail`; what is wrong around it is `error`, with
/// what to do.
#[must_use]
pub fn chain_failed(error: RestoreError) -> Check {
    let status = if error.is_replica_fault() { Status::Fail } else { Status::Error };
    let out_of_room = matches!(error.cause(), RestoreError::NoSpace { .. });
    let hint = match error.cause() {
        _ if vanished(&error) => {
            "what was listed is gone: if the replica's own retention deletes this fast, drill again; else look who deletes"
        }
        RestoreError::Store(_) => "check the store's address and network, then drill again",
        RestoreError::Io { .. } | RestoreError::NoSpace { .. } => {
            "give the temporary directory room (TMPDIR; in Lambda the ephemeral storage), then drill again"
        }
        _ => "drill again; until then nothing is known of the backup",
    };
    let mut detail = in_words(error);
    // The restore's own hint about room speaks of an output path, which a drill does not have.
    if status == Status::Error && (!detail.contains("HINT:") || out_of_room) {
        detail.truncate(detail.find("\nHINT: ").unwrap_or(detail.len()));
        detail.push_str("\nHINT: ");
        detail.push_str(hint);
    }
    Check::new(NAME, status, detail)
}

/// An object was listed and then not there, or another one: something deletes while the drill reads. One that is
/// missing in the listing is a gap in the chain instead.
#[must_use]
pub fn vanished(error: &RestoreError) -> bool {
    matches!(
        error.cause(),
        RestoreError::Store(StoreError::NotFound { .. } | StoreError::Changed { .. })
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_of_the_backup_fail_and_those_around_it_do_not() {
        let cases = [
            (RestoreError::Chain { message: "no snapshot".into() }, Status::Fail),
            (
                RestoreError::Store(StoreError::NotFound { target: "s3://b/p/app/x.ltx".into() }),
                Status::Error,
            ),
            (
                RestoreError::Store(StoreError::Denied {
                    target: "s3://b/p".into(),
                    action: "s3:GetObject",
                    reason: "AccessDenied".into(),
                }),
                Status::Error,
            ),
            (
                RestoreError::Io {
                    path: "/tmp/x".into(),
                    action: "write page",
                    source: std::io::Error::other("no space left on device"),
                },
                Status::Error,
            ),
        ];
        for (error, status) in cases {
            let check = chain_failed(error);
            assert_eq!(check.status, status, "{}", check.detail);
            assert_eq!(check.detail.contains("HINT:"), status == Status::Error, "{}", check.detail);
        }
    }
}
