"""An update and the start of the run that it needs, in one call."""

from temporalio.client import WithStartWorkflowOperation
from temporalio.common import WorkflowIDConflictPolicy
from updates import ACTIVITIES, WORKFLOWS, Account, close

__all__ = ["ACTIVITIES", "WORKFLOWS"]


async def test_an_update_with_a_start(stage):
    id = stage.id()

    def start():
        return WithStartWorkflowOperation(
            Account.run, id=id, task_queue=stage.queue, id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING
        )

    first, second = start(), start()
    update = stage.client.execute_update_with_start_workflow
    assert await update(Account.add, 4, start_workflow_operation=first) == 4
    assert await update(Account.add, 4, start_workflow_operation=second) == 8
    handle = await first.workflow_handle()
    assert handle.result_run_id == (await second.workflow_handle()).result_run_id
    assert await close(stage.client.get_workflow_handle(id)) == 8
    await stage.check(handle)
