"""The server is killed as a power cut would, in each wait of a workflow; nothing acknowledged is lost, and the workflow ends well."""

import asyncio
from datetime import timedelta

from harness import DONE, STARTED, attributes, name_of
from temporalio import activity, workflow
from temporalio.common import RetryPolicy
from temporalio.service import RPCError

S = timedelta(seconds=1)
gate = {}
runs = {}
FAST = RetryPolicy(initial_interval=timedelta(milliseconds=50))


@activity.defn
async def held(name: str) -> str:
    runs[name] = runs.get(name, 0) + 1
    while not gate.get(name):
        activity.heartbeat(runs[name])
        await asyncio.sleep(0.1)
    return f"{name} done"


@activity.defn
async def failing(name: str, until: int) -> int:
    if activity.info().attempt < until:
        raise ApplicationError("again")
    return activity.info().attempt


from temporalio.exceptions import ApplicationError  # noqa: E402


@workflow.defn
class Waiting:
    def __init__(self):
        self.signals = []

    @workflow.signal
    def put(self, text: str):
        self.signals.append(text)

    @workflow.query
    def got(self) -> list:
        return self.signals

    @workflow.run
    async def run(self, what: str) -> str:
        id = workflow.info().workflow_id
        if what == "timer":
            await workflow.sleep(3)
        elif what == "activity":
            return await workflow.execute_activity(
                held, id, start_to_close_timeout=60 * S, heartbeat_timeout=4 * S, retry_policy=FAST
            )
        elif what == "backoff":
            retry = RetryPolicy(initial_interval=2 * S, backoff_coefficient=1.0)
            return f"attempt {await workflow.execute_activity(failing, args=[id, 3], start_to_close_timeout=9 * S, retry_policy=retry)}"
        elif what == "signal":
            await workflow.wait_condition(lambda: "go" in self.signals)
        elif what == "child":
            return await workflow.execute_child_workflow(Waiting.run, "signal", id=f"{id}-child")
        return what


WORKFLOWS = [Waiting]
ACTIVITIES = [held, failing]
ONE_BY_ONE = True


async def patiently(ask):
    """Clients ask again while the server is away; some errors of a broken connection reach the caller all the same."""
    for _ in range(100):
        try:
            return await ask()
        except RPCError as error:
            if error.status.name not in ("UNAVAILABLE", "CANCELLED", "UNKNOWN", "DEADLINE_EXCEEDED"):
                raise
            await asyncio.sleep(0.1)
    raise AssertionError("the server does not come back")


async def test_in_a_timer(stage):
    handle = await stage.start(Waiting.run, "timer")
    await stage.until(handle, "TimerStarted")
    await stage.kill()
    assert await patiently(handle.result) == "timer"
    await stage.check(handle, [STARTED, "task", "TimerStarted", "TimerFired", "task", DONE])


async def test_while_an_activity_runs(stage):
    handle = await stage.start(Waiting.run, "activity")
    await stage.until(handle, "ActivityTaskScheduled")
    while not runs.get(handle.id):
        await asyncio.sleep(0.05)
    await stage.kill()
    gate[handle.id] = True
    assert await patiently(handle.result) == f"{handle.id} done"
    pair = ["ActivityTaskScheduled", "ActivityTaskStarted", "ActivityTaskCompleted"]
    await stage.check(handle, [STARTED, "task", *pair, "task", DONE])


async def test_in_a_backoff(stage):
    handle = await stage.start(Waiting.run, "backoff")
    await stage.until(handle, "ActivityTaskScheduled")
    await asyncio.sleep(0.5)
    await stage.kill()
    assert await patiently(handle.result) == "attempt 3"
    events = await stage.check(handle)
    started = next(e for e in events if name_of(e) == "ActivityTaskStarted")
    assert attributes(started).attempt == 3, "attempts are counted over the crash"


async def test_while_it_waits_for_a_signal(stage):
    handle = await stage.start(Waiting.run, "signal")
    await handle.signal(Waiting.put, "before")
    await stage.kill()
    assert await patiently(lambda: handle.query(Waiting.got)) == ["before"]
    await patiently(lambda: handle.signal(Waiting.put, "go"))
    assert await patiently(handle.result) == "signal"
    names = [name_of(e) for e in await stage.check(handle)]
    assert names.count("WorkflowExecutionSignaled") == 2, names


async def test_before_any_worker_took_it(stage):
    queue = stage.id("q")
    handle = await stage.start(Waiting.run, "none", task_queue=queue)
    await stage.kill()
    async with stage.worker(task_queue=queue):
        assert await patiently(handle.result) == "none"
    await stage.check(handle, [STARTED, "task", DONE])


async def test_while_a_child_runs(stage):
    handle = await stage.start(Waiting.run, "child")
    await stage.until(handle, "ChildWorkflowExecutionStarted")
    await stage.kill()
    child = stage.client.get_workflow_handle(f"{handle.id}-child")
    await patiently(lambda: child.signal(Waiting.put, "go"))
    assert await patiently(handle.result) == "signal"
    await stage.check(handle)
    await stage.check(child)


async def test_closed_runs_are_still_there(stage):
    handle, _ = await stage.run(Waiting.run, "none")
    before = await stage.check(handle)
    listed = [run.id async for run in stage.client.list_workflows(f"WorkflowId = '{handle.id}'")]
    await stage.kill()
    after = await patiently(lambda: stage.check(handle))
    assert list(after) == list(before)
    again = [run.id async for run in stage.client.list_workflows(f"WorkflowId = '{handle.id}'")]
    assert listed == again == [handle.id]
