//! The `orchestrion` program: see `orchestrion --help`.

use std::process::ExitCode;

/// Requests are made of many small pieces that one thread allocates and another one frees.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    orchestrion::memory::given_back_by(give_back);
    orchestrion::cli::run()
}

/// The allocator gives free pages back a second after they are, but only when it is asked for something: at rest it never is. The one of the
/// C library, which RocksDB's memory comes from, keeps what lies below anything that is still in use.
#[expect(
    unsafe_code,
    reason = "the allocators' own calls, which take no pointer"
)]
fn give_back() {
    // SAFETY: it may be called at any time, from any thread.
    unsafe { libmimalloc_sys::mi_collect(true) }
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: as above.
    unsafe {
        libc::malloc_trim(0);
    }
}
