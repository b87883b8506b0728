//! Services that do as their input says: the Rust equal of `tests/services/steps.py`, for the same end-to-end tests.
//!
//! ```text
//! ENGINE_GRPC=http://127.0.0.1:7233 ENGINE_KEY=sk-orra-v1-... SERVICE_HOME=/tmp/home steps NAME|NAME+revert ...
//! ```
//!
//! What they did is in `log.jsonl` of their home, and survives kill -9. They end when standard input does, and then gracefully.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use orchestrion_worker::{Failure, Reverted, Service, Task, Undo, Worker};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::io::AsyncReadExt as _;

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[derive(Default)]
struct Step {
    /// What this step works on; an id already done is not done again.
    id: String,
    value: String,
    /// Outputs this step waits for.
    after: Vec<String>,
    sleep_ms: u64,
    /// How many executions fail before one succeeds.
    fail_times: u64,
    /// Fail for good.
    fail_permanently: bool,
    /// Panic, at the first execution.
    panic: bool,
    /// Abort, with this as the reason.
    abort_with: String,
    result_bytes: usize,
    /// How many progress updates are pushed.
    updates: u64,
    /// `completed`, `partial`, `failed` or `raise`.
    revert_as: String,
}

#[derive(Serialize, Deserialize, JsonSchema)]
struct Done {
    id: String,
    value: String,
    runs: u64,
    blob: String,
}

/// A log and a memory that survive the process.
struct Home(PathBuf);

impl Home {
    fn log(&self, event: &str, service: &str, fields: Value) -> io::Result<()> {
        let mut line = json!({"event": event, "service": service, "pid": std::process::id()});
        if let (Some(line), Value::Object(fields)) = (line.as_object_mut(), fields) {
            line.extend(fields);
        }
        let mut file = File::options()
            .append(true)
            .create(true)
            .open(self.0.join("log.jsonl"))?;
        // One write: lines of several threads do not mix.
        file.write_all(format!("{line}\n").as_bytes())?;
        file.sync_data()
    }

    fn remembered(&self, key: &str) -> Option<Value> {
        let text = fs::read_to_string(self.0.join("memory").join(key)).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// All of it or nothing, whenever the process dies.
    fn remember(&self, key: &str, value: &Value) -> io::Result<()> {
        let folder = self.0.join("memory");
        fs::create_dir_all(&folder)?;
        let draft = folder.join(format!("{key}.draft"));
        let mut file = File::create(&draft)?;
        file.write_all(value.to_string().as_bytes())?;
        file.sync_data()?;
        fs::rename(draft, folder.join(key))
    }

    /// How often this was asked for, in this process and those before it.
    fn count(&self, key: &str) -> io::Result<u64> {
        let runs = self.remembered(key).and_then(|runs| runs.as_u64());
        let runs = runs.unwrap_or(0) + 1;
        self.remember(key, &runs.into())?;
        Ok(runs)
    }
}

async fn execute(home: &Home, name: &str, task: Task, step: Step) -> Result<Done, Failure> {
    let id = &step.id;
    let runs = home.count(&format!("{name}-{id}-runs"))?;
    home.log(
        "started",
        name,
        json!({"id": id, "run": runs, "attempt": task.attempt(), "key": task.idempotency_key()}),
    )?;
    let done_key = format!("{name}-{id}-done");
    if let Some(done) = home.remembered(&done_key) {
        home.log("remembered", name, json!({"id": id}))?;
        return Ok(serde_json::from_value(done)?);
    }
    for number in 1..=step.updates {
        task.push_update(json!({"step": number, "of": step.updates}));
    }
    tokio::time::sleep(Duration::from_millis(step.sleep_ms)).await;
    if !step.abort_with.is_empty() {
        home.log("aborted", name, json!({"id": id}))?;
        return Err(task.abort(json!({"reason": step.abort_with})));
    }
    if step.fail_permanently {
        return Err(Failure::permanent(format!("{id} will never work")));
    }
    if step.panic && runs == 1 {
        panic!("{id} lost its head");
    }
    if runs <= step.fail_times {
        home.log("failed", name, json!({"id": id}))?;
        return Err(Failure::new(format!("{id} does not work (run {runs})")));
    }
    let done = Done {
        id: step.id.clone(),
        value: step.value,
        runs,
        blob: "x".repeat(step.result_bytes),
    };
    home.remember(&done_key, &serde_json::to_value(&done)?)?;
    home.log("executed", name, json!({"id": id}))?;
    Ok(done)
}

async fn undo(
    home: &Home,
    name: &str,
    undo: Undo,
    step: Step,
    done: Done,
) -> Result<Reverted, Failure> {
    let id = &step.id;
    let context = &undo.context;
    let fields = json!({
        "id": id,
        "result_id": done.id,
        "reason": format!("{:?}", context.reason).to_lowercase(),
        "payload": context.payload,
        "orchestration": context.orchestration_id,
    });
    home.log("revert-started", name, fields)?;
    match step.revert_as.as_str() {
        "raise" => Err(Failure::new(format!("{id} cannot be undone"))),
        "failed" => Ok(Reverted::Failed {
            error: format!("{id} stays as it is"),
        }),
        how => {
            home.log("reverted", name, json!({"id": id}))?;
            Ok(match how {
                "partial" => Reverted::Partial {
                    completed: vec!["refund".to_owned()],
                    remaining: vec!["letter".to_owned()],
                },
                _ => Reverted::Completed,
            })
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let variable = |name: &str| std::env::var(name).map_err(|_| format!("{name} is not set"));
    let home = Arc::new(Home(variable("SERVICE_HOME")?.into()));
    let told = Arc::clone(&home);
    let mut worker = Worker::new(variable("ENGINE_GRPC")?, variable("ENGINE_KEY")?)?.on_registered(
        move |registered| {
            let fields = json!({"id": registered.id, "version": registered.version});
            told.log("registered", &registered.name, fields)
                .expect("the log can be written");
        },
    );
    for argument in std::env::args().skip(1) {
        let (name, revertible) = match argument.strip_suffix("+revert") {
            Some(name) => (name.to_owned(), true),
            None => (argument, false),
        };
        let (at, doing) = (Arc::clone(&home), name.clone());
        let mut service = Service::new(
            name.clone(),
            format!("Performs the step {name}"),
            move |task, step: Step| {
                let (home, name) = (Arc::clone(&at), doing.clone());
                async move { execute(&home, &name, task, step).await }
            },
        )
        .window(4);
        if revertible {
            let home = Arc::clone(&home);
            service = service.revert(move |what, step, done| {
                let (home, name) = (Arc::clone(&home), name.clone());
                async move { undo(&home, &name, what, step, done).await }
            });
        }
        worker = worker.service(service);
    }
    let end_of_input = async {
        let mut nothing = Vec::new();
        let _ = tokio::io::stdin().read_to_end(&mut nothing).await;
    };
    worker.run_until(end_of_input).await?;
    home.log("ended", "", Value::Object(Map::new()))?;
    Ok(())
}
