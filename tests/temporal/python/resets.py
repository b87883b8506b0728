"""Resets: a run goes on from one of its workflow tasks, as a new run."""

from datetime import timedelta

from harness import attributes, name_of, raises
from temporalio import activity, workflow
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import WorkflowTaskFailedCause
from temporalio.api.workflowservice import v1 as service
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import TerminatedError

S = timedelta(seconds=1)


@activity.defn
async def add(a: int, b: int) -> int:
    return a + b


@workflow.defn
class Sums:
    def __init__(self):
        self.extra = 0

    @workflow.signal
    def more(self, amount: int):
        self.extra += amount

    @workflow.run
    async def run(self) -> int:
        total = 0
        for number in range(3):
            total = await workflow.execute_activity(add, args=[total, number + 1], start_to_close_timeout=5 * S)
        await workflow.wait_condition(lambda: self.extra > 0)
        return total + self.extra


WORKFLOWS = [Sums]
ACTIVITIES = [add]


async def reset(stage, handle, event_id, **more):
    request = service.ResetWorkflowExecutionRequest(
        namespace=stage.client.namespace,
        workflow_execution=WorkflowExecution(workflow_id=handle.id, run_id=handle.result_run_id),
        reason="a test",
        workflow_task_finish_event_id=event_id,
        **more,
    )
    return (await stage.client.workflow_service.reset_workflow_execution(request)).run_id


async def test_a_closed_run_goes_on_from_a_task(stage):
    handle = await stage.start(Sums.run)
    await handle.signal(Sums.more, 10)
    assert await handle.result() == 16
    first = await stage.check(handle)
    completed = [e.event_id for e in first if name_of(e) == "WorkflowTaskCompleted"]
    request_id = stage.id()
    run_id = await reset(stage, handle, completed[1], request_id=request_id)
    assert run_id == await reset(stage, handle, completed[1], request_id=request_id), "the same request is one reset"
    again = stage.client.get_workflow_handle(handle.id, run_id=run_id)
    assert await again.result() == 16
    events = await stage.check(again)
    failed = next(e for e in events if name_of(e) == "WorkflowTaskFailed")
    at = attributes(failed)
    assert at.cause == WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_RESET_WORKFLOW
    assert at.base_run_id == handle.result_run_id and at.new_run_id == run_id
    assert attributes(events[0]).original_execution_run_id == handle.result_run_id


async def test_an_open_run_is_terminated_and_its_signals_come_again(stage):
    handle = await stage.start(Sums.run)
    await stage.until(handle, "ActivityTaskCompleted", 3)
    events = await stage.check(handle)
    completed = [e.event_id for e in events if name_of(e) == "WorkflowTaskCompleted"]
    await handle.signal(Sums.more, 0)
    run_id = await reset(stage, handle, completed[0])
    old = stage.client.get_workflow_handle(handle.id, run_id=handle.result_run_id)
    error = await raises(WorkflowFailureError, old.result(follow_runs=False))
    assert isinstance(error.cause, TerminatedError)
    again = stage.client.get_workflow_handle(handle.id, run_id=run_id)
    await again.signal(Sums.more, 4)
    assert await again.result() == 10
    names = [name_of(e) for e in await stage.check(again)]
    assert names.count("WorkflowExecutionSignaled") == 2, names


async def test_a_place_that_is_no_task_is_refused(stage):
    from temporalio.service import RPCError, RPCStatusCode

    handle = await stage.start(Sums.run)
    await handle.signal(Sums.more, 1)
    await handle.result()
    for event_id in (0, 1, 999):
        error = await raises(RPCError, reset(stage, handle, event_id))
        assert error.status == RPCStatusCode.INVALID_ARGUMENT, (event_id, error)
