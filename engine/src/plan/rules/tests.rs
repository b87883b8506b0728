//! Each rule against plans that keep and break it, with the smallest counterexample.

use serde_json::{Value, json};

use super::*;
use crate::plan::draft::{Parsed, parse_submission};
use crate::plan::{Service, validate_under};

fn services() -> Vec<Service> {
    let schema = json!({"type": "object", "properties": {
        "a": {"type": "string"}, "b": {"type": "string"}, "c": {"type": "string"}, "n": {"type": "integer"},
    }});
    let names = [
        "check",
        "charge",
        "deliver",
        "refund",
        "mail",
        "approval-desk",
        "express",
        "standard",
    ];
    let service = |name: &&str| Service {
        id: format!("s_{}", name.replace('-', "")),
        name: (*name).to_owned(),
        description: String::new(),
        input_schema: schema.clone().into(),
        output_schema: schema.clone(),
        revertible: false,
    };
    names.iter().map(service).collect()
}

fn ruling(rules: &[&str]) -> Ruling {
    let lines: Vec<_> = rules.iter().map(|rule| format!("rule: {rule}")).collect();
    let set = RuleSet::parse(lines.iter().map(String::as_str)).unwrap();
    Ruling {
        authority: "shop 1.0".to_owned(),
        rules: set.rules,
        ..Ruling::default()
    }
}

/// `tasks` as `(service, input)`, with ids `t1`, `t2`, …
fn broken(ruling: &Ruling, data: Value, tasks: &[(&str, Value)]) -> Vec<(Vec<String>, String)> {
    let data: Vec<_> = data
        .as_object()
        .unwrap()
        .iter()
        .map(|(field, value)| Parameter {
            field: field.clone(),
            value: value.clone(),
        })
        .collect();
    let tasks: Vec<_> = tasks
        .iter()
        .enumerate()
        .map(|(at, (service, input))| json!({"id": format!("t{}", at + 1), "service": service, "input": input}))
        .collect();
    let Parsed::Draft(draft) = parse_submission(&json!(tasks)).unwrap() else {
        panic!("a draft")
    };
    let reasons = match validate_under(&draft, &services(), &data, Some(ruling)) {
        Ok(_) => return Vec::new(),
        Err(reasons) => reasons,
    };
    let counterexample = |reason: Reason| match reason {
        Reason::RuleBroken { tasks, text, .. } => (tasks, text),
        other => panic!("{other}"),
    };
    reasons.into_iter().map(counterexample).collect()
}

/// The tasks of the only counterexample, and what its text must hold.
fn breaks(rule: &str, data: Value, tasks: &[(&str, Value)], expected: &[&str], said: &str) {
    let found = broken(&ruling(&[rule]), data, tasks);
    let [(tasks, text)] = found.as_slice() else {
        panic!("{rule}: {found:?}")
    };
    assert_eq!(tasks, expected, "{rule}: {text}");
    assert!(text.contains(said), "{rule}: {text}");
}

fn keeps(rule: &str, data: Value, tasks: &[(&str, Value)]) {
    assert_eq!(broken(&ruling(&[rule]), data, tasks), [], "{rule}");
}

fn none() -> Value {
    json!({})
}

#[test]
fn order_holds_between_every_pair() {
    let rule = "charge before deliver";
    keeps(rule, none(), &[("deliver", none())]);
    keeps(
        rule,
        none(),
        &[
            ("charge", none()),
            ("check", json!({"a": "$t1.a"})),
            ("deliver", json!({"a": "$t2.a"})),
        ],
    );
    let beside = [("charge", none()), ("deliver", none())];
    breaks(
        rule,
        none(),
        &beside,
        &["t1", "t2"],
        "nothing makes `t2` (deliver) wait for `t1` (charge)",
    );
    let backwards = [("charge", json!({"a": "$t2.a"})), ("deliver", none())];
    breaks(
        rule,
        none(),
        &backwards,
        &["t1", "t2"],
        "`t2` (deliver) runs before `t1` (charge)",
    );
    let one_of_two = [
        ("charge", none()),
        ("charge", none()),
        ("deliver", json!({"a": "$t1.a"})),
    ];
    breaks(rule, none(), &one_of_two, &["t2", "t3"], "nothing makes");
}

#[test]
fn a_precondition_needs_one_before_it() {
    let rule = "deliver only after charge, check";
    keeps(
        rule,
        none(),
        &[
            ("charge", none()),
            ("check", none()),
            ("deliver", json!({"a": "$t2.a"})),
        ],
    );
    breaks(
        rule,
        none(),
        &[("deliver", none())],
        &["t1"],
        "no task of charge, check has completed",
    );
    breaks(
        rule,
        none(),
        &[("charge", none()), ("deliver", none())],
        &["t2"],
        "can start although",
    );
}

#[test]
fn a_count_names_one_too_many() {
    let rule = "at most 1 re*";
    keeps(rule, none(), &[("refund", none())]);
    let three = [("refund", none()), ("refund", none()), ("refund", none())];
    breaks(rule, none(), &three, &["t1", "t2"], "there are 3 of them");
    breaks(
        "at most 0 refund",
        none(),
        &three[..1],
        &["t1"],
        "there are 1",
    );
}

#[test]
fn an_exclusion_names_one_of_each() {
    let rule = "never express with standard";
    keeps(rule, none(), &[("express", none()), ("express", none())]);
    let both = [("express", none()), ("check", none()), ("standard", none())];
    breaks(
        rule,
        none(),
        &both,
        &["t1", "t3"],
        "both `t1` (express) and `t3` (standard)",
    );
}

#[test]
fn an_obligation_and_a_capability_name_what_is_not_there() {
    keeps("must use check", none(), &[("check", none())]);
    breaks(
        "must use check",
        none(),
        &[("mail", none())],
        &[],
        "no task of check is planned",
    );
    let mut ruling = ruling(&["must offer stamping"]);
    let stamped = [("check", none())];
    assert!(
        broken(&ruling, none(), &stamped)[0]
            .1
            .contains("no registered service offers it")
    );
    ruling.offers = vec![Offer {
        capability: "stamping".to_owned(),
        services: vec!["s_check".to_owned()],
    }];
    assert_eq!(broken(&ruling, none(), &stamped), []);
    assert!(
        broken(&ruling, none(), &[("mail", none())])[0]
            .1
            .contains("none is planned")
    );
    ruling.capabilities = vec!["stamping".to_owned()];
    assert_eq!(
        broken(&ruling, none(), &[("mail", none())]).len(),
        1,
        "the same is told once"
    );
}

#[test]
fn an_approval_comes_before_what_it_approves() {
    let rule = "refund requires approval";
    keeps(
        rule,
        none(),
        &[("approval-desk", none()), ("refund", json!({"a": "$t1.a"}))],
    );
    breaks(
        rule,
        none(),
        &[("refund", none())],
        &["t1"],
        "runs unapproved",
    );
    let beside = [("approval-desk", none()), ("refund", none())];
    breaks(
        rule,
        none(),
        &beside,
        &["t2"],
        "does not wait for the approval `t1` (approval-desk)",
    );
    breaks(
        "refund requires approval by check",
        none(),
        &beside,
        &["t2"],
        "plan a task of check",
    );
}

#[test]
fn what_is_irreversible_is_last_or_approved() {
    let rule = "mail, charge is irreversible";
    keeps(
        rule,
        none(),
        &[
            ("check", none()),
            ("mail", json!({"a": "$t1.a"})),
            ("charge", json!({"a": "$t2.a"})),
        ],
    );
    keeps(
        rule,
        none(),
        &[
            ("approval-desk", none()),
            ("mail", json!({"a": "$t1.a"})),
            ("check", json!({"a": "$t2.a"})),
        ],
    );
    let far = [
        ("mail", none()),
        ("charge", json!({"a": "$t1.a"})),
        ("check", json!({"a": "$t2.a"})),
    ];
    breaks(
        rule,
        none(),
        &far,
        &["t2", "t3"],
        "`t2` (charge) -> `t3` (check)",
    );
    let near = [("mail", none()), ("check", json!({"a": "$t1.a"}))];
    breaks(rule, none(), &near, &["t1", "t2"], "put it last");
}

#[test]
fn a_value_reaches_only_who_may_have_it() {
    let rule = "parameter card only reaches charge";
    let data = || json!({"card": "4111-1111"});
    let charge = ("charge", json!({"a": "$task0.card"}));
    keeps(rule, data(), std::slice::from_ref(&charge));
    let told = [charge.clone(), ("mail", json!({"a": "to $task0.card"}))];
    breaks(
        rule,
        data(),
        &told,
        &["t2"],
        "`t2` (mail) refers to `$task0.card`",
    );
    let written = [charge, ("mail", json!({"a": "card 4111-1111, thanks"}))];
    breaks(rule, data(), &written, &["t2"], "written into its input");
    let copied = json!([
        {"id": "task0", "input": {"copy": "4111-1111"}},
        {"id": "t1", "service": "charge", "input": {"a": "$task0.card"}},
        {"id": "t2", "service": "mail", "input": {"a": "$task0.copy"}},
    ]);
    let Parsed::Draft(draft) = parse_submission(&copied).unwrap() else {
        panic!("a draft")
    };
    let data = [Parameter {
        field: "card".into(),
        value: json!("4111-1111"),
    }];
    let reasons = validate_under(&draft, &services(), &data, Some(&ruling(&[rule]))).unwrap_err();
    assert!(
        reasons[0].to_string().contains("`$task0.copy`"),
        "{reasons:?}"
    );
}

#[test]
fn a_parameter_of_another_case_is_no_input() {
    let mut ruling = ruling(&["parameters stay in their case"]);
    let data = || json!({"ticket": "T-1000"});
    let tasks = [("check", json!({"a": "$task0.ticket"}))];
    assert_eq!(broken(&ruling, data(), &tasks), []);
    ruling.foreign_parameters = vec![ForeignParameter {
        name: "ticket".to_owned(),
        case: "close the ticket".to_owned(),
    }];
    let found = broken(&ruling, data(), &tasks);
    assert_eq!(found[0].0, ["t1"]);
    assert!(
        found[0]
            .1
            .contains("a parameter of the case \"close the ticket\""),
        "{found:?}"
    );
}

#[test]
fn a_broken_rule_is_told_with_its_text_and_authority() {
    let lines = ["rule: charge before deliver"];
    let set = RuleSet::parse(lines).unwrap();
    let ruling = Ruling {
        authority: "the grounding shop 1.0".to_owned(),
        rules: set.rules,
        ..Ruling::default()
    };
    let Parsed::Draft(draft) = parse_submission(
        &json!([{"id": "t1", "service": "charge"}, {"id": "t2", "service": "deliver"}]),
    )
    .unwrap() else {
        panic!("a draft")
    };
    let reasons = validate_under(&draft, &services(), &[], Some(&ruling)).unwrap_err();
    assert!(
        reasons[0].to_string().starts_with(
            "the rule \"charge before deliver\" of the grounding shop 1.0 is broken: nothing makes"
        ),
        "{reasons:?}"
    );
}
