//! Fixed seeds of the simulation; `ORCHESTRION_SIM_SEED` runs one of them alone.
#![allow(missing_docs, clippy::unwrap_used)]

use orchestrion_tests::sim::{Profile, World};

fn seeds() -> Vec<u64> {
    match std::env::var("ORCHESTRION_SIM_SEED") {
        Ok(seed) => vec![seed.parse().expect("ORCHESTRION_SIM_SEED is a number")],
        Err(_) => (1..=24).collect(),
    }
}

#[test]
fn orchestrations_survive_crashes_failed_commits_and_bad_services() {
    for seed in seeds() {
        World::run(seed, Profile::default());
    }
}

#[test]
fn without_faults_nothing_differs() {
    for seed in seeds().into_iter().take(10) {
        World::run(
            seed,
            Profile {
                crashes: 0,
                commit_failures: 0,
                disconnects: 0,
                ..Profile::default()
            },
        );
    }
}

#[test]
fn the_same_seed_gives_the_same_journals() {
    for seed in [7, 11, 13] {
        assert_eq!(
            World::run(seed, Profile::default()),
            World::run(seed, Profile::default()),
            "seed {seed}"
        );
    }
}
