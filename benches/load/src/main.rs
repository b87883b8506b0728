//! The load program: the workloads W1 to W7 over the public wires, each process on its own, with what they cost and what this machine could do.
//!
//! ```text
//!  load [ROW ...]                      measures (`load --list` names the rows), prints a table, writes JSON
//!  load temporal-worker|stream-worker|socket-service|echo       the other processes, which it starts itself
//!
//!  load --closed loops--> engine (a process, a data folder of its own, fsync on) <--tasks-- worker (a process)
//! ```
//!
//! Invariant: a result that is not the expected one, byte for byte, ends the measurement with an error.

mod clients;
mod crash;
mod http;
mod limits;
mod loops;
mod process;
mod replay;
mod report;
mod rows;
mod sleepers;
mod socket;
mod staff;
mod stage;
mod stream;
mod temporal;
mod text;
mod worker;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

/// Anything that ends a measurement.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
/// What may end a measurement.
pub type Result<T> = std::result::Result<T, Error>;

/// Measures Orchestrion over its public wires.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
    /// Which rows, by name or by how their names begin: `W1`, `W1-T`, `W1-T-64`; the usual ones if none is named
    rows: Vec<String>,
    /// Names the rows that there are
    #[arg(long)]
    list: bool,
    /// The engine's program [default: `orchestrion` beside this one]
    #[arg(long)]
    engine: Option<PathBuf>,
    /// The worker on Temporal's Rust SDK (`setup/temporal-rust.sh --release` says where it is); without it its rows are left out
    #[arg(long)]
    sdk_worker: Option<PathBuf>,
    /// Where to write the figures as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// How long a row is measured
    #[arg(long, default_value_t = 12)]
    seconds: u64,
    /// How long it runs before that
    #[arg(long, default_value_t = 2)]
    warmup: u64,
    /// Workflows that sleep in W4
    #[arg(long, default_value_t = 10_000)]
    sleepers: usize,
    /// Closed executions that lie in the store in the row W1-full
    #[arg(long, default_value_t = 1_000_000)]
    closed: usize,
}

#[derive(Subcommand)]
enum Role {
    /// A worker over the Temporal API.
    #[command(hide = true)]
    TemporalWorker(worker::Options),
    /// A worker over the engine's own stream.
    #[command(hide = true)]
    StreamWorker(stream::Options),
    /// A service over WebSockets.
    #[command(hide = true)]
    SocketService(socket::Options),
    /// Answers empty RPCs.
    #[command(hide = true)]
    Echo,
}

/// What all rows share.
pub struct Plan {
    /// The engine's program.
    pub engine: PathBuf,
    /// The worker on Temporal's Rust SDK, if it was named.
    pub sdk_worker: Option<PathBuf>,
    /// How long a row is measured.
    pub window: Duration,
    /// How long it runs before that.
    pub warmup: Duration,
    /// Workflows that sleep in W4.
    pub sleepers: usize,
    /// Closed executions below the row W1-full.
    pub closed: usize,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let role = match arguments.role {
        None => return runtime.block_on(measure(arguments)),
        Some(role) => role,
    };
    process::end_with_parent();
    match role {
        Role::TemporalWorker(options) => runtime.block_on(worker::run(options)),
        Role::StreamWorker(options) => runtime.block_on(stream::run(options)),
        Role::SocketService(options) => runtime.block_on(socket::run(options)),
        Role::Echo => runtime.block_on(limits::echo()),
    }
}

async fn measure(arguments: Arguments) -> Result<()> {
    if arguments.list {
        for row in rows::all() {
            let usual = if row.usual { "" } else { "  (only when named)" };
            println!("{:<12} {}{usual}", row.name, row.what);
        }
        return Ok(());
    }
    let engine = match arguments.engine {
        Some(path) => path,
        None => std::env::current_exe()?.with_file_name("orchestrion"),
    };
    let plan = Plan {
        engine,
        sdk_worker: arguments.sdk_worker,
        window: Duration::from_secs(arguments.seconds),
        warmup: Duration::from_secs(arguments.warmup),
        sleepers: arguments.sleepers,
        closed: arguments.closed,
    };
    let chosen = rows::chosen(&arguments.rows, plan.sdk_worker.is_some())?;
    let limits = limits::measure().await?;
    eprintln!("{limits}");
    let mut results = Vec::new();
    for row in &chosen {
        eprintln!("{} ...", row.name);
        let result = row.measure(&plan).await;
        let result = result.map_err(|error| format!("{}: {error}", row.name))?;
        eprintln!("{}", result.line());
        results.push(result);
    }
    report::print(&limits, &results);
    if let Some(path) = &arguments.json {
        report::write(path, &limits, &results)?;
        println!("the same as JSON: {}", path.display());
    }
    Ok(())
}
