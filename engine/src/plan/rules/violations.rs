//! Twenty thousand generated plans: ten thousand clean ones, none of which may be refused, and ten thousand with one seeded violation
//! each, all of which must be, for that violation and nothing else.

use std::mem::discriminant;

use serde_json::{Map, Value, json};

use super::*;
use crate::plan::draft::{Draft, DraftTask, TaskZeroFault};
use crate::plan::{Service, validate_under};

const PLANS: u64 = 10_000;
const SERVICES: [&str; 12] = [
    "check", "charge", "deliver", "refund", "mail", "approval", "express", "standard", "audit",
    "stamp", "look", "pack",
];
const CARD: &str = "4111-2222-3333";
const TICKET: &str = "T-90125";

/// What is wrong with a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Violation {
    UnknownService,
    NoService,
    UnknownTask,
    UnknownConstant,
    UnknownField,
    TypeMismatch,
    MissingInput,
    UnknownInput,
    Cycle,
    RepeatedTask,
    BadTaskId,
    SelfReference,
    BadValue,
    UnusedParameter,
    RepeatedParameter,
    RepeatedTaskZero,
    ReferenceInTaskZero,
    Order,
    Precondition,
    Count,
    Exclusion,
    Obligation,
    Capability,
    Approval,
    Irreversible,
    Reach,
    Isolation,
}

const VIOLATIONS: [Violation; 27] = [
    Violation::UnknownService,
    Violation::NoService,
    Violation::UnknownTask,
    Violation::UnknownConstant,
    Violation::UnknownField,
    Violation::TypeMismatch,
    Violation::MissingInput,
    Violation::UnknownInput,
    Violation::Cycle,
    Violation::RepeatedTask,
    Violation::BadTaskId,
    Violation::SelfReference,
    Violation::BadValue,
    Violation::UnusedParameter,
    Violation::RepeatedParameter,
    Violation::RepeatedTaskZero,
    Violation::ReferenceInTaskZero,
    Violation::Order,
    Violation::Precondition,
    Violation::Count,
    Violation::Exclusion,
    Violation::Obligation,
    Violation::Capability,
    Violation::Approval,
    Violation::Irreversible,
    Violation::Reach,
    Violation::Isolation,
];

/// The same numbers on every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % sides as u64) as usize
    }

    fn coin(&mut self) -> bool {
        self.roll(2) == 0
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.roll(from.len())]
    }
}

fn services() -> Vec<Service> {
    let input = json!({"type": "object", "required": ["key"], "additionalProperties": false, "properties": {
        "key": {"type": "string"}, "also": {"type": "string"}, "amount": {"type": "integer", "maximum": 100},
    }});
    let output = json!({"type": "object", "additionalProperties": false, "properties": {
        "key": {"type": "string"}, "count": {"type": "integer"},
    }});
    let service = |name: &&str| Service {
        id: format!("s_{name}"),
        name: (*name).to_owned(),
        description: format!("Does {name}"),
        input_schema: input.clone().into(),
        output_schema: output.clone(),
        revertible: false,
    };
    SERVICES.iter().map(service).collect()
}

fn ruling() -> Ruling {
    let set = RuleSet::parse([
        "rule: check before charge",
        "rule: deliver only after charge",
        "rule: at most 1 charge",
        "rule: never express with standard",
        "rule: must use audit",
        "rule: must offer stamping",
        "rule: charge, refund requires approval",
        "rule: mail is irreversible",
        "rule: parameter card only reaches charge",
        "rule: parameters stay in their case",
        "ask nicely",
    ])
    .unwrap();
    Ruling {
        authority: "shop 1.0".to_owned(),
        rules: set.rules,
        capabilities: Vec::new(),
        offers: vec![Offer {
            capability: "stamping".to_owned(),
            services: vec!["s_stamp".to_owned(), "s_nobody".to_owned()],
        }],
        foreign_parameters: vec![ForeignParameter {
            name: "ticket".to_owned(),
            case: "close a ticket".to_owned(),
        }],
    }
}

/// A plan in the making.
struct Making {
    draft: Draft,
    data: Vec<Parameter>,
    /// Tasks that no rule is about, each with what it was made for.
    fillers: Vec<String>,
}

impl Making {
    fn task(&mut self, service: &str, key: &str) -> String {
        let id = format!("{service}{}", self.draft.tasks.len() + 1);
        self.add(&id, service, key);
        id
    }

    fn add(&mut self, id: &str, service: &str, key: &str) {
        self.draft.tasks.push(DraftTask {
            id: id.to_owned(),
            service: Some(format!("s_{service}")),
            input: Map::from_iter([("key".to_owned(), json!(key))]),
            ..DraftTask::default()
        });
    }

    fn find(&mut self, start: &str) -> &mut DraftTask {
        let mut tasks = self.draft.tasks.iter_mut();
        tasks
            .find(|task| task.id.starts_with(start))
            .expect("it is planned")
    }

    fn id_of(&mut self, start: &str) -> String {
        self.find(start).id.clone()
    }

    fn input(&mut self, id: &str, name: &str, value: Value) {
        let mut tasks = self.draft.tasks.iter_mut();
        let task = tasks.find(|task| task.id == id).expect("it is planned");
        task.input.insert(name.to_owned(), value);
    }

    fn parameter(&mut self, field: &str, value: Value) {
        self.data.push(Parameter {
            field: field.to_owned(),
            value,
        });
    }

    /// A plan that keeps every rule, of six to twenty tasks.
    fn clean(dice: &mut Dice) -> Self {
        let mut making = Self {
            draft: Draft::default(),
            data: Vec::new(),
            fillers: Vec::new(),
        };
        making.parameter("order", json!(format!("order-{}", dice.roll(100_000))));
        making.parameter("card", json!(CARD));
        if dice.coin() {
            making
                .draft
                .task_zero
                .insert("limit".to_owned(), json!(dice.roll(100)));
        }
        let check = making.task("check", "$task0.order");
        let approval = making.task("approval", &format!("${check}.key"));
        let charge = making.task("charge", &format!("${approval}.key"));
        making.input(&charge, "also", json!("card $task0.card"));
        making.task("audit", "$task0.order");
        making.task("stamp", &format!("order ${check}.key"));
        for _ in 0..=dice.roll(8) {
            let from = match making.fillers.is_empty() || dice.coin() {
                true => check.clone(),
                false => dice.pick(&making.fillers).clone(),
            };
            let filler = making.task(
                dice.pick::<&str>(&["look", "pack"]),
                &format!("${from}.key"),
            );
            if dice.coin() {
                making.input(&filler, "amount", json!(format!("${check}.count")));
            } else if dice.coin() {
                making.input(&filler, "amount", json!(dice.roll(101)));
            }
            making.fillers.push(filler);
        }
        let mut last = charge;
        if dice.coin() {
            last = making.task("deliver", &format!("${last}.key"));
        }
        if dice.coin() {
            making.task("refund", &format!("${last}.key"));
        }
        if dice.coin() {
            making.task(
                dice.pick::<&str>(&["express", "standard"]),
                &format!("${last}.key"),
            );
        }
        making.task("mail", &format!("${check}.key"));
        if dice.coin() {
            making.task("mail", "$task0.order");
        }
        making
    }

    fn shuffle(&mut self, dice: &mut Dice) {
        for at in (1..self.draft.tasks.len()).rev() {
            self.draft.tasks.swap(at, dice.roll(at + 1));
        }
    }

    fn seed(&mut self, violation: Violation, dice: &mut Dice) {
        let filler = dice.pick(&self.fillers).clone();
        let (check, approval) = (self.id_of("check"), self.id_of("approval"));
        let after_check = format!("${check}.key");
        match violation {
            Violation::UnknownService => self.find(&filler).service = Some("s_nobody".to_owned()),
            Violation::NoService => self.find(&filler).service = None,
            Violation::UnknownTask => self.input(&filler, "also", json!("$task99.key")),
            Violation::UnknownConstant => self.input(&filler, "also", json!("$task0.nothing")),
            Violation::UnknownField => self.input(&filler, "also", json!(format!("${check}.none"))),
            Violation::TypeMismatch => self.input(&filler, "amount", json!(after_check)),
            Violation::MissingInput => {
                let leaf = self.task("pack", &after_check);
                self.find(&leaf).input.clear();
            }
            Violation::UnknownInput => self.input(&filler, "volume", json!(11)),
            Violation::Cycle => self.input(&check, "also", json!(format!("${filler}.key"))),
            Violation::RepeatedTask => self.add(&filler, "pack", &after_check),
            Violation::BadTaskId => self.add("9lives", "pack", &after_check),
            Violation::SelfReference => {
                self.input(&filler, "also", json!(format!("${filler}.key")))
            }
            Violation::BadValue => self.input(&filler, "amount", json!(101 + dice.roll(1_000))),
            Violation::UnusedParameter => self.parameter("extra", json!(1)),
            Violation::RepeatedParameter => self.parameter("order", json!("again")),
            Violation::RepeatedTaskZero => {
                self.draft.task_zero_faults.push(TaskZeroFault::Repeated)
            }
            Violation::ReferenceInTaskZero => {
                self.draft
                    .task_zero
                    .insert("late".to_owned(), json!("$task0.order"));
            }
            Violation::Order => {
                self.task("check", "$task0.order");
            }
            Violation::Precondition => {
                let key = if dice.coin() {
                    "$task0.order".to_owned()
                } else {
                    format!("${approval}.key")
                };
                self.task("deliver", &key);
            }
            Violation::Count => {
                self.task("charge", &format!("${approval}.key"));
            }
            Violation::Exclusion => {
                self.task("express", &after_check);
                self.task("standard", "$task0.order");
            }
            Violation::Obligation => self
                .draft
                .tasks
                .retain(|task| !task.id.starts_with("audit")),
            Violation::Capability => self
                .draft
                .tasks
                .retain(|task| !task.id.starts_with("stamp")),
            Violation::Approval => {
                self.task("refund", &after_check);
            }
            Violation::Irreversible => {
                let mail = self.id_of("mail");
                self.task("look", &format!("${mail}.key"));
            }
            Violation::Reach => match dice.roll(3) {
                0 => self.input(&filler, "also", json!("$task0.card")),
                1 => self.input(&filler, "also", json!(format!("it is {CARD}"))),
                _ => {
                    self.draft.task_zero.insert("copy".to_owned(), json!(CARD));
                    self.input(&filler, "also", json!("$task0.copy"));
                }
            },
            Violation::Isolation => {
                self.parameter("ticket", json!(TICKET));
                self.input(&filler, "also", json!("$task0.ticket"));
            }
        }
    }
}

/// A reason of the kind that a violation must be refused for.
fn expected(violation: Violation) -> Result<Class, Reason> {
    let (task, at, text) = (String::new(), String::new(), String::new());
    let reference = String::new();
    Err(match violation {
        Violation::UnknownService => Reason::UnknownService {
            task,
            service: text,
        },
        Violation::NoService => Reason::NoService { task },
        Violation::UnknownTask => Reason::UnknownTask {
            task,
            at,
            reference,
        },
        Violation::UnknownConstant => Reason::UnknownConstant {
            task,
            at,
            reference,
            has: Vec::new(),
        },
        Violation::UnknownField => Reason::UnknownField {
            task,
            at,
            reference,
            source_task: text,
            returns: Vec::new(),
        },
        Violation::TypeMismatch => Reason::TypeMismatch {
            task,
            at,
            reference,
            expected: text.clone(),
            found: text,
        },
        Violation::MissingInput => Reason::MissingInput {
            task,
            input: at,
            expected: text,
        },
        Violation::UnknownInput => Reason::UnknownInput {
            task,
            input: at,
            takes: Vec::new(),
        },
        Violation::Cycle => Reason::Cycle { tasks: Vec::new() },
        Violation::RepeatedTask => Reason::RepeatedTask { task },
        Violation::BadTaskId => Reason::BadTaskId { task, max: 0 },
        Violation::SelfReference => Reason::SelfReference {
            task,
            at,
            reference,
        },
        Violation::BadValue => Reason::BadValue { task, at, text },
        Violation::UnusedParameter => Reason::UnusedParameter {
            field: text,
            reference,
        },
        Violation::RepeatedParameter => Reason::RepeatedParameter { field: text },
        Violation::RepeatedTaskZero => Reason::RepeatedTaskZero,
        Violation::ReferenceInTaskZero => Reason::ReferenceInTaskZero {
            field: text,
            reference,
        },
        Violation::Order => return Ok(Class::Order),
        Violation::Precondition => return Ok(Class::Precondition),
        Violation::Count => return Ok(Class::Count),
        Violation::Exclusion => return Ok(Class::Exclusion),
        Violation::Obligation => return Ok(Class::Obligation),
        Violation::Capability => return Ok(Class::Capability),
        Violation::Approval => return Ok(Class::Approval),
        Violation::Irreversible => return Ok(Class::Irreversible),
        Violation::Reach => return Ok(Class::Reach),
        Violation::Isolation => return Ok(Class::Isolation),
    })
}

fn is_right(reason: &Reason, expected: &Result<Class, Reason>) -> bool {
    match (reason, expected) {
        (Reason::RuleBroken { class, .. }, Ok(expected)) => class == expected,
        (_, Ok(_)) => false,
        (reason, Err(kind)) => discriminant(reason) == discriminant(kind),
    }
}

#[test]
fn no_clean_plan_is_refused() {
    let (services, ruling) = (services(), ruling());
    let mut dice = Dice(1);
    for number in 0..PLANS {
        let mut making = Making::clean(&mut dice);
        making.shuffle(&mut dice);
        let verdict = validate_under(&making.draft, &services, &making.data, Some(&ruling));
        assert!(
            verdict.is_ok(),
            "plan {number}: {:?}\n{:#?}",
            verdict,
            making.draft
        );
    }
}

#[test]
fn every_seeded_violation_is_refused_for_what_it_is() {
    let (services, ruling) = (services(), ruling());
    let mut dice = Dice(2);
    for number in 0..PLANS {
        let violation = VIOLATIONS[(number as usize) % VIOLATIONS.len()];
        let mut making = Making::clean(&mut dice);
        making.seed(violation, &mut dice);
        making.shuffle(&mut dice);
        let verdict = validate_under(&making.draft, &services, &making.data, Some(&ruling));
        let Err(reasons) = verdict else {
            panic!(
                "plan {number} with {violation:?} passes\n{:#?}",
                making.draft
            )
        };
        let expected = expected(violation);
        assert!(
            reasons.iter().all(|reason| is_right(reason, &expected)),
            "plan {number} with {violation:?}: {reasons:?}\n{:#?}",
            making.draft
        );
    }
}
