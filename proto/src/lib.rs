//! Messages: `temporal` (Temporal's API, from `temporalio-protos`) and `orchestrion` (ours).
//!
//! Invariant: no behaviour lives here, only generated types and re-exports.

pub use prost;
pub use prost_wkt_types;
pub use temporalio_protos::temporal;

/// Our own messages, `orchestrion.v1`: what a journal holds beside history events, and the records of
/// the registry, the outbox and the run heads.
pub mod v1 {
    #![allow(
        missing_docs,
        clippy::all,
        reason = "generated; the .proto files carry the documentation"
    )]
    include!(concat!(env!("OUT_DIR"), "/orchestrion.v1.rs"));
}
