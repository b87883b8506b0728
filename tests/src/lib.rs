//! The store contract suite and what end-to-end tests stand on: real engine processes, real services, fake far ends.
//!
//! ```text
//!  test --Project (HTTP)--> engine process <--WebSocket-- PyService (orra-sdk) or FakeSdk (raw frames)
//!                             |        '--webhook--> WebhookReceiver
//!                             '--chat/completions--> FakeLlm
//!
//!  Load (callers, a service, a Temporal worker) --BadLines--> engine process, which is Troubled
//! ```
//!
//! Invariant: nothing here waits for a fixed time to be right; what is awaited is asked for, with a deadline.
#![allow(clippy::unwrap_used)]

pub mod bad_lines;
pub mod cli;
pub mod engine;
pub mod example;
pub mod fake_llm;
pub mod fake_sdk;
pub mod load;
pub mod plan;
pub mod power_cut;
pub mod project;
pub mod py_service;
pub mod runs;
pub mod settings;
pub mod sim;
pub mod small_disk;
pub mod store_suite;
pub mod trouble;
pub mod view;
pub mod wait;
pub mod webhooks;

/// The top level of the repository. Asked for when a test runs and not when it is built: clones may share their build output.
pub fn root() -> std::path::PathBuf {
    let folder = std::env::var_os("CARGO_MANIFEST_DIR").expect("tests are started by cargo");
    std::path::Path::new(&folder).join("..")
}
