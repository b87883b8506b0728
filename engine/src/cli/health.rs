//! `orchestrion health`: whether a server takes and commits work, as exit code. For health checks: it needs neither a project nor a
//! configuration.

use clap::Args;
use serde_json::json;

use super::client::Client;
use super::config::DEFAULT_SERVER;
use super::error::CliError;
use super::{show, show_json};

/// Which server.
#[derive(Debug, Args)]
pub struct HealthArgs {
    /// Where the server is
    #[arg(long, value_name = "URL", default_value = DEFAULT_SERVER)]
    pub server: String,
}

/// Asks once.
pub async fn run(args: &HealthArgs, as_json: bool) -> Result<(), CliError> {
    let client = Client::new(&args.server, None)?;
    client.get(&["health"], &[]).await?;
    if as_json {
        return show_json(&json!({ "server": client.server(), "healthy": true }));
    }
    show(&format!(
        "The server at {} takes and commits work\n",
        client.server()
    ))
}
