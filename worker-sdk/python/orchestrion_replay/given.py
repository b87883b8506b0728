"""What an orchestration is given: its submission, the options it obeys, and the plan it follows."""

from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import Any, Optional

from temporalio.common import RetryPolicy

from .results import ABORT, Compensation, RevertOutcome, Unreadable


@dataclass
class Options:
    """Every constant of time of a run, recorded with its start, so that no change of the engine's settings reaches it."""

    task_timeout_ms: int = 30_000
    task_attempts: int = 5
    retry_initial_ms: int = 2_000
    retry_factor: float = 2.0
    retry_max_ms: int = 30_000
    compensation_attempts: int = 10
    compensation_initial_ms: int = 2_000
    compensation_max_ms: int = 60_000
    compensation_timeout_ms: int = 30_000
    compensation_ttl_ms: int = 86_400_000
    planning_attempts: int = 3
    planning_initial_ms: int = 2_000
    planning_max_ms: int = 10_000
    planning_timeout_ms: int = 90_000
    late_result_wait_ms: Optional[int] = None

    @classmethod
    def of(cls, given):
        known = {one.name for one in fields(cls)}
        return cls(**{name: value for name, value in (given or {}).items() if name in known and value is not None})

    @property
    def late_wait_ms(self):
        return self.task_timeout_ms if self.late_result_wait_ms is None else self.late_result_wait_ms

    def for_a_task(self):
        policy = _policy(self.task_attempts, self.retry_initial_ms, self.retry_factor, self.retry_max_ms, [ABORT])
        return {"start_to_close_timeout": millis(self.task_timeout_ms), "retry_policy": policy}

    def for_the_planning(self):
        for_good = ["Refused", "InterruptedWhilePlanning"]
        policy = _policy(self.planning_attempts, self.planning_initial_ms, 2.0, self.planning_max_ms, for_good)
        return {"start_to_close_timeout": millis(self.planning_timeout_ms), "retry_policy": policy}

    def for_a_revert(self, left_ms):
        """A revert has no longer than the compensation lives."""
        policy = _policy(self.compensation_attempts, self.compensation_initial_ms, 2.0, self.compensation_max_ms, [])
        return {
            "start_to_close_timeout": millis(min(self.compensation_timeout_ms, left_ms)),
            "schedule_to_close_timeout": millis(left_ms),
            "schedule_to_start_timeout": millis(left_ms),
            "retry_policy": policy,
        }


def millis(count):
    return timedelta(milliseconds=count)


def _policy(attempts, initial_ms, factor, max_ms, for_good):
    return RetryPolicy(
        initial_interval=millis(initial_ms),
        backoff_coefficient=factor,
        maximum_interval=millis(max_ms),
        maximum_attempts=attempts,
        non_retryable_error_types=for_good,
    )


@dataclass(eq=False)
class Task:
    """A task of the plan, and how far it is.

    waiting --its dependencies are complete--> pending --> completed | failed | canceled | unknown
    failed, canceled, unknown --a late result--> completed
    """

    id: str
    service: str  # The id of the service: the task queue.
    service_name: str  # The activity type.
    revertible: bool
    input: dict
    depends_on: list
    stage: str = "waiting"
    handle: Any = None  # Its activity.
    cancel_requested: bool = False
    output: Any = None
    compensation: Optional[Compensation] = None
    closed_at: int = 0  # When it was completed, or timed out, in nanoseconds.
    late_wait: str = "no"  # Whether its late result is waited for: no, waiting, over.
    timer: Any = None
    revert: Optional[RevertOutcome] = None


@dataclass
class Plan:
    constants: dict  # `$task0.x` refers to them.
    tasks: list
    by_id: dict = field(default_factory=dict)

    @classmethod
    def of(cls, given, taken_over=()):
        """The plan as it was recorded, validated before. Results that are taken over from another run are complete tasks, which
        are for that run to undo."""
        tasks = [
            Task(t["id"], t["service"], t["service_name"], t["revertible"], t["input"], t["depends_on"])
            for t in given["tasks"]
        ]
        plan = cls(given["task_zero"], tasks, {task.id: task for task in tasks})
        if len(plan.by_id) < len(tasks):
            raise Unreadable("the plan has two tasks with the same id")
        if any(not (task.id and task.service and task.service_name) for task in tasks):
            raise Unreadable("a task of the plan lacks an id, a service or a service's name")
        for result in taken_over:
            task = plan.by_id.get(result["task"])
            if task is None or task.stage == "completed":
                raise Unreadable(f"the result of {result['task']} cannot be taken over")
            task.stage, task.output = "completed", result["output"]
        return plan

    def ready(self):
        """Tasks whose dependencies are complete, in plan order."""
        return [t for t in self.tasks if t.stage == "waiting" and all(self._done(d) for d in t.depends_on)]

    def _done(self, task_id):
        return task_id in self.by_id and self.by_id[task_id].stage == "completed"

    def pending(self):
        return [task for task in self.tasks if task.stage == "pending"]

    def is_complete(self):
        return all(task.stage == "completed" for task in self.tasks)

    def outputs(self):
        return {task.id: task.output for task in self.tasks if task.stage == "completed"}

    def results(self):
        """Outputs of the tasks that nobody depends on."""
        needed = {task_id for task in self.tasks for task_id in task.depends_on}
        return [task.output for task in self.tasks if task.id not in needed]
