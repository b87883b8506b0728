//! W5: the engine is killed under load and started again at once. How long until something new completes; whether all that was acknowledged is
//! there, once.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use orchestrion_proto::temporal::api::workflowservice::v1::{
    CountWorkflowExecutionsRequest, CountWorkflowExecutionsResponse,
};

use crate::clients::Workflows;
use crate::loops::{Client as _, Latencies};
use crate::process::Owned;
use crate::report::Measured;
use crate::stage::Stage;
use crate::temporal::{NAMESPACE, Temporal};
use crate::text::Letters;
use crate::{Plan, Result, method};

const CLIENTS: usize = 64;
const KILLED_AFTER: Duration = Duration::from_secs(10);
const ALL: Duration = Duration::from_secs(30);

pub async fn measure(plan: &Plan) -> Result<Measured> {
    let mut stage = Stage::set(plan).await?;
    let worker = Owned::role(&["temporal-worker", &stage.grpc(), "--activity-seconds", "2"])?;
    let client = Workflows {
        temporal: Temporal::to(&stage.grpc())?,
        kind: "sequence-1",
    };
    let began = Instant::now();
    // Started and ended, of each that was acknowledged and whose result was right.
    let completed = Rc::new(RefCell::new(Vec::<(Instant, Instant)>::new()));
    let clients = (0..CLIENTS).map(|number| {
        let (mut client, completed) = (client.clone(), completed.clone());
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
    let (all, crash) = tokio::join!(try_join_all(clients), crash);
    all?;
    let (killed, ready) = crash?;
    let completed = completed.take();
    let first = completed
        .iter()
        .map(|(_, end)| *end)
        .filter(|end| *end > killed + Duration::from_millis(1))
        .min()
        .ok_or("nothing completed after the crash")?;
    let count = async |query: &str| -> Result<i64> {
        let request = CountWorkflowExecutionsRequest {
            namespace: NAMESPACE.to_owned(),
            query: query.to_owned(),
        };
        let counted: CountWorkflowExecutionsResponse = client
            .temporal
            .call(method!("CountWorkflowExecutions"), request)
            .await?;
        Ok(counted.count)
    };
    let (there, right) = (
        count("").await?,
        count("ExecutionStatus = 'Completed'").await?,
    );
    let acknowledged = i64::try_from(completed.len())?;
    if (there, right) != (acknowledged, acknowledged) {
        return Err(format!(
            "{acknowledged} were acknowledged and completed, the engine has {there} executions, {right} of them completed"
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
        notes: vec![format!(
            "{away:.3} s from kill -9 to the first new completion (engine ready after {:.3} s); {acknowledged} acknowledged, each completed once",
            (ready - killed).as_secs_f64()
        )],
        figures: vec![("kill_to_completion_s", away)],
        ..Measured::default()
    })
}
