//! The harness of the end-to-end suites: servers to talk to, databases to ship, comparisons.

pub mod application;
pub mod bank;
pub mod damaged;
pub mod drill_support;
pub mod dump;
pub mod fault_proxy;
pub mod faulty_store;
pub mod history;
pub mod lambda_runtime;
pub mod litestream;
pub mod made_chain;
pub mod memory_store;
pub mod model;
pub mod mount;
pub mod process;
pub mod progress;
pub mod s3_server;
pub mod scene;
pub mod seed;
pub mod shipped;
pub mod shipping;
pub mod sim;
pub mod stores;
pub mod systemd;
pub mod writer;
