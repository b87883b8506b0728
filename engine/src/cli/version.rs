//! `orchestrion version`.

use serde_json::json;

use super::error::CliError;
use super::{show, show_json};

/// Prints it.
pub fn run(json: bool) -> Result<(), CliError> {
    let version = env!("CARGO_PKG_VERSION");
    if json {
        show_json(&json!({ "version": version }))
    } else {
        show(&format!("orchestrion {version}\n"))
    }
}
