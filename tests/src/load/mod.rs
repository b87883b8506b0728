//! Two loads at once on a real engine that is being broken: callers that repeat themselves until they are answered, and the reckoning at the end.
//!
//! ```text
//!  caller, number n --the same request, again and again--> accepted: id of n
//!  reckoning: what is listed is what was accepted, each once, completed, with its own result; what it took happened once
//! ```
//!
//! | load             | wire                  | who does the work                                        |
//! |------------------|-----------------------|----------------------------------------------------------|
//! | `orchestrations` | HTTP and WebSocket    | a service on orra's SDK                                  |
//! | `workflows`      | gRPC, Temporal's API  | a worker on Temporal's SDK: a workflow with one activity |

mod client;
mod orchestrations;
mod worker;
mod workflows;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::bad_lines::BadLines;
use crate::project::Project;
use crate::wait::{PATIENCE, PAUSE};
use orchestrations::Orchestrations;
use workflows::Workflows;

/// How long a caller waits for its answer before it asks again.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// Between two numbers of one caller.
const REST: Duration = Duration::from_millis(20);
/// Callers count from different numbers.
const NUMBERS_OF_A_CALLER: u64 = 1_000_000;

/// How much of it.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Callers of each load.
    pub callers: u64,
    /// Bytes that each piece of work carries beside what is needed.
    pub padding: usize,
}

/// What was accepted, as the reckoning found it.
#[derive(Debug, Clone, Copy)]
pub struct Reckoned {
    /// Orchestrations, and how often a caller had to ask again for one.
    pub orchestrations: (usize, usize),
    /// Workflows, and how often a caller had to ask again for one.
    pub workflows: (usize, usize),
    /// Attempts of activities that were lost and came back.
    pub attempts_lost: usize,
}

/// Both loads.
pub struct Load {
    orchestrations: Orchestrations,
    workflows: Workflows,
}

impl Load {
    /// Services and a worker come up, and callers begin, all of them over these lines.
    pub async fn start(project: &Project, lines: &BadLines, size: Size) -> Self {
        let mut project = project.clone();
        project.url = lines.http_url();
        Self {
            orchestrations: Orchestrations::start(project, size).await,
            workflows: Workflows::start(lines.grpc_address(), size).await,
        }
    }

    fn ledgers(&self) -> [(&'static str, &Arc<Ledger>); 2] {
        [
            ("orchestrations", &self.orchestrations.ledger),
            ("workflows", &self.workflows.ledger),
        ]
    }

    /// Waits until so many more of each were accepted.
    pub async fn goes_on(&self, more: usize) {
        let wanted = self.ledgers().map(|(_, ledger)| ledger.len() + more);
        for ((what, ledger), wanted) in self.ledgers().into_iter().zip(wanted) {
            let what = format!("{wanted} {what} to be accepted");
            crate::wait::until_some(&what, || (ledger.len() >= wanted).then_some(())).await;
        }
    }

    /// Waits until callers of each had to ask again.
    pub async fn asks_again(&self) {
        let before = self.ledgers().map(|(_, ledger)| ledger.repeats());
        for ((what, ledger), before) in self.ledgers().into_iter().zip(before) {
            let what = format!("a caller of {what} to ask again");
            crate::wait::until_some(&what, || (ledger.repeats() > before).then_some(())).await;
        }
    }

    /// Nothing goes wrong any more: everything accepted is there once and right.
    pub async fn reckon(self, patience: Duration) -> Reckoned {
        for (_, ledger) in self.ledgers() {
            ledger.stop.store(true, Ordering::Relaxed);
        }
        let by = Instant::now() + patience;
        let reckoned = async {
            let orchestrations = self.orchestrations.reckon(by).await;
            let (workflows, attempts_lost) = self.workflows.reckon(by).await;
            Reckoned {
                orchestrations,
                workflows,
                attempts_lost,
            }
        };
        // What does not end says so itself; this is for an engine that does not answer.
        tokio::time::timeout(patience + PATIENCE, reckoned)
            .await
            .expect("the engine answers while it is reckoned up")
    }
}

/// What the callers of one load were told.
#[derive(Default)]
struct Ledger {
    /// By what the engine calls it, the number it was asked for with.
    accepted: Mutex<BTreeMap<String, u64>>,
    repeats: AtomicUsize,
    stop: AtomicBool,
}

impl Ledger {
    fn len(&self) -> usize {
        self.accepted.lock().unwrap().len()
    }

    fn repeats(&self) -> usize {
        self.repeats.load(Ordering::Relaxed)
    }

    fn accepted(&self) -> BTreeMap<String, u64> {
        self.accepted.lock().unwrap().clone()
    }

    fn counts(&self) -> (usize, usize) {
        (self.len(), self.repeats())
    }
}

/// Asks an engine for something, by number.
trait Caller: Send + 'static {
    /// Once. `None` if there was no answer, or one that says to ask again; what the engine calls it if it was accepted.
    fn ask(&mut self, n: u64) -> impl Future<Output = Option<String>> + Send;
}

/// Asks for one number after the other, for each until it is accepted, and ends when the ledger says so.
fn spawn(mut caller: impl Caller, number: u64, ledger: &Arc<Ledger>) -> JoinHandle<()> {
    let ledger = Arc::clone(ledger);
    tokio::spawn(async move {
        for n in number * NUMBERS_OF_A_CALLER.. {
            if ledger.stop.load(Ordering::Relaxed) {
                return;
            }
            let id = loop {
                if let Some(id) = caller.ask(n).await {
                    break id;
                }
                ledger.repeats.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(PAUSE).await;
            };
            let before = ledger.accepted.lock().unwrap().insert(id.clone(), n);
            assert_eq!(before, None, "{n} was answered with {id}, as another was");
            tokio::time::sleep(REST).await;
        }
    })
}

/// What a piece of work is given: its number, and as many bytes more.
fn value(n: u64, padding: usize) -> String {
    format!("v{n}{}", "x".repeat(padding))
}
