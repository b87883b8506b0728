//! The `orchestrion` program: see `orchestrion --help`.

use std::process::ExitCode;

/// Requests are made of many small pieces that one thread allocates and another one frees.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    orchestrion::cli::run()
}
