//! Workflows and activities on Temporal's Rust SDK, as the tests and the benchmark's worker use them.
//!
//! Nothing here knows the engine: this is code as any user of the SDK writes it.

pub mod activities;
pub mod checks;
pub mod harness;
pub mod workflows;

use temporalio_client::{Client, ClientOptions, Connection, ConnectionOptions};
use temporalio_sdk::WorkerOptions;
use temporalio_sdk::workflow_replayer::WorkflowReplayerOptions;
use url::Url;

/// A client of the server at `address`, which is a host and a port.
pub async fn connect(address: &str, namespace: &str) -> anyhow::Result<Client> {
    let url = Url::parse(&format!("http://{address}"))?;
    let connection = Connection::connect(ConnectionOptions::new(url).build()).await?;
    Ok(Client::new(
        connection,
        ClientOptions::new(namespace).build(),
    )?)
}

/// The options with every workflow of this crate.
macro_rules! with_workflows {
    ($options:expr) => {{
        use workflows::{chains, control, load, steps, waits};
        $options
            .register_workflow::<steps::OneActivity>()?
            .register_workflow::<steps::TenActivities>()?
            .register_workflow::<steps::HundredActivities>()?
            .register_workflow::<steps::Runs>()?
            .register_workflow::<steps::Local>()?
            .register_workflow::<steps::Cancels>()?
            .register_workflow::<control::Timers>()?
            .register_workflow::<control::Inbox>()?
            .register_workflow::<control::Account>()?
            .register_workflow::<control::Careful>()?
            .register_workflow::<control::Patches>()?
            .register_workflow::<control::Order>()?
            .register_workflow::<chains::Child>()?
            .register_workflow::<chains::Parent>()?
            .register_workflow::<chains::Leaves>()?
            .register_workflow::<chains::ToOthers>()?
            .register_workflow::<chains::Counts>()?
            .register_workflow::<chains::Retried>()?
            .register_workflow::<waits::Waits>()?
            .register_workflow::<load::OneBriefActivity>()?
            .register_workflow::<load::Sleeps>()?
            .register_workflow::<load::SleepsLong>()?
    }};
}

/// A worker on a queue, with everything that this crate has.
pub fn worker_options(
    queue: &str,
    activities: activities::Activities,
) -> anyhow::Result<WorkerOptions> {
    let options = WorkerOptions::new(queue).register_activities(activities);
    Ok(with_workflows!(options).build())
}

/// A replayer of the same workflows.
pub fn replayer_options() -> anyhow::Result<WorkflowReplayerOptions> {
    Ok(with_workflows!(WorkflowReplayerOptions::new()).build())
}
