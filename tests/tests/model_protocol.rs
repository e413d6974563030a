//! The shipping protocol, checked exhaustively within small bounds: with every step in place no promise breaks in any
//! state; without any one of them, one does.

use std::time::Instant;

use seaworthy_tests::model::Protocol;
use seaworthy_tests::model::step::Step;
use seaworthy_tests::model::world::Bounds;
use stateright::{Checker, HasDiscoveries, Model};

/// What is checked: each looks at one kind of trouble closely.
#[derive(Debug, Clone, Copy)]
enum Scenario {
    /// A database that was never shipped and has no WAL; its last connection closes; a kill.
    FirstStart,
    /// A kill, and a PUT whose answer is lost, anywhere.
    Kill,
    /// A kill, with more commits and restarts of the WAL.
    KillAmongRestarts,
    /// The application truncates the WAL.
    Truncate,
    /// Writers die between the WAL file and its index.
    DyingWriter,
    /// Another shipper writes to our generation.
    OtherShipper,
    /// The power fails.
    PowerCut,
    /// The power fails while a PUT is on its way.
    PowerCutDuringPut,
    /// The power fails and takes frames from the middle of the WAL.
    PowerCutInWal,
    /// The power fails, and another shipper writes.
    PowerCutAndOtherShipper,
    /// The state directory is lost, and an old one is put back.
    OldState,
    /// The state directory is lost, and the heartbeat cannot be written.
    NoHeartbeat,
}

use Scenario::*;

const ALL: [Scenario; 12] = [
    FirstStart,
    Kill,
    KillAmongRestarts,
    Truncate,
    DyingWriter,
    OtherShipper,
    PowerCut,
    PowerCutDuringPut,
    PowerCutInWal,
    PowerCutAndOtherShipper,
    OldState,
    NoHeartbeat,
];

fn protocol(scenario: Scenario) -> Protocol {
    let two = Bounds { commits: 2, checkpoints: 4, ..Bounds::default() };
    let bounds = match scenario {
        FirstStart => Bounds { commits: 1, crashes: 1, truncates: 1, ..two },
        Kill => Bounds { crashes: 1, lost_answers: 1, syncs: 1, ..two },
        KillAmongRestarts => Bounds { commits: 3, crashes: 1, ..two },
        Truncate => Bounds { crashes: 1, truncates: 2, ..two },
        DyingWriter => Bounds { commits: 3, dying_writers: 1, ..two },
        OtherShipper => Bounds { crashes: 1, foreign_puts: 1, ..two },
        PowerCut => Bounds { power_losses: 1, ..two },
        PowerCutDuringPut => Bounds { checkpoints: 0, power_losses: 1, lost_answers: 1, ..two },
        PowerCutInWal => Bounds { commits: 4, checkpoints: 0, power_losses: 1, ..two },
        OldState => {
            Bounds { checkpoints: 0, crashes: 2, syncs: 1, state_losses: 1, put_backs: 1, ..two }
        }
        NoHeartbeat => Bounds { checkpoints: 1, crashes: 1, syncs: 1, state_losses: 1, ..two },
        PowerCutAndOtherShipper => Bounds { power_losses: 1, foreign_puts: 1, ..two },
    };
    Protocol {
        bounds,
        fresh: matches!(scenario, FirstStart),
        one_page: matches!(scenario, PowerCutInWal | OldState),
        heartbeat_denied: matches!(scenario, NoHeartbeat),
        without: None,
    }
}

/// Where a step is missed.
fn needed_in(step: Step) -> Scenario {
    match step {
        Step::HandOverHandInHand
        | Step::EmptyWalProvesNothing
        | Step::PartsMergedWhole
        | Step::SweepBeginsAgain
        | Step::OrderedUploads
        | Step::SumsAfterUpload => FirstStart,
        Step::CaptureBeforeRelease
        | Step::RestartOnlyFromCaptured
        | Step::PositionCheckSalts
        | Step::PositionFromFrozenFile
        | Step::FreezeBeforePut
        | Step::LandedAttemptIsOurs
        | Step::RecordAfterUpload
        | Step::RemoveAfterRecord
        | Step::SyncCaptures
        | Step::SyncWaitsForUpload => Kill,
        Step::EmptyWalsMayFollow | Step::SweepEndsWithCapture => Truncate,
        Step::BoundByWalIndex => DyingWriter,
        Step::ConditionalPut | Step::RunIdCheck | Step::RollForwardOnlyOurs => OtherShipper,
        Step::PositionCheckChecksum
        | Step::PositionOfItsTxid
        | Step::SpoolEndsAtGap
        | Step::AskBucketAtStart
        | Step::RunIdBeforePut
        | Step::IndexBeforeRecord
        | Step::RedoFromLastSync
        | Step::SumsProveThemselves => PowerCut,
        Step::RollForwardDropsSpool => PowerCutDuringPut,
        Step::PositionCheckMxFrame => PowerCutInWal,
        Step::SyncWaitsForHeartbeat
        | Step::LaterGenerationEndsOurs
        | Step::ReadHeartbeatBeforeWriting => OldState,
        Step::LatestByItsFiles => NoHeartbeat,
    }
}

#[test]
fn every_promise_holds_in_every_state() {
    for scenario in ALL {
        let since = Instant::now();
        let checker = protocol(scenario).checker().spawn_bfs().join();
        let (states, depth) = (checker.unique_state_count(), checker.max_depth());
        println!("{scenario:?}: {states} states, up to {depth} steps, {:.1?}", since.elapsed());
        for (promise, path) in checker.discoveries() {
            println!("broken: {promise}");
            for (_, action) in path.clone().into_vec() {
                println!("    {action:?}");
            }
            println!("{:?}", path.last_state());
        }
        assert!(checker.discoveries().is_empty(), "{scenario:?}");
        assert!(states > 10_000, "{scenario:?} is too small to show anything");
    }
}

#[test]
fn without_any_one_step_a_promise_breaks() {
    for step in Step::ALL {
        let scenario = needed_in(step);
        let protocol = Protocol { without: Some(step), ..protocol(scenario) };
        let checker =
            protocol.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
        let states = checker.unique_state_count();
        let shortest =
            checker.discoveries().into_iter().min_by_key(|(_, path)| path.clone().into_vec().len());
        let Some((promise, path)) = shortest else {
            panic!("nothing breaks without {step:?} in {scenario:?} ({states} states)");
        };
        let actions = path.into_actions();
        let (count, last) = (actions.len(), actions.last());
        println!(
            "without {step:?}: {promise:?} breaks at step {count}, {last:?} ({scenario:?}, {states} states)"
        );
    }
}
