"""Updates: validated, rejected, accepted, polled, deduplicated."""

import asyncio
from datetime import timedelta

from harness import DONE, STARTED, attributes, name_of, raises, shape
from temporalio import workflow
from temporalio.client import (
    WorkflowUpdateFailedError,
    WorkflowUpdateStage,
)
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

S = timedelta(seconds=1)


@workflow.defn
class Account:
    def __init__(self):
        self.total = 0
        self.closed = False
        self.done = 0

    @workflow.update
    async def add(self, amount: int, slowly: bool = False) -> int:
        if slowly:
            await workflow.sleep(0.3)
        if amount == 13:
            raise ApplicationError("unlucky")
        self.total += amount
        self.done += 1
        return self.total

    @add.validator
    def check_add(self, amount: int, slowly: bool = False):
        if amount < 0:
            raise ValueError("negative")

    @workflow.signal
    def close(self):
        self.closed = True

    @workflow.query
    def read(self) -> int:
        return self.total

    @workflow.run
    async def run(self) -> int:
        await workflow.wait_condition(lambda: self.closed and workflow.all_handlers_finished())
        return self.total


WORKFLOWS = [Account]
ACTIVITIES = []


async def close(handle):
    await handle.signal(Account.close)
    return await handle.result()


async def test_an_update_changes_and_answers(stage):
    handle = await stage.start(Account.run)
    await stage.until(handle, "task")
    assert await handle.execute_update(Account.add, 5) == 5
    assert await handle.execute_update(Account.add, 2) == 7
    assert await close(handle) == 7
    pair = ["WorkflowExecutionUpdateAccepted", "WorkflowExecutionUpdateCompleted"]
    events = await stage.check(
        handle, [STARTED, "task", "task", *pair, "task", *pair, "WorkflowExecutionSignaled", "task", DONE]
    )
    accepted = next(e for e in events if name_of(e) == "WorkflowExecutionUpdateAccepted")
    assert attributes(accepted).accepted_request.input.name == "add"


async def test_an_update_at_once_with_the_first_task(stage):
    handle = await stage.start(Account.run)
    assert await handle.execute_update(Account.add, 5) == 5
    assert await close(handle) == 5
    await stage.check(handle)


async def test_a_rejected_update_leaves_no_trace(stage):
    handle = await stage.start(Account.run)
    await stage.until(handle, "task")
    before = (await handle.fetch_history()).events
    error = await raises(WorkflowUpdateFailedError, handle.execute_update(Account.add, -1))
    assert "negative" in str(error.cause), error.cause
    after = (await handle.fetch_history()).events
    assert list(after) == list(before), shape(after)
    assert await handle.execute_update(Account.add, 1) == 1
    assert await close(handle) == 1
    await stage.check(handle)


async def test_an_update_that_fails_after_acceptance_is_written(stage):
    handle = await stage.start(Account.run)
    error = await raises(WorkflowUpdateFailedError, handle.execute_update(Account.add, 13))
    assert "unlucky" in str(error.cause), error.cause
    await close(handle)
    events = await stage.check(handle)
    completed = next(e for e in events if name_of(e) == "WorkflowExecutionUpdateCompleted")
    assert attributes(completed).outcome.failure.message == "unlucky"


async def test_an_update_is_accepted_first_and_polled_later(stage):
    handle = await stage.start(Account.run)
    update = await handle.start_update(Account.add, args=[3, True], wait_for_stage=WorkflowUpdateStage.ACCEPTED)
    assert await update.result() == 3
    again = handle.get_update_handle(update.id, result_type=int)
    assert await again.result() == 3
    assert await close(handle) == 3
    # Long after the end of the run.
    assert await again.result() == 3
    await stage.check(handle)


async def test_the_same_update_twice_is_one(stage):
    handle = await stage.start(Account.run)
    ids = ["one", "one", "two", "one"]
    results = await asyncio.gather(*(handle.execute_update(Account.add, 1, id=id) for id in ids))
    assert sorted(results) in ([1, 1, 1, 2], [1, 2, 2, 2]), results
    assert await handle.execute_update(Account.add, 1, id="one") in (1, 2)
    assert await close(handle) == 2
    names = [name_of(e) for e in await stage.check(handle)]
    assert names.count("WorkflowExecutionUpdateAccepted") == 2, names


async def test_an_update_of_what_is_closed_or_unknown_is_refused(stage):
    handle = await stage.start(Account.run)
    await stage.until(handle, "task")
    await close(handle)
    error = await raises(RPCError, handle.execute_update(Account.add, 1))
    assert error.status == RPCStatusCode.NOT_FOUND, error
    error = await raises(RPCError, stage.client.get_workflow_handle(stage.id()).execute_update(Account.add, 1))
    assert error.status == RPCStatusCode.NOT_FOUND, error


async def test_an_unknown_update_is_rejected_by_the_worker(stage):
    handle = await stage.start(Account.run)
    await raises(WorkflowUpdateFailedError, handle.execute_update("nothing", 1))
    await close(handle)
    await stage.check(handle)


async def test_many_updates_in_turn(stage):
    handle = await stage.start(Account.run)
    for _ in range(25):
        await handle.execute_update(Account.add, 1)
    assert await close(handle) == 25
    await stage.check(handle)
