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
pub mod orchestration;
pub mod outbox;
pub mod plan;
pub mod plan_cache;
pub mod planner;
pub mod registry;
pub mod seams;
pub mod server;
pub mod visibility;
