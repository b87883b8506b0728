//! Orchestrion: a durable workflow engine for AI-agent work.
//!
//! ```text
//!  api/ --Request--> engine/ (one loop: load, decide, apply, collect, commit, answer) --> history::store
//!                      |  '--- orchestration/ (the interpreter of plans, in process)
//!                      '-----> planner/, outbox/, sockets of services
//! ```

pub mod acts;
pub mod api;
pub mod audit;
pub mod backup;
pub mod cli;
pub mod compensations;
pub mod config;
pub mod embedding;
pub mod engine;
pub mod grounding;
pub mod housekeeping;
pub mod journal_json;
pub mod memory;
pub mod orchestration;
pub mod outbox;
pub mod plan;
pub mod plan_cache;
pub mod planner;
pub mod registry;
pub mod seams;
pub mod server;
pub mod visibility;
pub mod workers;

/// A page of `docs/`, for the tests that keep it in step. Asked for when a test runs: clones may share their build output.
#[cfg(test)]
fn docs(page: &str) -> std::path::PathBuf {
    let folder = std::env::var_os("CARGO_MANIFEST_DIR").expect("tests are started by cargo");
    std::path::Path::new(&folder).join("../docs").join(page)
}
