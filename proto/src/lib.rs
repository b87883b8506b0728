//! Messages: `temporal` (Temporal's API, from `temporalio-protos`) and `orchestrion` (ours).
//!
//! | module      | what                                                             | feature            |
//! |-------------|------------------------------------------------------------------|--------------------|
//! | `temporal`  | Temporal's messages                                              | `temporal`         |
//! | `v1`        | what is persisted: journals, records                             | `temporal`         |
//! | `worker`    | the stream on which services work                                | -, `client`, `server` |
//! | `wire`      | Temporal's responses that carry a history, with it as bytes      | `server`           |
//! | `services`  | the traits of Temporal's services, and what reflection shows     | `server`           |
//!
//! Invariant: no behaviour lives here, only generated types and re-exports.

pub use prost;
#[cfg(feature = "temporal")]
pub use prost_wkt_types;
#[cfg(feature = "temporal")]
pub use temporalio_protos::{google, grpc, temporal};

/// Our own messages, `orchestrion.v1`: what a journal holds beside history events, and the records of
/// the registry, the outbox and the run heads.
#[cfg(feature = "temporal")]
pub mod v1 {
    #![allow(
        missing_docs,
        clippy::all,
        reason = "generated; the .proto files carry the documentation"
    )]
    include!(concat!(env!("OUT_DIR"), "/journal/orchestrion.v1.rs"));
}

/// The stream on which services and agents work, `orchestrion.v1.WorkerService`.
pub mod worker {
    #![allow(
        missing_docs,
        clippy::all,
        reason = "generated; the .proto files carry the documentation"
    )]
    include!(concat!(env!("OUT_DIR"), "/worker/orchestrion.v1.rs"));
}

/// Temporal's responses that carry a history, under their own names; `history` is the encoded `temporal.api.history.v1.History`.
#[cfg(feature = "server")]
pub mod wire {
    #![allow(missing_docs, clippy::all, reason = "generated")]
    include!(concat!(env!("OUT_DIR"), "/wire/orchestrion.wire.rs"));
}

/// The traits of the gRPC services of Temporal's API. A method that is not overridden answers UNIMPLEMENTED.
#[cfg(feature = "server")]
pub mod services {
    #![allow(missing_docs, clippy::all, rustdoc::all, reason = "generated")]

    /// `temporal.api.workflowservice.v1.WorkflowService`
    pub mod workflow {
        include!(concat!(
            env!("OUT_DIR"),
            "/services/temporal.api.workflowservice.v1.rs"
        ));
    }

    /// `temporal.api.operatorservice.v1.OperatorService`
    pub mod operator {
        include!(concat!(
            env!("OUT_DIR"),
            "/services/temporal.api.operatorservice.v1.rs"
        ));
    }

    /// `grpc.health.v1.Health`
    pub mod health {
        include!(concat!(env!("OUT_DIR"), "/services/grpc.health.v1.rs"));
    }

    /// The encoded file descriptor set of everything served, for reflection.
    pub const FILE_DESCRIPTORS: &[u8] =
        include_bytes!(concat!(env!("OUT_DIR"), "/services/reflection.bin"));
}

/// The descriptors of [`v1`] and of all it builds on, as an encoded `FileDescriptorSet`.
pub const JOURNAL_DESCRIPTORS: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/journal_descriptors.bin"));
