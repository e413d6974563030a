//! The verifier's binary.

fn main() -> replica::operator::Exit {
    verifier::run()
}
