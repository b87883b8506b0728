//! W5: the engine is killed under load and started again at once. How long until something new completes; whether all that was acknowledged is
//! there, once.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use orchestrion_proto::temporal::api::workflowservice::v1::{
    CountWorkflowExecutionsRequest, CountWorkflowExecutionsResponse,
};

use crate::clients::{Orchestrations, Shape, Workflows};
use crate::loops::{Client, Latencies};
use crate::process::Owned;
use crate::report::Measured;
use crate::staff::{Staff, Work};
use crate::stage::Stage;
use crate::temporal::{NAMESPACE, Temporal};
use crate::text::Letters;
use crate::{Plan, Result, method, stream};

const CLIENTS: usize = 64;
const KILLED_AFTER: Duration = Duration::from_secs(10);
const ALL: Duration = Duration::from_secs(30);

/// Workflows of one activity that may take two seconds.
pub async fn of_workflows(plan: &Plan, staff: Staff) -> Result<Measured> {
    let stage = Stage::set(plan).await?;
    let worker = staff.start(plan, &stage, Work::Brief).await?;
    let temporal = Temporal::to(&stage.grpc())?;
    let client = Workflows {
        temporal: temporal.clone(),
        kind: staff.kind(Work::Brief),
    };
    let there = Executions {
        temporal,
        namespace: NAMESPACE.to_owned(),
    };
    measure(stage, worker, vec![client; CLIENTS], there).await
}

/// Orchestrations of one task, its service on a stream.
pub async fn of_orchestrations(plan: &Plan) -> Result<Measured> {
    let stage = Stage::set(plan).await?;
    let project = stage.project().await?;
    let key: Rc<str> = project.key.into();
    let (worker, services) = stream::start(&stage, &key).await?;
    let (host, shape) = (stage.http(), Shape::Sequence(1));
    let clients = Orchestrations::many(CLIENTS, &host, &key, &services, shape).await?;
    let there = Executions {
        temporal: Temporal::to(&stage.grpc())?.keyed(&key)?,
        namespace: project.id,
    };
    measure(stage, worker, clients, there).await
}

/// What the engine has of a namespace.
struct Executions {
    temporal: Temporal,
    namespace: String,
}

impl Executions {
    async fn count(&self, query: &str) -> Result<i64> {
        let request = CountWorkflowExecutionsRequest {
            namespace: self.namespace.clone(),
            query: query.to_owned(),
        };
        let counted: CountWorkflowExecutionsResponse = self
            .temporal
            .call(method!("CountWorkflowExecutions"), request)
            .await?;
        Ok(counted.count)
    }
}

async fn measure<C: Client>(
    mut stage: Stage,
    worker: Owned,
    mut clients: Vec<C>,
    there: Executions,
) -> Result<Measured> {
    let began = Instant::now();
    // Started and ended, of each that was acknowledged and whose result was right.
    let completed = Rc::new(RefCell::new(Vec::<(Instant, Instant)>::new()));
    let loops = clients.iter_mut().enumerate().map(|(number, client)| {
        let completed = completed.clone();
        async move {
            let mut letters = Letters::of(number);
            for turn in 0.. {
                let begin = Instant::now();
                if begin >= began + ALL {
                    break;
                }
                let (id, text) = (format!("load-{number}-{turn}"), letters.text());
                client.once(&id, &text).await?;
                completed.borrow_mut().push((begin, Instant::now()));
            }
            Ok::<_, crate::Error>(())
        }
    });
    let crash = async {
        tokio::time::sleep(KILLED_AFTER).await;
        let killed = Instant::now();
        stage.crash().await?;
        Ok::<_, crate::Error>((killed, Instant::now()))
    };
    let (all, crash) = tokio::join!(try_join_all(loops), crash);
    all?;
    let (killed, ready) = crash?;
    let completed = completed.take();
    // What ends before the new engine is ready was answered by the old one, and read late.
    let first = completed
        .iter()
        .map(|(_, end)| *end)
        .filter(|end| *end >= ready)
        .min()
        .ok_or("nothing completed after the crash")?;
    let (all, right) = (
        there.count("").await?,
        there.count("ExecutionStatus = 'Completed'").await?,
    );
    let acknowledged = i64::try_from(completed.len())?;
    if (all, right) != (acknowledged, acknowledged) {
        return Err(format!(
            "{acknowledged} were acknowledged and completed, the engine has {all} executions, {right} of them completed"
        )
        .into());
    }
    let resident = stage.engine.resident()?;
    drop(worker);
    stage.end().await?;
    let micros = completed
        .iter()
        .map(|(begin, end)| (*end - *begin).as_micros());
    let latencies = Latencies::of(
        micros
            .map(|m| u32::try_from(m).unwrap_or(u32::MAX))
            .collect(),
    );
    let away = (first - killed).as_secs_f64();
    Ok(Measured {
        count: completed.len(),
        per_second: completed.len() as f64 / ALL.as_secs_f64(),
        p50: latencies.at(0.5),
        p95: latencies.at(0.95),
        p99: latencies.at(0.99),
        idle: stage.idle,
        resident,
        errors: C::errors_of(&clients),
        notes: vec![format!(
            "{away:.3} s from kill -9 to the first new completion (engine ready after {:.3} s); {acknowledged} acknowledged, each completed once",
            (ready - killed).as_secs_f64()
        )],
        figures: vec![("kill_to_completion_s", away)],
        ..Measured::default()
    })
}
