//! A worker on the engine's own stream: the Rust SDK, as anybody would use it.

use std::io::Write as _;
use std::rc::Rc;

use clap::Args;
use orchestrion_worker::{Failure, Service, Worker};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::process::{Owned, first_line};
use crate::stage::Stage;

/// Tasks that it takes at once.
const WINDOW: u32 = 1_024;

#[derive(Args)]
pub struct Options {
    /// Where the engine is.
    url: String,
    /// A key of the project.
    key: String,
}

/// What the service takes and gives back.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Echo {
    text: String,
}

/// Starts it, in a process of its own; the services that it registered.
pub async fn start(stage: &Stage, key: &str) -> Result<(Owned, Rc<[String]>)> {
    let mut worker = Owned::role(&["stream-worker", &stage.grpc(), key])?;
    let output = worker.output().ok_or("the worker has no output")?;
    let service = first_line(output).await?;
    Ok((worker, vec![service].into()))
}

/// Serves; prints the service's id once it is registered.
pub async fn run(options: Options) -> Result<()> {
    let echo = Service::new("echo", "Gives back a text", async |_, echo: Echo| {
        Ok::<_, Failure>(echo)
    })
    .window(WINDOW);
    Worker::new(options.url, options.key)?
        .service(echo)
        .on_registered(|registered| {
            // Whoever started this process waits for the id, or is gone.
            _ = writeln!(std::io::stdout(), "{}", registered.id);
        })
        .run()
        .await?;
    Ok(())
}
