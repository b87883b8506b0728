//! `orchestrion backup`: has a server copy its data while it runs.

use clap::Args;

use super::client::Client;
use super::config::DEFAULT_SERVER;
use super::error::CliError;
use super::projects::{admin_key_for, admin_only};
use super::render::Tone;
use super::{Session, show, show_json};

/// Which server.
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// Where the server is
    #[arg(long, value_name = "URL", default_value = DEFAULT_SERVER)]
    pub server: String,
    /// Its admin key; not needed after `orchestrion login`
    #[arg(
        long,
        value_name = "KEY",
        env = "ORCHESTRION_ADMIN_KEY",
        hide_env_values = true
    )]
    pub admin_key: Option<String>,
}

/// Asks for one, and waits until it is whole.
pub async fn run(session: &Session, args: BackupArgs) -> Result<(), CliError> {
    let key = admin_key_for(session, &args.server, args.admin_key)?;
    let client = Client::new(&args.server, key.as_deref())?;
    let answer = client
        .post(&["admin", "backups"], None, Default::default())
        .await
        .map_err(|e| admin_only(e, &client, key.is_some()))?;
    if session.json {
        return show_json(&answer);
    }
    let folder = answer["folder"].as_str().unwrap_or_default();
    show(&format!(
        "{} The data of {} is copied to {folder}\n\n  \
         It is on the server's disk: take it to another one, then remove it. To start from it:\n  \
         orchestrion server --data-dir {folder}\n",
        session.look.paint(Tone::Good, "●"),
        client.server()
    ))
}
