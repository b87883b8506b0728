//! The on-disk format of version 1: files that every later version must open and understand as it was meant.
//!
//! `ORCHESTRION_WRITE_GOLDEN=1 cargo test -p orchestrion-history --test golden` writes them anew: only for a new version, beside the old files.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::PathBuf;

use common::{Story, activity_command, app_failure, cancel_activity, timer_command};
use orchestrion_history::record::{Record, decode_entry, encode_entry};
use orchestrion_history::request::{ActivityRef, ChildOutcome, ExecutionRef, ParentLink};
use orchestrion_history::{replay, snapshot};
use orchestrion_proto::temporal::api::enums::v1::ParentClosePolicy;

fn file(name: &str) -> PathBuf {
    // Asked for when the test runs: clones may share their build output.
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap())
        .join("tests/golden")
        .join(name)
}

/// Every kind of record this version writes, and a state with something in most of its fields.
fn story() -> Story {
    let mut story = Story::started_with(|start| {
        start.run_timeout = 3_600_000_000_000;
        start.memo = Some(orchestrion_proto::temporal::api::common::v1::Memo {
            fields: [(
                "action".to_owned(),
                common::payloads("order").payloads.remove(0),
            )]
            .into(),
        });
    });
    let _ = story.turn(vec![
        activity_command("charge"),
        activity_command("ship"),
        timer_command("deadline", 60_000),
    ]);
    story.take("charge");
    story.fail("charge", app_failure("card declined", false));
    story.advance_ms(1_000);
    story.fire();
    story.take("charge");
    story.give_back(5, 2);
    story.take("charge");
    story.signal_with_id("hurry", "r1");
    story.hold_task();
    story.complete(ActivityRef::Id("charge".to_owned()));
    let _ = story.turn(vec![cancel_activity(6)]);
    let _ = story.turn(vec![activity_command("notify")]);
    story.take("notify");
    story.advance_ms(2_000);
    story
}

/// `len: u32` and that many bytes, for each record an entry of its own.
fn pack(records: &[Record]) -> Vec<u8> {
    let mut out = Vec::new();
    for record in records {
        let entry = encode_entry(std::slice::from_ref(record));
        out.extend_from_slice(&(entry.len() as u32).to_be_bytes());
        out.extend_from_slice(&entry);
    }
    out
}

fn unpack(mut bytes: &[u8]) -> Vec<Record> {
    let mut records = Vec::new();
    while let Some((len, rest)) = bytes.split_first_chunk::<4>() {
        let (entry, rest) = rest.split_at(u32::from_be_bytes(*len) as usize);
        records.extend(decode_entry(entry).unwrap());
        bytes = rest;
    }
    records
}

fn lines(records: &[Record]) -> String {
    records
        .iter()
        .map(|record| common::line(record, record.at()) + "\n")
        .collect()
}

#[test]
fn version_1_opens_and_means_the_same() {
    let now = story();
    if std::env::var_os("ORCHESTRION_WRITE_GOLDEN").is_some() {
        fs::create_dir_all(file("")).unwrap();
        fs::write(file("journal_v1.bin"), pack(&now.records)).unwrap();
        fs::write(file("journal_v1.txt"), lines(&now.records)).unwrap();
        fs::write(
            file("snapshot_v1.bin"),
            snapshot::encode(&now.state).unwrap(),
        )
        .unwrap();
    }
    let kept = unpack(&fs::read(file("journal_v1.bin")).unwrap());
    assert_eq!(
        lines(&kept),
        fs::read_to_string(file("journal_v1.txt")).unwrap()
    );
    // This version still writes what version 1 wrote: a difference is a new format, or a new behaviour that old runs must not get.
    assert_eq!(kept, now.records);

    let folded = replay::fold(&kept).unwrap();
    assert_eq!(replay::difference(&folded, &now.state), None);
    // A snapshot is an index: one of another layout is not read, but never misread.
    let snapshot = snapshot::decode(&fs::read(file("snapshot_v1.bin")).unwrap());
    assert_eq!(
        snapshot
            .as_ref()
            .and_then(|kept| replay::difference(&folded, kept)),
        None
    );
    let written = snapshot::encode(&now.state).and_then(|bytes| snapshot::decode(&bytes));
    assert_eq!(written, Some(now.state));
}

/// What came with runs that act on others: initiated, started and closed children, deliveries, a close that asked something of others.
fn between() -> Story {
    let mut story = Story::started_with(|start| {
        start.parent = Some(Box::new(ParentLink {
            namespace: "home".to_owned(),
            execution: ExecutionRef {
                workflow_id: "parent".to_owned(),
                run_id: "00000000-0000-7000-8000-000000000002".to_owned(),
            },
            initiated_event_id: 5,
        }));
    });
    let _ = story.turn(vec![
        common::child_command("one", ParentClosePolicy::Terminate),
        common::child_command("two", ParentClosePolicy::RequestCancel),
        common::signal_external("other", "hello"),
        common::cancel_external("other"),
    ]);
    story.signal("look");
    story.hold_task();
    story.cross();
    story.child_closes(5, ChildOutcome::Completed(None));
    let _ = story.turn(vec![]);
    let _ = story.turn(vec![common::fail_command("no", true)]);
    story.cross();
    story
}

#[test]
fn version_2_opens_and_means_the_same() {
    let now = between();
    if std::env::var_os("ORCHESTRION_WRITE_GOLDEN_2").is_some() {
        fs::write(file("journal_v2.bin"), pack(&now.records)).unwrap();
        fs::write(file("journal_v2.txt"), lines(&now.records)).unwrap();
    }
    let kept = unpack(&fs::read(file("journal_v2.bin")).unwrap());
    let text = lines(&kept);
    assert_eq!(text, fs::read_to_string(file("journal_v2.txt")).unwrap());
    assert!(text.contains("CloseFollowed"), "{text}");
    assert_eq!(kept, now.records);
    assert_eq!(
        replay::difference(&replay::fold(&kept).unwrap(), &now.state),
        None
    );
}

#[test]
fn the_story_holds_what_the_format_can() {
    let text = lines(&story().records);
    for name in [
        "RunCreated",
        "ActivityAttemptStarted",
        "ActivityAttemptFailed",
        "ActivityAttemptReturned",
        "EventBuffered",
        "WorkflowExecutionSignaled",
        "TimerStarted",
        "ActivityTaskCanceled",
    ] {
        assert!(text.contains(name), "{name} is missing:\n{text}");
    }
    assert!(!story().state.status.is_closed());
}
