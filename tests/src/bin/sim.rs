//! Many seeds of the simulation: `make sim`, `make sim SEED=7`, `make sim SEEDS=500`, `make sim MINUTES=10`.
//!
//! It stops at the first seed that fails, and prints the line that runs it alone.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use orchestrion_tests::sim::{self, Failure, Profile, Report};

/// How long it goes on when nobody says.
const MINUTES: u64 = 2;
/// How much of its story one seed tells.
const STORY_LINES_MAX: usize = 100_000;

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    match text.parse() {
        Ok(number) => Some(number),
        Err(_) => panic!("{name} is {text:?}: give a whole number"),
    }
}

#[derive(Default)]
struct Sum {
    seeds: u64,
    steps: u64,
    commits: u64,
    lives: u64,
    seen: BTreeMap<String, u64>,
}

impl Sum {
    fn add(&mut self, report: Report) {
        self.seeds += 1;
        self.steps += u64::from(report.steps);
        self.commits += report.commits;
        self.lives += report.lives;
        for name in report.seen {
            *self.seen.entry(name).or_default() += 1;
        }
    }
}

fn show(failure: &Failure) {
    println!("{}\n\n{}", failure.story, failure.line());
}

fn main() -> ExitCode {
    if let Some(seed) = setting("SEED") {
        let (outcome, story) = sim::tell(seed, Profile::of_seed(seed), STORY_LINES_MAX);
        return match outcome {
            Ok(report) => {
                println!("{story}\n");
                println!("seed {seed} holds: {report:#?}");
                ExitCode::SUCCESS
            }
            Err(failure) => {
                show(&failure);
                ExitCode::FAILURE
            }
        };
    }
    let began = Instant::now();
    let chance = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let first = setting("FROM").unwrap_or(chance.as_secs() * 1_000_000);
    let seeds_max = setting("SEEDS").unwrap_or(u64::MAX);
    let minutes = setting("MINUTES").unwrap_or(match seeds_max {
        u64::MAX => MINUTES,
        _ => u64::MAX / 60,
    });
    let until = Duration::from_secs(minutes * 60);
    let keep_going = setting("ALL").is_some();
    let (next, failed) = (AtomicU64::new(0), AtomicBool::new(false));
    let sum = Mutex::new(Sum::default());
    let work = || {
        while (keep_going || !failed.load(Ordering::Relaxed)) && began.elapsed() < until {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= seeds_max {
                return;
            }
            match sim::run(first + number) {
                Ok(report) => sum.lock().unwrap().add(report),
                Err(failure) => {
                    let others = failed.swap(true, Ordering::Relaxed);
                    if keep_going {
                        println!("{}", failure.line());
                    } else if !others {
                        show(&failure);
                    }
                }
            }
        }
    };
    let threads = setting("THREADS").unwrap_or_else(|| {
        std::thread::available_parallelism().map_or(1, |threads| threads.get() as u64)
    });
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let sum = sum.into_inner().unwrap();
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{} seeds from {first} hold, in {seconds:.0} s: {:.1} a second; {} steps, {} commits, {} starts of the engine",
        sum.seeds,
        sum.seeds as f64 / seconds,
        sum.steps,
        sum.commits,
        sum.lives,
    );
    if setting("SEEN").is_some() {
        for (name, seeds) in &sum.seen {
            println!("{seeds:>6}  {name}");
        }
    }
    match failed.into_inner() {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    }
}
