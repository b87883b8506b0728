//! Each reason of the validator, and generated plans with one violation each.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::plan::describe;
use crate::plan::draft::{Parsed, parse_submission};

fn service(id: &str, name: &str, input: Value, output: Value) -> Service {
    let (description, revertible) = (format!("does {name}"), name == "reserve");
    Service {
        id: id.into(),
        name: name.into(),
        description,
        input_schema: input.into(),
        output_schema: output,
        revertible,
    }
}

fn services() -> Vec<Service> {
    let reserve_in = json!({
        "type": "object",
        "properties": {
            "productId": {"type": "string"}, "quantity": {"type": "integer", "minimum": 1},
            "priority": {"$ref": "#/$defs/Priority"}, "tags": {"type": "array", "items": {"type": "string"}},
            "address": {"$ref": "#/$defs/Address"}, "extra": {"type": "object"}
        },
        "required": ["productId", "quantity"],
        "$defs": {
            "Priority": {"type": "string", "enum": ["low", "high"]},
            "Address": {"type": "object", "properties": {"city": {"type": "string"}, "zip": {"type": "integer"}}, "required": ["city"]}
        }
    });
    let reserve_out = json!({
        "type": "object",
        "properties": {
            "id": {"type": "string"}, "total": {"type": "number"},
            "lines": {"type": "array", "items": {"type": "object", "properties": {"sku": {"type": "string"}}}},
            "meta": {"type": "object", "additionalProperties": true}, "note": {"type": ["string", "null"]}
        }
    });
    let charge_in = json!({"type": "object", "properties": {"amount": {"type": "number"}, "memo": {"type": "string"}}, "required": ["amount"]});
    let charge_out = json!({"type": "object", "properties": {"receipt": {"type": "string"}}});
    let free = json!({"type": "object", "additionalProperties": true});
    vec![
        service("s_reserve", "reserve", reserve_in, reserve_out),
        service("s_charge", "charge", charge_in, charge_out),
        service("s_free", "free", free.clone(), free.clone()),
        service("s_twin", "twin", free.clone(), free.clone()),
        service("s_twix", "twin", free.clone(), free),
    ]
}

fn parameters(data: Value) -> Vec<Parameter> {
    serde_json::from_value(data).unwrap()
}

fn check(plan: Value, data: Value) -> Result<Plan, Vec<Reason>> {
    match parse_submission(&plan).unwrap() {
        Parsed::Draft(draft) => validate(&draft, &services(), &parameters(data)),
        other => panic!("{other:?}"),
    }
}

/// The reasons against a plan, as they are told.
fn against(plan: Value, data: Value) -> String {
    describe(&check(plan, data).unwrap_err())
}

fn reserve(input: Value) -> Value {
    json!([{"id": "task1", "service": "reserve", "input": input}])
}

fn order() -> Value {
    json!({"tasks": [
        {"id": "task0", "input": {"quantity": 99, "memo": "thanks"}},
        {"id": "task1", "service": "S_RESERVE", "input": {"productId": "$task0.product", "quantity": "$task0.quantity"}},
        {"id": "task2", "service": "s_charge", "input": {"amount": "$task1.total", "memo": "$task0.memo for $task1.lines[0].sku"}},
        {"id": "task3", "service": "s_free", "input": {"all": ["$task1.id", {"of": "$task2.receipt"}], "any": "$task1.meta.x.y"}},
        {"id": "task4", "service": "s_free", "input": {"literal": "$5 and $$task1.id"}}
    ]})
}

#[test]
fn a_good_draft_becomes_a_plan() {
    let data = json!([{"field": "product", "value": "lamp"}, {"field": "quantity", "value": 2}]);
    let plan = check(order(), data).unwrap();
    assert_eq!(
        Value::Object(plan.task_zero),
        json!({"quantity": 2, "memo": "thanks", "product": "lamp"})
    );
    let depends: Vec<_> = plan
        .tasks
        .iter()
        .map(|task| task.depends_on.join(" "))
        .collect();
    assert_eq!(depends, ["", "task1", "task1 task2", ""]);
    assert_eq!(
        plan.parallel_groups,
        [vec!["task1", "task4"], vec!["task2"], vec!["task3"]]
    );
    assert_eq!(
        (
            plan.tasks[0].service.as_str(),
            plan.tasks[0].service_name.as_str()
        ),
        ("s_reserve", "reserve")
    );
    assert!(plan.tasks[0].revertible && !plan.tasks[1].revertible);
    assert_eq!(
        plan.tasks[1].input["memo"],
        "$task0.memo for $task1.lines[0].sku"
    );
}

#[test]
fn values_of_the_caller_win() {
    let draft = |value: &str| json!([{"id": "task0", "input": {"m": "LITERAL"}}, {"id": "a", "service": "free", "input": {"m": "$task0.m", "k": value}}]);
    for user in ["AAA", "BBB", "$task1.secret"] {
        let plan = check(draft("literal"), json!([{"field": "m", "value": user}])).unwrap();
        assert_eq!(plan.task_zero["m"], user);
        assert_eq!(plan.tasks[0].input["k"], "literal");
    }
}

#[test]
fn a_services_name_serves_if_it_is_the_only_one() {
    assert!(check(json!([{"id": "a", "service": "free"}]), json!([])).is_ok());
    assert_eq!(
        against(json!([{"id": "a", "service": "twin"}]), json!([])),
        "`a` names the service `twin`, and 2 have that name: use one of their ids, s_twin, s_twix"
    );
    let draft = Draft {
        tasks: vec![DraftTask {
            id: "a".into(),
            service: Some("free".into()),
            ..DraftTask::default()
        }],
        ..Draft::default()
    };
    assert_eq!(
        validate(&draft, &services(), &[]).unwrap_err(),
        [Reason::UnknownService {
            task: "a".into(),
            service: "free".into()
        }]
    );
}

#[test]
fn each_fault_is_told() {
    let good = json!({"productId": "p", "quantity": 1});
    let with = |name: &str, value: Value| {
        let mut input = good.clone();
        input[name] = value;
        reserve(input)
    };
    let cases = [
        (json!([]), "the plan has no task that a service runs"),
        (json!([{"id": "a"}]), "`a` names no service"),
        (
            json!([{"id": "a", "service": "s_gone"}]),
            "`a` names the service `s_gone`, which is not registered",
        ),
        (
            json!([{"id": "1a", "service": "free"}]),
            "`1a` is no task id",
        ),
        (
            json!([{"id": "a", "service": "free"}, {"id": "A", "service": "free"}]),
            "two tasks have the id `A`",
        ),
        (
            json!([{"id": "task0", "service": "s_free"}, {"id": "a", "service": "free"}]),
            "`task0` names the service `s_free`",
        ),
        (
            json!([{"id": "task0"}, {"id": "task0"}, {"id": "a", "service": "free"}]),
            "`task0` is there more than once",
        ),
        (
            json!([{"id": "task0", "input": {"x": ["$task1.y"]}}, {"id": "a", "service": "free"}]),
            "the constant `x` of `task0` holds `$task1.y`",
        ),
        (
            with("colour", json!("red")),
            "`task1` has the input `colour`, which its service does not take; it takes productId, quantity, priority",
        ),
        (
            reserve(json!({"productId": "p"})),
            "`task1` lacks the input `quantity` (integer)",
        ),
        (
            with("productId", json!("$task9.id")),
            "input `productId` of `task1` refers to `$task9.id`, and there is no such task: refer to one of the plan, or write `$$task9.id`",
        ),
        (
            with("productId", json!("$Other.id")),
            "input `productId` of `task1` refers to `$Other.id`",
        ),
        (
            with("productId", json!("a $task1.id")),
            "input `productId` of `task1` refers to its own output, `$task1.id`",
        ),
        (
            with("productId", json!("$task0.nope")),
            "input `productId` of `task1` refers to `$task0.nope`, and `task0` has no such constant; it has nothing",
        ),
        (
            with("quantity", json!("two")),
            "input `quantity` of `task1` is not what its service takes: value is not of type \"integer\"",
        ),
        (
            with("quantity", json!("2")),
            "input `quantity` of `task1` is not what its service takes",
        ),
        (
            with("quantity", json!(0)),
            "input `quantity` of `task1` is not what its service takes: value is less than the minimum",
        ),
        (
            with("priority", json!("middle")),
            "input `priority` of `task1` is not what its service takes: value is not one of",
        ),
        (
            with("tags", json!(["a", 1])),
            "input `tags[1]` of `task1` is not what its service takes",
        ),
        (
            with("address", json!({"zip": 8000})),
            "input `address` of `task1` is not what its service takes: \"city\" is a required",
        ),
        (
            with("address", json!({"city": "$task0.nope"})),
            "input `address.city` of `task1` refers to `$task0.nope`",
        ),
    ];
    for (plan, expected) in cases {
        let told = against(plan, json!([]));
        assert!(
            told.starts_with(expected) && !told.contains('\n'),
            "expected {expected}\ngot {told}"
        );
    }
}

#[test]
fn references_between_tasks_are_checked_against_both_schemas() {
    let chain = |input: Value| {
        json!([{"id": "r", "service": "reserve", "input": {"productId": "p", "quantity": 1}},
               {"id": "c", "service": "charge", "input": input}])
    };
    for good in [
        json!("$r.total"),
        json!("$r.meta.anything[3]"),
        json!("$r.meta"),
    ] {
        let accepted = check(chain(json!({"amount": good})), json!([])).is_ok();
        assert_eq!(accepted, good != "$r.meta", "{good}");
    }
    assert!(check(chain(json!({"amount": 1, "memo": "$r.note"})), json!([])).is_ok());
    let cases = [
        (
            json!({"amount": "$r.sum"}),
            "input `amount` of `c` refers to `$r.sum`, which the service of `r` does not return; it returns id, total, lines, meta, note",
        ),
        (
            json!({"amount": "$r.lines.sku"}),
            "input `amount` of `c` refers to `$r.lines.sku`, which the service",
        ),
        (
            json!({"amount": "$r.id"}),
            "input `amount` of `c` must be number, and `$r.id` is string",
        ),
        (
            json!({"amount": "$r.total EUR"}),
            "input `amount` of `c` must be number, and `$r.total` is part of a text",
        ),
        (
            json!({"amount": 1, "memo": "$r.lines"}),
            "input `memo` of `c` must be string, and `$r.lines` is array of object",
        ),
    ];
    for (input, expected) in cases {
        let told = against(chain(input), json!([]));
        assert!(
            told.starts_with(expected) && !told.contains('\n'),
            "expected {expected}\ngot {told}"
        );
    }
    let nested = |city: &str| {
        json!([{"id": "c", "service": "charge", "input": {"amount": 1}},
               {"id": "r", "service": "reserve", "input": {"productId": "p", "quantity": 1, "address": {"city": city, "zip": city}}}])
    };
    assert_eq!(
        against(nested("$c.receipt"), json!([])),
        "input `address.zip` of `r` must be integer, and `$c.receipt` is string"
    );
}

#[test]
fn cycles_are_named() {
    let free = |id: &str, of: &[&str]| {
        let refs: Vec<_> = of.iter().map(|task| format!("${task}.x")).collect();
        json!({"id": id, "service": "free", "input": {"x": refs}})
    };
    let plan = json!([
        free("a", &["b"]),
        free("b", &["d", "c"]),
        free("c", &["b"]),
        free("d", &[]),
        free("e", &["f"]),
        free("f", &["e", "a"])
    ]);
    assert_eq!(
        check(plan, json!([])).unwrap_err(),
        [
            Reason::Cycle {
                tasks: vec!["b".into(), "c".into()]
            },
            Reason::Cycle {
                tasks: vec!["e".into(), "f".into()]
            }
        ]
    );
    let told = against(
        json!([free("a", &["b"]), free("b", &["c"]), free("c", &["a"])]),
        json!([]),
    );
    assert_eq!(
        told,
        "the tasks wait for each other in a cycle: a -> b -> c -> a; remove one of these references"
    );
}

#[test]
fn parameters_must_be_used_and_given_once() {
    let plan = || json!([{"id": "a", "service": "free", "input": {"x": "$task0.used"}}]);
    let data = json!([{"field": "used", "value": 1}, {"field": "not used", "value": 2}, {"field": "used", "value": 3}]);
    assert_eq!(
        against(plan(), data),
        "the parameter `used` is given twice: give each field of `data` once\n\
         the parameter `not used` is not used by any task: use `$task0[\"not used\"]` where it belongs"
    );
}

#[test]
fn parameters_are_checked_where_they_are_used() {
    let plan = || reserve(json!({"productId": "$task0.p", "quantity": "$task0.q"}));
    let data = |p: Value, q: Value| json!([{"field": "p", "value": p}, {"field": "q", "value": q}]);
    for good in [json!(2), json!("2"), json!(" 7 ")] {
        let plan = check(plan(), data(json!("lamp"), good.clone())).unwrap();
        assert_eq!(plan.task_zero["q"], good);
    }
    for bad in [
        json!("two"),
        json!("0"),
        json!(1.5),
        json!([2]),
        json!(null),
    ] {
        let told = against(plan(), data(json!("lamp"), bad.clone()));
        assert!(
            told.starts_with("input `quantity` of `task1` is not what its service takes"),
            "{bad}: {told}"
        );
    }
    assert!(against(plan(), data(json!(5), json!(1))).starts_with("input `productId`"));
    // Only a caller's text is read as a number: a planner can write one.
    let own = json!([{"id": "task0", "input": {"q": "2"}}, {"id": "a", "service": "reserve", "input": {"productId": "p", "quantity": "$task0.q"}}]);
    assert!(
        against(own, json!([]))
            .starts_with("input `quantity` of `a` is not what its service takes")
    );
    let nested = json!({"productId": "p", "quantity": 1, "address": {"city": "$task0.p", "zip": "$task0.q"}});
    assert!(check(reserve(nested.clone()), data(json!("Bern"), json!("8000"))).is_ok());
    let told = against(reserve(nested), data(json!("Bern"), json!("CH-8000")));
    assert!(
        told.starts_with(
            "input `address.zip` of `task1` is not what its service takes: value is not of type"
        ),
        "{told}"
    );
}

#[test]
fn all_reasons_come_in_the_order_of_the_plan() {
    let plan = json!([
        {"id": "a", "service": "charge", "input": {"amount": "$b.x", "odd": 1}},
        {"id": "b", "service": "gone", "input": {"y": "$a.receipt"}},
        {"id": "c", "service": "charge"}
    ]);
    let data = json!([{"field": "z", "value": 1}]);
    assert_eq!(
        against(plan, data)
            .lines()
            .map(|line| &line[..20])
            .collect::<Vec<_>>(),
        [
            "`a` has the input `o",
            "`b` names the servic",
            "`c` lacks the input ",
            "the tasks wait for e",
            "the parameter `z` is"
        ]
    );
}

#[test]
fn many_reasons_are_told_in_part() {
    let tasks: Vec<_> = (0..60)
        .map(|n| json!({"id": format!("t{n}"), "service": "gone"}))
        .collect();
    assert!(against(json!(tasks), json!([])).ends_with("\nand 20 more"));
}

/// What one task of a generated plan takes: an own literal, a constant, or something of an earlier task.
#[derive(Debug, Clone, Copy)]
enum Source {
    Literal,
    Constant,
    Earlier(prop::sample::Index),
}

fn sources() -> impl Strategy<Value = Vec<(bool, Source, Source)>> {
    let source = || {
        prop_oneof![
            Just(Source::Literal),
            Just(Source::Constant),
            any::<prop::sample::Index>().prop_map(Source::Earlier)
        ]
    };
    prop::collection::vec((any::<bool>(), source(), source()), 1..8)
}

/// A plan whose tasks reserve or charge; the first uses both parameters.
fn generated(choices: &[(bool, Source, Source)]) -> Vec<Value> {
    let mut tasks = vec![
        json!({"id": "task1", "service": "s_reserve", "input": {"productId": "$task0.text", "quantity": "$task0.number"}}),
    ];
    for (index, (reserves, text, number)) in choices.iter().enumerate() {
        let earlier = |pick: prop::sample::Index| &tasks[pick.index(tasks.len())];
        let text = match *text {
            Source::Literal => json!("a text for $5.00"),
            Source::Constant => json!("as in $task0.text"),
            Source::Earlier(pick) => {
                let task = earlier(pick);
                let field = if task["service"] == "s_reserve" {
                    "lines[0].sku"
                } else {
                    "receipt"
                };
                json!(format!("${}.{field}", task["id"].as_str().unwrap()))
            }
        };
        let number = match *number {
            Source::Literal => json!(7),
            Source::Constant => json!("$task0.number"),
            Source::Earlier(_) => json!("$task1.total"),
        };
        let id = format!("task{}", index + 2);
        tasks.push(match reserves {
            true => json!({"id": id, "service": "s_reserve", "input": {"productId": text, "quantity": number}}),
            false => json!({"id": id, "service": "s_charge", "input": {"memo": text, "amount": number}}),
        });
    }
    tasks
}

/// Breaks one task, and tells which reason must be given.
fn seed(tasks: &mut Vec<Value>, at: usize, fault: u8) -> fn(&Reason) -> bool {
    let required = if tasks[at]["service"] == "s_reserve" {
        "quantity"
    } else {
        "amount"
    };
    let id = tasks[at]["id"].as_str().unwrap_or_default().to_owned();
    match fault {
        0 => {
            tasks[at]["service"] = json!("s_gone");
            |reason| matches!(reason, Reason::UnknownService { .. })
        }
        1 => {
            tasks[at]["input"]["odd"] = json!(1);
            |reason| matches!(reason, Reason::UnknownInput { .. })
        }
        2 => {
            tasks[at]["input"].as_object_mut().unwrap().remove(required);
            |reason| matches!(reason, Reason::MissingInput { .. })
        }
        3 => {
            tasks[at]["input"][required] = json!("$task77.total");
            |reason| matches!(reason, Reason::UnknownTask { .. })
        }
        4 => {
            tasks[at]["input"][required] = json!(format!("${id}.total"));
            |reason| matches!(reason, Reason::SelfReference { .. })
        }
        5 => {
            tasks[at]["input"][required] = json!({"wrong": true});
            |reason| matches!(reason, Reason::BadValue { .. })
        }
        6 => {
            let copy = tasks[at].clone();
            tasks.push(copy);
            |reason| matches!(reason, Reason::RepeatedTask { .. })
        }
        7 => {
            tasks[0]["input"]["productId"] = json!("$last.receipt");
            tasks.push(json!({"id": "last", "service": "s_charge", "input": {"amount": "$task1.total", "memo": "$task0.text"}}));
            |reason| matches!(reason, Reason::Cycle { .. })
        }
        8 => {
            tasks.push(
                json!({"id": "last", "service": "s_charge", "input": {"amount": "$task1.id"}}),
            );
            |reason| matches!(reason, Reason::TypeMismatch { .. })
        }
        9 => {
            tasks.push(
                json!({"id": "last", "service": "s_charge", "input": {"amount": "$task1.sum"}}),
            );
            |reason| matches!(reason, Reason::UnknownField { .. })
        }
        _ => {
            tasks[at].as_object_mut().unwrap().remove("service");
            |reason| matches!(reason, Reason::NoService { .. })
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn generated_plans_are_accepted_and_one_fault_is_found(
        choices in sources(), at in any::<prop::sample::Index>(), fault in 0u8..11,
    ) {
        let data = || json!([{"field": "text", "value": "lamp"}, {"field": "number", "value": 3}]);
        let mut tasks = generated(&choices);
        let plan = check(json!(tasks), data());
        prop_assert!(plan.is_ok(), "{:?}", plan);
        let plan = plan.unwrap();
        prop_assert_eq!(plan.parallel_groups.concat().len(), plan.tasks.len());
        for task in &plan.tasks {
            let level = |id: &String| plan.parallel_groups.iter().position(|group| group.contains(id));
            prop_assert!(task.depends_on.iter().all(|other| level(other) < level(&task.id)));
        }
        // The first task keeps the parameters used.
        let at = 1 + at.index(tasks.len() - 1);
        let expected = seed(&mut tasks, at, fault);
        let reasons = check(json!(tasks), data()).unwrap_err();
        prop_assert!(reasons.iter().any(expected), "{reasons:?}");
    }
}
