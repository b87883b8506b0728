//! W7: a history of 10,000 events folded, and a store with 1,000,000 events and 100,000 open executions opened.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use orchestrion::engine::{Engine, EngineOptions, Handle, NoSurroundings, Target};
use orchestrion::seams::{SystemChance, SystemClock};
use orchestrion_benches::journal;
use orchestrion_history::ids::{Namespace, WorkflowId};
use orchestrion_history::record::encode_entry;
use orchestrion_history::replay;
use orchestrion_history::request::{Request, SignalWorkflow, StartWorkflow};
use orchestrion_history::state::MutableState;
use orchestrion_history::store::{RocksStore, RocksStoreOptions};

use crate::process::own_cpu;
use crate::report::Measured;
use crate::stage::{Stage, folder};
use crate::temporal::{NAMESPACE, payloads};
use crate::{Plan, Result};

const EVENTS: usize = 10_000;
const FOLDED_FOR: Duration = Duration::from_secs(3);
const OPEN: usize = 100_000;
/// Signals of each, beside its start and its workflow task.
const SIGNALS: usize = 8;
const AT_ONCE: usize = 512;

/// Entries as they lie on disk, decoded and folded.
pub fn fold() -> Result<Measured> {
    let records = journal(EVENTS - 2);
    let entries: Vec<_> = records.chunks(4).map(encode_entry).collect();
    let expected = replay::fold(&records)?;
    let (began, cpu) = (Instant::now(), own_cpu());
    let mut folds = 0;
    while began.elapsed() < FOLDED_FOR {
        let mut state = MutableState::default();
        for entry in &entries {
            replay::fold_entry(&mut state, entry)?;
        }
        if state != expected {
            return Err("a fold came to another state than the one before".into());
        }
        folds += 1;
    }
    // By the CPU's time: it is one thread's work, and says the same whoever else is at work.
    let per_second = f64::from(folds) * records.len() as f64 / (own_cpu() - cpu);
    Ok(Measured {
        count: records.len(),
        per_second,
        notes: vec![format!(
            "{per_second:.0} records a CPU second, decoded and folded, of a history of {} events",
            records.len()
        )],
        figures: vec![("fold_per_s", per_second)],
        ..Measured::default()
    })
}

/// A store made by the engine itself, opened by the engine's program.
pub async fn recovery(plan: &Plan) -> Result<Measured> {
    let folder = folder()?;
    let began = Instant::now();
    fill(&folder.path().join("data"), OPEN, SIGNALS).await?;
    let filled = began.elapsed().as_secs_f64();
    let mut stage = Stage::over(plan, folder).await?;
    let ready = stage.ready_after.as_secs_f64();
    let cpu = stage.engine.cpu()?;
    let resident = stage.engine.resident()?;
    let bytes = stage.end().await?;
    let events = OPEN * (SIGNALS + 2);
    Ok(Measured {
        count: OPEN,
        engine_cpu: cpu,
        idle: stage.idle,
        resident,
        bytes: bytes as f64 / OPEN as f64,
        ready_after: stage.ready_after,
        notes: vec![format!(
            "{ready:.2} s until ready, with {OPEN} open executions of {events} events ({cpu:.2} s of CPU; made in {filled:.0} s)"
        )],
        figures: vec![("recovery_s", ready)],
        ..Measured::default()
    })
}

/// Executions that wait for a worker, none of which comes.
async fn fill(data: &std::path::Path, open: usize, signals: usize) -> Result<()> {
    let engine = engine(data)?;
    let handle = engine.engine.handle();
    let namespace = Namespace::parse(NAMESPACE)?;
    let mut under_way = FuturesUnordered::new();
    for number in 0..open {
        if under_way.len() == AT_ONCE {
            let done: Option<Result<()>> = under_way.next().await;
            done.transpose()?;
        }
        under_way.push(one(handle.clone(), namespace.clone(), number, signals));
    }
    while let Some(done) = under_way.next().await {
        done?;
    }
    drop(under_way);
    engine.end();
    Ok(())
}

async fn one(handle: Handle, namespace: Namespace, number: usize, signals: usize) -> Result<()> {
    let id = format!("open-{number}");
    let target = Target {
        namespace: namespace.clone(),
        workflow_id: WorkflowId::parse(&id)?,
        run_id: None,
    };
    handle.start(namespace, start(&id)).await?;
    for _ in 0..signals {
        let signal = SignalWorkflow {
            name: "signal".to_owned(),
            input: Some(payloads(&"x".repeat(100))),
            ..Default::default()
        };
        handle
            .request(target.clone(), Request::Signal(Box::new(signal)))
            .await?;
    }
    Ok(())
}

fn start(id: &str) -> StartWorkflow {
    StartWorkflow {
        workflow_id: id.to_owned(),
        workflow_type: "waiting".to_owned(),
        task_queue: "nobody".to_owned(),
        input: Some(payloads(&"x".repeat(100))),
        request_id: id.to_owned(),
        identity: "load".to_owned(),
        ..Default::default()
    }
}

/// An engine within this process, whose commits do not wait for the disk: it only makes data.
struct Maker {
    engine: Engine,
    store: Arc<RocksStore>,
}

fn engine(data: &std::path::Path) -> Result<Maker> {
    let options = EngineOptions::default();
    let store = RocksStore::open(
        data.join("store"),
        RocksStoreOptions {
            shards: options.shards,
            sync: false,
            ..RocksStoreOptions::default()
        },
    )?;
    let store = Arc::new(store);
    let engine = Engine::start(
        store.clone(),
        Arc::new(SystemClock::default()),
        Box::new(SystemChance),
        Box::new(NoSurroundings),
        options,
    )?;
    Ok(Maker { engine, store })
}

impl Maker {
    fn end(self) {
        self.engine.stop();
        if let Err(error) = self.store.flush() {
            eprintln!("the store was not flushed: {error}");
        }
    }
}

/// Closed executions in a folder, for a run over a full store.
pub async fn closed(data: &std::path::Path, count: usize) -> Result<()> {
    use orchestrion_history::request::TerminateWorkflow;
    let maker = engine(data)?;
    let handle = maker.engine.handle();
    let namespace = Namespace::parse(NAMESPACE)?;
    let mut under_way = FuturesUnordered::new();
    for number in 0..count {
        if under_way.len() == AT_ONCE {
            let done: Option<Result<()>> = under_way.next().await;
            done.transpose()?;
        }
        let (handle, namespace) = (handle.clone(), namespace.clone());
        under_way.push(async move {
            let id = format!("closed-{number}");
            let target = Target {
                namespace: namespace.clone(),
                workflow_id: WorkflowId::parse(&id)?,
                run_id: None,
            };
            handle.start(namespace, start(&id)).await?;
            let end = TerminateWorkflow {
                reason: "it only has to lie there".to_owned(),
                details: None,
                identity: "load".to_owned(),
            };
            handle
                .request(target, Request::Terminate(Box::new(end)))
                .await?;
            Ok(())
        });
    }
    while let Some(done) = under_way.next().await {
        done?;
    }
    drop(under_way);
    maker.end();
    Ok(())
}
