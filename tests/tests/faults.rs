//! A real engine under load while it is killed, stopped, cut off and left without room: what it accepted is there once, and right.
//!
//! Here for seconds; for minutes in `soak.rs`.
#![allow(missing_docs, clippy::unwrap_used)]

use std::time::Duration;

use orchestrion_tests::bad_lines::Cut;
use orchestrion_tests::load::{Load, Reckoned, Size};
use orchestrion_tests::project::Project;
use orchestrion_tests::trouble::{Means, Trouble, Troubled};

const PATIENCE: Duration = Duration::from_secs(60);
const SOUND: Means = Means {
    small_disk: None,
    power_cuts: false,
};

/// Lets it all happen, with so many of each load accepted after each.
async fn survives(
    means: Means,
    size: Size,
    troubles: &[Trouble],
    between: usize,
) -> Option<Reckoned> {
    let mut troubled = Troubled::start(means).await;
    for trouble in troubles {
        if let Some(why) = troubled.lacks(*trouble) {
            println!("skipped: {why}");
            return None;
        }
    }
    let project = Project::add(&troubled.engine).await;
    let load = Load::start(&project, &troubled.lines, size).await;
    load.goes_on(between).await;
    for trouble in troubles {
        troubled.suffers(*trouble, &load).await;
        load.goes_on(between).await;
    }
    let reckoned = load.reckon(PATIENCE).await;
    println!("{troubles:?}: {reckoned:?}");
    let least = between * (troubles.len() + 1);
    assert!(reckoned.orchestrations.0 >= least, "{reckoned:?}");
    assert!(reckoned.workflows.0 >= least, "{reckoned:?}");
    Some(reckoned)
}

#[tokio::test]
async fn what_was_accepted_survives_kills_and_stops() {
    let stop = Trouble::Stopped(Duration::from_millis(300));
    let troubles = [Trouble::Killed, stop].repeat(3);
    let size = Size {
        callers: 2,
        padding: 0,
    };
    survives(SOUND, size, &troubles, 6).await;
}

#[tokio::test]
async fn what_was_accepted_survives_cut_and_silent_lines() {
    let troubles = [
        Trouble::CutOff(Cut::Reset),
        Trouble::CutOff(Cut::Close),
        Trouble::Unheard,
        Trouble::Killed,
        Trouble::CutOff(Cut::Reset),
    ];
    let size = Size {
        callers: 2,
        padding: 2_000,
    };
    survives(SOUND, size, &troubles, 5).await;
}

#[tokio::test]
async fn what_was_accepted_survives_a_full_disk() {
    let means = Means {
        small_disk: Some(64),
        ..SOUND
    };
    // The log has room set aside: it takes some bytes to find that there is no more.
    let size = Size {
        callers: 2,
        padding: 60_000,
    };
    survives(means, size, &[Trouble::DiskFull; 2], 5).await;
}
