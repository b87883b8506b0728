//! A real engine under load while it is killed, stopped, cut off and left without room: what it accepted is there once, and right.
//!
//! Here for seconds; for minutes in `soak.rs`.
#![allow(missing_docs, clippy::unwrap_used)]

use std::process::Command;
use std::time::Duration;

use orchestrion_tests::engine::{Engine, Launch};
use orchestrion_tests::load::Load;
use orchestrion_tests::project::Project;
use orchestrion_tests::small_disk::SmallDisk;

/// The log has room set aside: it takes some bytes to find that there is no more.
const PADDING: usize = 60_000;
const PATIENCE: Duration = Duration::from_secs(60);

fn signal(engine: &Engine, name: &str) {
    let pid = engine.pid().to_string();
    let sent = Command::new("kill").args([name, &pid]).status().unwrap();
    assert!(sent.success());
}

#[tokio::test]
async fn what_was_accepted_survives_kills_and_stops() {
    let mut engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let load = Load::start(&project, 3, 0).await;
    for _ in 0..3 {
        load.goes_on(8).await;
        engine.kill_and_restart().await;
        load.goes_on(4).await;
        signal(&engine, "-STOP");
        tokio::time::sleep(Duration::from_millis(300)).await; // As long as it is out: nothing is awaited.
        signal(&engine, "-CONT");
    }
    load.goes_on(4).await;
    let accepted = load.reckon(PATIENCE).await;
    assert!(accepted >= 40, "{accepted}");
}

#[tokio::test]
async fn what_was_accepted_survives_a_full_disk() {
    let mut engine = Launch::dev().prepare();
    let disk = match SmallDisk::mount(&engine.data_dir(), 64) {
        Ok(disk) => disk,
        Err(why) => return println!("skipped: {why}"),
    };
    engine.restart().await;
    let project = Project::add(&engine).await;
    let load = Load::start(&project, 2, PADDING).await;
    load.goes_on(5).await;
    for _ in 0..2 {
        let full = disk.fill();
        // The first commit that finds no room is refused, with words.
        orchestrion_tests::wait::until_some("the engine to find the disk full", || {
            let log = engine.log();
            (log.contains("a commit failed") || log.contains("No space left")).then_some(())
        })
        .await;
        drop(full);
        load.goes_on(5).await;
    }
    let accepted = load.reckon(PATIENCE).await;
    assert!(accepted >= 15, "{accepted}");
    engine.kill();
    drop(disk);
}
