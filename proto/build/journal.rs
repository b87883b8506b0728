//! What is persisted: `journal.proto` and `records.proto`. Their imports of `temporal/api/...` are answered from the descriptor
//! set of `temporalio-protos`.

use std::path::PathBuf;

use protox::file::{
    ChainFileResolver, DescriptorSetFileResolver, GoogleFileResolver, IncludeFileResolver,
};

use crate::{Result, out_dir, temporal_descriptors};

pub fn generate() -> Result<()> {
    let mut resolver = ChainFileResolver::new();
    resolver.add(IncludeFileResolver::new(PathBuf::from(".")));
    resolver.add(DescriptorSetFileResolver::decode(
        temporal_descriptors()?.as_slice(),
    )?);
    resolver.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).include_source_info(true);
    compiler.open_file("orchestrion/v1/journal.proto")?;
    compiler.open_file("orchestrion/v1/records.proto")?;

    // With every file they build on, so that a record can be read by its names alone.
    let descriptors = PathBuf::from(std::env::var("OUT_DIR")?).join("journal_descriptors.bin");
    std::fs::write(descriptors, compiler.encode_file_descriptor_set())?;

    // `extern_path` makes Temporal's messages references: none is generated a second time.
    prost_build::Config::new()
        .out_dir(out_dir("journal")?)
        .extern_path(".temporal.api", "::temporalio_protos::temporal::api")
        .extern_path(".google.protobuf.Timestamp", "::prost_wkt_types::Timestamp")
        .extern_path(".google.protobuf.Duration", "::prost_wkt_types::Duration")
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
