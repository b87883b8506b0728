//! The store on a real disk whose power goes: what was acknowledged is there, and a sync that is left out is noticed.
//!
//! Each test starts this very program again as the writer (`write_until_killed`), so that there is a process to kill.
#![allow(missing_docs, clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use bytes::Bytes;
use orchestrion_history::ids::{Namespace, ShardId};
use orchestrion_history::store::{
    Batch, Key, KeyRange, Op, RocksStore, RocksStoreOptions, ShardWrite, Store,
};
use orchestrion_tests::engine::Launch;
use orchestrion_tests::fake_sdk::FakeSdk;
use orchestrion_tests::plan::Plan;
use orchestrion_tests::power_cut::PowerCut;
use orchestrion_tests::project::{Action, Project};
use serde_json::json;

const SHARD: ShardId = ShardId(0);
/// Commits that are acknowledged before the power goes.
const COMMITS: usize = 60;

fn open(folder: &Path, sync: bool) -> RocksStore {
    let options = RocksStoreOptions {
        shards: 1,
        sync,
        ..RocksStoreOptions::default()
    };
    RocksStore::open(folder, options).unwrap()
}

fn key(number: usize) -> Key {
    Key::Outbox {
        shard: SHARD,
        namespace: Namespace::parse("ns").unwrap(),
        event_id: format!("e{number:06}"),
    }
}

/// The writer: commits one batch after the other and says each number once it is acknowledged.
#[test]
#[ignore = "the other tests start it"]
fn write_until_killed() {
    let Ok(folder) = std::env::var("POWER_CUT_FOLDER") else {
        return;
    };
    let store = open(Path::new(&folder), std::env::var("UNSYNCED").is_err());
    let range = store.acquire(SHARD).unwrap();
    let mut out = std::io::stdout().lock();
    for number in 0.. {
        let ops = vec![Op::Put(key(number), Bytes::from(vec![7; 500]))];
        let write = ShardWrite {
            shard: SHARD,
            range,
            ops,
        };
        let shards = vec![write];
        store.commit(&Batch { shards }).unwrap();
        writeln!(out, "acknowledged {number}").unwrap();
        out.flush().unwrap();
    }
}

/// Starts the writer, and kills it when enough is acknowledged; answers how much was.
fn write(env: &[(&'static str, String)]) -> usize {
    let mut writer = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "write_until_killed", "--nocapture"])
        .envs(env.iter().cloned())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let told = |line: &std::io::Result<String>| line.as_ref().unwrap().contains("acknowledged");
    let mut lines = BufReader::new(writer.stdout.take().unwrap()).lines();
    let first = lines.by_ref().filter(told).take(COMMITS).count();
    writer.kill().unwrap();
    writer.wait().unwrap();
    // What it said after that counts too.
    first + lines.filter(told).count()
}

/// Answers how many commits were acknowledged before the power went, and how many are there behind it.
fn cut(folder: &Path, env: &[(&'static str, String)], power: &PowerCut) -> (usize, usize) {
    let acknowledged = write(env);
    power.strike();
    let store = open(folder, true);
    let kept = store
        .scan(&KeyRange::outbox(SHARD), usize::MAX, false)
        .unwrap()
        .entries;
    for (number, (found, _)) in kept.iter().enumerate() {
        assert_eq!(*found, key(number), "nothing is missing in between");
    }
    (acknowledged, kept.len())
}

fn power_over(home: &tempfile::TempDir) -> Option<(std::path::PathBuf, PowerCut)> {
    let folder = home.path().join("store");
    match PowerCut::over(&folder, home.path()) {
        Ok(power) => Some((std::fs::canonicalize(folder).unwrap(), power)),
        Err(why) => {
            println!("skipped: {why}");
            None
        }
    }
}

#[test]
fn a_power_cut_takes_nothing_that_was_acknowledged() {
    let home = tempfile::tempdir().unwrap();
    let Some((folder, power)) = power_over(&home) else {
        return;
    };
    // Twice: the second life writes behind what the first left.
    for _ in 0..2 {
        let (acknowledged, kept) = cut(&folder, &power.env(""), &power);
        assert!(
            kept >= acknowledged,
            "{acknowledged} were acknowledged, {kept} are there"
        );
    }
}

/// A process was killed before it could sync; the next one read what it left, and may have told others of it.
#[test]
fn what_a_store_found_when_it_was_opened_survives_a_power_cut() {
    let home = tempfile::tempdir().unwrap();
    let Some((folder, power)) = power_over(&home) else {
        return;
    };
    let mut unsynced = power.env("");
    unsynced.push(("UNSYNCED", "1".to_owned()));
    let written = write(&unsynced);
    // It is opened, and the power goes at its first commit.
    write(&power.env(""));
    power.strike();
    let store = open(&folder, true);
    let kept = store
        .scan(&KeyRange::outbox(SHARD), usize::MAX, false)
        .unwrap();
    assert!(
        kept.entries.len() >= written,
        "{written} were found at the start, {} are there",
        kept.entries.len()
    );
}

#[test]
fn a_sync_that_is_left_out_is_noticed() {
    let home = tempfile::tempdir().unwrap();
    let Some((folder, power)) = power_over(&home) else {
        return;
    };
    let mut env = power.env("");
    env.push(("UNSYNCED", "1".to_owned()));
    let (acknowledged, kept) = cut(&folder, &env, &power);
    assert!(
        kept < acknowledged,
        "{acknowledged} were acknowledged without a sync, and {kept} are there"
    );
}

/// Submits orchestrations until some are accepted, cuts the power, and answers how many were accepted and how many are there.
async fn cut_engine(deaf_for: &str) -> Option<(usize, usize)> {
    let mut engine = Launch::dev().prepare();
    let power = match PowerCut::over(&engine.data_dir(), engine.folder()) {
        Ok(power) => power,
        Err(why) => {
            println!("skipped: {why}");
            return None;
        }
    };
    engine.set_env(power.env(deaf_for));
    engine.restart().await;
    let project = Project::add(&engine).await;
    let service = FakeSdk::register(&project, "echo", &["message"], &["echo"]).await;
    let mut accepted = Vec::new();
    for n in 0..10 {
        let plan = Plan::new().constant("message", format!("{n}")).task(
            "task1",
            &service.id,
            json!({"message": "$task0.message"}),
        );
        accepted.push(project.submit(&Action::planned(plan)).await.id);
    }
    engine.kill();
    power.strike();
    engine.set_env(Vec::new());
    engine.restart().await;
    let (status, _) = project
        .call(reqwest::Method::GET, "/orchestrations", None)
        .await;
    let listed = match status {
        200 => project.listed().await,
        _ => Vec::new(), // Not even the project is there.
    };
    let kept = accepted
        .iter()
        .filter(|id| listed.iter().any(|(known, _)| known == *id));
    Some((accepted.len(), kept.count()))
}

#[tokio::test]
async fn an_engine_whose_power_goes_has_everything_it_accepted() {
    if let Some((accepted, kept)) = cut_engine("").await {
        assert_eq!(kept, accepted);
    }
}

#[tokio::test]
async fn an_engine_that_did_not_sync_its_log_would_be_noticed() {
    if let Some((accepted, kept)) = cut_engine(".log").await {
        assert!(
            kept < accepted,
            "all {accepted} are there without a sync of the log"
        );
    }
}
