//! `orchestrion history`: the history of an orchestration as Temporal's tools read it from a file, of a server or of an audit export.

use std::path::PathBuf;

use clap::Args;

use super::diff::journal;
use super::error::CliError;
use super::{Session, replay_file, show};
use crate::journal_json::{from_json, temporal_history};

/// Whose history.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// The orchestration's id; with a file only where the file holds several
    #[arg(required_unless_present = "file")]
    pub id: Option<String>,
    /// Take it from an audit export, without any server
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Write it there instead of printing it
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Prints or writes it.
pub async fn run(session: &Session, args: HistoryArgs) -> Result<(), CliError> {
    let records = match &args.file {
        Some(file) => replay_file::read(file, args.id.as_deref())?.records,
        None => {
            let target = session.target().await?;
            let records = journal(&target, args.id.as_deref().unwrap_or_default()).await?;
            let records = records.iter().map(|record| from_json(&record.record));
            records
                .collect::<Result<_, _>>()
                .map_err(|e| CliError::Failed(format!("the server's answer: {e}")))?
        }
    };
    let history = temporal_history(&records).map_err(|e| CliError::Failed(e.to_string()))?;
    let text = format!("{history:#}\n");
    match &args.output {
        None => show(&text),
        Some(path) => std::fs::write(path, text)
            .map_err(|e| CliError::Failed(format!("{} cannot be written: {e}", path.display()))),
    }
}
