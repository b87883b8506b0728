//! A worker and nothing else: activity `echo`; workflows `OneActivity`, `TenActivities`, `HundredActivities`, and those of the tests.

use clap::Parser;
use orchestrion_temporal_rust::{activities::Activities, connect, worker_options};
use temporalio_sdk::{Runtime, Worker};

/// Polls one task queue until it is killed.
#[derive(Parser)]
struct Arguments {
    /// Host and port of the server's gRPC address.
    #[arg(long, default_value = "127.0.0.1:7233")]
    address: String,
    #[arg(long, default_value = "default")]
    namespace: String,
    /// The task queue.
    #[arg(long, default_value = "echo")]
    queue: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Arguments {
        address,
        namespace,
        queue,
    } = Arguments::parse();
    let runtime = Runtime::from_current_tokio(Default::default())?;
    let client = connect(&address, &namespace).await?;
    let mut worker = Worker::new(
        &runtime,
        client,
        worker_options(&queue, Activities::default())?,
    )?;
    println!("polling {queue}");
    worker.run().await?;
    Ok(())
}
