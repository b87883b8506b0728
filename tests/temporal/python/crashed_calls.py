"""The server is killed while a caller waits for an update or for the answer to a query; no worker is restarted."""

import asyncio

from crashes import patiently
from harness import name_of
from temporalio import workflow
from temporalio.client import WorkflowUpdateStage


@workflow.defn
class Asked:
    def __init__(self):
        self.texts = []

    @workflow.signal
    def put(self, text: str):
        self.texts.append(text)

    @workflow.query
    def got(self) -> list:
        return self.texts

    @workflow.update
    async def slowly(self, text: str) -> str:
        await workflow.wait_condition(lambda: "go" in self.texts)
        return f"{text} done"

    @workflow.run
    async def run(self) -> list:
        await workflow.wait_condition(lambda: "stop" in self.texts and workflow.all_handlers_finished())
        return self.texts


WORKFLOWS = [Asked]
ACTIVITIES = []
ONE_BY_ONE = True


async def test_while_an_accepted_update_is_carried_out(stage):
    handle = await stage.start(Asked.run)
    update = await handle.start_update(Asked.slowly, "it", wait_for_stage=WorkflowUpdateStage.ACCEPTED)
    waiting = asyncio.ensure_future(patiently(update.result))
    await stage.kill()
    await patiently(lambda: handle.signal(Asked.put, "go"))
    assert await waiting == "it done"
    await patiently(lambda: handle.signal(Asked.put, "stop"))
    await patiently(handle.result)
    names = [name_of(e) for e in await stage.check(handle)]
    assert names.count("WorkflowExecutionUpdateAccepted") == 1, names


async def test_while_an_update_waits_for_a_worker(stage):
    queue = stage.id("q")
    handle = await stage.start(Asked.run, task_queue=queue)
    # Not accepted, so nothing of it is kept: its caller asks again, with the same id.
    update = asyncio.ensure_future(patiently(lambda: handle.execute_update(Asked.slowly, "it", id="once")))
    await asyncio.sleep(0.3)
    await stage.kill()
    async with stage.worker(task_queue=queue):
        await patiently(lambda: handle.signal(Asked.put, "go"))
        assert await update == "it done"
        await patiently(lambda: handle.signal(Asked.put, "stop"))
        assert await patiently(handle.result) == ["go", "stop"]
    await stage.check(handle)


async def test_while_a_query_waits_for_its_answer(stage):
    queue = stage.id("q")
    handle = await stage.start(Asked.run, task_queue=queue)
    await handle.signal(Asked.put, "a")
    query = asyncio.ensure_future(patiently(lambda: handle.query(Asked.got)))
    await asyncio.sleep(0.3)
    await stage.kill()
    async with stage.worker(task_queue=queue):
        assert await query == ["a"]
        await patiently(lambda: handle.signal(Asked.put, "stop"))
        assert await patiently(handle.result) == ["a", "stop"]
    await stage.check(handle)
