//! Compiles `orchestrion/v1/*.proto`. Imports of `temporal/api/...` are answered from the descriptor
//! set that `temporalio-protos` compiled, so no Temporal .proto file enters this repository and
//! no protoc is needed.

use std::path::PathBuf;
use std::{env, fs};

use protox::file::{
    ChainFileResolver, DescriptorSetFileResolver, GoogleFileResolver, IncludeFileResolver,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=orchestrion");
    let path = env::var("DEP_TEMPORALIO_PROTOS_DESCRIPTOR_PATH")
        .map_err(|_| "temporalio-protos gave no descriptor path: its `links` contract changed")?;
    let temporal = DescriptorSetFileResolver::decode(fs::read(path)?.as_slice())?;

    let mut resolver = ChainFileResolver::new();
    resolver.add(IncludeFileResolver::new(PathBuf::from(".")));
    resolver.add(temporal);
    resolver.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).include_source_info(true);
    compiler.open_file("orchestrion/v1/journal.proto")?;
    compiler.open_file("orchestrion/v1/records.proto")?;

    // `extern_path` makes Temporal's messages references: none is generated a second time.
    prost_build::Config::new()
        .extern_path(".temporal.api", "::temporalio_protos::temporal::api")
        .extern_path(".google.protobuf.Timestamp", "::prost_wkt_types::Timestamp")
        .extern_path(".google.protobuf.Duration", "::prost_wkt_types::Duration")
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
