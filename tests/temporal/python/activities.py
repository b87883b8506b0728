"""Activities: retries, time-outs, heartbeats, cancellation, failures and their retry states, completion from elsewhere, local ones."""

import asyncio
import dataclasses
from datetime import timedelta
from typing import Any

from harness import DONE, STARTED, attributes, name_of, raises
from temporalio import activity, workflow
from temporalio.api.enums.v1 import RetryState, TimeoutType
from temporalio.client import WorkflowFailureError
from temporalio.common import Priority, RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, CancelledError, TimeoutError

S = timedelta(seconds=1)
FAST = RetryPolicy(initial_interval=timedelta(milliseconds=20), backoff_coefficient=1.0)
tokens = asyncio.Queue()
attempts = {}


@activity.defn
async def echo(text: str) -> str:
    return text


@activity.defn
async def flaky(fails: int, kind: str = "again", final: bool = False) -> int:
    attempt = activity.info().attempt
    if attempt <= fails:
        raise ApplicationError(f"try {attempt}", f"detail {attempt}", type=kind, non_retryable=final)
    return attempt


@activity.defn
async def delayed(fails: int) -> int:
    if activity.info().attempt <= fails:
        raise ApplicationError("wait", next_retry_delay=timedelta(milliseconds=10))
    return activity.info().attempt


@activity.defn
async def sleepy(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "slept"


@activity.defn
async def beating(upto: int) -> list:
    """Beats once a step, and fails in the middle of its first attempt."""
    details = list(activity.info().heartbeat_details)
    begin = details[0] + 1 if details else 0
    for step in range(begin, upto):
        activity.heartbeat(step)
        await asyncio.sleep(0.05)
        if step == 1 and not details:
            await asyncio.sleep(0.3)
            raise ApplicationError("in the middle")
    return [begin, upto]


@activity.defn
async def silent() -> int:
    """Never beats again; its first attempt hangs."""
    if activity.info().attempt > 1:
        return list(activity.info().heartbeat_details)[0]
    activity.heartbeat(7)
    await asyncio.sleep(30)
    return -1


@activity.defn
async def cancellable() -> str:
    try:
        while True:
            activity.heartbeat("on")
            await asyncio.sleep(0.05)
    except asyncio.CancelledError:
        raise


@activity.defn
async def stubborn() -> str:
    """Sees that it is cancelled and ends well all the same."""
    try:
        while True:
            activity.heartbeat("on")
            await asyncio.sleep(0.05)
    except asyncio.CancelledError:
        return "done all the same"


@activity.defn
async def from_elsewhere() -> str:
    info = activity.info()
    await tokens.put((info.workflow_id, info.workflow_run_id, info.activity_id, info.task_token))
    activity.raise_complete_async()


@workflow.defn
class One:
    """Runs one activity with the options given by name."""

    @workflow.run
    async def run(self, name: str, args: list, options: dict) -> Any:
        given = {"start_to_close_timeout": 10 * S, "retry_policy": FAST}
        if "attempts" in options:
            given["retry_policy"] = RetryPolicy(
                initial_interval=FAST.initial_interval, backoff_coefficient=1.0, maximum_attempts=options["attempts"],
                non_retryable_error_types=options.get("not"),
            )
        for key, seconds in options.items():
            if key.endswith("_timeout"):
                given[key] = timedelta(seconds=seconds) if seconds else None
        if "queue" in options:
            given["task_queue"] = options["queue"]
        return await workflow.execute_activity(name, args=args, **given)


@workflow.defn
class Parallel:
    @workflow.run
    async def run(self, count: int) -> list:
        calls = [workflow.execute_activity(echo, f"{i}", start_to_close_timeout=10 * S) for i in range(count)]
        return await asyncio.gather(*calls)


@workflow.defn
class Cancelling:
    @workflow.run
    async def run(self, name: str, how: str, queue: str | None) -> str:
        kind = workflow.ActivityCancellationType[how]
        task = workflow.start_activity(
            name, start_to_close_timeout=20 * S, heartbeat_timeout=5 * S, cancellation_type=kind, task_queue=queue
        )
        await workflow.sleep(0.3)
        task.cancel()
        try:
            return f"result {await task}"
        except ActivityError as error:
            return type(error.cause).__name__


@workflow.defn
class Local:
    @workflow.run
    async def run(self, fails: int) -> int:
        return await workflow.execute_local_activity(
            flaky, args=[fails], start_to_close_timeout=5 * S, retry_policy=FAST
        )


@workflow.defn
class LocalLong:
    @workflow.run
    async def run(self) -> str:
        return await workflow.execute_local_activity(sleepy, 3.0, start_to_close_timeout=10 * S)


@activity.defn
async def own_priority() -> Priority:
    return activity.info().priority


@workflow.defn
class Ranked:
    @workflow.run
    async def run(self, deep: bool) -> list[Priority]:
        given = {"start_to_close_timeout": timedelta(seconds=9)}
        own = await workflow.execute_activity(own_priority, priority=Priority(priority_key=5), **given)
        inherited = await workflow.execute_activity(own_priority, **given)
        below = []
        if deep:
            below = await workflow.execute_child_workflow(
                Ranked.run, False, id=f"{workflow.info().workflow_id}-child", priority=Priority(fairness_key="other")
            )
        return [workflow.info().priority, own, inherited, *below]


WORKFLOWS = [Ranked, One, Parallel, Cancelling, Local, LocalLong]
ACTIVITIES = [own_priority, echo, flaky, delayed, sleepy, beating, silent, cancellable, stubborn, from_elsewhere]
PAIR = ["ActivityTaskScheduled", "ActivityTaskStarted"]


async def failure_of(stage, name, args, options):
    handle = await stage.start(One.run, name, args, options)
    error = await raises(WorkflowFailureError, handle.result())
    return handle, error.cause


async def test_an_activity_runs_once(stage):
    handle, result = await stage.run(One.run, "echo", ["hello"], {})
    assert result == "hello"
    events = await stage.check(
        handle,
        [
            STARTED,
            "task",
            ("ActivityTaskScheduled", {"activity_id": "1", "activity_type.name": "echo", "task_queue.name": stage.queue}),
            ("ActivityTaskStarted", {"attempt": 1, "scheduled_event_id": 5}),
            ("ActivityTaskCompleted", {"scheduled_event_id": 5, "started_event_id": 6}),
            "task",
            DONE,
        ],
    )
    # All four durations are there, none is null.
    scheduled = attributes(events[4])
    for field in ("schedule_to_close_timeout", "schedule_to_start_timeout", "start_to_close_timeout", "heartbeat_timeout"):
        assert scheduled.HasField(field), field
    assert scheduled.retry_policy.backoff_coefficient == 1.0
    started = attributes(events[0])
    assert started.original_execution_run_id == handle.first_execution_run_id == started.first_execution_run_id
    assert started.attempt == 1 and started.workflow_id == handle.id
    assert attributes(events[3]).sdk_metadata.lang_used_flags is not None


async def test_failures_are_tried_again_and_only_the_end_is_written(stage):
    handle, result = await stage.run(One.run, "flaky", [3], {})
    assert result == 4
    events = await stage.check(
        handle,
        [
            STARTED,
            "task",
            "ActivityTaskScheduled",
            ("ActivityTaskStarted", {"attempt": 4, "last_failure.message": "try 3"}),
            "ActivityTaskCompleted",
            "task",
            DONE,
        ],
    )
    assert attributes(events[5]).last_failure.application_failure_info.type == "again"


async def test_attempts_are_bounded(stage):
    handle, cause = await failure_of(stage, "flaky", [9], {"attempts": 3})
    assert isinstance(cause, ActivityError) and cause.cause.message == "try 3", cause
    assert list(cause.cause.details) == ["detail 3"]
    await stage.check(
        handle,
        [
            STARTED,
            "task",
            "ActivityTaskScheduled",
            ("ActivityTaskStarted", {"attempt": 3}),
            ("ActivityTaskFailed", {"retry_state": RetryState.RETRY_STATE_MAXIMUM_ATTEMPTS_REACHED, "failure.message": "try 3"}),
            "task",
            "WorkflowExecutionFailed",
        ],
    )


async def test_a_failure_that_says_so_is_final(stage):
    handle, cause = await failure_of(stage, "flaky", [9, "final", True], {})
    assert cause.retry_state.name == "NON_RETRYABLE_FAILURE", cause.retry_state
    state = RetryState.RETRY_STATE_NON_RETRYABLE_FAILURE
    await stage.check(
        handle,
        [STARTED, "task", *PAIR, ("ActivityTaskFailed", {"retry_state": state}), "task", "WorkflowExecutionFailed"],
    )


async def test_a_listed_type_is_final(stage):
    handle, cause = await failure_of(stage, "flaky", [9, "listed"], {"attempts": 5, "not": ["other", "listed"]})
    assert cause.retry_state.name == "NON_RETRYABLE_FAILURE" and cause.cause.message == "try 1"
    await stage.check(handle)


async def test_a_failure_names_its_own_delay(stage):
    handle, result = await stage.run(One.run, "delayed", [2], {})
    assert result == 3
    await stage.check(handle)


async def test_start_to_close_is_tried_again_until_the_end(stage):
    handle, cause = await failure_of(stage, "sleepy", [20], {"start_to_close_timeout": 0.3, "attempts": 2})
    assert isinstance(cause.cause, TimeoutError) and cause.cause.type.name == "START_TO_CLOSE", cause.cause
    kind = TimeoutType.TIMEOUT_TYPE_START_TO_CLOSE
    await stage.check(
        handle,
        [
            STARTED,
            "task",
            "ActivityTaskScheduled",
            ("ActivityTaskStarted", {"attempt": 2}),
            (
                "ActivityTaskTimedOut",
                {
                    "retry_state": RetryState.RETRY_STATE_MAXIMUM_ATTEMPTS_REACHED,
                    "failure.timeout_failure_info.timeout_type": kind,
                },
            ),
            "task",
            "WorkflowExecutionFailed",
        ],
    )


async def test_schedule_to_close_bounds_all_attempts(stage):
    options = {"schedule_to_close_timeout": 0.6, "start_to_close_timeout": 0.5}
    handle, cause = await failure_of(stage, "flaky", [1000], options)
    assert cause.retry_state.name == "TIMEOUT", (cause.retry_state, cause.cause)
    await stage.check(handle)


async def test_schedule_to_start_is_final(stage):
    options = {"schedule_to_start_timeout": 0.3, "queue": stage.id("nobody")}
    handle, cause = await failure_of(stage, "echo", ["x"], options)
    assert isinstance(cause.cause, TimeoutError) and cause.cause.type.name == "SCHEDULE_TO_START", cause.cause
    kind = TimeoutType.TIMEOUT_TYPE_SCHEDULE_TO_START
    await stage.check(
        handle,
        [
            STARTED,
            "task",
            "ActivityTaskScheduled",
            ("ActivityTaskTimedOut", {"failure.timeout_failure_info.timeout_type": kind, "started_event_id": 0}),
            "task",
            "WorkflowExecutionFailed",
        ],
    )


async def test_heartbeat_details_reach_the_next_attempt(stage):
    handle, result = await stage.run(One.run, "beating", [4], {"heartbeat_timeout": 2})
    assert result == [2, 4], result
    await stage.check(handle, [STARTED, "task", *PAIR, "ActivityTaskCompleted", "task", DONE])


async def test_a_heart_that_stops_is_a_time_out(stage):
    handle, result = await stage.run(One.run, "silent", [], {"heartbeat_timeout": 0.4})
    assert result == 7
    events = await stage.check(handle, [STARTED, "task", *PAIR, "ActivityTaskCompleted", "task", DONE])
    info = attributes(events[5]).last_failure.timeout_failure_info
    assert info.timeout_type == TimeoutType.TIMEOUT_TYPE_HEARTBEAT
    assert attributes(events[5]).attempt == 2


async def test_many_at_once(stage):
    handle, result = await stage.run(Parallel.run, 20)
    assert result == [f"{i}" for i in range(20)]
    events = await stage.check(handle)
    assert [name_of(e) for e in events].count("ActivityTaskCompleted") == 20


async def test_a_cancelled_activity_confirms(stage):
    handle, result = await stage.run(Cancelling.run, "cancellable", "WAIT_CANCELLATION_COMPLETED", None)
    assert result == "CancelledError"
    await stage.check(
        handle,
        [
            STARTED,
            "task",
            "ActivityTaskScheduled",
            "TimerStarted",
            "TimerFired",
            "task",
            ("ActivityTaskCancelRequested", {"scheduled_event_id": 5}),
            "ActivityTaskStarted",
            ("ActivityTaskCanceled", {"latest_cancel_requested_event_id": 11}),
            "task",
            DONE,
        ],
    )


async def test_an_activity_may_end_well_all_the_same(stage):
    handle, result = await stage.run(Cancelling.run, "stubborn", "WAIT_CANCELLATION_COMPLETED", None)
    assert result == "result done all the same", result
    events = await stage.check(handle)
    assert "ActivityTaskCompleted" in [name_of(e) for e in events]


async def test_cancelling_without_waiting(stage):
    for how in ("TRY_CANCEL", "ABANDON"):
        handle, result = await stage.run(Cancelling.run, "cancellable", how, None)
        assert result == "CancelledError", (how, result)
        names = [name_of(e) for e in await stage.check(handle)]
        assert ("ActivityTaskCancelRequested" in names) == (how == "TRY_CANCEL"), (how, names)


async def test_what_nobody_took_is_cancelled_at_once(stage):
    handle, result = await stage.run(Cancelling.run, "echo", "WAIT_CANCELLATION_COMPLETED", stage.id("nobody"))
    assert result == "CancelledError"
    names = ["ActivityTaskCancelRequested", "ActivityTaskCanceled"]
    await stage.check(
        handle, [STARTED, "task", "ActivityTaskScheduled", "TimerStarted", "TimerFired", "task", *names, "task", DONE]
    )


async def test_completion_from_elsewhere(stage):
    results = []
    for how in ("token", "id", "fail", "cancel"):
        handle = await stage.start(One.run, "from_elsewhere", [], {"attempts": 1})
        workflow_id, run_id, activity_id, token = await asyncio.wait_for(tokens.get(), 20)
        assert workflow_id == handle.id
        if how == "id":
            elsewhere = stage.client.get_async_activity_handle(
                workflow_id=workflow_id, run_id=run_id, activity_id=activity_id
            )
        else:
            elsewhere = stage.client.get_async_activity_handle(task_token=token)
        if how == "fail":
            await elsewhere.fail(ApplicationError("from elsewhere"))
            error = await raises(WorkflowFailureError, handle.result())
            assert error.cause.cause.message == "from elsewhere"
        elif how == "cancel":
            from temporalio.service import RPCError

            # Nobody asked for it to be cancelled.
            await raises(RPCError, elsewhere.report_cancellation())
            await elsewhere.complete("late")
            results.append(await handle.result())
        else:
            await elsewhere.heartbeat("beat")
            await elsewhere.complete(how)
            results.append(await handle.result())
        await stage.check(handle)
    assert results == ["token", "id", "late"], results


async def test_local_activities_are_markers(stage):
    handle, result = await stage.run(Local.run, 2)
    assert result == 3
    events = await stage.check(handle, [STARTED, "task", "MarkerRecorded", DONE])
    assert attributes(events[4]).marker_name == "core_local_activity"


async def test_a_long_local_activity_keeps_its_task_alive(stage):
    handle, result = await stage.run(LocalLong.run, task_timeout=1.5 * S)
    assert result == "slept"
    names = [name_of(e) for e in await stage.check(handle)]
    assert names.count("WorkflowTaskCompleted") >= 2, names
    assert "WorkflowTaskTimedOut" not in names, names


async def test_priorities_are_inherited_field_by_field(stage):
    given = Priority(priority_key=2, fairness_key="tenant", fairness_weight=1.5)
    handle = await stage.start(Ranked.run, True, priority=given)
    below = Priority(priority_key=2, fairness_key="other", fairness_weight=1.5)

    def five(priority):
        return dataclasses.replace(priority, priority_key=5)

    assert await handle.result() == [given, five(given), given, below, five(below), below]
    assert (await handle.describe()).raw_description.workflow_execution_info.priority.fairness_key == "tenant"
    await stage.check(handle)
