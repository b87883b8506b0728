"""What operators said survives a kill of the server."""

import asyncio

from operators import ACTIVITIES, WORKFLOWS, Counts, Tries, attempts, described, fine, of, pending
from temporalio.api.enums.v1 import PendingActivityState as State
from temporalio.api.enums.v1 import WorkflowExecutionStatus
from temporalio.api.workflowservice.v1 import (
    PauseActivityExecutionRequest,
    PauseWorkflowExecutionRequest,
    UnpauseActivityRequest,
    UnpauseWorkflowExecutionRequest,
)

__all__ = ["ACTIVITIES", "WORKFLOWS"]


async def test_pauses_survive_a_kill(stage):
    service = stage.client.workflow_service
    tries = await stage.start(Tries.run, "killed", 0.1)
    await pending(stage, tries, "a failure", lambda a: a.attempt > 1)
    named = {"namespace": stage.client.namespace, "workflow_id": tries.id}
    await service.pause_activity_execution(PauseActivityExecutionRequest(**named, activity_id="tries", reason="again"))
    counts = await stage.start(Counts.run)
    whole = {"namespace": stage.client.namespace, "workflow_id": counts.id}
    await service.pause_workflow_execution(PauseWorkflowExecutionRequest(**whole, reason="to look"))
    for _ in range(3):
        await counts.signal(Counts.one)

    await stage.kill()
    found = await pending(stage, tries, "the pause", lambda a: a.state == State.PENDING_ACTIVITY_STATE_PAUSED)
    tried, at = attempts["killed"], found.attempt
    await asyncio.sleep(0.5)
    assert attempts["killed"] == tried
    assert (await described(counts)).workflow_execution_info.status == WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_PAUSED

    fine.add("killed")
    await service.unpause_activity(UnpauseActivityRequest(**of(tries, unpause_all=True)))
    assert await tries.result() == at
    await service.unpause_workflow_execution(UnpauseWorkflowExecutionRequest(**whole))
    assert await counts.result() == 3
    await stage.check(counts)
    await stage.check(tries)
