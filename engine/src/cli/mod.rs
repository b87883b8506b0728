//! The command line: `orchestrion dev` and `orchestrion server` run the engine, everything else is a
//! client of one, over HTTP, as any other client is. One file per family of commands.
//!
//! Invariant: a client command touches nothing of the engine but its HTTP routes.
//! Invariant: what a program reads (`--json`, ids, exit codes) goes to standard output or the exit
//! code; what is for people alone (errors, the spinner) goes to standard error.

mod api_keys;
mod audit;
mod backup;
mod cancel;
mod client;
mod comp_fail;
mod config;
mod diff;
mod error;
mod follow;
mod fork;
mod grounding;
mod health;
mod history;
mod input;
mod inspect;
mod login;
mod logs;
mod manual;
mod plan_cache;
mod projects;
mod ps;
mod receive;
mod render;
mod replay;
mod replay_file;
mod reset;
mod serve;
mod services;
mod verify;
mod version;
mod webhooks;
mod wire;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;

pub use serve::ServeArgs;

use client::Client;
use config::{ConfigFile, DEFAULT_SERVER};
use error::{CliError, EXIT_CODES};
use render::{Look, Tone};

/// A durable workflow engine for AI-agent work: the server and its command line.
#[derive(Debug, Parser)]
#[command(
    name = "orchestrion",
    version,
    after_long_help = EXIT_CODES,
    disable_help_subcommand = true,
    arg_required_else_help = true
)]
pub struct Cli {
    /// The client's configuration file [default: ~/.orchestrion/config.json]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// The project to act on, instead of the current one
    #[arg(short, long, global = true, value_name = "NAME")]
    pub project: Option<String>,

    /// Print JSON, for programs
    #[arg(long, global = true)]
    pub json: bool,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the engine on this machine, open to whoever can reach it; data in ./.orchestrion
    Dev(ServeArgs),
    /// Run the engine for others; creating projects takes the admin key
    Server(ServeArgs),
    /// Add, list and choose projects
    #[command(subcommand)]
    Projects(projects::ProjectsCommand),
    /// Keep a server's admin key on this machine
    Login(login::LoginArgs),
    /// Forget a server's admin key
    Logout(login::LogoutArgs),
    /// The URLs that results are posted to, their secrets, and what came of each delivery
    #[command(subcommand)]
    Webhooks(webhooks::WebhooksCommand),
    /// Make, list and revoke the keys that services and agents register with
    #[command(name = "api-keys", subcommand)]
    ApiKeys(api_keys::ApiKeysCommand),
    /// List and delete the services and agents of a project
    #[command(subcommand)]
    Services(services::ServicesCommand),
    /// Say what a project's actions may be, and which rules their plans must keep
    #[command(subcommand)]
    Grounding(grounding::GroundingCommand),
    /// List and forget the plans that are kept for later
    #[command(name = "plan-cache", subcommand)]
    PlanCache(plan_cache::PlanCacheCommand),
    /// Submit actions, and try out webhooks
    #[command(subcommand)]
    Verify(verify::VerifyCommand),
    /// List the orchestrations of a project
    Ps(ps::PsArgs),
    /// Show one orchestration: its tasks, results, errors and reverts
    Inspect(inspect::InspectArgs),
    /// Refold an orchestration's journal, check it against the stored state, and tell the story
    Replay(replay::ReplayArgs),
    /// What could not be undone: look at it, decide about it, run reverts again
    #[command(name = "comp-fail", subcommand)]
    CompFail(comp_fail::CompFailCommand),
    /// Ask for the end of an orchestration; what was done is undone unless you say otherwise
    Cancel(cancel::CancelArgs),
    /// Tell what happens in an orchestration, record by record
    Logs(logs::LogsArgs),
    /// Write an orchestration's history as a file that Temporal's tools read and its replayer replays
    History(history::HistoryArgs),
    /// Say in words where two orchestrations first part
    Diff(diff::DiffArgs),
    /// Run an orchestration again from one of its tasks on, with the recorded results of all that does not depend on it
    Fork(fork::ForkArgs),
    /// Export what happened, chained and signed, and verify such exports
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Copy a server's data while it runs, into a folder on its disk; takes the admin key
    Backup(backup::BackupArgs),
    /// Manage the client's configuration
    #[command(subcommand)]
    Config(reset::ConfigCommand),
    /// Ask whether a server takes and commits work; exit code 0 if it does
    Health(health::HealthArgs),
    /// Print a shell's completion script
    Completions(manual::CompletionsArgs),
    /// Print the manual page, or write all of them
    Man(manual::ManArgs),
    /// Print the version, and the server's
    Version,
}

/// Reads the command line, does what it says, and returns the exit code.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are "errors" too; clap knows which goes where.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match execute(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !error.is_silent() {
                let colour = io::stderr().is_terminal() && colours_wanted();
                let label = if colour {
                    "\u{1b}[1;31merror:\u{1b}[0m"
                } else {
                    "error:"
                };
                let _ = writeln!(io::stderr(), "{label} {error}");
            }
            ExitCode::from(&error)
        }
    }
}

fn execute(cli: Cli) -> Result<(), CliError> {
    let mut runtime = match &cli.command {
        Command::Dev(_) | Command::Server(_) => {
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            // One core is for the engine's own thread: more of these would only take work from each other.
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            runtime.worker_threads(cores.saturating_sub(1).max(1));
            runtime
        }
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime = runtime
        .enable_all()
        .build()
        .map_err(|e| CliError::Failed(format!("cannot start the asynchronous runtime: {e}")))?;
    runtime.block_on(dispatch(cli))
}

async fn dispatch(cli: Cli) -> Result<(), CliError> {
    let open = || Session::open(cli.config.as_deref(), cli.project.clone(), cli.json);
    match cli.command {
        Command::Dev(args) => serve::serve(crate::server::Mode::Dev, args).await,
        Command::Server(args) => serve::serve(crate::server::Mode::Server, args).await,
        Command::Projects(command) => projects::run(&open()?, command).await,
        Command::Login(args) => login::login(&open()?, args).await,
        Command::Logout(args) => login::logout(&open()?, args),
        Command::Webhooks(command) => {
            webhooks::run(&open()?, command, webhooks::List::Results).await
        }
        Command::Services(command) => services::run(&open()?, command).await,
        Command::CompFail(command) => comp_fail::run(&open()?, command).await,
        Command::ApiKeys(command) => api_keys::run(&open()?, command).await,
        Command::Grounding(command) => grounding::run(&open()?, command).await,
        Command::PlanCache(command) => plan_cache::run(&open()?, command).await,
        Command::Verify(verify::VerifyCommand::Run(args)) => verify::run(&open()?, args).await,
        Command::Verify(verify::VerifyCommand::Webhooks(receive::ReceiveCommand::Start(args))) => {
            receive::start(&open()?, args).await
        }
        Command::Ps(args) => ps::run(&open()?, args).await,
        Command::Inspect(args) => inspect::run(&open()?, args).await,
        Command::Replay(args) => replay::run(&open()?, args).await,
        Command::Cancel(args) => cancel::run(&open()?, args).await,
        Command::Logs(args) => logs::run(&open()?, args).await,
        Command::History(args) => history::run(&open()?, args).await,
        Command::Diff(args) => diff::run(&open()?, args).await,
        Command::Fork(args) => fork::run(&open()?, args).await,
        Command::Audit(command) => audit::run(&open()?, command).await,
        Command::Backup(args) => backup::run(&open()?, args).await,
        Command::Config(command) => reset::run(&open()?, command),
        Command::Health(args) => health::run(&args, cli.json).await,
        Command::Completions(args) => manual::completions(&args),
        Command::Man(args) => manual::man(&args),
        Command::Version => version::run(&open()?).await,
    }
}

/// What every client command has at hand.
#[derive(Debug)]
struct Session {
    file: ConfigFile,
    project: Option<String>,
    json: bool,
    look: Look,
}

/// A project to act on, and a client for its server.
#[derive(Debug)]
struct Target {
    /// Its name on this machine.
    name: String,
    client: Client,
}

impl Session {
    fn open(
        config: Option<&std::path::Path>,
        project: Option<String>,
        json: bool,
    ) -> Result<Session, CliError> {
        let screen = io::stdout().is_terminal();
        Ok(Session {
            file: ConfigFile::locate(config)?,
            project,
            json,
            look: Look {
                colour: screen && colours_wanted(),
                width: screen.then(|| comfy_table::Table::new().width()).flatten(),
                now: Timestamp::now(),
                zone: TimeZone::system(),
            },
        })
    }

    /// The project to act on. Where there is none yet, the error says what the next step is here.
    async fn target(&self) -> Result<Target, CliError> {
        let config = self.file.load()?;
        if config.projects.is_empty() && self.project.is_none() {
            let next = if Client::new(DEFAULT_SERVER, None)?.is_up().await {
                format!(
                    "a server answers at {DEFAULT_SERVER}: make a project on it with `orchestrion projects add <name>`"
                )
            } else {
                format!(
                    "start a server with `orchestrion dev`, then make a project on it with `orchestrion projects add \
                     <name>` (its `--server` says where the server is; {DEFAULT_SERVER} unless you say otherwise)"
                )
            };
            return Err(CliError::Usage(format!(
                "no project is configured yet: {next}"
            )));
        }
        let (name, project) = config.project(self.project.as_deref())?;
        let server = match project.server_addr.as_str() {
            "" => DEFAULT_SERVER,
            server => server,
        };
        Ok(Target {
            name: name.to_owned(),
            client: Client::new(server, Some(&project.cli_auth))?,
        })
    }

    /// The line above a list: whose it is.
    fn title(&self, what: &str, target: &Target) -> String {
        format!(
            "{} {}\n\n",
            self.look.heading(what),
            self.look.paint(
                Tone::Dim,
                &format!("of {} at {}", target.name, target.client.server())
            )
        )
    }
}

/// Prints for people.
fn show(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|e| match e.kind() {
            io::ErrorKind::BrokenPipe => CliError::OutputClosed,
            _ => CliError::Failed(format!("cannot write the output: {e}")),
        })
}

/// Prints for programs.
fn show_json(value: &Value) -> Result<(), CliError> {
    show(&render::json(value, 0))
}

fn colours_wanted() -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_flags_stand_before_or_after_the_command() {
        for line in [
            "orchestrion -p shop --json --config c.json ps",
            "orchestrion ps -p shop --json --config c.json",
        ] {
            let cli = parse(line).unwrap();
            assert_eq!(cli.project.as_deref(), Some("shop"));
            assert!(cli.json);
            assert_eq!(cli.config, Some("c.json".into()));
        }
    }

    #[test]
    fn the_engine_has_a_configuration_of_its_own() {
        let cli = parse("orchestrion dev --config engine.toml --http-addr :9005").unwrap();
        let Command::Dev(args) = cli.command else {
            panic!("{:?}", cli.command)
        };
        assert_eq!(args.config, Some("engine.toml".into()));
        assert_eq!(args.http_addr, Some("127.0.0.1:9005".parse().unwrap()));
    }

    #[test]
    fn wrong_usage_is_exit_code_two() {
        for line in [
            "orchestrion nonsense",
            "orchestrion inspect",
            "orchestrion inspect o_1 -u",
            "orchestrion inspect o_1 -d -u --long-updates",
            "orchestrion verify run",
            "orchestrion verify run ship -d quantity",
            "orchestrion verify run ship -t 45",
            "orchestrion replay o_1 --until none",
            "orchestrion dev --http-addr nowhere",
        ] {
            assert_eq!(parse(line).expect_err(line).exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn the_help_tells_the_exit_codes() {
        let help = Cli::command().render_long_help().to_string();
        assert!(help.contains(EXIT_CODES), "{help}");
    }
}
