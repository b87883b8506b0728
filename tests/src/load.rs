//! A load on a real engine that is being broken: submissions that are repeated until they are answered, and the reckoning at the end.
//!
//! ```text
//!  submit n, under the key n --202--> accepted       (errors and other answers: the same again)
//!  reckoning: every accepted one is there once, has completed, with its own result; every step was executed once
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::plan::Plan;
use crate::project::Project;
use crate::py_service::PyService;
use crate::wait::PAUSE;

/// How long one submission waits for its answer before it is sent again.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Between two submissions of one caller.
const REST: Duration = Duration::from_millis(20);

/// Callers at work.
pub struct Load {
    project: Project,
    services: PyService,
    accepted: Arc<Mutex<BTreeMap<String, u64>>>,
    stop: Arc<AtomicBool>,
    padding: usize,
    callers: Vec<JoinHandle<()>>,
}

/// What a step is given: its number, and as many bytes more.
fn value(n: u64, padding: usize) -> String {
    format!("v{n}{}", "x".repeat(padding))
}

fn plan(service: &str, n: u64, padding: usize) -> Value {
    let plan = Plan::new()
        .task(
            "task1",
            service,
            json!({"id": format!("{n}a"), "value": value(n, padding)}),
        )
        .task(
            "task2",
            service,
            json!({"id": format!("{n}b"), "value": "$task1.value"}),
        );
    plan.into()
}

impl Load {
    /// So many callers begin to submit, each time with so many bytes beside what is needed.
    pub async fn start(project: &Project, callers: u64, padding: usize) -> Self {
        let services = PyService::steps(project, &["work"]).await;
        let (accepted, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let service = services.id("work");
        let callers = (0..callers).map(|caller| {
            tokio::spawn(submit(
                project.clone(),
                service.clone(),
                (caller * 1_000_000, padding),
                Arc::clone(&accepted),
                Arc::clone(&stop),
            ))
        });
        let callers = callers.collect();
        Self {
            project: project.clone(),
            services,
            callers,
            accepted,
            stop,
            padding,
        }
    }

    /// How many were accepted so far.
    pub fn accepted(&self) -> usize {
        self.accepted.lock().unwrap().len()
    }

    /// Waits until so many more were accepted.
    pub async fn goes_on(&self, more: usize) {
        let wanted = self.accepted() + more;
        crate::wait::until_some("the load to go on", || {
            (self.accepted() >= wanted).then_some(())
        })
        .await;
    }

    /// Nothing goes wrong any more: everything accepted is there once and right. Answers how many there were.
    pub async fn reckon(self, patience: Duration) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        for caller in self.callers {
            caller.await.unwrap();
        }
        let accepted = self.accepted.lock().unwrap().clone();
        let all_ended = async {
            for (id, n) in &accepted {
                let run = self.project.run(id, Value::Null);
                let view = loop {
                    let view = run.inspect().await;
                    if view.has_ended() {
                        break view;
                    }
                    tokio::time::sleep(PAUSE).await;
                };
                assert_eq!(view.status(), "completed", "{view:#?}");
                assert_eq!(view.result()["id"], json!(format!("{n}b")), "{view:#?}");
                assert_eq!(
                    view.result()["value"],
                    json!(value(*n, self.padding)),
                    "{view:#?}"
                );
            }
        };
        tokio::time::timeout(patience, all_ended)
            .await
            .expect("everything that was accepted ends");
        let listed = self.project.listed().await;
        let ids: BTreeSet<&String> = listed.iter().map(|(id, _)| id).collect();
        assert_eq!(ids.len(), listed.len(), "something is listed twice");
        let missing: Vec<&String> = accepted.keys().filter(|id| !ids.contains(id)).collect();
        assert_eq!(missing, [] as [&String; 0], "accepted, and not listed");
        let executed = self.services.ids("executed");
        for n in accepted.values() {
            for step in ["a", "b"] {
                let step = format!("{n}{step}");
                let times = executed.iter().filter(|id| **id == step).count();
                assert_eq!(times, 1, "step {step} was executed {times} times");
            }
        }
        accepted.len()
    }
}

async fn submit(
    project: Project,
    service: String,
    (first, padding): (u64, usize),
    accepted: Arc<Mutex<BTreeMap<String, u64>>>,
    stop: Arc<AtomicBool>,
) {
    for n in first.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let body = json!({
            "action": {"type": "", "content": format!("work on {n}")},
            "data": [],
            "plan": plan(&service, n, padding),
        });
        let id = loop {
            let request = project
                .request(Method::POST, "/orchestrations")
                .header("Idempotency-Key", format!("key {n}"))
                .timeout(ANSWER_WITHIN)
                .json(&body);
            let answer = match request.send().await {
                Ok(answer) if answer.status() == 202 => answer.json::<Value>().await.ok(),
                Ok(answer) => {
                    // Not now; anything else would be a wrong answer to a right submission.
                    let status = answer.status().as_u16();
                    assert!(
                        status >= 500 || status == 429,
                        "{status}: {:?}",
                        answer.text().await
                    );
                    None
                }
                Err(_) => None,
            };
            if let Some(id) = answer.as_ref().and_then(|answer| answer["id"].as_str()) {
                break id.to_owned();
            }
            tokio::time::sleep(PAUSE).await;
        };
        let before = accepted.lock().unwrap().insert(id.clone(), n);
        assert_eq!(before, None, "two submissions are one orchestration, {id}");
        tokio::time::sleep(REST).await;
    }
}
