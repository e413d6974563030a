//! libFuzzer's entry: `fuzz/run TARGET` sets the target's name in the environment.
#![no_main]

use std::sync::LazyLock;

use seaworthy_fuzz::{Target, target};

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let Some(target) = target(&name) else {
        eprintln!("FUZZ_TARGET: {name:?} is no target");
        std::process::exit(2);
    };
    target
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| (TARGET)(data));
