//! What comes over the wire, parsed once: ids, executions, queues, times.

use std::time::Duration;

use orchestrion_history::ids::{ID_BYTES_MAX, Namespace, RunId, TaskQueueName, WorkflowId};
use orchestrion_history::wire;
use orchestrion_proto::prost::Message;
use orchestrion_proto::prost_wkt_types::Duration as WireDuration;
use orchestrion_proto::temporal::api::common::v1::WorkflowExecution;
use orchestrion_proto::temporal::api::taskqueue::v1::TaskQueue;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Status};

use super::Temporal;
use crate::engine::{Poller, Target};
use crate::orchestration::{PLANNER_QUEUE, WORKFLOW_QUEUE, is_builtin};

/// The execution that a request names.
pub fn target(
    namespace: &Namespace,
    execution: Option<&WorkflowExecution>,
) -> Result<Target, Status> {
    let execution = execution.ok_or_else(|| {
        Status::invalid_argument("workflow execution is not set: name one by its workflow id")
    })?;
    target_of(namespace, &execution.workflow_id, &execution.run_id)
}

pub fn target_of(namespace: &Namespace, workflow_id: &str, run_id: &str) -> Result<Target, Status> {
    let workflow_id = WorkflowId::parse(workflow_id)
        .map_err(|e| Status::invalid_argument(format!("workflow id: {e}")))?;
    let run_id = match run_id {
        "" => None,
        text => Some(RunId::parse(text).ok_or_else(|| {
            Status::invalid_argument(format!(
                "run id {text:?} is not a UUID: send it as it was given"
            ))
        })?),
    };
    Ok(Target {
        namespace: namespace.clone(),
        workflow_id,
        run_id,
    })
}

/// A queue that workers and workflows outside may use.
pub fn queue(queue: Option<&TaskQueue>) -> Result<TaskQueueName, Status> {
    let name = queue.map_or("", |queue| queue.name.as_str());
    if matches!(name, WORKFLOW_QUEUE | PLANNER_QUEUE) {
        return Err(Status::new(
            Code::PermissionDenied,
            format!("task queue {name} is the engine's own: choose another name"),
        ));
    }
    TaskQueueName::parse(name).map_err(|e| Status::invalid_argument(format!("task queue: {e}")))
}

/// Who polls, or says that it leaves.
pub fn poller(identity: String, instance_key: String) -> Result<Poller, Status> {
    if instance_key.len() > ID_BYTES_MAX {
        return Err(Status::invalid_argument(format!(
            "worker instance key has {} bytes: at most {ID_BYTES_MAX} are allowed",
            instance_key.len()
        )));
    }
    Ok(Poller {
        identity,
        instance_key,
    })
}

/// A workflow type that may be started from outside.
pub fn workflow_type(name: &str) -> Result<(), Status> {
    match name {
        "" => Err(Status::invalid_argument(
            "workflow type is not set: name one",
        )),
        builtin if is_builtin(builtin) => Err(Status::new(
            Code::PermissionDenied,
            format!("workflow type {name} is the engine's own: submit an orchestration instead"),
        )),
        _ => Ok(()),
    }
}

/// Nanoseconds of a duration that must not be negative.
pub fn nanos(what: &str, duration: Option<&WireDuration>) -> Result<i64, Status> {
    match wire::nanos(duration) {
        negative @ ..0 => Err(Status::invalid_argument(format!(
            "{what} is negative ({negative} ns): send zero or more"
        ))),
        nanos => Ok(nanos),
    }
}

/// How long the caller waits, by its `grpc-timeout`.
pub fn patience(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = number.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number.saturating_mul(3_600)),
        "M" => Duration::from_secs(number.saturating_mul(60)),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// An answer leaves so long before its caller stops waiting.
const HEADROOM: Duration = Duration::from_secs(1);
/// A caller who waits for less does not poll: it asks again and again.
const PATIENCE_MIN: Duration = Duration::from_secs(2);

/// How long a poll may wait: `max`, or a little less than its caller does.
pub fn poll_time(metadata: &MetadataMap, max: Duration) -> Result<Duration, Status> {
    match patience(metadata) {
        None => Ok(max),
        Some(patience) if patience < PATIENCE_MIN => Err(Status::invalid_argument(format!(
            "a poll needs a deadline of at least {} s, this one has {} ms: set a longer one",
            PATIENCE_MIN.as_secs(),
            patience.as_millis()
        ))),
        Some(patience) => Ok(max.min(patience - HEADROOM)),
    }
}

/// What passes in one piece may have `max` bytes.
pub fn sized<M: Message>(what: &str, piece: Option<&M>, max: usize) -> Result<(), Status> {
    match piece.map_or(0, Message::encoded_len) {
        bytes if bytes > max => Err(Status::invalid_argument(oversized(what, bytes, max))),
        _ => Ok(()),
    }
}

/// Says that a piece has too many bytes, and what to do.
pub fn oversized(what: &str, bytes: usize, max: usize) -> String {
    format!(
        "{what} has {bytes} bytes, at most {max} are allowed: pass a reference to the data instead"
    )
}

impl Temporal {
    /// The largest piece that clients and workers pass.
    pub(super) fn blob_max(&self) -> usize {
        self.api.settings.limits.blob_bytes_max
    }

    /// The namespace of a task's answer: the one that its request names, or else its token. Both have to be the same.
    pub(super) fn task_namespace<T>(
        &self,
        request: &Request<T>,
        named: &str,
        token: &str,
    ) -> Result<Namespace, Status> {
        let namespace = self.namespace(request, if named.is_empty() { token } else { named })?;
        if namespace.as_str() == token {
            Ok(namespace)
        } else {
            Err(Status::invalid_argument(
                "task token is of another namespace: answer a task where it was polled",
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_engine_runs_itself_nobody_else_starts() {
        for builtin in ["orchestrion.plan", "orchestrion.revert"] {
            let refused = workflow_type(builtin).unwrap_err();
            assert_eq!(refused.code(), Code::PermissionDenied, "{builtin}");
        }
        assert!(workflow_type("orchestrion.other").is_ok());
        assert!(workflow_type("").is_err());
    }
}
