//! Generates Rust from `orchestrion/v1/*.proto` and from the descriptor set that `temporalio-protos` compiled, so that no
//! Temporal .proto file and no generated code enters this repository, and no protoc is needed.

#[cfg(feature = "temporal")]
mod journal;
#[cfg(feature = "server")]
mod services;
mod worker;

use std::path::PathBuf;
use std::{env, fs};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    println!("cargo:rerun-if-changed=orchestrion");
    println!("cargo:rerun-if-changed=build");
    let worker = worker::generate()?;
    #[cfg(feature = "temporal")]
    journal::generate()?;
    #[cfg(feature = "server")]
    services::generate(&worker)?;
    #[cfg(not(feature = "server"))]
    drop(worker);
    Ok(())
}

/// A folder of its own for each pass: prost names files by package, and every pass writes one for every package it sees.
fn out_dir(pass: &str) -> Result<PathBuf> {
    let folder = PathBuf::from(env::var("OUT_DIR")?).join(pass);
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// The descriptors of everything in `temporalio-protos`, as bytes.
#[cfg(feature = "temporal")]
fn temporal_descriptors() -> Result<Vec<u8>> {
    let path = env::var("DEP_TEMPORALIO_PROTOS_DESCRIPTOR_PATH")
        .map_err(|_| "temporalio-protos gave no descriptor path: its `links` contract changed")?;
    Ok(fs::read(path)?)
}
