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
    use std::fmt::Write as _;

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

    /// Every command as `docs/cli.md` has it: what it does, how it is called, its arguments and flags.
    fn reference() -> String {
        let mut root = Cli::command();
        root.build();
        let mut text = String::new();
        section(&root, &mut text);
        text
    }

    fn section(command: &clap::Command, text: &mut String) {
        let name = command.get_bin_name().unwrap_or("orchestrion");
        let is_root = name == "orchestrion";
        if command.get_subcommands().next().is_none() || is_root {
            let level = if is_root { "##" } else { "###" };
            let title = if is_root {
                "Everywhere".to_owned()
            } else {
                format!("`{name}`")
            };
            let about = command.get_long_about().or_else(|| command.get_about());
            let about = about.map(ToString::to_string).unwrap_or_default();
            let usage = command.clone().render_usage().to_string();
            let usage = usage.trim_start_matches("Usage: ").to_owned();
            let _ = write!(
                text,
                "{level} {title}\n\n{}\n\n```text\n{usage}\n```\n\n",
                about.trim_end()
            );
            let rows: Vec<String> = command
                .get_arguments()
                .filter(|argument| is_root || !argument.is_global_set())
                .filter(|argument| !argument.is_hide_set() && argument.get_id() != "help")
                .map(row)
                .collect();
            if !rows.is_empty() {
                let _ = write!(text, "| | |\n|---|---|\n{}\n", rows.concat());
            }
        }
        for command in command.get_subcommands() {
            section(command, text);
        }
    }

    fn row(argument: &clap::Arg) -> String {
        let mut names: Vec<String> = Vec::new();
        names.extend(argument.get_short().map(|short| format!("`-{short}`")));
        names.extend(argument.get_long().map(|long| format!("`--{long}`")));
        let values = argument.get_value_names().unwrap_or_default();
        let values: Vec<&str> = values.iter().map(clap::builder::Str::as_str).collect();
        let takes = argument.get_action().takes_values() && !values.is_empty();
        let mut called = names.join(", ");
        if takes {
            called = format!("{called} `{}`", values.join(" "));
        }
        let help = argument.get_long_help().or_else(|| argument.get_help());
        let mut help = help.map(ToString::to_string).unwrap_or_default();
        help = help.replace('\n', " ").replace('|', "\\|");
        let defaults = argument.get_default_values();
        if takes && !defaults.is_empty() {
            let defaults: Vec<_> = defaults.iter().map(|d| d.to_string_lossy()).collect();
            let _ = write!(help, " [default: {}]", defaults.join(" "));
        }
        if let Some(variable) = argument.get_env() {
            let _ = write!(help, " [env: {}]", variable.to_string_lossy());
        }
        format!("| {} | {help} |\n", called.trim())
    }

    /// With `ORCHESTRION_WRITE_DOCS=1` the test writes what it would otherwise only compare.
    #[test]
    fn the_reference_of_the_command_line_is_that_of_the_commands() {
        const MARK: &str = "<!-- From here on it is made from the commands. -->\n\n";
        let path = crate::docs("cli.md");
        let kept = std::fs::read_to_string(&path).unwrap();
        let (head, body) = kept.split_once(MARK).expect("the page has its mark");
        let made = reference();
        if std::env::var_os("ORCHESTRION_WRITE_DOCS").is_some() {
            std::fs::write(path, format!("{head}{MARK}{made}")).unwrap();
            return;
        }
        assert!(
            body == made,
            "docs/cli.md is not what the commands say: run this test once with ORCHESTRION_WRITE_DOCS=1"
        );
        for code in super::super::EXIT_CODES
            .lines()
            .filter(|line| line.starts_with("  "))
        {
            let words = code.trim().split_once("  ").unwrap();
            let row = format!("| {} | {} |", words.0, words.1);
            assert!(head.contains(&row), "docs/cli.md has no row {row}");
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
