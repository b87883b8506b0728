//! The `orchestrion` program: see `orchestrion --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    orchestrion::cli::run()
}
