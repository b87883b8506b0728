//! What it takes to validate a plan of two hundred tasks and to check it against every class of rule. The goal is a p99 under 5 ms.
#![allow(missing_docs, clippy::unwrap_used)]

use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use orchestrion::plan::draft::{Draft, DraftTask};
use orchestrion::plan::rules::{ForeignParameter, Offer, RuleSet, Ruling};
use orchestrion::plan::{Parameter, Service, validate_under};
use serde_json::{Map, json};

const TASKS: usize = 200;
const SERVICES: usize = 20;
const SAMPLES: usize = 2_000;
const P99_GOAL: Duration = Duration::from_millis(5);

fn services() -> Vec<Service> {
    let input = json!({"type": "object", "required": ["key"], "additionalProperties": false, "properties": {
        "key": {"type": "string"}, "also": {"type": "string"}, "amount": {"type": "integer", "maximum": 100},
    }});
    let output = json!({"type": "object", "properties": {"key": {"type": "string"}, "count": {"type": "integer"}}});
    (0..SERVICES)
        .map(|n| Service {
            id: format!("s_{n}"),
            name: format!("service-{n}"),
            description: format!("Does {n}"),
            input_schema: input.clone().into(),
            output_schema: output.clone(),
            revertible: n % 2 == 0,
        })
        .collect()
}

/// Each task waits for the two before it, so that there is as much order as can be.
fn draft() -> Draft {
    let tasks = (0..TASKS).map(|n| {
        let before = |back: usize| match n.checked_sub(back) {
            Some(before) => format!("$task{}.key", before + 1),
            None => "$task0.order".to_owned(),
        };
        let input = [
            ("key".to_owned(), json!(before(1))),
            ("also".to_owned(), json!(format!("see {}", before(2)))),
            ("amount".to_owned(), json!(n % 100)),
        ];
        DraftTask {
            id: format!("task{}", n + 1),
            service: Some(format!("s_{}", n * SERVICES / TASKS)),
            input: Map::from_iter(input),
            ..DraftTask::default()
        }
    });
    Draft {
        tasks: tasks.collect(),
        ..Draft::default()
    }
}

fn ruling() -> Ruling {
    let set = RuleSet::parse([
        "rule: service-1 before service-2",
        "rule: service-19 only after service-0, service-3",
        "rule: at most 10 service-4",
        "rule: never service-x with service-1",
        "rule: must use service-7",
        "rule: must offer stamping",
        "rule: service-9 requires approval by service-8",
        "rule: service-19 is irreversible",
        "rule: parameter secret only reaches service-5",
        "rule: parameters stay in their case",
    ]);
    Ruling {
        authority: "the grounding bench 1".to_owned(),
        rules: set.unwrap().rules,
        capabilities: Vec::new(),
        offers: vec![Offer {
            capability: "stamping".to_owned(),
            services: vec!["s_11".to_owned()],
        }],
        foreign_parameters: vec![ForeignParameter {
            name: "ticket".to_owned(),
            case: "another".to_owned(),
        }],
    }
}

fn validator(criterion: &mut Criterion) {
    let (services, draft, ruling) = (services(), draft(), ruling());
    let data = [Parameter {
        field: "order".to_owned(),
        value: json!("o-1"),
    }];
    let validate = || validate_under(&draft, &services, &data, Some(&ruling)).unwrap();
    let mut taken: Vec<Duration> = (0..SAMPLES)
        .map(|_| {
            let began = Instant::now();
            std::hint::black_box(validate());
            began.elapsed()
        })
        .collect();
    taken.sort_unstable();
    let (p50, p99) = (taken[SAMPLES / 2], taken[SAMPLES * 99 / 100]);
    println!("validate {TASKS} tasks under rules: p50 {p50:?}, p99 {p99:?} (goal {P99_GOAL:?})");
    if p99 > P99_GOAL {
        println!("the goal is missed");
    }
    criterion.bench_function("validate 200 tasks under rules", |bencher| {
        bencher.iter(validate)
    });
}

criterion_group!(benches, validator);
criterion_main!(benches);
