"""Deleted executions are gone: from reads, from lists, and for whoever asks again. What they owed others is done first."""

import asyncio

from harness import raises
from temporalio import workflow
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import DeleteWorkflowExecutionRequest
from temporalio.client import WorkflowExecutionStatus
from temporalio.exceptions import ChildWorkflowError, TerminatedError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode


@workflow.defn
class Waits:
    def __init__(self):
        self.end = False

    @workflow.signal
    def stop(self):
        self.end = True

    @workflow.run
    async def run(self) -> str:
        await workflow.wait_condition(lambda: self.end)
        return "stopped"


@workflow.defn
class Above:
    @workflow.run
    async def run(self) -> str:
        try:
            return await workflow.execute_child_workflow(Waits.run, id=f"{workflow.info().workflow_id}-child")
        except ChildWorkflowError as error:
            return type(error.cause).__name__


WORKFLOWS = [Waits, Above]
ACTIVITIES = []


async def delete(stage, id, run_id=""):
    execution = WorkflowExecution(workflow_id=id, run_id=run_id or "")
    request = DeleteWorkflowExecutionRequest(namespace=stage.client.namespace, workflow_execution=execution)
    await stage.client.workflow_service.delete_workflow_execution(request)


async def listed(stage, id):
    return [run.run_id async for run in stage.client.list_workflows(f"WorkflowId = '{id}'")]


async def is_gone(stage, id, run_id):
    handle = stage.client.get_workflow_handle(id, run_id=run_id)
    for ask in (handle.describe, handle.fetch_history, handle.terminate, lambda: delete(stage, id, run_id)):
        error = await raises(RPCError, ask())
        assert error.status == RPCStatusCode.NOT_FOUND, error
    assert run_id not in await listed(stage, id)


async def test_a_closed_run_is_deleted_and_its_id_is_free(stage):
    handle = await stage.start(Waits.run)
    await handle.signal(Waits.stop)
    assert await handle.result() == "stopped"
    await delete(stage, handle.id)
    await is_gone(stage, handle.id, handle.result_run_id)
    again = await stage.start(Waits.run, id=handle.id)
    await again.signal(Waits.stop)
    assert await again.result() == "stopped"
    await stage.check(again)


async def test_an_open_run_is_ended_first(stage):
    handle = await stage.start(Waits.run)
    await stage.until(handle, "task")
    waiting = asyncio.create_task(handle.result())
    await asyncio.sleep(0)
    await delete(stage, handle.id)
    await is_gone(stage, handle.id, handle.result_run_id)
    # Whoever waited learns that it ended, or that it is not there any more.
    assert isinstance((await asyncio.gather(waiting, return_exceptions=True))[0], Exception)


async def test_one_run_of_an_id_leaves_and_the_newer_stays(stage):
    first = await stage.start(Waits.run)
    await raises(WorkflowAlreadyStartedError, stage.start(Waits.run, id=first.id))
    await first.signal(Waits.stop)
    await first.result()
    second = await stage.start(Waits.run, id=first.id)
    await delete(stage, first.id, first.result_run_id)
    await is_gone(stage, first.id, first.result_run_id)
    assert await listed(stage, first.id) == [second.result_run_id]
    assert (await second.describe()).status == WorkflowExecutionStatus.RUNNING
    await second.signal(Waits.stop)
    assert await second.result() == "stopped"
    await stage.check(second)


async def test_a_parent_is_told_of_a_deleted_child(stage):
    parent = await stage.start(Above.run)
    await stage.until(parent, "ChildWorkflowExecutionStarted")
    child = f"{parent.id}-child"
    run_id = (await stage.client.get_workflow_handle(child).describe()).run_id
    await delete(stage, child)
    assert await parent.result() == TerminatedError.__name__
    await stage.check(parent)
    await is_gone(stage, child, run_id)


async def test_what_is_not_there_is_not_found(stage):
    error = await raises(RPCError, delete(stage, stage.id()))
    assert error.status == RPCStatusCode.NOT_FOUND, error
    error = await raises(RPCError, delete(stage, ""))
    assert error.status == RPCStatusCode.INVALID_ARGUMENT, error
