//! `orchestrion cancel`: the end of an orchestration is asked for.

use clap::Args;
use reqwest::header::HeaderMap;
use serde_json::json;

use super::error::CliError;
use super::{Session, show, show_json};

/// What to cancel.
#[derive(Debug, Args)]
pub struct CancelArgs {
    /// The orchestration's id
    pub id: String,
    /// Why; services that undo their work and webhooks are told
    #[arg(short, long)]
    pub reason: Option<String>,
    /// Keep what was done instead of undoing it
    #[arg(long)]
    pub keep: bool,
}

/// Asks for its end.
pub async fn run(session: &Session, args: CancelArgs) -> Result<(), CliError> {
    let target = session.target().await?;
    let body = json!({"reason": args.reason, "compensate": !args.keep});
    let path = ["v1", "orchestrations", &args.id, "cancel"];
    let answer = target
        .client
        .post(&path, Some(&body), HeaderMap::new())
        .await?;
    if session.json {
        return show_json(&answer);
    }
    let message = answer["message"].as_str().unwrap_or_default();
    show(&format!("{}: {message}\n", args.id))
}
