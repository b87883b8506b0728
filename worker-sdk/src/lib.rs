//! Services and agents for Orchestrion, in Rust.
//!
//! ```no_run
//! use orchestrion_worker::{Failure, Reverted, Service, Worker};
//! use schemars::JsonSchema;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize, JsonSchema)]
//! struct Order {
//!     /// What is to be reserved.
//!     item: String,
//!     count: u32,
//! }
//!
//! #[derive(Serialize, Deserialize, JsonSchema)]
//! struct Reservation {
//!     number: String,
//! }
//!
//! # async fn start() -> Result<(), orchestrion_worker::Error> {
//! let inventory = Service::new("inventory", "Reserves items of the stock", async |task, order: Order| {
//!     if order.count > 100 {
//!         return Err(task.abort("nobody needs so many"));
//!     }
//!     task.push_update("asking the warehouse");
//!     Ok(Reservation { number: format!("{}-{}", order.item, task.idempotency_key()) })
//! })
//! .revert(async |_undo, _order: Order, reservation: Reservation| {
//!     println!("{} is free again", reservation.number);
//!     Ok::<_, Failure>(Reverted::Completed)
//! })
//! .window(16);
//!
//! Worker::new("http://127.0.0.1:7233", "sk-orra-v1-...")?.service(inventory).run().await
//! # }
//! ```
//!
//! A [`Service`] has a name, a description that planners choose it by, JSON Schemas that are derived from its types, and a handler. With a
//! [revert handler](Service::revert) its tasks can be undone. A [`Worker`] connects services to an engine: it registers them, reconnects
//! as often as it takes, and ends gracefully. `docs/workers.md` says how payloads look and what is promised.
//!
//! Invariant: a result is kept until the engine has it on disk; a lost connection or a killed engine loses none.
//! Invariant: of one task only one handler runs at a time in one process, however often the engine hands it out.

mod backoff;
mod service;
mod session;
mod task;
mod worker;

pub use self::service::Service;
pub use self::task::{Failure, Reason, RevertContext, Reverted, Task, Undo};
pub use self::worker::{Error, Registered, Worker};
