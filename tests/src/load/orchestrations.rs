//! Submissions under an idempotency key, of a plan whose second step takes what the first one made.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{ANSWER_WITHIN, Caller, Ledger, Size, spawn, value};
use crate::plan::Plan;
use crate::project::Project;
use crate::py_service::PyService;
use crate::wait::PAUSE;

pub(super) struct Orchestrations {
    project: Project,
    services: PyService,
    padding: usize,
    callers: Vec<JoinHandle<()>>,
    pub(super) ledger: Arc<Ledger>,
}

impl Orchestrations {
    pub(super) async fn start(project: Project, size: Size) -> Self {
        let services = PyService::steps(&project, &["work"]).await;
        let ledger = Arc::default();
        let callers = (0..size.callers).map(|number| {
            let caller = Submitter {
                project: project.clone(),
                service: services.id("work"),
                padding: size.padding,
            };
            spawn(caller, number, &ledger)
        });
        Self {
            callers: callers.collect(),
            project,
            services,
            padding: size.padding,
            ledger,
        }
    }

    /// How many there are, and how often callers had to ask again.
    pub(super) async fn reckon(self, by: Instant) -> (usize, usize) {
        for caller in self.callers {
            caller.await.unwrap();
        }
        let accepted = self.ledger.accepted();
        for (id, n) in &accepted {
            let run = self.project.run(id, Value::Null);
            let view = loop {
                let view = run.inspect().await;
                if view.has_ended() {
                    break view;
                }
                assert!(Instant::now() < by, "{n} does not end: {view:#?}");
                tokio::time::sleep(PAUSE).await;
            };
            assert_eq!(view.status(), "completed", "{view:#?}");
            assert_eq!(view.result()["id"], json!(format!("{n}b")), "{view:#?}");
            let wanted = json!(value(*n, self.padding));
            assert_eq!(view.result()["value"], wanted, "{view:#?}");
        }
        let mut listed: Vec<String> = self
            .project
            .listed()
            .await
            .into_iter()
            .map(|(id, _)| id)
            .collect();
        listed.sort_unstable();
        let wanted: Vec<String> = accepted.keys().cloned().collect();
        assert_eq!(listed, wanted, "what is listed is not what was accepted");

        let mut executed = BTreeMap::<String, usize>::new();
        for step in self.services.ids("executed") {
            *executed.entry(step).or_default() += 1;
        }
        let steps = accepted.values();
        let steps = steps.flat_map(|n| ["a", "b"].map(|step| (format!("{n}{step}"), 1)));
        let wanted: BTreeMap<String, usize> = steps.collect();
        assert_eq!(executed, wanted, "steps, and how often they were executed");
        self.ledger.counts()
    }
}

struct Submitter {
    project: Project,
    service: String,
    padding: usize,
}

impl Caller for Submitter {
    async fn ask(&mut self, n: u64) -> Option<String> {
        let first = json!({"id": format!("{n}a"), "value": value(n, self.padding)});
        let second = json!({"id": format!("{n}b"), "value": "$task1.value"});
        let plan =
            Plan::new()
                .task("task1", &self.service, first)
                .task("task2", &self.service, second);
        let body = json!({
            "action": {"type": "", "content": format!("work on {n}")},
            "data": [],
            "plan": Value::from(plan),
        });
        let request = self
            .project
            .request(Method::POST, "/orchestrations")
            .header("Idempotency-Key", format!("key {n}"))
            .timeout(ANSWER_WITHIN)
            .json(&body);
        let answer = request.send().await.ok()?;
        let status = answer.status().as_u16();
        if status != 202 {
            // Not now; anything else would be a wrong answer to a right submission.
            let later = status >= 500 || status == 429;
            assert!(later, "{status}: {:?}", answer.text().await);
            return None;
        }
        let accepted = answer.json::<Value>().await.ok()?;
        Some(accepted["id"].as_str().expect("an id").to_owned())
    }
}
