//! Progress bars, for transfers and for steps, where there is a terminal to show them on.

use std::io::IsTerminal;
use std::sync::Arc;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::restore::Progress;

/// Bytes done of bytes in total, on stderr if that is a terminal, else nowhere. Gone once dropped.
#[derive(Debug)]
pub struct Bar(ProgressBar);

impl Bar {
    /// A bar of `total` bytes.
    #[must_use]
    pub fn new(total: u64) -> Arc<Self> {
        let style = "{bar:30} {decimal_bytes} of {decimal_total_bytes}, {decimal_bytes_per_sec}, {eta} left";
        Arc::new(Self(on_terminal(total, style)))
    }
}

fn on_terminal(total: u64, style: &str) -> ProgressBar {
    let target = if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(Some(total), target);
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar
}

impl Progress for Bar {
    fn fetched(&self, bytes: u64) {
        self.0.inc(bytes);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Steps done of steps in total, and what the present one is; as [`Bar`].
#[derive(Debug)]
pub struct Steps(ProgressBar);

impl Steps {
    /// Before the first step, of which nothing is shown yet.
    #[must_use]
    pub fn new() -> Self {
        Self(on_terminal(0, "{bar:30} {pos} of {len}, {elapsed}: {msg}"))
    }

    /// Step `number` (from 1) of `of` begins.
    pub fn at(&self, number: usize, of: usize, what: &str) {
        self.0.set_length(of as u64);
        self.0.set_message(what.to_owned());
        self.0.set_position(number as u64);
    }
}

impl Default for Steps {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
