//! The engine's settings as tests use them: every constant of time scaled down.

use std::fmt::Write as _;

/// How long one call of the planning model may take.
pub const PLANNING_CALL_TIMEOUT: &str = "planning.call_timeout";
/// How often a task is tried.
pub const TASK_ATTEMPTS: &str = "tasks.attempts";
/// How long an undoing waits for the result of a task that timed out.
pub const LATE_RESULT_WAIT: &str = "tasks.late_result_wait";
/// Between two pings that an SDK sees.
pub const APP_PING_INTERVAL: &str = "sockets.app_ping_interval";
/// Between two pings that a WebSocket library answers.
pub const PING_INTERVAL: &str = "sockets.ping_interval";
/// How long a socket without work may be silent.
pub const SILENCE_LIMIT: &str = "sockets.silence_limit";

/// A duration as the settings file writes it.
pub fn ms(milliseconds: u64) -> String {
    format!("\"{milliseconds}ms\"")
}

/// A settings file in the making: dotted keys of the TOML file and their values, as TOML writes them.
#[derive(Debug, Clone)]
pub struct Settings(Vec<(String, String)>);

impl Settings {
    /// Nothing but defaults.
    pub fn none() -> Self {
        Self(Vec::new())
    }

    /// Seconds become tens of milliseconds, and ten attempts to undo become three.
    pub fn quick() -> Self {
        Self::none()
            .set("planning.backoff_initial", ms(20))
            .set("planning.backoff_max", ms(50))
            .set("tasks.backoff_initial", ms(50))
            .set("tasks.backoff_max", ms(400))
            .set("compensation.attempts", 3)
            .set("compensation.attempt_timeout", ms(5_000))
            .set("compensation.backoff_initial", ms(50))
            .set("compensation.backoff_max", ms(200))
            .set("sockets.overdue_margin", ms(50))
            .set("outbox.backoff_initial", ms(50))
            .set("outbox.backoff_max", ms(500))
    }

    /// Changes one setting. The value is TOML: text needs its quotes, [`ms`] has them.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl ToString) -> Self {
        self.0.retain(|(known, _)| known != key);
        self.0.push((key.to_owned(), value.to_string()));
        self
    }

    /// The file's text.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        for (key, value) in &self.0 {
            writeln!(text, "{key} = {value}").unwrap();
        }
        text
    }
}
