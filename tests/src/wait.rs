//! Waiting: ask again until it is so, or say what never came.

use std::future::Future;
use std::time::{Duration, Instant};

/// How long anything may take before a test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Between two questions.
pub const PAUSE: Duration = Duration::from_millis(15);

/// Asks until the answer is `Some`. Fails the test after [`PATIENCE`], naming what it waited for.
pub async fn until<T, F, Asked>(what: &str, mut ask: F) -> T
where
    F: FnMut() -> Asked,
    Asked: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(
            Instant::now() < deadline,
            "waited {} s for {what}",
            PATIENCE.as_secs()
        );
        tokio::time::sleep(PAUSE).await;
    }
}

/// The same for an answer that needs no waiting of its own.
pub async fn until_some<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    until(what, || std::future::ready(ask())).await
}
