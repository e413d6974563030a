//! Where a seeded test's seed comes from.
//!
//! The same one each time unless `SEAWORTHY_SEED` gives another, so that a change is judged by what it changed;
//! to explore, run a suite again and again with others.

#![allow(clippy::expect_used)]

/// What `SEAWORTHY_SEED` says, printed.
///
/// # Panics
/// Where that is no number.
pub fn given() -> Option<u64> {
    let text = std::env::var("SEAWORTHY_SEED").ok()?;
    let seed = text.parse().expect("SEAWORTHY_SEED is a number");
    println!("SEAWORTHY_SEED={seed}");
    Some(seed)
}

/// What `SEAWORTHY_SEED` says, else `usual`; printed.
///
/// # Panics
/// Where that is no number.
pub fn seed(usual: u64) -> u64 {
    given().unwrap_or_else(|| {
        println!("SEAWORTHY_SEED={usual}");
        usual
    })
}
