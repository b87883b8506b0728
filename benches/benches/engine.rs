//! The engine's loop without wires: group commit with so many callers waiting, and tasks meeting polls.
#![allow(missing_docs, clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use futures_util::future::join_all;
use orchestrion::engine::polling::Completion;
use orchestrion::engine::{Engine, EngineOptions, Handle, NoSurroundings, Polled, Target};
use orchestrion::seams::{SystemChance, SystemClock};
use orchestrion_benches::{complete_with_activities, signal, start};
use orchestrion_history::ids::{Namespace, TaskQueueName, WorkflowId};
use orchestrion_history::request::Request;
use orchestrion_history::store::{MemoryStore, QueueKind, RocksStore, RocksStoreOptions, Store};

const ACTIVITIES: usize = 256;

fn engine(store: Arc<dyn Store>) -> Engine {
    let clock = Arc::new(SystemClock::default());
    let chance = Box::new(SystemChance);
    let options = EngineOptions::default();
    Engine::start(store, clock, chance, Box::new(NoSurroundings), options).unwrap()
}

fn target(id: &str) -> Target {
    Target {
        namespace: namespace(),
        workflow_id: WorkflowId::parse(id).unwrap(),
        run_id: None,
    }
}

fn namespace() -> Namespace {
    Namespace::parse("bench").unwrap()
}

fn queue() -> TaskQueueName {
    TaskQueueName::parse("bench").unwrap()
}

async fn begin(handle: &Handle, id: &str) {
    let Request::Start(mut start) = start() else {
        unreachable!("it is a start")
    };
    start.run_id = String::new();
    start.workflow_id = id.to_owned();
    start.request_id = id.to_owned();
    handle.start(namespace(), *start).await.unwrap();
}

/// So many callers ask at once, each something of a run of its own; all are answered after the synced commits.
fn group_commit(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let mut group = c.benchmark_group("group commit");
    for callers in [1, 16, 256] {
        let folder = tempfile::tempdir().unwrap();
        let options = RocksStoreOptions {
            shards: EngineOptions::default().shards,
            ..RocksStoreOptions::default()
        };
        let engine = engine(Arc::new(RocksStore::open(folder.path(), options).unwrap()));
        let handle = engine.handle();
        let mut generation = 0;
        let begin_all = |generation: u64| {
            let targets: Vec<_> = (0..callers).map(|n| format!("{generation}-{n}")).collect();
            runtime.block_on(join_all(targets.iter().map(|id| begin(&handle, id))));
            targets.iter().map(|id| target(id)).collect::<Vec<_>>()
        };
        group.throughput(Throughput::Elements(callers));
        group.bench_function(format!("{callers} waiting"), |b| {
            b.iter_batched(
                // Fresh runs, so that a long measurement does not grow their histories.
                || {
                    generation += 1;
                    begin_all(generation)
                },
                |targets| {
                    let asked = targets.into_iter().map(|t| handle.request(t, signal()));
                    for answer in runtime.block_on(join_all(asked)) {
                        answer.unwrap();
                    }
                },
                BatchSize::PerIteration,
            );
        });
        engine.stop();
    }
    group.finish();
}

/// Waiting activities are handed to polls, each start committed (to memory) before it leaves.
fn hand_over(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let engine = engine(Arc::new(MemoryStore::new()));
    let handle = engine.handle();
    let poll = |kind| {
        let polled = handle.poll(
            namespace(),
            kind,
            queue(),
            "bench".to_owned().into(),
            "poll".to_owned(),
        );
        let mut polled = polled.unwrap();
        async move { polled.task().await.unwrap() }
    };
    let mut generation = 0;
    let mut group = c.benchmark_group("matching");
    group.throughput(Throughput::Elements(ACTIVITIES as u64));
    group.bench_function("activities to polls", |b| {
        b.iter_batched(
            || {
                generation += 1;
                let id = format!("run-{generation}");
                runtime.block_on(async {
                    begin(&handle, &id).await;
                    let Polled::WorkflowTask(task) = poll(QueueKind::Workflow).await else {
                        unreachable!("a workflow task was asked for")
                    };
                    let completion = Completion {
                        target: target(&id),
                        complete: complete_with_activities(task.start, ACTIVITIES),
                        sticky: None,
                        return_new: false,
                        eager: Vec::new(),
                        query_results: Default::default(),
                        request_id: id,
                    };
                    handle.complete_workflow_task(completion).await.unwrap();
                });
            },
            |()| {
                let polls = (0..ACTIVITIES).map(|_| poll(QueueKind::Activity));
                runtime.block_on(join_all(polls)).len()
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
    engine.stop();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(20);
    targets = group_commit, hand_over
}
criterion_main!(benches);
