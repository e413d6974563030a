//! The steps of the algorithm that its promises rest on. The checker is run once without each.

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The next read transaction begins before the current one ends.
    HandOverHandInHand,
    /// Before the current read transaction gives way to one that may stand on slot 0, everything that one sees is captured.
    CaptureBeforeRelease,
    /// A restarted WAL is continuity only if it was restarted from exactly what was captured.
    RestartOnlyFromCaptured,
    /// After such a restart the WAL may be restarted again as long as nothing is in it.
    EmptyWalsMayFollow,
    /// No frame behind the wal-index's `mxFrame` is read.
    BoundByWalIndex,
    /// A saved position in an empty WAL that never was written to matches nothing.
    EmptyWalProvesNothing,
    /// A saved position matches only a WAL of the same salts.
    PositionCheckSalts,
    /// A saved position matches only a WAL that reaches it.
    PositionCheckMxFrame,
    /// A saved position matches only the same cumulative checksum.
    PositionCheckChecksum,
    /// A position belongs to its TXID: where the index was rolled forward, it is unknown.
    PositionOfItsTxid,
    /// After a crash between index and record, the frozen file tells the position.
    PositionFromFrozenFile,
    /// What the sweep finds goes up together with what was captured meanwhile, up to a capture after its end.
    SweepEndsWithCapture,
    /// Parts go up only together with all up to the next whole capture.
    PartsMergedWhole,
    /// A sweep that a crash or a discontinuity cut off begins again.
    SweepBeginsAgain,
    /// The spool ends at the first file that does not follow from what is before it.
    SpoolEndsAtGap,
    /// What is uploaded is written down, numbered, and not changed until it is durable.
    FreezeBeforePut,
    /// An object is only written where there is none.
    ConditionalPut,
    /// A file of ours that is there already was an earlier attempt.
    LandedAttemptIsOurs,
    /// A file of another writer ends our generation.
    RunIdCheck,
    /// Every start asks the bucket whether it is ahead of the record.
    AskBucketAtStart,
    /// Of files that the bucket is ahead by, only ours are believed.
    RollForwardOnlyOurs,
    /// The id of a run is on the platter before its first PUT.
    RunIdBeforePut,
    /// Where the bucket is ahead of us, the spool is given up.
    RollForwardDropsSpool,
    /// File n + 1 is not sent before file n is durable.
    OrderedUploads,
    /// The index of what is durable changes only after the upload.
    SumsAfterUpload,
    /// The record changes only after the upload.
    RecordAfterUpload,
    /// The frozen file is removed only after the record says that it is durable.
    RemoveAfterRecord,
    /// The index is fsynced before the record says so.
    IndexBeforeRecord,
    /// The index is redone from the TXID at which it was last fsynced.
    RedoFromLastSync,
    /// The index is trusted only if it adds up to the database checksum.
    SumsProveThemselves,
    /// `sync` captures what is committed before it waits.
    SyncCaptures,
    /// `sync` waits until its capture is in the bucket.
    SyncWaitsForUpload,
    /// `sync` waits until the heartbeat names the generation, where it can be written.
    SyncWaitsForHeartbeat,
    /// A start that finds a later generation named does not go on with its own.
    LaterGenerationEndsOurs,
    /// A start reads the heartbeat before it writes one.
    ReadHeartbeatBeforeWriting,
    /// A plain restore takes the generation that was written to last, not the one that the heartbeat names.
    LatestByItsFiles,
}

impl Step {
    /// All of them.
    pub const ALL: [Self; 36] = [
        Self::HandOverHandInHand,
        Self::CaptureBeforeRelease,
        Self::RestartOnlyFromCaptured,
        Self::EmptyWalsMayFollow,
        Self::BoundByWalIndex,
        Self::EmptyWalProvesNothing,
        Self::PositionCheckSalts,
        Self::PositionCheckMxFrame,
        Self::PositionCheckChecksum,
        Self::PositionOfItsTxid,
        Self::PositionFromFrozenFile,
        Self::SweepEndsWithCapture,
        Self::PartsMergedWhole,
        Self::SweepBeginsAgain,
        Self::SpoolEndsAtGap,
        Self::FreezeBeforePut,
        Self::ConditionalPut,
        Self::LandedAttemptIsOurs,
        Self::RunIdCheck,
        Self::AskBucketAtStart,
        Self::RollForwardOnlyOurs,
        Self::RunIdBeforePut,
        Self::RollForwardDropsSpool,
        Self::OrderedUploads,
        Self::SumsAfterUpload,
        Self::RecordAfterUpload,
        Self::RemoveAfterRecord,
        Self::IndexBeforeRecord,
        Self::RedoFromLastSync,
        Self::SumsProveThemselves,
        Self::SyncCaptures,
        Self::SyncWaitsForUpload,
        Self::SyncWaitsForHeartbeat,
        Self::LaterGenerationEndsOurs,
        Self::ReadHeartbeatBeforeWriting,
        Self::LatestByItsFiles,
    ];
}
