//! The rows: what is measured, by name, with its goals.

use std::rc::Rc;

use crate::clients::{Orchestrations, Shape, Workflows};
use crate::loops::{self, Client};
use crate::process::{Owned, first_line, own_cpu};
use crate::report::{Goal, Measured};
use crate::staff::{Staff, Work};
use crate::stage::{Stage, folder};
use crate::temporal::Temporal;
use crate::{Plan, Result, crash, replay, sleepers, stream};

/// Sockets of each service of W6.
const SOCKETS: usize = 16;

/// One line of the table.
pub struct Row {
    pub name: &'static str,
    pub what: &'static str,
    /// Whether it is measured when no row is named.
    pub usual: bool,
    way: Way,
    goals: &'static [Goal],
}

enum Way {
    /// Workflows over the Temporal API, so many RPCs each, by so many clients.
    Temporal(Staff, Work, f64, usize),
    /// The same on a store in which closed executions lie.
    Full(Work, f64, usize),
    Stream(Shape, usize),
    Socket(usize),
    Sleepers(Staff),
    Crash(Staff),
    CrashStream,
    Fold,
    Recovery,
}

use Goal::{AtLeast, AtMost};

const SERVER_T: Goal = AtMost("engine_cpu", 0.3);
const SERVER_S: Goal = AtMost("engine_cpu", 0.15);
const DISK: Goal = AtMost("bytes", 1_024.0);

/// Every row.
pub fn all() -> Vec<Row> {
    use Shape::{Parallel, Sequence};
    use Staff::{Sdk, Thin};
    use Way::{Crash, CrashStream, Fold, Full, Recovery, Sleepers, Socket, Stream, Temporal};
    let row = |name, what, way, goals| Row {
        name,
        what,
        usual: true,
        way,
        goals,
    };
    let named = |row: Row| Row {
        usual: false,
        ..row
    };
    // Of one workflow with n activities in a row: its start and its end, n + 1 turns, one of them polled for each, n answers.
    const W1: f64 = 7.0;
    const W2: f64 = 34.0;
    const W3: f64 = 2.0 + 100.0 + 2.0 * 20.0;
    vec![
        row(
            "W1-T-1",
            "one activity, Temporal API, 1 client",
            Temporal(Thin, Work::One, W1, 1),
            &[AtMost("p50", 1.2), AtMost("p99", 3.0)],
        ),
        row(
            "W1-T-16",
            "one activity, Temporal API, 16 clients",
            Temporal(Thin, Work::One, W1, 16),
            &[],
        ),
        row(
            "W1-T-64",
            "one activity, Temporal API, 64 clients",
            Temporal(Thin, Work::One, W1, 64),
            &[AtLeast("per_second", 3_000.0), SERVER_T, DISK],
        ),
        row(
            "W1-T-256",
            "one activity, Temporal API, 256 clients",
            Temporal(Thin, Work::One, W1, 256),
            &[AtLeast("per_second", 3_200.0), AtMost("p99", 150.0)],
        ),
        row(
            "W1-S-1",
            "one task, own stream, 1 client",
            Stream(Sequence(1), 1),
            &[AtMost("p50", 0.9), AtMost("p99", 2.5)],
        ),
        row(
            "W1-S-16",
            "one task, own stream, 16 clients",
            Stream(Sequence(1), 16),
            &[],
        ),
        row(
            "W1-S-64",
            "one task, own stream, 64 clients",
            Stream(Sequence(1), 64),
            &[AtLeast("per_second", 6_000.0), SERVER_S],
        ),
        row(
            "W1-S-256",
            "one task, own stream, 256 clients",
            Stream(Sequence(1), 256),
            &[AtLeast("per_second", 7_000.0), AtMost("p99", 80.0)],
        ),
        row(
            "W1-SDK-1",
            "one activity, Temporal's Rust SDK, 1 client",
            Temporal(Sdk, Work::One, 0.0, 1),
            &[],
        ),
        named(row(
            "W1-SDK-16",
            "one activity, Temporal's Rust SDK, 16 clients",
            Temporal(Sdk, Work::One, 0.0, 16),
            &[],
        )),
        row(
            "W1-SDK-64",
            "one activity, Temporal's Rust SDK, 64 clients",
            Temporal(Sdk, Work::One, 0.0, 64),
            &[],
        ),
        named(row(
            "W1-SDK-256",
            "one activity, Temporal's Rust SDK, 256 clients",
            Temporal(Sdk, Work::One, 0.0, 256),
            &[],
        )),
        row(
            "W2-T-1",
            "ten activities in a row, Temporal API, 1 client",
            Temporal(Thin, Work::Ten, W2, 1),
            &[AtMost("p50", 8.0)],
        ),
        row(
            "W2-T-64",
            "ten activities in a row, Temporal API, 64 clients",
            Temporal(Thin, Work::Ten, W2, 64),
            &[AtLeast("per_second", 600.0), AtMost("bytes", 3_072.0)],
        ),
        row(
            "W2-S-1",
            "ten tasks in a row, own stream, 1 client",
            Stream(Sequence(10), 1),
            &[AtMost("p50", 5.0)],
        ),
        row(
            "W2-S-64",
            "ten tasks in a row, own stream, 64 clients",
            Stream(Sequence(10), 64),
            &[AtLeast("per_second", 1_200.0)],
        ),
        named(row(
            "W2-SDK-1",
            "ten activities in a row, Temporal's Rust SDK, 1 client",
            Temporal(Sdk, Work::Ten, 0.0, 1),
            &[],
        )),
        row(
            "W2-SDK-64",
            "ten activities in a row, Temporal's Rust SDK, 64 clients",
            Temporal(Sdk, Work::Ten, 0.0, 64),
            &[],
        ),
        row(
            "W3-T-1",
            "a hundred activities at once, Temporal API, 1 client",
            Temporal(Thin, Work::Hundred, W3, 1),
            &[AtMost("p50", 20.0)],
        ),
        row(
            "W3-T-16",
            "a hundred activities at once, Temporal API, 16 clients",
            Temporal(Thin, Work::Hundred, W3, 16),
            &[AtLeast("per_second", 100.0)],
        ),
        row(
            "W3-S-1",
            "a hundred tasks at once, own stream, 1 client",
            Stream(Parallel(100), 1),
            &[AtMost("p50", 10.0)],
        ),
        row(
            "W3-S-16",
            "a hundred tasks at once, own stream, 16 clients",
            Stream(Parallel(100), 16),
            &[AtLeast("per_second", 200.0)],
        ),
        named(row(
            "W3-SDK-1",
            "a hundred activities at once, Temporal's Rust SDK, 1 client",
            Temporal(Sdk, Work::Hundred, 0.0, 1),
            &[],
        )),
        row(
            "W3-SDK-16",
            "a hundred activities at once, Temporal's Rust SDK, 16 clients",
            Temporal(Sdk, Work::Hundred, 0.0, 16),
            &[],
        ),
        row(
            "W4",
            "workflows that sleep (--sleepers)",
            Sleepers(Thin),
            &[AtMost("memory_kb_per_sleeper", 1.0), AtMost("p99", 15.0)],
        ),
        named(row(
            "W4-SDK",
            "the same, Temporal's Rust SDK",
            Sleepers(Sdk),
            &[],
        )),
        row(
            "W5",
            "kill -9 under load",
            Crash(Thin),
            &[AtMost("kill_to_completion_s", 0.5)],
        ),
        row(
            "W5-S",
            "kill -9 under load, own stream",
            CrashStream,
            &[AtMost("kill_to_completion_s", 0.5)],
        ),
        named(row(
            "W5-SDK",
            "kill -9 under load, Temporal's Rust SDK",
            Crash(Sdk),
            &[],
        )),
        row(
            "W6-1",
            "three tasks, services on WebSockets, 1 client",
            Socket(1),
            &[AtMost("p50", 5.0)],
        ),
        row(
            "W6-16",
            "three tasks, services on WebSockets, 16 clients",
            Socket(16),
            &[AtLeast("per_second", 1_500.0)],
        ),
        row(
            "W7-fold",
            "a history of 10,000 events, decoded and folded",
            Fold,
            &[AtLeast("fold_per_s", 1_000_000.0)],
        ),
        row(
            "W7-recovery",
            "a store of 1,000,000 events and 100,000 open executions",
            Recovery,
            &[AtMost("recovery_s", 3.0)],
        ),
        named(row(
            "W1-full",
            "W1-T-64 on an empty store, then on one of closed executions (--closed)",
            Full(Work::One, W1, 64),
            &[AtLeast("percent_of_empty", 95.0)],
        )),
    ]
}

/// The rows that these names mean; the usual ones if there are none, of those that can be measured.
pub fn chosen(names: &[String], sdk: bool) -> Result<Vec<Row>> {
    let mut rows = all();
    if names.is_empty() {
        rows.retain(|row| row.usual && (sdk || !row.needs_sdk()));
        return Ok(rows);
    }
    for name in names {
        let means = |row: &Row| row.name == name || row.name.starts_with(&format!("{name}-"));
        if !rows.iter().any(means) {
            return Err(format!("there is no row {name}: --list names them").into());
        }
    }
    rows.retain(|row| {
        let named = |name: &String| {
            row.name == name || row.usual && row.name.starts_with(&format!("{name}-"))
        };
        names.iter().any(named)
    });
    Ok(rows)
}

impl Row {
    fn needs_sdk(&self) -> bool {
        use Way::{Crash, Sleepers, Temporal};
        matches!(
            self.way,
            Temporal(Staff::Sdk, ..) | Sleepers(Staff::Sdk) | Crash(Staff::Sdk)
        )
    }

    pub async fn measure(&self, plan: &Plan) -> Result<Measured> {
        let measured = match self.way {
            Way::Temporal(staff, work, rpcs, clients) => {
                let stage = Stage::set(plan).await?;
                temporal(plan, stage, (staff, work), rpcs, clients).await?
            }
            Way::Full(work, rpcs, clients) => full(plan, work, rpcs, clients).await?,
            Way::Stream(shape, clients) => stream(plan, shape, clients).await?,
            Way::Socket(clients) => socket(plan, clients).await?,
            Way::Sleepers(staff) => sleepers::measure(plan, staff).await?,
            Way::Crash(staff) => crash::of_workflows(plan, staff).await?,
            Way::CrashStream => crash::of_orchestrations(plan).await?,
            Way::Fold => replay::fold()?,
            Way::Recovery => replay::recovery(plan).await?,
        };
        Ok(Measured {
            name: self.name,
            goals: self.goals,
            ..measured
        })
    }
}

async fn temporal(
    plan: &Plan,
    stage: Stage,
    (staff, work): (Staff, Work),
    rpcs: f64,
    clients: usize,
) -> Result<Measured> {
    let worker = staff.start(plan, &stage, work).await?;
    let client = Workflows {
        temporal: Temporal::to(&stage.grpc())?,
        kind: staff.kind(work),
    };
    let mut clients = vec![client; clients];
    let measured = window(plan, stage, worker, &mut clients).await?;
    Ok(Measured { rpcs, ..measured })
}

/// The same twice: on an empty store, and on one that is full of closed executions.
async fn full(plan: &Plan, work: Work, rpcs: f64, clients: usize) -> Result<Measured> {
    let staff = (Staff::Thin, work);
    let empty = temporal(plan, Stage::set(plan).await?, staff, rpcs, clients).await?;
    let folder = folder()?;
    replay::closed(&folder.path().join("data"), plan.closed).await?;
    let full = temporal(plan, Stage::over(plan, folder).await?, staff, rpcs, clients).await?;
    let share = 100.0 * full.per_second / empty.per_second;
    Ok(Measured {
        // Most of what lies on disk is not of these.
        bytes: 0.0,
        notes: vec![format!(
            "with {} closed executions {share:.0} % of what an empty store gave just before ({:.0}/s, engine {:.2} s per 1,000)",
            plan.closed, empty.per_second, empty.engine_cpu
        )],
        figures: vec![("percent_of_empty", share)],
        ..full
    })
}

async fn stream(plan: &Plan, shape: Shape, clients: usize) -> Result<Measured> {
    let stage = Stage::set(plan).await?;
    let key: Rc<str> = stage.project().await?.key.into();
    let (worker, services) = stream::start(&stage, &key).await?;
    orchestrations(plan, stage, worker, &key, &services, shape, clients).await
}

async fn socket(plan: &Plan, clients: usize) -> Result<Measured> {
    let stage = Stage::set(plan).await?;
    let key: Rc<str> = stage.project().await?.key.into();
    let mut services = Vec::new();
    for name in ["echo-one", "echo-two", "echo-three"] {
        services.push(stage.service(&key, name).await?);
    }
    let (host, sockets) = (stage.http(), SOCKETS.to_string());
    let mut arguments = vec!["socket-service", &host, &key, &sockets];
    arguments.extend(services.iter().map(String::as_str));
    let mut worker = Owned::role(&arguments)?;
    let output = worker.output().ok_or("the service has no output")?;
    first_line(output).await?;
    let services: Rc<[String]> = services.into();
    orchestrations(
        plan,
        stage,
        worker,
        &key,
        &services,
        Shape::Diamond,
        clients,
    )
    .await
}

async fn orchestrations(
    plan: &Plan,
    stage: Stage,
    worker: Owned,
    key: &Rc<str>,
    services: &Rc<[String]>,
    shape: Shape,
    count: usize,
) -> Result<Measured> {
    let mut clients = Orchestrations::many(count, &stage.http(), key, services, shape).await?;
    window(plan, stage, worker, &mut clients).await
}

/// Warm-up, then the window.
async fn window<C: Client>(
    plan: &Plan,
    mut stage: Stage,
    worker: Owned,
    clients: &mut [C],
) -> Result<Measured> {
    let (warm, _) = loops::run(clients, "warm", plan.warmup).await?;
    let cpu = (stage.engine.cpu()?, worker.cpu()?, own_cpu());
    let (latencies, time) = loops::run(clients, "measured", plan.window).await?;
    let used = (
        stage.engine.cpu()? - cpu.0,
        worker.cpu()? - cpu.1,
        own_cpu() - cpu.2,
    );
    let resident = stage.engine.resident()?;
    let count = latencies.count();
    if count == 0 {
        return Err("nothing was done within the window".into());
    }
    drop(worker);
    // The clients' last ones of both runs were done, and not counted.
    let all = warm.count() + count + 2 * clients.len();
    let bytes = stage.end().await?;
    let per_thousand = |seconds: f64| seconds * 1_000.0 / count as f64;
    Ok(Measured {
        count,
        per_second: count as f64 / time.as_secs_f64(),
        p50: latencies.at(0.5),
        p95: latencies.at(0.95),
        p99: latencies.at(0.99),
        engine_cpu: per_thousand(used.0),
        worker_cpu: per_thousand(used.1),
        client_cpu: per_thousand(used.2),
        idle: stage.idle,
        resident,
        bytes: bytes as f64 / all as f64,
        ready_after: stage.ready_after,
        errors: C::errors_of(clients),
        ..Measured::default()
    })
}
