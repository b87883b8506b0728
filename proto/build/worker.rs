//! The stream on which services work: `worker.proto`. It needs nothing of Temporal's.

use prost_types::FileDescriptorSet;

use crate::{Result, out_dir};

pub fn generate() -> Result<FileDescriptorSet> {
    let mut compiler = protox::Compiler::new(["."])?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_file("orchestrion/v1/worker.proto")?;
    let files = compiler.file_descriptor_set();
    let mut config = prost_build::Config::new();
    // Payloads are slices of the frame they came in.
    config.out_dir(out_dir("worker")?).bytes(["."]);
    #[cfg(any(feature = "server", feature = "client"))]
    config.service_generator(
        tonic_prost_build::configure()
            .build_server(cfg!(feature = "server"))
            .build_client(cfg!(feature = "client"))
            .build_transport(false)
            .service_generator(),
    );
    config.compile_fds(files.clone())?;
    Ok(files)
}
