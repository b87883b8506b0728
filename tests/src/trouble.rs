//! An engine that things happen to: its process, its disk, its power, and the lines to it.

use std::time::Duration;

use crate::bad_lines::{BadLines, Cut};
use crate::engine::{Engine, Launch};
use crate::load::Load;
use crate::power_cut::PowerCut;
use crate::small_disk::SmallDisk;
use crate::wait::until_some;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// kill -9, and a new start.
    Killed,
    /// kill -9, and what was written and not synced is gone when it starts again.
    WithoutPower,
    /// Stopped for so long, and continued.
    Stopped(Duration),
    /// No room on the disk until commits have failed.
    DiskFull,
    /// Every connection ends.
    CutOff(Cut),
    /// Connections stay, and nothing arrives until callers have given up waiting.
    Unheard,
}

/// What can go wrong beside the process and the lines.
#[derive(Debug, Clone, Copy)]
pub struct Means {
    /// A disk of so many megabytes.
    pub small_disk: Option<u32>,
    /// Its syncs are watched.
    pub power_cuts: bool,
}

/// An engine, and what is needed to make trouble for it.
pub struct Troubled {
    // Dropped before the engine, whose folder it is in.
    disk: Result<SmallDisk, String>,
    power: Result<PowerCut, String>,
    /// It.
    pub engine: Engine,
    /// What everybody speaks to it over.
    pub lines: BadLines,
}

impl Troubled {
    /// Starts it. What this machine does not allow is missing: [`Self::lacks`].
    pub async fn start(means: Means) -> Self {
        let not_asked_for = || "not asked for".to_owned();
        let mut engine = Launch::dev().prepare();
        let disk = means.small_disk.ok_or_else(not_asked_for);
        let disk = disk.and_then(|megabytes| SmallDisk::mount(&engine.data_dir(), megabytes));
        let power = match means.power_cuts {
            true => PowerCut::over(&engine.data_dir(), engine.folder()),
            false => Err(not_asked_for()),
        };
        if let Ok(power) = &power {
            engine.set_env(power.env(""));
        }
        engine.restart().await;
        let lines = BadLines::to(&engine).await;
        Self {
            disk,
            power,
            engine,
            lines,
        }
    }

    /// Why this cannot go wrong here.
    pub fn lacks(&self, trouble: Trouble) -> Option<&str> {
        match trouble {
            Trouble::DiskFull => self.disk.as_ref().err().map(String::as_str),
            Trouble::WithoutPower => self.power.as_ref().err().map(String::as_str),
            _ => None,
        }
    }

    /// It goes wrong, under this load, and then not any more.
    pub async fn suffers(&mut self, trouble: Trouble, load: &Load) {
        match trouble {
            Trouble::Killed => self.engine.kill_and_restart().await,
            Trouble::WithoutPower => {
                self.engine.kill();
                self.power.as_ref().expect("its syncs are watched").strike();
                self.engine.restart().await;
            }
            Trouble::Stopped(time) => {
                self.engine.signal("-STOP");
                tokio::time::sleep(time).await; // As long as it is out: nothing is awaited.
                self.engine.signal("-CONT");
            }
            Trouble::DiskFull => {
                let failed = |engine: &Engine| engine.log().matches("a commit failed").count();
                let before = failed(&self.engine);
                let full = self.disk.as_ref().expect("a disk of its own").fill();
                until_some("the engine to find the disk full", || {
                    (failed(&self.engine) > before).then_some(())
                })
                .await;
                drop(full);
            }
            Trouble::CutOff(how) => {
                let (http, grpc) = self.lines.cut(how).await;
                assert!(http > 0 && grpc > 0, "{http} to HTTP, {grpc} to gRPC");
            }
            Trouble::Unheard => {
                let held = self.lines.hold();
                load.asks_again().await;
                drop(held);
            }
        }
    }
}
