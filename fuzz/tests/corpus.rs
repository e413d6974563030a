//! Replays the committed corpus: inputs that reach far into the code, and every one that once found a fault.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use seaworthy_fuzz::TARGETS;

/// Inputs of all targets together, bytes: the corpus is a start for the fuzzer, no archive.
const MOST_BYTES: u64 = 200_000;

#[test]
fn every_input_of_the_corpus_ends_well() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut bytes = 0;
    for (name, target) in TARGETS {
        let mut inputs: Vec<_> = std::fs::read_dir(corpus.join(name))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        inputs.sort();
        assert!(!inputs.is_empty(), "{name} has no corpus");
        for path in inputs {
            let input = std::fs::read(&path).unwrap();
            bytes += input.len() as u64;
            // Names the input if it panics.
            eprintln!("{}", path.display());
            target(&input);
        }
    }
    assert!(bytes <= MOST_BYTES, "the corpus has {bytes} bytes");
}
