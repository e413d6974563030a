//! What is fuzzed: everything that reads bytes of a replica, as functions of those bytes.
//!
//! Each target must end without a panic, in bounded memory and time, whatever it is given; and what it accepts must hold what
//! the code promises. `fuzz/run` gives them to libFuzzer; `cargo test` replays the committed corpus.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a target's panic is its finding")]

mod bucket;
mod ltx;
mod restore;
mod text;
mod v03;

/// One target.
pub type Target = fn(&[u8]);

/// Every target by name.
pub const TARGETS: [(&str, Target); 6] = [
    ("ltx_decode", ltx::decode),
    ("ltx_merge", ltx::merge_two),
    ("restore", restore::restore),
    ("v03", v03::restore),
    ("drill_toml", text::drill_toml),
    ("names", text::names),
];

/// A target by its name.
#[must_use]
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().find(|(known, _)| *known == name).map(|(_, target)| *target)
}
