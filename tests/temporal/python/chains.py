"""Executions that act on each other: children and their close policies, continue-as-new, workflow retries, cron, signals and cancels
to others."""

import asyncio
from datetime import timedelta

from harness import DONE, STARTED, attributes, name_of, raises, shape
from temporalio import workflow
from temporalio.api.enums.v1 import ContinueAsNewInitiator, ParentClosePolicy as WirePolicy
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError, CancelledError, ChildWorkflowError, WorkflowAlreadyStartedError
from temporalio.workflow import ChildWorkflowCancellationType, ParentClosePolicy

S = timedelta(seconds=1)


@workflow.defn
class Child:
    def __init__(self):
        self.go = False

    @workflow.signal
    def release(self):
        self.go = True

    @workflow.run
    async def run(self, how: str) -> str:
        if how == "fail":
            raise ApplicationError("the child fails", type="Childish")
        if how == "wait":
            await workflow.wait_condition(lambda: self.go)
        if how == "again":
            workflow.continue_as_new("done")
        return f"child says {how}"


@workflow.defn
class Parent:
    @workflow.run
    async def run(self, how: str) -> str:
        try:
            return await workflow.execute_child_workflow(Child.run, how, id=f"{workflow.info().workflow_id}-child")
        except ChildWorkflowError as error:
            return f"{type(error.cause).__name__}: {error.cause}"
        except WorkflowAlreadyStartedError:
            return "taken"


@workflow.defn
class ParentOfMany:
    @workflow.run
    async def run(self, count: int) -> list:
        return await asyncio.gather(*(workflow.execute_child_workflow(Child.run, f"{i}") for i in range(count)))


@workflow.defn
class Leaves:
    """Starts a child with a policy and ends at once."""

    @workflow.run
    async def run(self, policy: int) -> str:
        child = await workflow.start_child_workflow(
            Child.run, "wait", id=f"{workflow.info().workflow_id}-child", parent_close_policy=ParentClosePolicy(policy)
        )
        return child.first_execution_run_id


@workflow.defn
class SignalsChild:
    @workflow.run
    async def run(self) -> str:
        child = await workflow.start_child_workflow(Child.run, "wait")
        await child.signal(Child.release)
        return await child


@workflow.defn
class CancelsChild:
    @workflow.run
    async def run(self) -> str:
        child = await workflow.start_child_workflow(
            Child.run, "wait", cancellation_type=ChildWorkflowCancellationType.WAIT_CANCELLATION_COMPLETED
        )
        child.cancel()
        try:
            return await child
        except ChildWorkflowError as error:
            return type(error.cause).__name__


@workflow.defn
class ToOthers:
    @workflow.run
    async def run(self, id: str, how: str) -> str:
        other = workflow.get_external_workflow_handle(id)
        try:
            if how == "cancel":
                await other.cancel()
            else:
                await other.signal("release")
        except ApplicationError as error:
            return f"{type(error).__name__}: {error.message}"
        return "sent"


@workflow.defn
class Counts:
    @workflow.run
    async def run(self, at: int, upto: int) -> int:
        if at < upto:
            workflow.continue_as_new(args=[at + 1, upto])
        return at


@workflow.defn
class Retried:
    @workflow.run
    async def run(self, fails: int) -> int:
        attempt = workflow.info().attempt
        if attempt <= fails:
            raise ApplicationError(f"try {attempt}")
        return attempt


@workflow.defn
class Periodic:
    @workflow.run
    async def run(self) -> int:
        last = workflow.get_last_completion_result(int) if workflow.has_last_completion_result() else 0
        return last + 1


WORKFLOWS = [Child, Parent, ParentOfMany, Leaves, SignalsChild, CancelsChild, ToOthers, Counts, Retried, Periodic]
ACTIVITIES = []
BORN = ["StartChildWorkflowExecutionInitiated", "ChildWorkflowExecutionStarted", "task"]


def child_of(stage, handle):
    return stage.client.get_workflow_handle(f"{handle.id}-child")


async def test_a_child_gives_its_result(stage):
    handle, result = await stage.run(Parent.run, "hello")
    assert result == "child says hello"
    events = await stage.check(
        handle,
        [
            STARTED,
            "task",
            ("StartChildWorkflowExecutionInitiated", {"workflow_id": f"{handle.id}-child", "workflow_type.name": "Child"}),
            ("ChildWorkflowExecutionStarted", {"initiated_event_id": 5}),
            "task",
            ("ChildWorkflowExecutionCompleted", {"initiated_event_id": 5, "started_event_id": 6}),
            "task",
            DONE,
        ],
    )
    child = await stage.check(child_of(stage, handle), [STARTED, "task", DONE])
    begun = attributes(child[0])
    assert begun.parent_workflow_execution.workflow_id == handle.id
    assert begun.parent_workflow_execution.run_id == handle.result_run_id
    assert begun.parent_initiated_event_id == 5
    assert begun.root_workflow_execution.workflow_id == handle.id
    assert attributes(events[5]).workflow_execution.run_id == begun.original_execution_run_id


async def test_a_childs_failure_reaches_the_parent(stage):
    handle, result = await stage.run(Parent.run, "fail")
    assert "the child fails" in result, result
    closed = ("ChildWorkflowExecutionFailed", {"failure.message": "the child fails"})
    await stage.check(handle, [STARTED, "task", *BORN, closed, "task", DONE])


async def test_a_child_may_be_terminated_or_cancelled_from_outside(stage):
    for how in ("terminate", "cancel"):
        handle = await stage.start(Parent.run, "wait")
        await stage.until(handle, "ChildWorkflowExecutionStarted")
        child = child_of(stage, handle)
        await (child.terminate() if how == "terminate" else child.cancel())
        result = await handle.result()
        kind = "TerminatedError" if how == "terminate" else "CancelledError"
        assert result.startswith(kind), result
        name = "ChildWorkflowExecutionTerminated" if how == "terminate" else "ChildWorkflowExecutionCanceled"
        await stage.check(handle, [STARTED, "task", *BORN, name, "task", DONE])
        await stage.check(child)


async def test_a_child_whose_id_is_taken_does_not_start(stage):
    id = stage.id()
    taken = await stage.start(Child.run, "wait", id=f"{id}-child")
    handle, result = await stage.run(Parent.run, "x", id=id)
    assert result == "taken", result
    failed = "StartChildWorkflowExecutionFailed"
    await stage.check(handle, [STARTED, "task", "StartChildWorkflowExecutionInitiated", failed, "task", DONE])
    await taken.terminate()


async def test_many_children_at_once(stage):
    handle, result = await stage.run(ParentOfMany.run, 30)
    assert result == [f"child says {i}" for i in range(30)]
    names = [name_of(e) for e in await stage.check(handle)]
    assert names.count("ChildWorkflowExecutionCompleted") == 30


async def test_a_childs_chain_is_one_child(stage):
    handle, result = await stage.run(Parent.run, "again")
    assert result == "child says done"
    await stage.check(handle, [STARTED, "task", *BORN, "ChildWorkflowExecutionCompleted", "task", DONE])


async def test_what_becomes_of_children_when_their_parent_closes(stage):
    wanted = {
        ParentClosePolicy.TERMINATE: WorkflowExecutionStatus.TERMINATED,
        ParentClosePolicy.REQUEST_CANCEL: WorkflowExecutionStatus.CANCELED,
        ParentClosePolicy.ABANDON: WorkflowExecutionStatus.COMPLETED,
    }
    for policy, status in wanted.items():
        handle, run_id = await stage.run(Leaves.run, int(policy))
        child = child_of(stage, handle)
        if policy == ParentClosePolicy.ABANDON:
            assert (await child.describe()).status == WorkflowExecutionStatus.RUNNING
            await child.signal(Child.release)

        async def ended():
            described = await child.describe()
            return described.status != WorkflowExecutionStatus.RUNNING and described

        described = await stage.eventually(f"the end of the child, {policy.name}", ended)
        assert described.status == status, (policy, described.status)
        assert described.run_id == run_id and described.parent_id == handle.id
        events = await stage.check(handle)
        initiated = next(e for e in events if name_of(e) == "StartChildWorkflowExecutionInitiated")
        assert attributes(initiated).parent_close_policy == int(policy)
        await stage.check(child)


async def test_a_parent_signals_its_child(stage):
    handle, result = await stage.run(SignalsChild.run)
    assert result == "child says wait"
    names = [name_of(e) for e in await stage.check(handle)]
    assert "SignalExternalWorkflowExecutionInitiated" in names and "ExternalWorkflowExecutionSignaled" in names, names


async def test_a_parent_cancels_its_child(stage):
    handle, result = await stage.run(CancelsChild.run)
    assert result == "CancelledError", result
    names = [name_of(e) for e in await stage.check(handle)]
    assert "RequestCancelExternalWorkflowExecutionInitiated" in names, names
    assert "ExternalWorkflowExecutionCancelRequested" in names and "ChildWorkflowExecutionCanceled" in names, names


async def test_signals_and_cancels_reach_others(stage):
    other = await stage.start(Child.run, "wait")
    handle, result = await stage.run(ToOthers.run, other.id, "signal")
    assert result == "sent"
    assert await other.result() == "child says wait"
    sent = ["SignalExternalWorkflowExecutionInitiated", "ExternalWorkflowExecutionSignaled"]
    await stage.check(handle, [STARTED, "task", *sent, "task", DONE])
    await stage.check(other)

    other = await stage.start(Child.run, "wait")
    await stage.until(other, "task")
    handle, result = await stage.run(ToOthers.run, other.id, "cancel")
    assert result == "sent"
    error = await raises(WorkflowFailureError, other.result())
    assert isinstance(error.cause, CancelledError)
    sent = ["RequestCancelExternalWorkflowExecutionInitiated", "ExternalWorkflowExecutionCancelRequested"]
    await stage.check(handle, [STARTED, "task", *sent, "task", DONE])


async def test_what_is_sent_to_nobody_fails(stage):
    handle, result = await stage.run(ToOthers.run, stage.id("nobody"), "signal")
    assert result.startswith("ApplicationError"), result
    sent = ["SignalExternalWorkflowExecutionInitiated", "SignalExternalWorkflowExecutionFailed"]
    await stage.check(handle, [STARTED, "task", *sent, "task", DONE])
    handle, result = await stage.run(ToOthers.run, stage.id("nobody"), "cancel")
    assert result.startswith("ApplicationError"), result
    await stage.check(handle)


async def test_continue_as_new_is_a_chain(stage):
    handle, result = await stage.run(Counts.run, 0, 3)
    assert result == 3
    first = stage.client.get_workflow_handle(handle.id, run_id=handle.result_run_id)
    events = await stage.check(first, [STARTED, "task", "WorkflowExecutionContinuedAsNew"])
    second_id = attributes(events[-1]).new_execution_run_id
    second = stage.client.get_workflow_handle(handle.id, run_id=second_id)
    events = await stage.check(second, [STARTED, "task", "WorkflowExecutionContinuedAsNew"])
    begun = attributes(events[0])
    assert begun.continued_execution_run_id == handle.result_run_id
    assert begun.first_execution_run_id == handle.result_run_id
    assert begun.original_execution_run_id == second_id
    assert begun.initiator == ContinueAsNewInitiator.CONTINUE_AS_NEW_INITIATOR_WORKFLOW


async def test_a_failed_workflow_is_tried_again(stage):
    retry = RetryPolicy(initial_interval=timedelta(milliseconds=50), maximum_attempts=5)
    handle, result = await stage.run(Retried.run, 2, retry_policy=retry)
    assert result == 3
    first = stage.client.get_workflow_handle(handle.id, run_id=handle.result_run_id)
    events = await stage.check(first, [STARTED, "task", ("WorkflowExecutionFailed", {"failure.message": "try 1"})])
    second_id = attributes(events[-1]).new_execution_run_id
    assert second_id, "the failure names the next run"
    second = stage.client.get_workflow_handle(handle.id, run_id=second_id)
    begun = attributes((await stage.check(second))[0])
    assert begun.attempt == 2
    assert begun.initiator == ContinueAsNewInitiator.CONTINUE_AS_NEW_INITIATOR_RETRY
    assert begun.continued_failure.message == "try 1"
    assert begun.first_execution_run_id == handle.result_run_id


async def test_retries_of_a_workflow_are_bounded(stage):
    retry = RetryPolicy(initial_interval=timedelta(milliseconds=20), maximum_attempts=2)
    handle = await stage.start(Retried.run, 9, retry_policy=retry)
    error = await raises(WorkflowFailureError, handle.result())
    assert error.cause.message == "try 2", error.cause


async def test_cron_starts_again_behind_each_end(stage):
    handle = await stage.start(Periodic.run, cron_schedule="@every 1s")

    async def third():
        events = (await stage.client.get_workflow_handle(handle.id).fetch_history()).events
        return attributes(events[0]).last_completion_result.payloads[:1] and attributes(events[0])

    begun = await stage.eventually("a second run", third)
    assert begun.initiator == ContinueAsNewInitiator.CONTINUE_AS_NEW_INITIATOR_CRON_SCHEDULE
    assert begun.cron_schedule == "@every 1s"
    assert begun.first_workflow_task_backoff.ToMilliseconds() > 0
    await stage.client.get_workflow_handle(handle.id).terminate()
    first = stage.client.get_workflow_handle(handle.id, run_id=handle.result_run_id)
    events = await stage.check(first)
    assert attributes(events[-1]).new_execution_run_id
