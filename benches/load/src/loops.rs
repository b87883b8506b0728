//! Closed loops: so many clients, each of which starts one workflow, waits for its result, and starts the next.

use std::time::{Duration, Instant};

use futures_util::future::try_join_all;

use crate::Result;
use crate::text::Letters;

/// One who starts a workflow and waits for it.
pub trait Client {
    /// One workflow with this text, checked.
    async fn once(&mut self, id: &str, text: &str) -> Result<()>;

    /// Requests of all of them that came to nothing and were made again.
    fn errors_of(clients: &[Self]) -> usize
    where
        Self: Sized;
}

/// How long each took, ascending.
#[derive(Debug, Default)]
pub struct Latencies(Vec<u32>);

impl Latencies {
    pub fn of(mut micros: Vec<u32>) -> Self {
        micros.sort_unstable();
        Self(micros)
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Milliseconds that this share of them did not pass.
    pub fn at(&self, share: f64) -> f64 {
        let last = self.0.len().saturating_sub(1);
        let index = (last as f64 * share).round() as usize;
        self.0
            .get(index)
            .map_or(f64::NAN, |micros| f64::from(*micros) / 1_000.0)
    }
}

/// Runs all clients for so long. `part` makes ids differ from those of other runs.
pub async fn run<C: Client>(
    clients: &mut [C],
    part: &str,
    time: Duration,
) -> Result<(Latencies, Duration)> {
    let began = Instant::now();
    let until = began + time;
    let loops = clients
        .iter_mut()
        .enumerate()
        .map(|(number, client)| run_one(client, number, part, until));
    let all = try_join_all(loops).await?;
    let latencies = all.into_iter().flatten().collect();
    Ok((Latencies::of(latencies), time))
}

async fn run_one<C: Client>(
    client: &mut C,
    number: usize,
    part: &str,
    until: Instant,
) -> Result<Vec<u32>> {
    let mut micros = Vec::new();
    let mut letters = Letters::of(number + part.len() * 1_000);
    for turn in 0.. {
        let text = letters.text();
        let id = format!("load-{part}-{number}-{turn}");
        let began = Instant::now();
        client.once(&id, &text).await?;
        // What ends after the window is not counted.
        if Instant::now() >= until {
            break;
        }
        micros.push(u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX));
    }
    Ok(micros)
}
