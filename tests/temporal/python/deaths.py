"""A worker is killed as by a power cut, in the middle of what it does; another one goes on, as the time-outs say."""

import asyncio
import sys
from contextlib import asynccontextmanager
from datetime import timedelta

from harness import DONE, STARTED, attributes, name_of
from temporalio import activity, workflow
from temporalio.api.enums.v1 import TimeoutType
from temporalio.common import RetryPolicy

S = timedelta(seconds=1)


@activity.defn
async def two_lives() -> list:
    """Lives until it is killed; its second attempt tells what the first one said last."""
    if activity.info().attempt > 1:
        return [activity.info().attempt, *activity.info().heartbeat_details]
    for beat in range(1000):
        activity.heartbeat(beat)
        await asyncio.sleep(0.05)
    return []


@workflow.defn
class Lives:
    def __init__(self):
        self.texts = []

    @workflow.signal
    def put(self, text: str):
        self.texts.append(text)

    @workflow.query
    def got(self) -> list:
        return self.texts

    @workflow.update
    def add(self, text: str) -> int:
        self.texts.append(text)
        return len(self.texts)

    @workflow.run
    async def run(self, how: str) -> list:
        if how == "activity":
            return await workflow.execute_activity(
                two_lives,
                start_to_close_timeout=60 * S,
                heartbeat_timeout=1 * S,
                retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=20)),
            )
        await workflow.wait_condition(lambda: "stop" in self.texts)
        return self.texts


WORKFLOWS = [Lives]
ACTIVITIES = [two_lives]
WITH_WORKER = False


@asynccontextmanager
async def doomed(stage, queue):
    """A worker process on that queue, which is killed at the end if the test has not done so."""
    address = stage.client.service_client.config.target_host
    arguments = ["-B", "doomed.py", address, stage.client.namespace, queue, "deaths"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        assert (await asyncio.wait_for(process.stdout.readline(), 30)).strip() == b"ready"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_an_activity_whose_worker_died_begins_again_with_its_last_words(stage):
    queue = stage.id("q")
    handle = await stage.start(Lives.run, "activity", task_queue=queue)
    async with doomed(stage, queue):

        async def beats():
            pending = (await handle.describe()).raw_description.pending_activities
            return bool(pending) and pending[0].HasField("heartbeat_details")

        await stage.eventually("a heartbeat", beats)
    async with stage.worker(task_queue=queue):
        attempt, last = await handle.result()
    assert attempt == 2 and last >= 0
    # The run was in the dead worker's cache: its next task waits for that one first.
    stuck = ["WorkflowTaskScheduled", "WorkflowTaskTimedOut"]
    three = ["ActivityTaskScheduled", "ActivityTaskStarted", "ActivityTaskCompleted"]
    events = await stage.check(handle, [STARTED, "task", *three, *stuck, "task", DONE])
    late = next(e for e in events if name_of(e) == "WorkflowTaskTimedOut")
    assert attributes(late).timeout_type == TimeoutType.TIMEOUT_TYPE_SCHEDULE_TO_START
    started = next(e for e in events if name_of(e) == "ActivityTaskStarted")
    info = attributes(started).last_failure.timeout_failure_info
    assert info.timeout_type == TimeoutType.TIMEOUT_TYPE_HEARTBEAT


async def dead_worker(stage):
    """A run that a dead worker has in its cache, on a queue where another one may come."""
    queue = stage.id("q")
    handle = await stage.start(Lives.run, "signals", task_queue=queue)
    async with doomed(stage, queue):
        await stage.until(handle, "task")
        await handle.signal(Lives.put, "a")
        await stage.until(handle, "task", 2)
        assert await handle.query(Lives.got) == ["a"]
    return queue, handle


async def test_a_run_whose_worker_died_goes_on_elsewhere(stage):
    queue, handle = await dead_worker(stage)
    async with stage.worker(task_queue=queue):
        await handle.signal(Lives.put, "stop")
        assert await handle.result() == ["a", "stop"]
    names = [name_of(e) for e in await stage.check(handle)]
    assert "WorkflowTaskFailed" not in names, names


async def test_a_query_finds_another_worker(stage):
    queue, handle = await dead_worker(stage)
    async with stage.worker(task_queue=queue):
        assert await handle.query(Lives.got) == ["a"]
    await handle.terminate()


async def test_an_update_finds_another_worker(stage):
    queue, handle = await dead_worker(stage)
    async with stage.worker(task_queue=queue):
        assert await handle.execute_update(Lives.add, "b") == 2
        await handle.signal(Lives.put, "stop")
        assert await handle.result() == ["a", "b", "stop"]
    await stage.check(handle)
