"""A worker leaves: its polls end, nobody else's do, and not a task is lost."""

import asyncio
import uuid
from datetime import timedelta

from harness import Stage, attributes, name_of
from temporalio import activity, workflow
from temporalio.api.enums.v1 import TaskQueueType, TimeoutType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import (
    DescribeNamespaceRequest,
    DescribeTaskQueueRequest,
    PollActivityTaskQueueRequest,
    PollWorkflowTaskQueueRequest,
    ShutdownWorkerRequest,
)
from temporalio.client import Client

S = timedelta(seconds=1)
POLL = 60 * S
# Steps of each run: enough that some are under way when a worker leaves.
STEPS = 30


@activity.defn
async def echo(number: int) -> int:
    return number


@workflow.defn
class Steps:
    @workflow.run
    async def run(self, steps: int) -> int:
        total = 0
        for number in range(steps):
            total += await workflow.execute_activity(echo, number, start_to_close_timeout=60 * S)
            await workflow.sleep(0.01)
        return total


WORKFLOWS = [Steps]
ACTIVITIES = [echo]
WITH_WORKER = False


def service(stage):
    return stage.client.workflow_service


def poll(stage, queue, key, kind="workflow"):
    """A poll of a worker with this key. All are of one process, so they share an identity."""
    given = {
        "namespace": stage.client.namespace,
        "task_queue": TaskQueue(name=queue),
        "identity": "one@process",
        "worker_instance_key": key,
    }
    if kind == "workflow":
        call = service(stage).poll_workflow_task_queue(PollWorkflowTaskQueueRequest(**given), timeout=POLL)
    else:
        call = service(stage).poll_activity_task_queue(PollActivityTaskQueueRequest(**given), timeout=POLL)
    return asyncio.ensure_future(call)


async def shut_down(stage, queue, key, types=(), sticky=""):
    request = ShutdownWorkerRequest(
        namespace=stage.client.namespace,
        identity="one@process",
        worker_instance_key=key,
        task_queue=queue,
        task_queue_types=list(types),
        sticky_task_queue=sticky,
    )
    await service(stage).shutdown_worker(request)


async def polled(stage, queue, kind=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW):
    request = DescribeTaskQueueRequest(namespace=stage.client.namespace, task_queue=TaskQueue(name=queue), task_queue_type=kind)

    async def there():
        return (await service(stage).describe_task_queue(request)).pollers

    await stage.eventually(f"a poll of {queue}", there)


async def test_the_server_says_that_it_ends_polls(stage):
    answer = await service(stage).describe_namespace(DescribeNamespaceRequest(namespace=stage.client.namespace))
    assert answer.namespace_info.capabilities.worker_poll_complete_on_shutdown


async def test_a_worker_leaves_and_its_neighbour_gets_the_task(stage):
    queue, leaves, stays = stage.id("q"), uuid.uuid4().hex, uuid.uuid4().hex
    first = poll(stage, queue, leaves)
    await polled(stage, queue)
    second = poll(stage, queue, stays)
    await shut_down(stage, queue, leaves)
    # The older poll would be the first to get a task: it has ended before there is one.
    assert not (await first).task_token
    handle = await stage.start(Steps.run, 1, task_queue=queue)
    assert (await second).workflow_execution.workflow_id == handle.id
    await handle.terminate()


async def test_a_late_poll_of_a_worker_that_left_gets_nothing(stage):
    queue, leaves, stays = stage.id("q"), uuid.uuid4().hex, uuid.uuid4().hex
    await shut_down(stage, queue, leaves)
    handle = await stage.start(Steps.run, 1, task_queue=queue)
    assert not (await poll(stage, queue, leaves)).task_token
    assert not (await poll(stage, queue, leaves, "activity")).task_token
    assert (await poll(stage, queue, stays)).workflow_execution.workflow_id == handle.id
    await handle.terminate()


async def test_a_worker_ends_only_the_polls_it_names_and_is_not_heard_after(stage):
    queue, leaves = stage.id("q"), uuid.uuid4().hex
    kinds = (TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY, TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW)
    activities, tasks = poll(stage, queue, leaves, "activity"), poll(stage, queue, leaves)
    for kind in kinds:
        await polled(stage, queue, kind)
    await shut_down(stage, queue, leaves, kinds[:1])
    assert not (await activities).task_token
    # A task that is handed to the poll which goes on reaches its worker.
    handle = await stage.start(Steps.run, 1, task_queue=queue)
    assert (await tasks).workflow_execution.workflow_id == handle.id
    await handle.terminate()


async def test_polls_of_its_own_queue_end_too(stage):
    queue, sticky, leaves = stage.id("q"), stage.id("sticky"), uuid.uuid4().hex
    own = poll(stage, sticky, leaves)
    await polled(stage, sticky)
    await shut_down(stage, queue, leaves, sticky=sticky)
    assert not (await own).task_token


async def test_two_workers_of_one_process_and_one_goes_on(stage):
    queue = stage.id("q")
    # The SDK takes one worker of a queue for each client. Both say the same identity, that of their process.
    other = Stage(await Client.connect(stage.client.service_client.config.target_host), queue, WORKFLOWS, ACTIVITIES)
    async with stage.worker(task_queue=queue):
        async with other.worker():
            handles = [await stage.start(Steps.run, STEPS, task_queue=queue) for _ in range(6)]
            for handle in handles:
                await stage.until(handle, "ActivityTaskCompleted", 3)
        results = [await handle.result() for handle in handles]
    assert results == [sum(range(STEPS))] * len(handles)
    for handle in handles:
        events = await stage.check(handle)
        assert not [e for e in events if name_of(e) == "ActivityTaskTimedOut"]
        # No task waited for the worker that left. It may drop one that is on its way as it leaves, since the SDK ends what runs workflows
        # without waiting for its polls; then the time to answer is over.
        waited = [attributes(e) for e in events if name_of(e) == "WorkflowTaskTimedOut"]
        assert all(it.timeout_type == TimeoutType.TIMEOUT_TYPE_START_TO_CLOSE for it in waited), waited
