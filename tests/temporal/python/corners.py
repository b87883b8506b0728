"""Corners of the SDK: long histories, much at once, commands that undo one another in one task, calls by id, chains with updates."""

import asyncio
from datetime import timedelta

from harness import name_of, raises, shape
from temporalio import activity, workflow
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice import v1 as service
from temporalio.client import WorkflowFailureError
from temporalio.common import RetryPolicy, SearchAttributeKey, SearchAttributePair, TypedSearchAttributes
from temporalio.exceptions import ActivityError, ApplicationError, CancelledError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

S = timedelta(seconds=1)
MS = timedelta(milliseconds=1)
tokens = {}
gates = {}


@activity.defn
async def echo(text: str) -> str:
    return text


@activity.defn
async def flaky(fails: int) -> int:
    if activity.info().attempt <= fails:
        raise ApplicationError("again")
    return activity.info().attempt


@activity.defn
async def from_elsewhere() -> str:
    tokens.setdefault(activity.info().workflow_id, asyncio.Future()).set_result(activity.info().activity_id)
    activity.raise_complete_async()


@activity.defn
async def held() -> str:
    await gates.setdefault(activity.info().workflow_id, asyncio.Event()).wait()
    return "held"


@workflow.defn
class Long:
    def __init__(self):
        self.count = 0
        self.over = False

    @workflow.signal
    def put(self, text: str):
        self.count += 1
        self.over = text == "stop"

    @workflow.query
    def so_far(self) -> int:
        return self.count

    @workflow.run
    async def run(self) -> int:
        while not self.over:
            before = self.count
            await workflow.wait_condition(lambda: self.count > before)
        return self.count


@workflow.defn
class Wide:
    @workflow.run
    async def run(self, count: int) -> int:
        calls = [workflow.execute_activity(echo, "x" * 2000, start_to_close_timeout=30 * S) for _ in range(count)]
        return len(await asyncio.gather(*calls))


@workflow.defn
class Undoing:
    """Begins things and takes them back in the same task."""

    @workflow.run
    async def run(self) -> list:
        said = []
        timer = asyncio.ensure_future(workflow.sleep(60))
        call = workflow.start_activity(echo, "x", start_to_close_timeout=5 * S)
        child = asyncio.ensure_future(workflow.execute_child_workflow(Wide.run, 1))
        await asyncio.sleep(0)
        for begun in (timer, call, child):
            begun.cancel()
        for begun in (timer, call, child):
            try:
                await begun
            except BaseException as error:
                said.append(type(error).__name__)
        await workflow.sleep(20 * MS)
        return said


@workflow.defn
class CancelsWhatBegan:
    """Cancels an activity that nobody has taken, a timer, and an external signal, each a task later."""

    @workflow.run
    async def run(self, queue: str) -> str:
        call = workflow.start_activity(
            echo, "x", task_queue=queue, schedule_to_close_timeout=30 * S,
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        )
        timer = asyncio.ensure_future(workflow.sleep(60))
        await workflow.sleep(20 * MS)
        call.cancel()
        timer.cancel()
        try:
            await call
        except ActivityError as error:
            return type(error.cause).__name__
        return "not cancelled"


@workflow.defn
class LocalBackoff:
    @workflow.run
    async def run(self) -> int:
        return await workflow.execute_local_activity(
            flaky, 2, start_to_close_timeout=5 * S, local_retry_threshold=10 * MS,
            retry_policy=RetryPolicy(initial_interval=200 * MS, backoff_coefficient=1.0),
        )


@workflow.defn
class Elsewhere:
    @workflow.run
    async def run(self) -> str:
        return await workflow.execute_activity(
            from_elsewhere, start_to_close_timeout=30 * S, heartbeat_timeout=20 * S, retry_policy=RetryPolicy(maximum_attempts=2, initial_interval=20 * MS)
        )


@workflow.defn
class Again:
    """Continues as new when its activity ends; takes updates in each of its runs."""

    def __init__(self):
        self.texts = []

    @workflow.signal
    def put(self, text: str):
        self.texts.append(text)

    @workflow.update
    def add(self, text: str) -> str:
        self.texts.append(text)
        return workflow.info().run_id

    @workflow.run
    async def run(self) -> list:
        if not workflow.info().continued_run_id:
            await workflow.execute_local_activity(held, start_to_close_timeout=30 * S)
            workflow.continue_as_new()
        await workflow.wait_condition(lambda: "stop" in self.texts)
        return self.texts


CHANGING = SearchAttributeKey.for_keyword("CornerKeyword")


@workflow.defn
class Attributes:
    @workflow.run
    async def run(self, left: int) -> list:
        before = workflow.info().typed_search_attributes.get(CHANGING)
        workflow.upsert_search_attributes([CHANGING.value_set(f"left {left}")])
        if left:
            workflow.continue_as_new(left - 1)
        return [before, workflow.info().typed_search_attributes.get(CHANGING)]


WORKFLOWS = [Long, Wide, Undoing, CancelsWhatBegan, LocalBackoff, Elsewhere, Again, Attributes]
ACTIVITIES = [echo, flaky, from_elsewhere, held]


async def test_a_long_history_is_read_in_pages_by_a_worker_without_it(stage):
    queue = stage.id("q")
    async with stage.worker(task_queue=queue):
        handle = await stage.start(Long.run, task_queue=queue)
        for i in range(330):
            await handle.signal(Long.put, "x" * 4000)
    async with stage.worker(task_queue=queue, max_cached_workflows=0):
        assert await handle.query(Long.so_far) == 330
        await handle.signal(Long.put, "stop")
        assert await handle.result() == 331
        assert await handle.query(Long.so_far) == 331
    await stage.check(handle)


async def test_hundreds_of_activities_at_once(stage):
    handle, count = await stage.run(Wide.run, 500)
    assert count == 500
    await stage.check(handle)


async def test_what_is_taken_back_at_once_leaves_nothing(stage):
    handle, said = await stage.run(Undoing.run)
    assert len(said) == 3, said
    names = [name_of(e) for e in await stage.check(handle)]
    assert "StartChildWorkflowExecutionInitiated" not in names and "ActivityTaskScheduled" not in names, names


async def test_what_nobody_took_is_cancelled_a_task_later(stage):
    handle, said = await stage.run(CancelsWhatBegan.run, stage.id("nobody"))
    assert said == "CancelledError", said
    await stage.check(handle)


async def test_a_local_activity_that_waits_long_waits_in_a_timer(stage):
    handle, attempt = await stage.run(LocalBackoff.run)
    assert attempt == 3
    names = [name_of(e) for e in await stage.check(handle)]
    assert names.count("TimerFired") == 2 and names.count("MarkerRecorded") == 3, names


async def test_calls_by_id_beat_fail_and_complete(stage):
    handle = await stage.start(Elsewhere.run)
    activity_id = await asyncio.wait_for(tokens.setdefault(handle.id, asyncio.Future()), 20)
    elsewhere = stage.client.get_async_activity_handle(workflow_id=handle.id, run_id=handle.result_run_id, activity_id=activity_id)
    await elsewhere.heartbeat("beat")
    tokens.pop(handle.id)
    await elsewhere.fail(ApplicationError("once"), last_heartbeat_details=["last"])
    again = await asyncio.wait_for(tokens.setdefault(handle.id, asyncio.Future()), 20)
    assert again == activity_id
    described = (await handle.describe()).raw_description.pending_activities[0]
    assert described.attempt == 2 and described.last_failure.message == "once"
    # Without a run id: the newest.
    newest = stage.client.get_async_activity_handle(workflow_id=handle.id, run_id=None, activity_id=activity_id)
    await newest.complete("by id")
    assert await handle.result() == "by id"
    error = await raises(RPCError, newest.complete("twice"))
    assert error.status == RPCStatusCode.NOT_FOUND, error
    await stage.check(handle)


async def test_an_update_while_it_continues_as_new_is_the_next_runs(stage):
    handle = await stage.start(Again.run)
    await stage.eventually("its activity", lambda: asyncio.sleep(0, handle.id in gates))
    newest = stage.client.get_workflow_handle_for(Again.run, handle.id)
    update = asyncio.ensure_future(newest.execute_update(Again.add, "u"))
    await asyncio.sleep(0.1)
    gates[handle.id].set()
    run = await asyncio.wait_for(update, 20)
    await newest.signal(Again.put, "stop")
    result = await newest.result()
    first = await stage.check(stage.client.get_workflow_handle(handle.id, run_id=handle.result_run_id))
    last = await stage.check(newest)
    accepted = [name_of(e) for e in [*first, *last]].count("WorkflowExecutionUpdateAccepted")
    assert accepted == 1 and result[-1] == "stop", (run, result, shape(first), shape(last))


async def test_search_attributes_go_with_a_chain(stage):
    from temporalio.api.enums.v1 import IndexedValueType
    from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest

    add = AddSearchAttributesRequest(
        namespace=stage.client.namespace, search_attributes={"CornerKeyword": IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD}
    )
    await stage.client.operator_service.add_search_attributes(add)
    given = TypedSearchAttributes([SearchAttributePair(CHANGING, "given")])
    handle, seen = await stage.run(Attributes.run, 1, search_attributes=given)
    assert seen == ["left 1", "left 0"], seen
    await stage.check(handle)


async def test_a_sticky_queue_can_be_reset(stage):
    handle = await stage.start(Long.run)
    await stage.until(handle, "task")
    execution = WorkflowExecution(workflow_id=handle.id, run_id=handle.result_run_id)
    reset = service.ResetStickyTaskQueueRequest(namespace=stage.client.namespace, execution=execution)
    await stage.client.workflow_service.reset_sticky_task_queue(reset)
    await handle.signal(Long.put, "stop")
    assert await handle.result() == 1
    await stage.check(handle)


async def test_the_first_run_of_a_chain_is_told_to_who_uses_it(stage):
    from temporalio.common import WorkflowIDConflictPolicy

    handle = await stage.start(Again.run)
    await stage.eventually("its activity", lambda: asyncio.sleep(0, handle.id in gates))
    gates[handle.id].set()
    newest = stage.client.get_workflow_handle_for(Again.run, handle.id)

    async def second():
        return (await newest.describe()).run_id != handle.result_run_id

    await stage.eventually("the second run", second)
    same = await stage.start(Again.run, id=handle.id, id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING)
    assert same.result_run_id == (await newest.describe()).run_id
    assert same.first_execution_run_id == handle.result_run_id, "the first of the chain"
    error = await raises(WorkflowAlreadyStartedError, stage.start(Again.run, id=handle.id))
    assert error.run_id == same.result_run_id
    # Bound to the chain, not to a run of it.
    await stage.client.get_workflow_handle(handle.id, first_execution_run_id=handle.result_run_id).cancel()
    error = await raises(WorkflowFailureError, newest.result())
    assert isinstance(error.cause, CancelledError), error.cause
    await raises(RPCError, stage.client.get_workflow_handle(handle.id, first_execution_run_id=stage.id()).terminate())
