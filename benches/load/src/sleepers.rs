//! W4: workflows that sleep on a durable timer. What one costs in memory while it waits, and how late it wakes.

use std::time::{Duration, Instant};

use futures_util::future::try_join_all;

use crate::clients::Workflows;
use crate::loops::Latencies;
use crate::report::Measured;
use crate::staff::{Staff, Work};
use crate::stage::Stage;
use crate::temporal::Temporal;
use crate::text::Letters;
use crate::{Plan, Result};

/// Who submits them.
const SUBMITTERS: usize = 32;
/// Beyond so many the submission takes longer than the short sleep.
const MANY: usize = 20_000;

pub async fn measure(plan: &Plan, staff: Staff) -> Result<Measured> {
    let work = match plan.sleepers > MANY {
        true => Work::LongSleep,
        false => Work::Sleep,
    };
    let mut stage = Stage::set(plan).await?;
    let worker = staff.start(plan, &stage, work).await?;
    let client = Workflows {
        temporal: Temporal::to(&stage.grpc())?,
        kind: staff.kind(work),
    };
    // One of them, so that connections and pollers are counted as idle.
    let first = Workflows {
        kind: staff.kind(Work::One),
        ..client.clone()
    };
    let run_id = first.start("load-first", "first").await?;
    first.result("load-first", run_id).await?;
    let before = stage.engine.resident()?;
    let cpu = (stage.engine.cpu()?, worker.cpu()?);
    let began = Instant::now();
    let submitted =
        try_join_all((0..SUBMITTERS).map(|number| submit(&client, plan.sleepers, number)));
    let submitted: Vec<(String, String, String)> = submitted.await?.into_iter().flatten().collect();
    let took = began.elapsed();
    // The last of them have had their turn and left memory by then, and none has woken.
    let settled = if plan.sleepers > MANY { 30 } else { 10 };
    tokio::time::sleep(Duration::from_secs(settled)).await;
    let asleep = stage.engine.resident()?;
    let mut late = Vec::with_capacity(submitted.len());
    for chunk in submitted.chunks(64) {
        let ended = chunk
            .iter()
            .map(|(id, run_id, text)| woken(&client, id, run_id, text));
        late.extend(try_join_all(ended).await?);
    }
    let count = submitted.len() as f64;
    let used = (stage.engine.cpu()? - cpu.0, worker.cpu()? - cpu.1);
    let end = stage.engine.resident()?;
    drop(worker);
    let bytes = stage.end().await?;
    let late = Latencies::of(late);
    Ok(Measured {
        count: submitted.len(),
        per_second: count / took.as_secs_f64(),
        p50: late.at(0.5),
        p95: late.at(0.95),
        p99: late.at(0.99),
        engine_cpu: used.0 * 1_000.0 / count,
        worker_cpu: used.1 * 1_000.0 / count,
        idle: stage.idle,
        resident: end,
        bytes: bytes as f64 / count,
        ready_after: stage.ready_after,
        errors: client.temporal.errors(),
        notes: vec![format!(
            "{:.2} KB of memory a sleeper ({before:.0} MB before, {asleep:.0} MB asleep); the times are how late the timers fired",
            (asleep - before) * 1_024.0 / count
        )],
        figures: vec![("memory_kb_per_sleeper", (asleep - before) * 1_024.0 / count)],
        ..Measured::default()
    })
}

async fn submit(
    client: &Workflows,
    sleepers: usize,
    number: usize,
) -> Result<Vec<(String, String, String)>> {
    let mut letters = Letters::of(number);
    let mut started = Vec::new();
    for turn in (number..sleepers).step_by(SUBMITTERS) {
        let (id, text) = (format!("load-sleeper-{turn}"), letters.text());
        let run_id = client.start(&id, &text).await?;
        started.push((id, run_id, text));
    }
    Ok(started)
}

/// How late it woke, microseconds.
async fn woken(client: &Workflows, id: &str, run_id: &str, text: &str) -> Result<u32> {
    let result = client.result(id, run_id.to_owned()).await?;
    let json = result.payloads.first().map_or(&[][..], |only| &only.data);
    let (told, late): (String, u32) = serde_json::from_slice(json)?;
    if told != text {
        return Err(format!("sleeper {id} has another result than {text}: {told}").into());
    }
    Ok(late)
}
