//! The harness of the end-to-end suites: servers to talk to, databases to ship, comparisons.
