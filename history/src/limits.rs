//! Limits of one run, with names and units (`temporal-wire` section 5). Settings of the engine; the core is given them.

use orchestrion_proto::temporal::api::sdk::v1::UserMetadata;

/// What one run may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Events in a history; at the limit the run is terminated with the reason.
    pub history_events_max: i64,
    /// Bytes of a history; at the limit the run is terminated with the reason.
    pub history_bytes_max: u64,
    /// Events in a history from which on the operator is warned.
    pub history_events_warn: i64,
    /// Bytes of a history from which on the operator is warned.
    pub history_bytes_warn: u64,
    /// Bytes that one request may add to a history before the operator is warned.
    pub request_bytes_warn: u64,
    /// Bytes of a run's notes (attempts, heartbeats, progress updates); at the limit the run ends with the reason.
    pub note_bytes_max: u64,
    /// Bytes of one activity result.
    pub result_bytes_max: u64,
    /// Activities that are not closed.
    pub pending_activities_max: usize,
    /// Children that are not closed.
    pub pending_children_max: usize,
    /// Signals to other runs that have not arrived.
    pub pending_signals_max: usize,
    /// Cancel requests to other runs that have not arrived.
    pub pending_cancels_max: usize,
    /// Bytes that a client or worker outside passes in one piece: an input, a memo, a result, details, a command.
    pub blob_bytes_max: usize,
    /// Bytes of the summary that a run, an activity, a timer or a child is shown with.
    pub summary_bytes_max: usize,
    /// Bytes of the details that it is shown with.
    pub details_bytes_max: usize,
    /// Updates of a run that are not completed.
    pub updates_in_flight_max: usize,
    /// Updates in one run.
    pub updates_max: usize,
    /// Signals in one run.
    pub signals_max: u64,
    /// Bytes of an id.
    pub id_bytes_max: usize,
    /// Events that wait while a workflow task runs; beyond it the task is failed, so that they are written.
    pub buffered_events_max: usize,
    /// Bytes of those.
    pub buffered_bytes_max: usize,
    /// Nanoseconds during which a worker may keep a workflow task alive without giving a command.
    pub task_heartbeat_max: i64,
    /// Nanoseconds from the start of a run to the first task of the one it continues as.
    pub continue_as_new_interval_min: i64,
    /// Events in a history from which on a worker is told to continue as new.
    pub suggest_continue_events: i64,
    /// Bytes of a history from which on a worker is told to continue as new.
    pub suggest_continue_bytes: u64,
    /// Nanoseconds a workflow task may be given at most.
    pub task_timeout_max: i64,
    /// Nanoseconds a workflow task is given by default.
    pub task_timeout_default: i64,
}

impl Limits {
    /// What is wrong with the summary and details that something is shown with, if anything is.
    pub fn check_metadata(&self, said: Option<&UserMetadata>) -> Result<(), String> {
        let Some(said) = said else { return Ok(()) };
        for (what, payload, max) in [
            ("summary", &said.summary, self.summary_bytes_max),
            ("details", &said.details, self.details_bytes_max),
        ] {
            let bytes = payload.as_ref().map_or(0, |payload| payload.data.len());
            if bytes > max {
                return Err(format!(
                    "its {what} has {bytes} bytes, at most {max} are allowed: shorten it"
                ));
            }
        }
        Ok(())
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            history_events_max: 51_200,
            history_bytes_max: 50 * 1024 * 1024,
            history_events_warn: 10_240,
            history_bytes_warn: 10 * 1024 * 1024,
            request_bytes_warn: 512 * 1024,
            note_bytes_max: 50 * 1024 * 1024,
            // orra's clients may send results of 10 MiB, and a revertible service sends its result twice.
            result_bytes_max: 24 * 1024 * 1024,
            pending_activities_max: 2_000,
            updates_in_flight_max: 10,
            updates_max: 2_000,
            pending_children_max: 2_000,
            pending_signals_max: 2_000,
            pending_cancels_max: 2_000,
            blob_bytes_max: 2 * 1024 * 1024,
            summary_bytes_max: 400,
            details_bytes_max: 20_000,
            signals_max: 10_000,
            id_bytes_max: crate::ids::ID_BYTES_MAX,
            buffered_events_max: 100,
            buffered_bytes_max: 2 * 1024 * 1024,
            continue_as_new_interval_min: 1_000_000_000,
            task_heartbeat_max: 1_800_000_000_000,
            suggest_continue_events: 4_096,
            suggest_continue_bytes: 4 * 1024 * 1024,
            task_timeout_max: 120_000_000_000,
            task_timeout_default: 10_000_000_000,
        }
    }
}
