//! What somebody who looks after a run asks of its activities, or of the run itself, from outside.

use orchestrion_proto::temporal::api::activity::v1::ActivityOptions;

/// Which of a run's pending activities are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ActivityChoice {
    /// The one with this id.
    Id(String),
    /// All of this type.
    Type(String),
    /// All.
    All,
}

/// Asks that no further attempt of an activity starts; a running one is told at its next heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PauseActivity {
    /// Which.
    pub choice: ActivityChoice,
    /// Who asks.
    pub identity: String,
    /// Why.
    pub reason: String,
    /// Shown with the pause.
    pub request_id: String,
}

/// Asks that paused activities go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnpauseActivity {
    /// Which.
    pub choice: ActivityChoice,
    /// Who asks.
    pub identity: String,
    /// Whether attempts are counted from one again.
    pub reset_attempts: bool,
    /// Whether the details of the last heartbeat are forgotten.
    pub reset_heartbeat: bool,
    /// Nanoseconds until the next attempt may start.
    pub delay: i64,
}

/// Asks that activities begin anew, with their first attempt; a running attempt is told at its next heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResetActivity {
    /// Which.
    pub choice: ActivityChoice,
    /// Who asks.
    pub identity: String,
    /// Whether the next first attempt begins without the details of the last heartbeat.
    pub reset_heartbeat: bool,
    /// Whether a paused one stays paused.
    pub keep_paused: bool,
    /// Whether it gets the options again that it was scheduled with.
    pub restore_options: bool,
    /// Nanoseconds until the next attempt may start.
    pub delay: i64,
}

/// Changes how activities are tried.
#[derive(Debug, Clone, PartialEq)]
pub struct UpdateActivityOptions {
    /// Which.
    pub choice: ActivityChoice,
    /// Who asks.
    pub identity: String,
    /// What changes.
    pub change: OptionsChange,
}

/// See [`UpdateActivityOptions`].
#[derive(Debug, Clone, PartialEq)]
pub enum OptionsChange {
    /// To what it was scheduled with.
    Restore,
    /// These fields of `options`, named as `temporal.api.activity.v1.ActivityOptions` names them, with a dot before a field of a field.
    Fields {
        /// Holds the new values.
        options: Box<ActivityOptions>,
        /// Which of them count.
        paths: Vec<String>,
    },
}

/// Asks that no further task of a run is handed out; what is under way may end.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PauseWorkflow {
    /// Who asks.
    pub identity: String,
    /// Why.
    pub reason: String,
    /// The same again changes nothing.
    pub request_id: String,
}

/// Asks that a paused run goes on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UnpauseWorkflow {
    /// Who asks.
    pub identity: String,
    /// Why.
    pub reason: String,
    /// The same again changes nothing.
    pub request_id: String,
}
