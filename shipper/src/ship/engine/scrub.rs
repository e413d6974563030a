//! Comparing the live source with the page index that it is shipped from, slice by slice.
//!
//! Each slice is read at a capture's boundary: in the transaction that the capture read, the source and the index must be the
//! same. A page that is not was missed by some capture, or changed behind SQLite's back: it is shipped, loudly.
//! With the checksum that a restored copy must have, this makes the proof independent of the capture.

use std::time::Instant;

use anyhow::Context;
use replica::documents::ScrubReport;
use replica::format::{PageNumber, page_checksum};
use rusqlite::Connection;

use crate::chain::entry::End;
use crate::chain::{Kind, Tip, TipState};
use crate::ship::capture::Purpose;
use crate::ship::engine::Engine;
use crate::ship::pages::read_page;
use crate::wal::sqlite;

/// Pages between looks at the clock.
const PAGES_PER_LOOK: u32 = 64;
/// Pages shipped anew at once.
const MOST_WRONG: usize = 1024;

/// When the next slice of a scrub is due, and where it begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    due: Instant,
    next_page: u32,
    mismatches: u64,
}

impl Schedule {
    pub(super) fn new(due: Instant) -> Self {
        Self { due, next_page: 1, mismatches: 0 }
    }

    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Begins by `now`, if none is under way.
    pub(super) fn begin_by(&mut self, now: Instant) {
        self.due = self.due.min(now);
    }
}

impl Engine {
    /// Compares another slice where it is due; the report of a scrub that ended with it.
    pub(super) fn go_on_with_scrub(&mut self, now: Instant) -> anyhow::Result<Option<ScrubReport>> {
        if self.sweep.is_some() || now < self.scrub.due {
            return Ok(None);
        }
        let mut scrub = self.scrub;
        let reader = self.checkpointer.connection();
        let as_of = self.clock.now();
        let mark = sqlite::begin_read(reader, self.attachable.page_size)?;
        let compared = self
            .capture
            .capture(reader, self.hold.mark(), mark, as_of, Purpose::State)
            .and_then(|_| self.compare(&mut scrub, reader));
        let ended = sqlite::end_read(reader);
        self.scrub = scrub;
        let done = compared?;
        ended?;
        // What is not in the bucket yet has no TXID to vouch for.
        let vouched = self.chain.generation().zip(self.chain.durable_state());
        let Some((generation, durable)) = vouched.filter(|_| done) else {
            self.scrub.due = now + self.pace.scrub_pause;
            return Ok(None);
        };
        let mismatches = self.scrub.mismatches;
        self.scrub = Schedule::new(now + self.pace.scrub_every);
        tracing::info!(mismatches, "the source was compared with what is shipped");
        let (generation, txid) = (Some(generation), durable.txid);
        Ok(Some(ScrubReport { finished_at: as_of, generation, txid, mismatches }))
    }

    /// Compares pages as `reader` sees them, for about a slice; `true` after the last one.
    fn compare(&self, scrub: &mut Schedule, reader: &Connection) -> anyhow::Result<bool> {
        let deadline = self.clock.monotonic() + self.pace.slice;
        let chain = self.chain.clone();
        let mut tip = chain.tip();
        let lock_page = self.attachable.page_size.lock_page();
        let mut page = vec![0; self.attachable.page_size.len()];
        let mut wrong = Vec::new();
        let mut read = 0;
        while scrub.next_page <= self.capture.page_count() && wrong.len() < MOST_WRONG {
            if read >= PAGES_PER_LOOK && self.clock.monotonic() >= deadline {
                break;
            }
            read = if read >= PAGES_PER_LOOK { 1 } else { read + 1 };
            let number = PageNumber::new(scrub.next_page)?;
            scrub.next_page += 1;
            if number == lock_page {
                continue;
            }
            read_page(reader, number, &mut page)?;
            let expected = tip.sums.get(number)?;
            if expected != Some(page_checksum(number, &page)) {
                wrong.push(number);
            }
        }
        if !wrong.is_empty() {
            scrub.mismatches += wrong.len() as u64;
            tracing::error!(
                pages = wrong.len(),
                first = %wrong[0],
                "the source differs from what was shipped: these pages go up anew\n\
                 HINT: was the database file written by something other than SQLite? Run PRAGMA integrity_check"
            );
            self.ship_anew(&mut tip, reader, &wrong, &mut page)?;
        }
        Ok(scrub.next_page > self.capture.page_count())
    }

    /// Puts pages into the spool as they are in the source.
    fn ship_anew(
        &self,
        tip: &mut Tip,
        reader: &Connection,
        pages: &[PageNumber],
        page: &mut [u8],
    ) -> anyhow::Result<()> {
        self.check_untouched()?;
        let before = tip.state.context("scrub of a chain without a state")?;
        let timestamp = self.clock.now().max(before.timestamp);
        let sequence = tip.last_sequence();
        let mut writer =
            self.chain.begin_entry(tip, before.page_count, timestamp, Kind::State, None)?;
        let written = pages.iter().try_for_each(|number| {
            read_page(reader, *number, page)?;
            let sum = writer.page(*number, page)?;
            tip.sums.set(*number, sum).map(|_| ())
        });
        if let Err(error) = written.and_then(|()| tip.sums.flush()) {
            writer.abandon();
            tip.rewind(sequence);
            return Err(error);
        }
        let state = TipState { checksum: tip.sums.checksum(), timestamp, ..before };
        let end = End {
            members: writer.sequence(),
            through: writer.sequence(),
            position: self.capture.position(),
            pre_apply: Some(before.checksum),
            post_apply: state.checksum,
            page_count: state.page_count,
            timestamp,
            complete_until: timestamp,
        };
        let entry = writer.finish(end, self.chain.disk())?;
        self.chain.append(tip, vec![entry], state)?;
        Ok(())
    }
}
