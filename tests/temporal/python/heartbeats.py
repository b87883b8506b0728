"""Which workers there are: what each says of itself by its heartbeats, and who may see it."""

from contextlib import asynccontextmanager
from datetime import timedelta

from harness import Stage, raises
from temporalio import workflow
from temporalio.api.enums.v1 import WorkerStatus
from temporalio.api.worker.v1 import WorkerHeartbeat
from temporalio.api.workflowservice.v1 import (
    CountWorkersRequest,
    DescribeNamespaceRequest,
    DescribeWorkerRequest,
    ListWorkersRequest,
    RecordWorkerHeartbeatRequest,
    RegisterNamespaceRequest,
    ShutdownWorkerRequest,
)
from temporalio.client import Client
from temporalio.runtime import Runtime, TelemetryConfig
from temporalio.service import RPCError, RPCStatusCode


@workflow.defn
class Hello:
    @workflow.run
    async def run(self) -> str:
        return "hello"


WORKFLOWS = [Hello]
ACTIVITIES = []
WITH_WORKER = False


def service(stage):
    return stage.client.workflow_service


async def listed(stage, query="", **given):
    request = ListWorkersRequest(**{"namespace": stage.client.namespace, "query": query, **given})
    return await service(stage).list_workers(request)


async def counted(stage, query):
    return (await service(stage).count_workers(CountWorkersRequest(namespace=stage.client.namespace, query=query))).count


async def described(stage, key, namespace=None):
    request = DescribeWorkerRequest(namespace=namespace or stage.client.namespace, worker_instance_key=key)
    return (await service(stage).describe_worker(request)).worker_info.worker_heartbeat


async def refused(code, call, says=""):
    error = await raises(RPCError, call, says)
    assert error.status == code, error.status


@asynccontextmanager
async def beating(stage):
    """A stage of its own, whose worker sends a heartbeat as often as the SDK allows."""
    runtime = Runtime(telemetry=TelemetryConfig(), worker_heartbeat_interval=timedelta(seconds=1))
    client = await Client.connect(stage.client.service_client.config.target_host, identity="me@here", runtime=runtime)
    own = Stage(client, stage.id("q"), WORKFLOWS, ACTIVITIES)
    async with own.worker():
        yield own


async def its_worker(own, status):
    """The worker of that stage, once it says this of itself."""
    query = f"TaskQueue = '{own.queue}' AND Status = '{status}'"

    async def there():
        return (await listed(own, query)).workers

    return (await own.eventually(f"{status} of {own.queue}", there))[0]


async def put(stage, queue, keys, status=WorkerStatus.WORKER_STATUS_RUNNING):
    """Heartbeats as some other SDK would send them."""
    beats = [WorkerHeartbeat(worker_instance_key=key, task_queue=queue, sdk_name="by-hand", status=status) for key in keys]
    await service(stage).record_worker_heartbeat(
        RecordWorkerHeartbeatRequest(namespace=stage.client.namespace, worker_heartbeat=beats)
    )


async def test_the_server_says_that_it_takes_heartbeats(stage):
    answer = await service(stage).describe_namespace(DescribeNamespaceRequest(namespace=stage.client.namespace))
    assert answer.namespace_info.capabilities.worker_heartbeats


async def test_a_worker_is_there_until_it_shuts_down(stage):
    async with beating(stage) as own:
        found = await its_worker(own, "Running")
        assert found.worker_identity == "me@here" and found.sdk_name == "temporal-python" and found.host_name
        assert await own.client.execute_workflow(Hello.run, id=own.id(), task_queue=own.queue) == "hello"

        async def has_worked():
            worker = await described(own, found.worker_instance_key)
            return worker.workflow_task_slots_info.total_processed_tasks == 1 and worker

        worker = await own.eventually("a heartbeat after the workflow", has_worked)
        assert worker.status == WorkerStatus.WORKER_STATUS_RUNNING and worker.task_queue == own.queue
    last = await its_worker(own, "ShuttingDown")
    assert last.worker_instance_key == found.worker_instance_key
    assert await counted(own, f"TaskQueue = '{own.queue}'") == 1


async def test_pages_and_filters(stage):
    queue, keys = stage.id("q"), sorted(stage.id("key") for _ in range(5))
    await put(stage, queue, keys[:3])
    await put(stage, queue, keys[3:], WorkerStatus.WORKER_STATUS_SHUTTING_DOWN)
    query = f"TaskQueue = '{queue}'"
    found, token = [], b""
    while len(found) < len(keys):
        page = await listed(stage, query, page_size=2, next_page_token=token)
        assert [it.worker_heartbeat.worker_instance_key for it in page.workers_info] == [it.worker_instance_key for it in page.workers]
        found += [it.worker_instance_key for it in page.workers]
        token = page.next_page_token
        assert bool(token) == (len(found) < len(keys)), found
    assert found == keys
    assert await counted(stage, f"{query} AND Status = 'ShuttingDown' AND SdkName = 'by-hand'") == 2
    assert await counted(stage, f"WorkerInstanceKey IN ('{keys[0]}', '{keys[4]}')") == 2
    await refused(RPCStatusCode.INVALID_ARGUMENT, listed(stage, "WorkflowId = 'w'"), "WorkflowId is not defined")
    await refused(RPCStatusCode.INVALID_ARGUMENT, listed(stage, page_size=-1), "page size is -1")
    await refused(RPCStatusCode.INVALID_ARGUMENT, put(stage, queue, [""]), "worker_instance_key")


async def test_a_worker_that_shut_down_does_not_come_back(stage):
    queue, key = stage.id("q"), stage.id("key")
    await put(stage, queue, [key])
    last = WorkerHeartbeat(worker_instance_key=key, task_queue=queue, status=WorkerStatus.WORKER_STATUS_SHUTTING_DOWN)
    await service(stage).shutdown_worker(
        ShutdownWorkerRequest(namespace=stage.client.namespace, worker_instance_key=key, worker_heartbeat=last)
    )
    await put(stage, queue, [key])
    assert (await described(stage, key)).status == WorkerStatus.WORKER_STATUS_SHUTTING_DOWN


async def test_another_namespace_sees_none_of_them(stage):
    queue, key, other = stage.id("q"), stage.id("key"), stage.id("elsewhere")
    await put(stage, queue, [key])
    await service(stage).register_namespace(
        RegisterNamespaceRequest(namespace=other, workflow_execution_retention_period=timedelta(days=1))
    )
    assert (await described(stage, key)).task_queue == queue
    assert not (await listed(stage, namespace=other)).workers
    await refused(RPCStatusCode.NOT_FOUND, described(stage, key, other), f"worker {key} is not known")
    await refused(RPCStatusCode.NOT_FOUND, described(stage, key, "nowhere"))
