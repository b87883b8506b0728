//! Fixed seeds of the simulation. A seed that fails prints the line that runs it alone.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeSet;

use orchestrion_tests::sim::{self, Profile, Report};

const SEEDS: std::ops::Range<u64> = 1..61;

fn run(seed: u64) -> Report {
    sim::run(seed).unwrap_or_else(|failure| panic!("{}\n{}", failure.line(), failure.story))
}

#[test]
fn everything_holds_whatever_goes_wrong() {
    let reports: Vec<Report> = SEEDS.map(run).collect();
    assert!(reports.iter().any(|report| report.left > 0), "no run left");
    assert!(
        reports.iter().any(|report| report.retries > 0),
        "nothing was to be undone again"
    );
    assert!(
        reports.iter().any(|report| report.cached > 0),
        "no plan was used again"
    );
    let seen: BTreeSet<String> = reports.into_iter().flat_map(|report| report.seen).collect();
    for name in [
        "ActivityTaskCompleted",
        "ActivityAttemptReturned",
        "ActivityPaused",
        "ActivityUnpaused",
        "ActivityReset",
        "ActivityOptionsUpdated",
        "WorkflowExecutionPaused",
        "WorkflowExecutionUnpaused",
        "ChildWorkflowExecutionCompleted",
        "ExternalWorkflowExecutionSignaled",
        "TimerFired",
        "WorkflowExecutionContinuedAsNew",
        "WorkflowExecutionUpdateCompleted",
        "WorkflowTaskTimedOut",
        "RunReset",
    ] {
        assert!(seen.contains(name), "no seed brought a {name}: {seen:?}");
    }
}

#[test]
fn everything_holds_when_nothing_goes_wrong() {
    for seed in 1..4 {
        let calm = sim::run_with(seed, Profile::CALM);
        calm.unwrap_or_else(|failure| panic!("{}\n{}", failure.line(), failure.story));
    }
}

#[test]
fn the_same_seed_gives_the_same_world() {
    for seed in [7, 11, 13] {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}
