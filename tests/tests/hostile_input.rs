//! Whatever comes from outside, or back from a disk, is read or refused: nothing panics, nothing grows without bound.
//!
//! ```text
//!  bytes of a disk    entries, keys, snapshots: random, and good ones with bits flipped, cut, doubled
//!  JSON               bodies, plans, registrations with schemas, what models answer
//!  texts              visibility queries, idempotency keys
//!  a real engine      HTTP bodies on every route, frames of a socket
//! ```
//!
//! gRPC messages: `e2e_grpc_hostile.rs`. Groundings in YAML: `engine/src/cli/grounding.rs`.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeMap;

use orchestrion::api::orra::json::Members;
use orchestrion::api::work::key::ActivityKey;
use orchestrion::plan::schema::{Checker, Schema, validate_registration};
use orchestrion::plan::{Parameter, Service, draft, validate};
use orchestrion::visibility::{Catalogue, Query};
use orchestrion_history::record::{
    Record, count, decode_entry, encode_entry, event_fragments, references,
};
use orchestrion_history::snapshot;
use orchestrion_history::state::MutableState;
use orchestrion_history::store::{Family, Key};
use orchestrion_proto::temporal::api::history::v1::HistoryEvent;
use orchestrion_proto::v1::Note;
use orchestrion_tests::engine::{Engine, read};
use orchestrion_tests::fake_sdk::FakeSdk;
use orchestrion_tests::plan::Plan;
use orchestrion_tests::project::{Action, Project};
use proptest::collection::vec;
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use reqwest::Method;
use serde_json::{Map, Value, json};

/// The most memory this process ever had, in bytes.
fn peak_bytes(pid: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

/// Something was done to good bytes.
#[derive(Debug, Clone)]
enum Damage {
    Flip(usize, u8),
    Cut(usize),
    Double(usize),
    Insert(usize, Vec<u8>),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        (any::<usize>(), 0u8..8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        any::<usize>().prop_map(Damage::Cut),
        any::<usize>().prop_map(Damage::Double),
        (any::<usize>(), vec(any::<u8>(), 1..9)).prop_map(|(at, b)| Damage::Insert(at, b)),
    ]
}

fn damaged(mut bytes: Vec<u8>, damages: &[Damage]) -> Vec<u8> {
    for damage in damages {
        if bytes.is_empty() {
            return bytes;
        }
        let place = |at: usize| at % bytes.len();
        match damage {
            Damage::Flip(at, bit) => {
                let at = place(*at);
                bytes[at] ^= 1 << bit;
            }
            Damage::Cut(at) => bytes.truncate(place(*at)),
            Damage::Double(at) => {
                let tail = bytes[place(*at)..].to_vec();
                bytes.extend_from_slice(&tail);
            }
            Damage::Insert(at, more) => {
                let at = place(*at);
                bytes.splice(at..at, more.iter().copied());
            }
        }
    }
    bytes
}

fn good_entry(events: usize) -> Vec<u8> {
    let records: Vec<Record> = (1..=events as i64)
        .flat_map(|event_id| {
            let event = HistoryEvent {
                event_id,
                event_type: 1 + (event_id % 40) as i32,
                ..Default::default()
            };
            let note = Note {
                at: event_id,
                kind: None,
            };
            [Record::Event(Box::new(event)), Record::Note(Box::new(note))]
        })
        .collect();
    encode_entry(&records).to_vec()
}

fn good_state() -> MutableState {
    MutableState {
        workflow_id: "w".to_owned(),
        run_id: "r".to_owned(),
        next_event_id: 9,
        signal_request_ids: (0..20).map(|n| format!("request {n}")).collect(),
        ..MutableState::default()
    }
}

fn read_entry_bytes(bytes: &[u8]) {
    let decoded = decode_entry(bytes);
    let _ = (count(bytes), references(bytes));
    let fragments = event_fragments(bytes).take_while(Result::is_ok).count();
    if let Ok(records) = decoded {
        let events = records.iter().filter(|record| record.event().is_some());
        assert_eq!(events.count(), fragments);
    }
}

/// JSON of all sorts, with the names that mean something more often than others.
fn any_json(
    names: &'static [&'static str],
    texts: &'static [&'static str],
) -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        proptest::sample::select(texts).prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 64, 6, move |inner| {
        let name = prop_oneof![
            4 => proptest::sample::select(names).prop_map(str::to_owned),
            1 => ".{0,6}",
        ];
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::from),
            vec((name, inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

const PLAN_NAMES: &[&str] = &[
    "tasks", "id", "service", "input", "after", "error", "n", "task1",
];
const PLAN_TEXTS: &[&str] = &[
    "task0",
    "task1",
    "task2",
    "final",
    "s_a",
    "$task0.n",
    "$task1.value",
    "$task1.value[0].x",
    "$task9",
    "$$task1",
    "$task1[\"a b\"]",
    "$",
    "a $task0.n b",
    "",
];
const SCHEMA_NAMES: &[&str] = &[
    "type",
    "properties",
    "required",
    "$ref",
    "$defs",
    "items",
    "anyOf",
    "allOf",
    "oneOf",
    "not",
    "enum",
    "const",
    "pattern",
    "additionalProperties",
    "minimum",
    "$dynamicRef",
    "if",
    "then",
    "prefixItems",
    "patternProperties",
    "a",
    "$id",
    "$anchor",
    "dependentSchemas",
];
const SCHEMA_TEXTS: &[&str] = &[
    "object",
    "string",
    "array",
    "#",
    "#/$defs/a",
    "#/properties/a",
    "http://example.invalid/x",
    "^(a+)+$",
    "(",
    "[a",
    "#/%24defs/a",
    "#a",
    "a",
    "https://json-schema.org/draft/2020-12/schema",
];

fn services(schema: &Value) -> Vec<Service> {
    let service = |id: &str, schema: &Value| Service {
        id: id.to_owned(),
        name: id.to_owned(),
        description: "does it".to_owned(),
        input_schema: schema.clone().into(),
        output_schema: schema.clone(),
        revertible: true,
    };
    vec![
        service("s_a", schema),
        service("s_b", &json!({"type": "object"})),
    ]
}

fn walk(schema: Schema<'_>, depth: u32) {
    let _ = (
        schema.types(),
        schema.required(),
        schema.any_of().describe(),
    );
    if depth < 3 {
        for (_, inner) in schema.properties().into_iter().take(4) {
            walk(inner, depth + 1);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn entries_of_a_disk_are_read_or_corrupt(bytes in vec(any::<u8>(), 0..200)) {
        read_entry_bytes(&bytes);
    }

    #[test]
    fn damaged_entries_are_read_or_corrupt(n in 0usize..12, damages in vec(damage(), 1..4)) {
        read_entry_bytes(&damaged(good_entry(n), &damages));
    }

    #[test]
    fn keys_of_a_disk_are_read_or_refused(family in 0usize..4, bytes in vec(any::<u8>(), 0..120)) {
        // What decodes is what would have been written.
        if let Ok(key) = Key::decode(Family::ALL[family], &bytes) {
            prop_assert_eq!(key.encode(), bytes);
        }
    }

    #[test]
    fn damaged_snapshots_are_read_or_folded_anew(damages in vec(damage(), 1..4)) {
        let good = snapshot::encode(&good_state()).unwrap().to_vec();
        let _ = snapshot::decode(&damaged(good, &damages));
    }

    #[test]
    fn snapshots_of_noise_are_none_and_cost_nothing(bytes in vec(any::<u8>(), 0..300)) {
        let version = snapshot::encode(&MutableState::default()).unwrap()[0];
        let _ = snapshot::decode(&[&[version][..], &bytes].concat());
    }

    #[test]
    fn plans_are_drafts_or_refused(
        plan in any_json(PLAN_NAMES, PLAN_TEXTS),
        schema in any_json(SCHEMA_NAMES, SCHEMA_TEXTS),
        value in any_json(PLAN_NAMES, PLAN_TEXTS),
    ) {
        let data = [Parameter { field: "n".to_owned(), value }];
        let tasks = json!({"tasks": plan.clone()});
        for plan in [plan, tasks] {
            if let Ok(draft::Parsed::Draft(draft)) = draft::parse_submission(&plan) {
                let _ = validate(&draft, &services(&schema), &data);
            }
            let _ = draft::parse_reply(&plan.to_string());
        }
    }

    #[test]
    fn what_models_say_is_a_draft_or_refused(
        before in ".{0,20}",
        plan in any_json(PLAN_NAMES, PLAN_TEXTS),
        cut in any::<prop::sample::Index>(),
    ) {
        let text = format!("<think>{before}</think>{before}```json\n{plan}\n```");
        let mut end = cut.index(text.len() + 1);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let _ = draft::parse_reply(&text[..end]);
        let _ = draft::parse_reply(&text);
    }

    #[test]
    fn schemas_are_taken_or_refused(
        schema in any_json(SCHEMA_NAMES, SCHEMA_TEXTS),
        instance in any_json(SCHEMA_NAMES, SCHEMA_TEXTS),
    ) {
        let registered = json!({"input": schema.clone(), "output": schema.clone()});
        let taken = validate_registration("echo", "echoes", &registered).is_ok();
        walk(Schema::root(&schema), 0);
        if taken && let Ok(checker) = Checker::compile(&schema) {
            let members = instance.as_object().cloned().unwrap_or_default();
            let _ = checker.faults_of_members(&members);
            let _ = checker.allows_member("a", &instance);
        }
    }

    #[test]
    fn bodies_are_objects_or_refused(text in ".{0,80}", value in any_json(PLAN_NAMES, PLAN_TEXTS)) {
        for text in [text, value.to_string()] {
            if let Ok(members) = Members::of_body(&text) {
                for name in PLAN_NAMES {
                    let _ = (members.get(name), members.object(name).is_ok());
                    let _ = (members.string(name), members.array(name).is_ok(), members.value(name));
                }
            }
        }
    }

    #[test]
    fn queries_are_read_or_refused(text in query()) {
        let _ = Query::parse(&text, &Catalogue::default());
    }

    #[test]
    fn idempotency_keys_are_read_or_not_ours(text in ".{0,80}") {
        let _ = ActivityKey::parse(&text);
    }
}

fn query() -> impl Strategy<Value = String> {
    let words = &[
        "WorkflowId",
        "=",
        "!=",
        "(",
        ")",
        "AND",
        "or",
        "NOT",
        "'a'",
        "\"b",
        "`X`",
        "IN",
        "(",
        ",",
        "BETWEEN",
        "IS",
        "NULL",
        "GROUP BY",
        "ExecutionStatus",
        "ORDER BY",
        "StartTime",
        "DESC",
        "1e999",
        "-",
        "STARTS_WITH",
        "'2020-01-01T00:00:00Z'",
        ";",
        "--",
        "\u{0}",
        "é",
    ][..];
    vec(
        prop_oneof![
            proptest::sample::select(words).prop_map(str::to_owned),
            ".{0,5}"
        ],
        0..40,
    )
    .prop_map(|words| words.join(" "))
}

#[test]
fn depth_and_length_are_bounded() {
    let before = peak_bytes("self");
    let deep = |open: &str, close: &str, n: usize| format!("{}{}", open.repeat(n), close.repeat(n));
    for n in [200, 100_000] {
        let arrays = deep("[", "]", n);
        assert!(Members::of_body(&arrays).is_err());
        assert!(draft::parse_reply(&arrays).is_err());
        assert!(draft::parse_reply(&format!("{{\"tasks\": {arrays}}}")).is_err());
        let objects = deep("{\"a\":", "}", n);
        assert!(draft::parse_reply(&objects).is_err());
        let _ = Query::parse(&deep("(", ")", n), &Catalogue::default()).unwrap_err();
        let _ = Query::parse(&"NOT ".repeat(n), &Catalogue::default()).unwrap_err();
    }
    // A length that no bytes follow must not be believed.
    for family in Family::ALL {
        let _ = Key::decode(family, &[0xff; 40]);
    }
    for lead in 0..=255u8 {
        read_entry_bytes(&[lead, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
        let _ = snapshot::decode(&[&[3][..], &[lead; 40]].concat());
    }
    let grown = peak_bytes("self").saturating_sub(before);
    assert!(grown < 256 << 20, "reading that took {grown} bytes");
}

/// Members that routes know, filled with anything.
fn body(dice: &mut StdRng) -> String {
    let names = [
        "action",
        "data",
        "plan",
        "webhook",
        "url",
        "name",
        "schema",
        "type",
        "content",
        "field",
        "value",
        "timeout",
        "version",
        "use-cases",
        "domain",
        "constraints",
        "description",
        "revertible",
        "options",
        "status",
        "reason",
        "id",
    ];
    fn value(dice: &mut StdRng, names: &[&str], depth: u32) -> Value {
        match dice.random_range(0..if depth == 0 { 6 } else { 9 }) {
            0 => Value::Null,
            1 => json!(dice.random_range(-5i64..1 << 60)),
            2 => json!("x".repeat(dice.random_range(0..3_000))),
            3 => json!("$task1.a[0]"),
            4 => json!(true),
            5 => json!("http://127.0.0.1:1/x"),
            6 => (0..dice.random_range(0..6))
                .map(|_| value(dice, names, depth - 1))
                .collect(),
            _ => object(dice, names, depth - 1),
        }
    }
    fn object(dice: &mut StdRng, names: &[&str], depth: u32) -> Value {
        let count = dice.random_range(0..8);
        let members: BTreeMap<String, Value> = (0..count)
            .map(|_| {
                let name = names[dice.random_range(0..names.len())].to_owned();
                (name, value(dice, names, depth))
            })
            .collect();
        json!(members)
    }
    let text = object(dice, &names, 4).to_string();
    match dice.random_range(0..6) {
        0 => text[..dice.random_range(0..text.len())].to_owned(),
        1 => format!("{text}{text}"),
        2 => text.replace('"', "'"),
        3 => "[".repeat(dice.random_range(0..5_000)),
        _ => text,
    }
}

#[tokio::test]
async fn an_engine_outlives_hostile_bodies_and_frames() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let service = FakeSdk::register(&project, "echo", &["message"], &["echo"]).await;
    let mut dice = StdRng::seed_from_u64(7);
    let routes = [
        "/orchestrations",
        "/register/service",
        "/register/agent",
        "/register/project",
        "/webhooks",
        "/compensation-failure-webhooks",
        "/groundings",
        "/apikeys",
        "/v1/orchestrations",
        "/v1/plans",
        "/v1/groundings",
        "/grounding-tests",
        "/v1/grounding-tests",
    ];
    for n in 0..400 {
        let route = routes[n % routes.len()];
        let text = body(&mut dice);
        let request = project
            .request(Method::POST, route)
            .header("content-type", "application/json")
            .body(text.clone());
        let (status, answer) = read(request).await;
        // orra's clients know a service that does not validate as a 500 of this kind.
        let foreseen = answer["error"]["kind"] == "unanticipated error";
        assert!(
            status < 500 || status == 503 || foreseen,
            "{route} answers {status} to {text}: {answer}"
        );
    }
    for _ in 0..40 {
        let mut socket = service.connect().await;
        for _ in 0..6 {
            socket.send_raw(frame(&mut dice)).await;
        }
        drop(socket);
    }
    assert!(!engine.log().contains("panicked"), "{}", engine.log());
    let peak = peak_bytes(&engine.pid().to_string());
    assert!(peak < 700 << 20, "the engine took {peak} bytes");

    // It still works.
    let plan = Plan::new().constant("message", "hi").task(
        "task1",
        &service.id,
        json!({"message": "$task0.message"}),
    );
    let mut socket = service.connect().await;
    let run = project.submit(&Action::planned(plan)).await;
    let asked = socket.request().await;
    socket.complete(&asked, json!({"echo": "hi"})).await;
    run.completes().await;
}

fn frame(dice: &mut StdRng) -> String {
    let kinds = [
        "task_result",
        "task_status_update",
        "pong",
        "ping",
        "ACK",
        "x",
        "compensation_request",
    ];
    let kind = kinds[dice.random_range(0..kinds.len())];
    let frame = json!({
        "id": "msg_1",
        "payload": {
            "type": kind,
            "executionId": "e_x".repeat(dice.random_range(0..40)),
            "idempotencyKey": "o_1.5.abc",
            "taskId": "task1",
            "result": {"task": serde_json::from_str::<Value>(&body(dice)).unwrap_or(Value::Null)},
            "error": body(dice),
        },
    })
    .to_string();
    match dice.random_range(0..5) {
        0 => frame[..frame.len() / 2].to_owned(),
        1 => body(dice),
        2 => "{".repeat(2_000),
        _ => frame,
    }
}
