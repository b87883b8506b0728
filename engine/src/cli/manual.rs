//! `orchestrion completions` and `orchestrion man`: what shells and `man` read, made from the commands themselves.

use std::io;
use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::error::CliError;
use super::{Cli, show};

/// Which shell.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell to complete in
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Which pages.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Write a page for each command into this folder, instead of the main page to standard output
    #[arg(long, value_name = "FOLDER")]
    pub dir: Option<PathBuf>,
}

/// Prints the script of a shell.
pub fn completions(args: &CompletionsArgs) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "orchestrion", &mut script);
    show(&String::from_utf8_lossy(&script))
}

/// Prints the main page, or writes all pages.
pub fn man(args: &ManArgs) -> Result<(), CliError> {
    let Some(folder) = &args.dir else {
        let mut page = Vec::new();
        let made = clap_mangen::Man::new(Cli::command()).render(&mut page);
        made.map_err(|e| CliError::Failed(format!("cannot write the page: {e}")))?;
        return show(&String::from_utf8_lossy(&page));
    };
    let write = || -> io::Result<usize> {
        std::fs::create_dir_all(folder)?;
        clap_mangen::generate_to(Cli::command(), folder)?;
        Ok(std::fs::read_dir(folder)?.count())
    };
    let pages = write().map_err(|e| {
        CliError::Failed(format!(
            "cannot write the pages to {}: {e}",
            folder.display()
        ))
    })?;
    show(&format!(
        "{pages} pages in {}; read them with:  man -l {}/orchestrion.1\n",
        folder.display(),
        folder.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_has_a_script_that_names_the_commands() {
        for shell in [
            Shell::Bash,
            Shell::Zsh,
            Shell::Fish,
            Shell::PowerShell,
            Shell::Elvish,
        ] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "orchestrion", &mut script);
            let script = String::from_utf8(script).unwrap();
            assert!(script.contains("comp-fail"), "{shell}");
        }
    }

    #[test]
    fn every_command_has_a_page() {
        let folder = tempfile::tempdir().unwrap();
        man(&ManArgs {
            dir: Some(folder.path().to_owned()),
        })
        .unwrap();
        for page in [
            "orchestrion.1",
            "orchestrion-ps.1",
            "orchestrion-comp-fail-retry.1",
        ] {
            let text = std::fs::read_to_string(folder.path().join(page)).expect(page);
            assert!(text.contains(".TH"), "{page}");
        }
    }
}
