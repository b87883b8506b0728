//! What operators do to pending activities: pause, unpause, reset, other options.
//!
//! ```text
//!  Queued | Backoff --paused--> the same, and not handed out      Started --paused--> Started (told by heartbeats; no retry is handed out)
//!  paused --unpaused--> not paused, due at once or after the delay
//!  Queued | Backoff --reset--> due, as a first attempt            Started --reset--> Started (told by heartbeats; its failure begins anew)
//! ```
//!
//! Notes say it: history shows activities as their workflow sees them, and it does not see this. A pause does not stop the
//! schedule-to-close time-out, only the one for the wait in the queue.

use orchestrion_proto::temporal::api::activity::v1::ActivityOptions;
use orchestrion_proto::temporal::api::taskqueue::v1::TaskQueue;
use orchestrion_proto::v1::{
    ActivityOptionsUpdated, ActivityPaused, ActivityReset, ActivityUnpaused, note,
};

use super::command::Timeouts;
use super::not_found;
use crate::draft::Draft;
use crate::machines::{Context, retry};
use crate::request::{
    ActivityChoice, OptionsChange, PauseActivity, Rejection, Reply, ResetActivity, Transition,
    UnpauseActivity, UpdateActivityOptions,
};
use crate::state::{
    Activity, CarriedOptions, CarriedPayloads, CarriedPriority, MutableState, Pause, PendingReset,
    Retry, Stage,
};
use crate::wire;

/// The pending activities that are meant, by scheduling event; never none.
fn chosen<'a>(
    state: &'a MutableState,
    choice: &ActivityChoice,
) -> Result<Vec<(i64, &'a Activity)>, Rejection> {
    let open = state.activities.iter();
    let open = open.filter(|(_, activity)| !matches!(activity.stage, Stage::Settled));
    let chosen: Vec<_> = open
        .filter(|(_, activity)| match choice {
            ActivityChoice::Id(id) => activity.activity_id == *id,
            ActivityChoice::Type(name) => activity.activity_type == *name,
            ActivityChoice::All => true,
        })
        .map(|(id, activity)| (*id, activity))
        .collect();
    if chosen.is_empty() {
        return Err(not_found(match choice {
            ActivityChoice::Id(id) => format!("{id:?} is not pending; it may have closed"),
            ActivityChoice::Type(name) => format!("none of type {name:?} is pending"),
            ActivityChoice::All => "none is pending".to_owned(),
        }));
    }
    Ok(chosen)
}

pub(in crate::machines) fn pause(
    state: &MutableState,
    context: &Context<'_>,
    request: &PauseActivity,
) -> Result<Transition, Rejection> {
    let mut draft = Draft::new(state, context);
    for (id, activity) in chosen(state, &request.choice)? {
        if activity.paused.is_none() {
            draft.note(note::Kind::ActivityPaused(ActivityPaused {
                scheduled_event_id: id,
                identity: request.identity.clone(),
                reason: request.reason.clone(),
                request_id: request.request_id.clone(),
            }));
        }
    }
    Ok(draft.finish(Reply::Done))
}

pub(in crate::machines) fn unpause(
    state: &MutableState,
    context: &Context<'_>,
    request: &UnpauseActivity,
) -> Result<Transition, Rejection> {
    let mut draft = Draft::new(state, context);
    for (id, activity) in chosen(state, &request.choice)? {
        if activity.paused.is_some() {
            draft.note(note::Kind::ActivityUnpaused(ActivityUnpaused {
                scheduled_event_id: id,
                identity: request.identity.clone(),
                reset_attempts: request.reset_attempts,
                reset_heartbeat: request.reset_heartbeat,
                due_at: draft.now.saturating_add(request.delay.max(0)),
            }));
        }
    }
    Ok(draft.finish(Reply::Done))
}

pub(in crate::machines) fn reset(
    state: &MutableState,
    context: &Context<'_>,
    request: &ResetActivity,
) -> Result<Transition, Rejection> {
    let mut draft = Draft::new(state, context);
    for (id, activity) in chosen(state, &request.choice)? {
        draft.note(note::Kind::ActivityReset(ActivityReset {
            scheduled_event_id: id,
            identity: request.identity.clone(),
            reset_heartbeat: request.reset_heartbeat,
            keep_paused: request.keep_paused,
            due_at: draft.now.saturating_add(request.delay.max(0)),
        }));
        if let (true, Some(options)) = (request.restore_options, activity.original_options.get()) {
            draft.note(updated(id, &request.identity, options, 0));
        }
    }
    Ok(draft.finish(Reply::Done))
}

pub(in crate::machines) fn update_options(
    state: &MutableState,
    context: &Context<'_>,
    request: &UpdateActivityOptions,
) -> Result<Transition, Rejection> {
    let mut draft = Draft::new(state, context);
    let mut reply = Reply::Done;
    for (id, activity) in chosen(state, &request.choice)? {
        let options = match &request.change {
            OptionsChange::Restore => activity
                .original_options
                .get()
                .unwrap_or_else(|| activity.options()),
            OptionsChange::Fields { options, paths } => {
                let merged = merge(activity.options(), options, paths);
                merged
                    .and_then(|merged| fit(state, activity, merged))
                    .map_err(|why| {
                        Rejection::Invalid(format!("activity {:?}: {why}", activity.activity_id))
                    })?
            }
        };
        if options != activity.options() {
            let retry_at = retry_at(activity, &options, draft.now);
            draft.note(updated(id, &request.identity, options.clone(), retry_at));
        }
        if reply == Reply::Done {
            reply = Reply::ActivityOptions(Box::new(options));
        }
    }
    Ok(draft.finish(reply))
}

fn updated(id: i64, identity: &str, options: ActivityOptions, retry_at: i64) -> note::Kind {
    note::Kind::ActivityOptionsUpdated(ActivityOptionsUpdated {
        scheduled_event_id: id,
        identity: identity.to_owned(),
        options: Some(options),
        retry_at,
    })
}

/// When an attempt that waits for its time is due under other options; 0 when none waits, or its wait is not the policy's.
fn retry_at(activity: &Activity, options: &ActivityOptions, now: i64) -> i64 {
    let Stage::Backoff { until } = activity.stage else {
        return 0;
    };
    let failed = activity.number() - 1;
    if until - activity.attempt_ended_at != activity.retry.wait(failed) {
        return 0; // Its failure, or an operator, said when.
    }
    let retry = Retry::of(&options.retry_policy.clone().unwrap_or_default());
    activity
        .attempt_ended_at
        .saturating_add(retry.wait(failed))
        .max(now)
}

/// `now`, with the named fields of `new`.
fn merge(
    mut now: ActivityOptions,
    new: &ActivityOptions,
    paths: &[String],
) -> Result<ActivityOptions, String> {
    if paths.is_empty() {
        return Err("the update mask names no field: name those that change".to_owned());
    }
    for path in paths {
        let (field, inner) = match path.split_once('.') {
            Some((field, inner)) => (field, Some(inner)),
            None => (path.as_str(), None),
        };
        match (field, inner) {
            ("task_queue", None | Some("name")) => now.task_queue.clone_from(&new.task_queue),
            ("schedule_to_close_timeout", None) => {
                now.schedule_to_close_timeout = new.schedule_to_close_timeout;
            }
            ("schedule_to_start_timeout", None) => {
                now.schedule_to_start_timeout = new.schedule_to_start_timeout;
            }
            ("start_to_close_timeout", None) => {
                now.start_to_close_timeout = new.start_to_close_timeout;
            }
            ("heartbeat_timeout", None) => now.heartbeat_timeout = new.heartbeat_timeout,
            ("retry_policy", None) => now.retry_policy.clone_from(&new.retry_policy),
            ("retry_policy", Some(inner)) => {
                let from = new.retry_policy.clone().unwrap_or_default();
                let to = now.retry_policy.get_or_insert_default();
                match inner {
                    "initial_interval" => to.initial_interval = from.initial_interval,
                    "backoff_coefficient" => to.backoff_coefficient = from.backoff_coefficient,
                    "maximum_interval" => to.maximum_interval = from.maximum_interval,
                    "maximum_attempts" => to.maximum_attempts = from.maximum_attempts,
                    "non_retryable_error_types" => {
                        to.non_retryable_error_types = from.non_retryable_error_types;
                    }
                    _ => return Err(unknown(path)),
                }
            }
            ("priority", None) => now.priority.clone_from(&new.priority),
            ("priority", Some(inner)) => {
                let from = new.priority.clone().unwrap_or_default();
                let to = now.priority.get_or_insert_default();
                match inner {
                    "priority_key" => to.priority_key = from.priority_key,
                    "fairness_key" => to.fairness_key = from.fairness_key,
                    "fairness_weight" => to.fairness_weight = from.fairness_weight,
                    _ => return Err(unknown(path)),
                }
            }
            _ => return Err(unknown(path)),
        }
    }
    Ok(now)
}

fn unknown(path: &str) -> String {
    format!(
        "the update mask names {path:?}, which cannot be changed: task_queue, the four timeouts, retry_policy and priority can"
    )
}

/// Options as the command that schedules an activity would have made them.
fn fit(
    state: &MutableState,
    activity: &Activity,
    options: ActivityOptions,
) -> Result<ActivityOptions, String> {
    let queue = options.task_queue.as_ref().map_or("", |queue| &queue.name);
    if queue.is_empty() {
        return Err("its task queue is empty".to_owned());
    }
    // Its place is kept in the queue it was taken from, and it goes back there with its worker's connection.
    let on_stream = matches!(
        activity.stage,
        Stage::Started {
            on_stream: true,
            ..
        }
    );
    if on_stream && queue != activity.task_queue {
        return Err(
            "a worker on a stream has it: change its task queue once that attempt has ended"
                .to_owned(),
        );
    }
    let timeouts = Timeouts::normalise(
        [
            options.schedule_to_close_timeout.as_ref(),
            options.schedule_to_start_timeout.as_ref(),
            options.start_to_close_timeout.as_ref(),
            options.heartbeat_timeout.as_ref(),
        ],
        state,
    )?;
    let retry = retry::normalise(options.retry_policy.as_ref())?;
    Ok(ActivityOptions {
        task_queue: Some(TaskQueue {
            name: queue.to_owned(),
            ..Default::default()
        }),
        schedule_to_close_timeout: Some(wire::duration(timeouts.schedule_to_close)),
        schedule_to_start_timeout: Some(wire::duration(timeouts.schedule_to_start)),
        start_to_close_timeout: Some(wire::duration(timeouts.start_to_close)),
        heartbeat_timeout: Some(wire::duration(timeouts.heartbeat)),
        retry_policy: Some(retry),
        priority: options.priority,
        ..activity.options()
    })
}

impl Activity {
    /// How it is tried.
    pub fn options(&self) -> ActivityOptions {
        ActivityOptions {
            task_queue: Some(TaskQueue {
                name: self.task_queue.clone(),
                ..Default::default()
            }),
            schedule_to_close_timeout: Some(wire::duration(self.schedule_to_close)),
            schedule_to_start_timeout: Some(wire::duration(self.schedule_to_start)),
            start_to_close_timeout: Some(wire::duration(self.start_to_close)),
            heartbeat_timeout: Some(wire::duration(self.heartbeat)),
            retry_policy: Some(self.retry.policy()),
            priority: self.priority.get(),
            start_delay: None,
        }
    }

    fn set_options(&mut self, options: &ActivityOptions) {
        let queue = options.task_queue.as_ref();
        self.task_queue = queue.map(|queue| queue.name.clone()).unwrap_or_default();
        self.schedule_to_close = wire::nanos(options.schedule_to_close_timeout.as_ref());
        self.schedule_to_start = wire::nanos(options.schedule_to_start_timeout.as_ref());
        self.start_to_close = wire::nanos(options.start_to_close_timeout.as_ref());
        self.heartbeat = wire::nanos(options.heartbeat_timeout.as_ref());
        self.retry = Retry::of(&options.retry_policy.clone().unwrap_or_default());
        self.priority = CarriedPriority::new(options.priority.as_ref());
    }

    /// The attempt that does not run is due at `at`; `now` is when that was said.
    fn due(&mut self, at: i64, now: i64) {
        if matches!(self.stage, Stage::Queued | Stage::Backoff { .. }) {
            self.attempt_scheduled_at = at;
            self.waiting = false;
            self.stage = if at > now {
                Stage::Backoff { until: at }
            } else {
                Stage::Queued
            };
        }
    }

    /// Attempts are counted from one again, the current one included.
    fn count_anew(&mut self) {
        self.attempts_before = self.attempt - 1;
    }

    /// What a failed attempt leaves to the next.
    pub(super) fn begin_anew_if_asked(&mut self) {
        if let Some(PendingReset { heartbeat }) = self.reset.take() {
            self.count_anew();
            if heartbeat {
                self.heartbeat_details = CarriedPayloads::default();
            }
        }
    }
}

/// The fold of what operators did. `None`: the note is none of these.
pub(super) fn apply(
    state: &mut MutableState,
    at: i64,
    kind: &note::Kind,
) -> Option<Result<(), String>> {
    let id = match kind {
        note::Kind::ActivityPaused(n) => n.scheduled_event_id,
        note::Kind::ActivityUnpaused(n) => n.scheduled_event_id,
        note::Kind::ActivityReset(n) => n.scheduled_event_id,
        note::Kind::ActivityOptionsUpdated(n) => n.scheduled_event_id,
        _ => return None,
    };
    Some(apply_counted(state, id, at, kind))
}

fn apply_counted(
    state: &mut MutableState,
    id: i64,
    at: i64,
    kind: &note::Kind,
) -> Result<(), String> {
    let activity = super::apply::open(state, id)?;
    let was = activity.paused.is_some();
    apply_to(activity, at, kind)?;
    let is = activity.paused.is_some();
    state.activities_paused += u32::from(is);
    state.activities_paused -= u32::from(was);
    Ok(())
}

fn apply_to(activity: &mut Activity, at: i64, kind: &note::Kind) -> Result<(), String> {
    if activity.stage == Stage::Settled {
        return Err("its outcome is known".to_owned());
    }
    match kind {
        note::Kind::ActivityPaused(paused) if activity.paused.is_none() => {
            activity.paused = Some(Pause {
                at,
                identity: paused.identity.clone(),
                reason: paused.reason.clone(),
                request_id: paused.request_id.clone(),
            });
            activity.waiting = false;
        }
        note::Kind::ActivityUnpaused(unpaused) if activity.paused.is_some() => {
            activity.paused = None;
            activity.due(unpaused.due_at, at);
            if unpaused.reset_attempts {
                activity.count_anew();
            }
            if unpaused.reset_heartbeat {
                activity.heartbeat_details = CarriedPayloads::default();
            }
        }
        note::Kind::ActivityReset(reset) => {
            let pending = PendingReset {
                heartbeat: reset.reset_heartbeat,
            };
            activity.reset = Some(pending);
            if !reset.keep_paused {
                activity.paused = None;
            }
            if !matches!(activity.stage, Stage::Started { .. }) {
                activity.begin_anew_if_asked();
                activity.scheduled_at = at;
                activity.due(reset.due_at, at);
            }
        }
        note::Kind::ActivityOptionsUpdated(updated) => {
            if activity.original_options.is_empty() {
                activity.original_options = CarriedOptions::new(Some(&activity.options()));
            }
            let options = updated.options.as_ref();
            activity.set_options(options.ok_or("it has no options")?);
            if let (Stage::Backoff { .. }, retry_at @ 1..) = (&activity.stage, updated.retry_at) {
                activity.attempt_scheduled_at = retry_at;
                activity.stage = Stage::Backoff { until: retry_at };
            }
        }
        other => {
            return Err(format!(
                "{other:?} does not fit: the pause is {:?}",
                activity.paused
            ));
        }
    }
    Ok(())
}
