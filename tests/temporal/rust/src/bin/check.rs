//! Runs tests against a server: `check ADDRESS NAMESPACE FILE [TEST...]`, where FILE is `all` (but crashes) or `crashes`.
//!
//! Prints a line of JSON for each test, `{"test": ..., "error": null or text}`, and at the end `{"done": count}`.

use futures::future::join_all;
use orchestrion_temporal_rust::activities::Activities;
use orchestrion_temporal_rust::checks;
use orchestrion_temporal_rust::harness::{Stage, one};
use orchestrion_temporal_rust::{connect, worker_options};
use temporalio_sdk::{Runtime, Worker};
use uuid::Uuid;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, namespace, file, only @ ..] = &arguments[..] else {
        anyhow::bail!("usage: check ADDRESS NAMESPACE all|crashes [TEST...]");
    };
    let runtime = Runtime::from_current_tokio(Default::default())?;
    let client = connect(address, namespace).await?;
    let queue = format!("q-{}", Uuid::new_v4());
    let activities = Activities::default();
    let stage = Stage::new(client.clone(), queue.clone(), activities.clone());
    let mut worker = Worker::new(&runtime, client, worker_options(&queue, activities)?)?;
    let stop = worker.shutdown_handle();

    let tests = async {
        let (tests, one_by_one) = match file.as_str() {
            "crashes" => (checks::crashes::tests(&stage), true),
            _ => (checks::all(&stage), false),
        };
        let wanted: Vec<_> = tests
            .into_iter()
            .filter(|(name, _)| only.is_empty() || only.iter().any(|o| o == name))
            .collect();
        let count = wanted.len();
        let mut results = Vec::new();
        if one_by_one {
            for (name, test) in wanted {
                results.push((name, one(test).await));
            }
        } else {
            results = join_all(
                wanted
                    .into_iter()
                    .map(async |(name, test)| (name, one(test).await)),
            )
            .await;
        }
        stop();
        (results, count)
    };
    let ((mut results, count), ran) = futures::future::join(tests, worker.run()).await;
    ran?;
    for (name, error) in stage.replay_all().await? {
        match results.iter_mut().find(|(n, _)| *n == name) {
            Some((_, found)) => {
                *found = Some(format!(
                    "{}\nthe replay: {error}",
                    found.take().unwrap_or_default()
                ))
            }
            None => results.push((name.leak(), Some(error))),
        }
    }
    for (name, error) in results {
        println!("{}", serde_json::json!({ "test": name, "error": error }));
    }
    println!("{}", serde_json::json!({ "done": count }));
    Ok(())
}
