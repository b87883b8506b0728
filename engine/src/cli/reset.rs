//! `orchestrion config`: the client's own file.

use std::io::{self, BufRead, IsTerminal, Write};

use clap::Subcommand;
use serde_json::json;

use super::error::CliError;
use super::{Session, show, show_json};

/// Manage the client's configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Forget all projects and their keys on this machine; the servers keep theirs
    Reset {
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

/// Runs one of them.
pub fn run(session: &Session, command: ConfigCommand) -> Result<(), CliError> {
    let ConfigCommand::Reset { yes } = command;
    let path = session.file.path().display().to_string();
    if session.file.path().exists() && !yes && !confirmed(&path)? {
        return show("Nothing was changed\n");
    }
    let removed = session.file.remove()?;
    if session.json {
        return show_json(&json!({ "removed": removed, "path": path }));
    }
    show(&if removed {
        format!("Removed {path}\n")
    } else {
        format!("There is no {path}: nothing to remove\n")
    })
}

/// Keys that are forgotten cannot be had again: somebody has to want it.
fn confirmed(path: &str) -> Result<bool, CliError> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(CliError::Usage(format!(
            "this forgets the keys in {path}, and they cannot be shown again: say --yes if that is wanted"
        )));
    }
    let mut answer = String::new();
    let _ = write!(
        io::stderr(),
        "This forgets the projects and keys in {path}; the keys cannot be shown again. Go on? [y/N] "
    );
    io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(|e| CliError::Failed(format!("cannot read the answer: {e}")))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
