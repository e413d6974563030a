//! The application's database, as far as SQLite's rules for a WAL go: commits, checkpoints, restarts, readers'
//! locks, and what a power cut leaves. A page's content is the number of the commit that wrote it.
//!
//! Not in it: transactions of several frames (SQLite publishes them at once, and the reader is bounded by what
//! is published), the write lock (our checkpoint under the lock is one of the interleavings without it), and readers of the
//! application (they only ever forbid what may happen here).

/// Pages of the database.
pub const PAGES: usize = 2;

/// The content of a page: the number of the commit that wrote it.
pub type Value = u8;

/// The content of the whole database; also what stands for its checksum.
pub type Image = [Value; PAGES];

/// A frame as it lies in the WAL file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Frame {
    /// Incarnation of the WAL that it was written in.
    pub salt: u8,
    /// Which page.
    pub page: usize,
    /// Its content.
    pub value: Value,
    /// Content of the frame before: the chain of cumulative checksums.
    after: Value,
}

/// Stands where a frame was lost.
const LOST: Frame = Frame { salt: u8::MAX, page: 0, value: u8::MAX, after: u8::MAX };

/// A place in one incarnation of a WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    /// Which incarnation; 0 is a WAL that nothing was ever written to.
    pub salt: u8,
    /// Frames before this place.
    pub frame: u8,
    /// The cumulative checksum there (values are never used twice, so that the last one tells all); 0 at frame 0.
    pub checksum: Value,
}

/// A read transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reader {
    /// Whether it stands on slot 0: everything was backfilled as it began.
    pub on_slot_0: bool,
    /// What it saw as it began.
    pub mark: Position,
}

/// What a power cut does to the WAL file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TailLoss {
    /// Frames that survive.
    pub kept: u8,
    /// Whether only the next frame is lost, and those behind it still lie in the file.
    pub hole: bool,
}

/// A database in WAL mode.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Source {
    /// The database file.
    file: Image,
    /// The WAL file, with what lies behind its end.
    wal: Vec<Frame>,
    /// Incarnation.
    salt: u8,
    /// The wal-index's `mxFrame`.
    frames: u8,
    /// The wal-index's `nBackfill`.
    backfilled: u8,
    /// Frames that a power cut cannot take any more.
    synced: u8,
    salts_used: u8,
    commits: u8,
    /// Every state that was ever committed, in order; a power cut that rewinds adds the older state again.
    pub timeline: Vec<Image>,
}

impl Source {
    /// A database whose WAL is empty: restarted before, or never written to.
    #[must_use]
    pub fn new(wal_exists: bool) -> Self {
        let salt = u8::from(wal_exists);
        Self {
            file: [0; PAGES],
            wal: Vec::new(),
            salt,
            frames: 0,
            backfilled: 0,
            synced: 0,
            salts_used: salt,
            commits: 0,
            timeline: vec![[0; PAGES]],
        }
    }

    /// Commits so far, those included that were never published.
    #[must_use]
    pub fn commits(&self) -> u8 {
        self.commits
    }

    /// The wal-index's `nBackfill`.
    #[must_use]
    pub fn backfilled(&self) -> u8 {
        self.backfilled
    }

    /// What a new reader would see.
    #[must_use]
    pub fn image(&self) -> Image {
        let mut image = self.file;
        for frame in &self.wal[..self.frames.into()] {
            image[frame.page] = frame.value;
        }
        image
    }

    /// The WAL's end.
    #[must_use]
    pub fn position(&self) -> Position {
        Position { salt: self.salt, frame: self.frames, checksum: self.checksum_at(self.frames) }
    }

    /// Content of the frame that ends there, as the file has it, published or not.
    #[must_use]
    pub fn frame_in_file(&self, frame: u8) -> Option<Frame> {
        self.wal.get(usize::from(frame).checked_sub(1)?).copied()
    }

    /// The published frames behind the first `from`; with `unpublished`, also what follows them in the
    /// file and verifies.
    #[must_use]
    pub fn frames_from(&self, from: u8, unpublished: bool) -> &[Frame] {
        let end = if unpublished { self.verified() } else { self.frames };
        &self.wal[from.into()..end.into()]
    }

    /// Begins a read transaction.
    #[must_use]
    pub fn begin_read(&self) -> Reader {
        Reader { on_slot_0: self.backfilled == self.frames, mark: self.position() }
    }

    /// Whether a writer may restart the WAL.
    #[must_use]
    pub fn may_restart(&self, readers: &[Reader]) -> bool {
        self.frames > 0 && self.backfilled == self.frames && readers.iter().all(|r| r.on_slot_0)
    }

    /// A commit of one page, in a new incarnation of the WAL if `restart`.
    pub fn commit(&mut self, page: usize, restart: bool) {
        if restart {
            self.restart();
        }
        self.write(page);
        self.frames += 1;
        self.timeline.push(self.image());
    }

    /// A writer that dies after its commit's frame reached the file and before it was published.
    pub fn write_unpublished(&mut self, page: usize) {
        self.write(page);
    }

    /// How far a checkpoint would get.
    #[must_use]
    pub fn checkpointable(&self, readers: &[Reader]) -> u8 {
        if readers.iter().any(|reader| reader.on_slot_0) {
            return self.backfilled;
        }
        readers.iter().map(|reader| reader.mark.frame).fold(self.frames, u8::min)
    }

    /// A PASSIVE checkpoint, whoever asks for it.
    pub fn checkpoint(&mut self, readers: &[Reader]) {
        let end = self.checkpointable(readers);
        self.synced = self.frames;
        for frame in &self.wal[self.backfilled.into()..end.into()] {
            self.file[frame.page] = frame.value;
        }
        self.backfilled = end;
    }

    /// Whether `wal_checkpoint(TRUNCATE)` would succeed.
    #[must_use]
    pub fn may_truncate(&self, readers: &[Reader]) -> bool {
        readers.iter().all(|reader| reader.on_slot_0)
            && (self.backfilled == self.frames || readers.is_empty())
    }

    /// `wal_checkpoint(TRUNCATE)`.
    pub fn truncate(&mut self) {
        self.file = self.image();
        self.wal.clear();
        self.restart();
    }

    /// The last connection closes: checkpoint, and the WAL is deleted.
    pub fn close(&mut self) {
        self.truncate();
        self.salt = 0;
    }

    /// What a power cut can do to the WAL.
    pub fn tail_losses(&self) -> impl Iterator<Item = TailLoss> + use<> {
        let (synced, frames) = (self.synced, self.frames);
        (synced..=frames).flat_map(move |kept| {
            let hole = (kept + 1 < frames).then_some(TailLoss { kept, hole: true });
            std::iter::once(TailLoss { kept, hole: false }).chain(hole)
        })
    }

    /// A power cut (or a reboot, where nothing is lost), and the recovery by whoever opens the database first.
    pub fn lose_power(&mut self, loss: TailLoss) {
        let kept = usize::from(loss.kept);
        if loss.hole {
            self.wal[kept] = LOST;
        } else if loss.kept < self.frames {
            self.wal.truncate(kept);
        }
        self.frames = self.verified();
        self.backfilled = 0;
        self.synced = self.frames;
        let image = self.image();
        if self.timeline.last() != Some(&image) {
            self.timeline.push(image);
        }
    }

    fn write(&mut self, page: usize) {
        if self.salt == 0 {
            self.restart();
        }
        self.commits += 1;
        let after = self.checksum_at(self.frames);
        let frame = Frame { salt: self.salt, page, value: self.commits, after };
        match self.wal.get_mut(usize::from(self.frames)) {
            Some(old) => *old = frame,
            None => self.wal.push(frame),
        }
    }

    fn restart(&mut self) {
        self.salts_used += 1;
        self.salt = self.salts_used;
        self.frames = 0;
        self.backfilled = 0;
        self.synced = 0;
    }

    fn checksum_at(&self, frame: u8) -> Value {
        self.frame_in_file(frame).map_or(0, |frame| frame.value)
    }

    /// Frames from the start that verify.
    fn verified(&self) -> u8 {
        let mut end = 0;
        while let Some(frame) = self.wal.get(usize::from(end)) {
            if frame.salt != self.salt || frame.after != self.checksum_at(end) {
                break;
            }
            end += 1;
        }
        end
    }
}
