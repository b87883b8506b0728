//! Pages and counts against all rows in a list, sorted and filtered there.

use std::sync::Arc;

use orchestrion_history::store::{Batch, MemoryStore, Op, ShardWrite};
use proptest::prelude::*;

use super::*;
use crate::visibility::attributes::Catalogue;

const SHARDS: u16 = 3;
const QUERIES: [&str; 18] = [
    "",
    "WorkflowType = 't1'",
    "WorkflowType IN ('t0', 't2') AND ExecutionStatus = 'Running'",
    "ExecutionStatus != 'Running'",
    "ExecutionStatus = 'Completed' OR ExecutionStatus = 'Failed'",
    "WorkflowId = 'w1'",
    "WorkflowId = 'w1' OR WorkflowType = 't1'",
    "WorkflowId IN ('w0', 'w1', 'w2') AND NOT ExecutionStatus = 'Failed'",
    "RunId = '01000000-0000-0000-0000-000000000000' OR WorkflowId = 'w3'",
    "RunId = 'nobody'",
    "StartTime > 3",
    "StartTime >= 3 AND StartTime < 6 AND WorkflowType = 't0'",
    "StartTime BETWEEN 2 AND 5",
    "StartTime = 4 AND StartTime = 4",
    "NOT WorkflowType = 't1'",
    "CloseTime IS NULL",
    "WorkflowType STARTS_WITH 't' AND HistoryLength > 5",
    "ParentWorkflowId IS NOT NULL OR RootWorkflowId = 'w2'",
];

fn namespace() -> Namespace {
    Namespace::parse("ns").unwrap()
}

#[derive(Debug, Clone)]
struct Run {
    workflow: u8,
    kind: u8,
    status: i32,
    started: i64,
}

fn runs() -> impl Strategy<Value = Vec<Run>> {
    let status = proptest::sample::select(vec![1, 1, 2, 2, 3, 5]);
    let run = (0u8..6, 0u8..3, status, 0i64..8).prop_map(|(workflow, kind, status, started)| Run {
        workflow,
        kind,
        status,
        started,
    });
    proptest::collection::vec(run, 0..40)
}

/// Rows in the store, with their lines, in two namespaces; and those of the first as a list.
fn kept(runs: &[Run]) -> (Arc<MemoryStore>, Vec<Visibility>) {
    let store = MemoryStore::new();
    let ranges: Vec<_> = (0..SHARDS)
        .map(|shard| store.acquire(ShardId(shard)).unwrap())
        .collect();
    let mut rows = Vec::new();
    let mut batch = Batch::default();
    for name in ["ns", "ns2"] {
        let namespace = Namespace::parse(name).unwrap();
        for (number, run) in runs.iter().enumerate() {
            let workflow_id = WorkflowId::parse(format!("w{}", run.workflow)).unwrap();
            let shard = ShardId::of(&namespace, &workflow_id, SHARDS);
            let mut run_id = [0u8; 16];
            run_id[0] = u8::try_from(number).unwrap();
            let run_id = RunId(run_id);
            let row = Visibility {
                workflow_id: workflow_id.to_string(),
                run_id: run_id.0.to_vec(),
                workflow_type: format!("t{}", run.kind),
                status: run.status,
                started_at: run.started,
                closed_at: if run.status == 1 { 0 } else { run.started + 9 },
                history_length: run.started * 2,
                parent_workflow_id: if run.kind == 2 {
                    "p".to_owned()
                } else {
                    String::new()
                },
                ..Default::default()
            };
            let started = Timestamp(run.started);
            let listing = Key::Visibility {
                shard,
                namespace: namespace.clone(),
                started,
                run_id,
            };
            let head = Key::RunHead {
                shard,
                namespace: namespace.clone(),
                run_id,
            };
            let known = RunHead {
                workflow_id: row.workflow_id.clone(),
                started_at: run.started,
                ..Default::default()
            };
            let line = |of| Key::Line {
                shard,
                namespace: namespace.clone(),
                of,
                started,
                run_id,
            };
            let lines = [
                LineOf::Workflow(workflow_id.clone()),
                LineOf::Type(row.workflow_type.clone()),
                LineOf::Status(u8::try_from(run.status).unwrap()),
            ];
            let mut ops = vec![
                Op::Put(listing, row.encode_to_vec().into()),
                Op::Put(head, known.encode_to_vec().into()),
            ];
            ops.extend(lines.map(|of| Op::Put(line(of), Default::default())));
            batch.shards.push(ShardWrite {
                shard,
                range: ranges[usize::from(shard.0)],
                ops,
            });
            if name == "ns" {
                rows.push(row);
            }
        }
    }
    store.commit(&batch).unwrap();
    rows.sort_by(|a, b| {
        b.started_at
            .cmp(&a.started_at)
            .then_with(|| a.run_id.cmp(&b.run_id))
    });
    (Arc::new(store), rows)
}

proptest! {
    #[test]
    fn pages_together_are_what_the_list_holds(runs in runs(), size in 1usize..12) {
        let (store, rows) = kept(&runs);
        let index = Index { store: &*store, shards: SHARDS };
        for text in QUERIES {
            let query = Query::parse(text, &Catalogue::default()).unwrap();
            let fits = |row: &&Visibility| query.filter.as_ref().is_none_or(|filter| filter.holds(*row));
            let expected: Vec<Visibility> = rows.iter().filter(fits).cloned().collect();
            let (mut found, mut token) = (Vec::new(), Vec::new());
            loop {
                let page = index.list(&namespace(), text, &query, size, &token).unwrap();
                prop_assert!(page.rows.len() <= size);
                prop_assert!(page.next.is_empty() || page.rows.len() == size, "{}", text);
                found.extend(page.rows);
                token = page.next;
                if token.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(&found, &expected, "{}", text);

            let counted = index.count(&namespace(), &query).unwrap();
            prop_assert_eq!(counted.total, expected.len() as u64, "{}", text);
            prop_assert!(counted.by_status.is_empty());
            let grouped = index.count(&namespace(), &Query { by_status: true, ..query.clone() }).unwrap();
            let mut by_status = BTreeMap::new();
            for row in &expected {
                *by_status.entry(row.status).or_insert(0) += 1;
            }
            prop_assert_eq!(grouped.by_status, by_status, "{}", text);
        }
        prop_assert_eq!(index.newest(&namespace(), 5).unwrap(), rows[..rows.len().min(5)].to_vec());
    }
}

#[test]
fn a_token_is_of_its_query_and_namespace() {
    let run = |started| Run {
        workflow: 1,
        kind: 1,
        status: 1,
        started,
    };
    let (store, _) = kept(&[run(1), run(2), run(3)]);
    let index = Index {
        store: &*store,
        shards: SHARDS,
    };
    let query = Query::default();
    let token = index.list(&namespace(), "", &query, 1, &[]).unwrap().next;
    assert!(index.list(&namespace(), "", &query, 1, &token).is_ok());
    let other = Namespace::parse("ns2").unwrap();
    for (namespace, text, token) in [
        (&other, "", &token[..]),
        (&namespace(), "CloseTime IS NULL", &token[..]),
        (&namespace(), "", &token[..20]),
        (&namespace(), "", &[token.as_slice(), &[0]].concat()[..]),
        (&namespace(), "", b"\xff"),
    ] {
        let listed = index.list(namespace, text, &query, 1, token);
        assert_eq!(listed, Err(ListError::Token));
    }
}

#[test]
fn what_starts_meanwhile_moves_no_page() {
    let run = |started| Run {
        workflow: 1,
        kind: 1,
        status: 1,
        started,
    };
    let (before, _) = kept(&[run(1), run(3), run(5)]);
    let (after, rows) = kept(&[run(1), run(3), run(5), run(7), run(4)]);
    let query = Query::default();
    let first = Index {
        store: &*before,
        shards: SHARDS,
    }
    .list(&namespace(), "", &query, 2, &[])
    .unwrap();
    let rest = Index {
        store: &*after,
        shards: SHARDS,
    }
    .list(&namespace(), "", &query, 9, &first.next)
    .unwrap();
    assert_eq!(rest.rows, rows[rows.len() - 1..]);
}

#[test]
fn an_equality_reads_its_line_only() {
    let leaves_of = |text: &str| {
        let query = Query::parse(text, &Catalogue::default()).unwrap();
        leaves(&query.filter.unwrap())
    };
    let line = |of| Some(vec![Leaf::Line(of)]);
    let kind = || LineOf::Type("t".to_owned());
    assert_eq!(leaves_of("WorkflowType = 't'"), line(kind()));
    assert_eq!(
        leaves_of("WorkflowType = 't' AND ExecutionStatus = 'Completed'"),
        line(kind())
    );
    assert_eq!(
        leaves_of("WorkflowType = 't' AND ExecutionStatus = 'Running'"),
        line(LineOf::Status(1))
    );
    let id = WorkflowId::parse("w").unwrap();
    assert_eq!(
        leaves_of("ExecutionStatus = 'Running' AND (WorkflowType != 't' AND WorkflowId = 'w')"),
        line(LineOf::Workflow(id))
    );
    assert_eq!(leaves_of("WorkflowType = 't' OR StartTime > 5"), None);
    assert_eq!(leaves_of("RunId = 'none'"), Some(vec![]));
}
