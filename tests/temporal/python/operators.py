"""What operators do to what runs: pause, unpause, reset and other options of activities; pause of a whole workflow."""

import asyncio
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from harness import DONE, STARTED, attributes, name_of, raises
from temporalio import activity, workflow
from temporalio.api.activity.v1 import ActivityOptions
from temporalio.api.common.v1 import RetryPolicy as RetryPolicyMessage
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import PendingActivityState as State
from temporalio.api.enums.v1 import WorkflowExecutionStatus, WorkflowTaskFailedCause
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import (
    DescribeWorkflowExecutionRequest,
    ListWorkflowExecutionsRequest,
    PauseActivityRequest,
    PollWorkflowTaskQueueRequest,
    RespondWorkflowTaskFailedRequest,
    PauseWorkflowExecutionRequest,
    ResetActivityRequest,
    UnpauseActivityRequest,
    UnpauseWorkflowExecutionRequest,
    UpdateActivityOptionsRequest,
)
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

S = timedelta(seconds=1)
attempts = {}
told = {}
fine = set()


@activity.defn
async def beats_until_told(key: str) -> str:
    """Its first attempt runs until somebody tells it something; it fails then, as an activity that keeps nothing back does."""
    attempts[key] = attempts.get(key, 0) + 1
    if attempts[key] > 1:
        return f"attempt {activity.info().attempt}"
    try:
        while True:
            activity.heartbeat("on")
            await asyncio.sleep(0.05)
    except asyncio.CancelledError:
        told[key] = activity.cancellation_details()
        raise


@activity.defn
async def fails_until_fine(key: str) -> int:
    attempts[key] = attempts.get(key, 0) + 1
    if key not in fine:
        raise ApplicationError(f"not fine, try {attempts[key]}")
    return activity.info().attempt


@workflow.defn
class Beats:
    @workflow.run
    async def run(self, key: str) -> str:
        return await workflow.execute_activity(
            beats_until_told, key, activity_id="beats", start_to_close_timeout=60 * S, heartbeat_timeout=2 * S,
            retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=50)),
        )


@workflow.defn
class Tries:
    @workflow.run
    async def run(self, key: str, wait: float) -> int:
        return await workflow.execute_activity(
            fails_until_fine, key, activity_id="tries", start_to_close_timeout=10 * S,
            retry_policy=RetryPolicy(initial_interval=timedelta(seconds=wait), backoff_coefficient=1.0),
        )


@workflow.defn
class Counts:
    def __init__(self) -> None:
        self.signals = 0

    @workflow.run
    async def run(self) -> int:
        await workflow.wait_condition(lambda: self.signals >= 3)
        return self.signals

    @workflow.signal
    def one(self) -> None:
        self.signals += 1

    @workflow.query
    def so_far(self) -> int:
        return self.signals

    @workflow.update
    async def another(self) -> int:
        self.signals += 1
        return self.signals


WORKFLOWS = [Beats, Tries, Counts]
ACTIVITIES = [beats_until_told, fails_until_fine]


def of(handle, **more):
    return {"namespace": handle._client.namespace, "execution": WorkflowExecution(workflow_id=handle.id), "identity": "operator", **more}


async def described(handle):
    """The raw description: the SDK's own cannot say that a workflow is paused."""
    request = DescribeWorkflowExecutionRequest(
        namespace=handle._client.namespace, execution=WorkflowExecution(workflow_id=handle.id)
    )
    return await handle._client.workflow_service.describe_workflow_execution(request)


async def pending(stage, handle, what, wanted):
    """The only pending activity, once it is as wanted."""

    async def look():
        found = (await described(handle)).pending_activities
        return len(found) == 1 and wanted(found[0]) and found[0]

    return await stage.eventually(what, look)


async def test_a_paused_activity_is_told_and_waits_for_the_end_of_the_pause(stage):
    service = stage.client.workflow_service
    handle = await stage.start(Beats.run, "paused")
    await pending(stage, handle, "its start", lambda a: a.state == State.PENDING_ACTIVITY_STATE_STARTED)
    await service.pause_activity(PauseActivityRequest(**of(handle, id="beats", reason="to look")))
    found = await pending(stage, handle, "the pause", lambda a: a.state == State.PENDING_ACTIVITY_STATE_PAUSED)
    assert found.paused and found.pause_info.manual.identity == "operator" and found.pause_info.manual.reason == "to look"
    assert found.attempt == 2 and found.HasField("last_attempt_complete_time")
    assert told["paused"].paused and not told["paused"].cancel_requested and not told["paused"].reset
    # Long past its retry.
    await asyncio.sleep(0.5)
    assert attempts["paused"] == 1
    await service.unpause_activity(UnpauseActivityRequest(**of(handle, type="beats_until_told")))
    assert await handle.result() == "attempt 2"
    await stage.check(handle, [STARTED, "task", "ActivityTaskScheduled", "ActivityTaskStarted", "ActivityTaskCompleted", "task", DONE])


async def test_a_reset_of_a_running_activity_is_told_and_counts_anew(stage):
    handle = await stage.start(Beats.run, "reset")
    await pending(stage, handle, "its start", lambda a: a.state == State.PENDING_ACTIVITY_STATE_STARTED)
    await stage.client.workflow_service.reset_activity(ResetActivityRequest(**of(handle, id="beats")))
    assert await handle.result() == "attempt 1"
    assert attempts["reset"] == 2 and told["reset"].reset


async def test_a_reset_of_a_waiting_activity_tries_at_once(stage):
    handle = await stage.start(Tries.run, "waits", 3600.0)
    await pending(stage, handle, "a failure", lambda a: a.attempt == 2)
    fine.add("waits")
    await stage.client.workflow_service.reset_activity(ResetActivityRequest(**of(handle, match_all=True)))
    assert await handle.result() == 1


async def test_other_options_count_for_a_wait_that_began(stage):
    handle = await stage.start(Tries.run, "options", 3600.0)
    await pending(stage, handle, "a failure", lambda a: a.attempt == 2)
    fine.add("options")
    changed = await stage.client.workflow_service.update_activity_options(
        UpdateActivityOptionsRequest(
            **of(handle, id="tries"),
            activity_options=ActivityOptions(retry_policy=RetryPolicyMessage(initial_interval=Duration(nanos=50_000_000))),
            update_mask=FieldMask(paths=["retry_policy.initial_interval"]),
        )
    )
    policy = changed.activity_options.retry_policy
    assert policy.initial_interval.nanos == 50_000_000 and policy.backoff_coefficient == 1.0
    assert changed.activity_options.start_to_close_timeout.seconds == 10
    assert await handle.result() == 2


async def test_what_is_not_pending_is_not_found(stage):
    service = stage.client.workflow_service
    handle = await stage.start(Counts.run)
    missing = await raises(RPCError, service.pause_activity(PauseActivityRequest(**of(handle, id="nothing"))), "nothing")
    assert missing.status == RPCStatusCode.NOT_FOUND
    nobody = await raises(RPCError, service.reset_activity(ResetActivityRequest(**of(handle))), "no activity is named")
    assert nobody.status == RPCStatusCode.INVALID_ARGUMENT
    await handle.terminate()


async def test_a_paused_workflow_misses_nothing(stage):
    service = stage.client.workflow_service
    handle = await stage.start(Counts.run)
    await stage.until(handle, "task")
    await handle.signal(Counts.one)
    await stage.until(handle, "task", 2)
    assert await handle.query(Counts.so_far) == 1
    named = {"namespace": stage.client.namespace, "workflow_id": handle.id, "identity": "operator"}
    pause = PauseWorkflowExecutionRequest(**named, reason="to look", request_id="p1")
    await service.pause_workflow_execution(pause)
    await service.pause_workflow_execution(pause)
    again = await raises(RPCError, service.pause_workflow_execution(PauseWorkflowExecutionRequest(**named)), "paused already")
    assert again.status == RPCStatusCode.FAILED_PRECONDITION

    description = await described(handle)
    listed_as = description.workflow_execution_info
    assert listed_as.status == WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_PAUSED and not listed_as.HasField("close_time")
    info = description.workflow_extended_info.pause_info
    assert info.identity == "operator" and info.reason == "to look" and info.HasField("paused_time")

    async def listed():
        query = f'ExecutionStatus = "Paused" AND WorkflowId = "{handle.id}"'
        found = await service.list_workflow_executions(
            ListWorkflowExecutionsRequest(namespace=stage.client.namespace, query=query)
        )
        return [execution.execution.workflow_id for execution in found.executions] == [handle.id]

    assert await listed()
    await handle.signal(Counts.one)
    await handle.signal(Counts.one)
    for refused in (handle.query(Counts.so_far), handle.execute_update(Counts.another)):
        error = await raises(RPCError, refused, "paused")
        assert error.status == RPCStatusCode.FAILED_PRECONDITION
    events = (await handle.fetch_history()).events
    assert [name_of(event) for event in events][-3:] == ["WorkflowExecutionPaused"] + ["WorkflowExecutionSignaled"] * 2
    await service.unpause_workflow_execution(UnpauseWorkflowExecutionRequest(**named, reason="seen"))
    assert await handle.result() == 3
    assert not await listed()
    await stage.check(
        handle,
        [
            STARTED, "task", "WorkflowExecutionSignaled", "task", "WorkflowExecutionPaused", "WorkflowExecutionSignaled",
            "WorkflowExecutionSignaled", ("WorkflowExecutionUnpaused", {"reason": "seen"}), "task", DONE,
        ],
    )


async def test_a_pause_before_the_first_workflow_task(stage):
    handle = await stage.start(Tries.run, "early", 0.1, task_queue=f"{stage.queue}-later")
    named = {"namespace": stage.client.namespace, "workflow_id": handle.id}
    await stage.client.workflow_service.pause_workflow_execution(PauseWorkflowExecutionRequest(**named))
    fine.add("early")
    async with stage.worker(task_queue=f"{stage.queue}-later"):
        await asyncio.sleep(0.3)
        assert "early" not in attempts
        await stage.client.workflow_service.unpause_workflow_execution(UnpauseWorkflowExecutionRequest(**named))
        assert await handle.result() == 1
    events = await stage.check(
        handle,
        [
            STARTED, "WorkflowTaskScheduled", "WorkflowTaskFailed", "WorkflowExecutionPaused", "WorkflowExecutionUnpaused",
            "task", "ActivityTaskScheduled", "ActivityTaskStarted", "ActivityTaskCompleted", "task", DONE,
        ],
    )
    cause = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_WORKFLOW_PAUSE_REQUESTED_BEFORE_TASK_STARTED
    assert attributes(events[2]).cause == cause and attributes(events[2]).started_event_id == 0
    assert events[3].worker_may_ignore and events[4].worker_may_ignore


async def test_a_run_pauses_when_the_workflow_task_under_way_has_ended(stage):
    handle = await stage.start(Beats.run, "under way")
    await pending(stage, handle, "its start", lambda a: a.state == State.PENDING_ACTIVITY_STATE_STARTED)
    named = {"namespace": stage.client.namespace, "workflow_id": handle.id}
    await stage.client.workflow_service.pause_workflow_execution(PauseWorkflowExecutionRequest(**named))
    # The whole run is paused: so is what it has under way.
    await pending(stage, handle, "the pause", lambda a: a.state == State.PENDING_ACTIVITY_STATE_PAUSED and not a.paused)
    assert told["under way"].paused
    await stage.client.workflow_service.unpause_workflow_execution(UnpauseWorkflowExecutionRequest(**named))
    assert await handle.result() == "attempt 2"
    await stage.check(handle)


async def test_a_run_whose_workflow_tasks_keep_failing_is_listed_as_such(stage):
    """By raw calls: the SDK lets a further attempt time out instead, which takes long."""
    service, queue = stage.client.workflow_service, TaskQueue(name=f"{stage.queue}-fails")
    handle = await stage.start(Counts.run, task_queue=queue.name)
    place = {"namespace": stage.client.namespace}
    query = f'TemporalReportedProblems = "cause=WorkflowTaskFailedCauseNonDeterministicError" AND WorkflowId = "{handle.id}"'

    async def listed():
        found = await service.list_workflow_executions(ListWorkflowExecutionsRequest(**place, query=query))
        return len(found.executions)

    for _ in range(5):
        assert await listed() == 0
        task = await service.poll_workflow_task_queue(PollWorkflowTaskQueueRequest(**place, task_queue=queue))
        cause = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_NON_DETERMINISTIC_ERROR
        await service.respond_workflow_task_failed(
            RespondWorkflowTaskFailedRequest(**place, task_token=task.task_token, cause=cause)
        )
    assert await listed() == 1
    for _ in range(3):
        await handle.signal(Counts.one)
    async with stage.worker(task_queue=queue.name):
        assert await handle.result() == 3
    assert await listed() == 0


async def test_a_summary_that_is_too_long_is_refused(stage):
    refused = await raises(RPCError, stage.start(Counts.run, static_summary="x" * 400), "its summary has 402 bytes")
    assert refused.status == RPCStatusCode.INVALID_ARGUMENT
