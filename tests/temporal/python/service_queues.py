"""Service queues, both ways: a Temporal worker does the tasks of a registered service, and a Temporal workflow calls orra's services."""

import asyncio
from datetime import timedelta

from harness import attributes, name_of
from orchestrations import checked, ended, scheduled
from orra import Project, Services
from temporalio import activity, workflow
from temporalio.api.common.v1 import Payload, Payloads, WorkflowExecution
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import (
    PauseActivityRequest,
    PauseWorkflowExecutionRequest,
    PollActivityTaskQueueRequest,
    RespondActivityTaskCompletedRequest,
    UnpauseActivityRequest,
    UnpauseWorkflowExecutionRequest,
)
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowFailureError
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.worker import ActivityInboundInterceptor, Interceptor, Replayer, UnsandboxedWorkflowRunner, Worker

WORKFLOWS = []
ACTIVITIES = []
WITH_WORKER = False
ONE_BY_ONE = True
S = timedelta(seconds=1)


class Shop:
    """A project with a service that only a Temporal worker serves, and others on orra's SDK."""

    project: Project
    services: Services
    client: Client
    stock: str


shop = Shop()
steps = 0
done = {}
undone = []
contexts = []


def step(**given):
    global steps
    steps += 1
    return {"id": f"step-{steps}", **given}


# ---- a service as a Temporal worker --------------------------------------------------------


@activity.defn(name="stock")
async def stock(order: dict):
    """Does what its order says."""
    number = done[order["id"]] = done.get(order["id"], 0) + 1
    if order.get("fails", 0) >= number:
        raise ApplicationError("the shelf is locked", non_retryable=order.get("for_good", False))
    if "aborts" in order:
        raise ApplicationError("that is enough", order["aborts"], type="abort")
    if "sleeps" in order:
        await asyncio.sleep(order["sleeps"])
    if "returns" in order:
        return order["returns"]
    output = {"id": order["id"], "runs": number}
    return {"task": output, "compensation": {"data": {"took": order["id"], "says": order.get("says")}, "ttl": order.get("ttl", 60_000)}}


@activity.defn(name="stock.revert")
async def put_back(taken: dict):
    undone.append(taken["took"])
    return taken["says"]


class Headers(Interceptor):
    """Sees why something is undone: it stands in a header."""

    def intercept_activity(self, next):
        class Inbound(ActivityInboundInterceptor):
            async def execute_activity(self, input):
                if "orchestrion-compensation" in input.headers:
                    contexts.append(activity.payload_converter().from_payload(input.headers["orchestrion-compensation"]))
                return await self.next.execute_activity(input)

        return Inbound(next)


async def prepare(stage):
    shop.project = await Project.add()
    shop.services = await Services.start(shop.project, "charge+revert", "note")
    shop.client = await Client.connect(stage.client.service_client.config.target_host, namespace=shop.project.id)
    takes = ("fails", "for_good", "aborts", "after", "sleeps", "returns", "says", "ttl")
    shop.stock = await shop.project.add_service("stock", revertible=True, takes=takes)


def stock_worker(**options):
    given = {"task_queue": shop.stock, "activities": [stock, put_back], "interceptors": [Headers()]}
    return Worker(shop.client, **{**given, **options})


async def submit(*tasks, **given):
    return shop.client.get_workflow_handle(await shop.project.submit(tasks, **given))


async def events_of(handle, status):
    """The events of an orchestration that has ended so; they replay."""
    assert (await ended(handle)).status == status
    return await checked(handle)


def last_of(events, name):
    return [attributes(event) for event in events if name_of(event) == name][-1]


async def test_its_tasks_are_done_and_undone(_):
    first, says = step(), {"status": "completed"}
    first["says"] = says
    async with stock_worker():
        handle = await submit(
            (shop.stock, first),
            (shop.services.id("charge"), step(after=["$task1.id"])),
            (shop.services.id("note"), step(after=["$task2.id"], abort_with="no road")),
        )
        events = await events_of(handle, WorkflowExecutionStatus.FAILED)
    assert scheduled(events)[3:] == ["revert:task2", "revert:task1"]
    assert (done[first["id"]], undone[-1]) == (1, first["id"])
    assert contexts[-1]["orchestrationId"] == handle.id
    assert (contexts[-1]["reason"], contexts[-1]["payload"]) == ("aborted", {"reason": "no road"})
    view = await shop.project.inspect(handle.id)
    assert view["tasks"][0]["output"] == {"id": first["id"], "runs": 1}, view["tasks"][0]


async def test_its_tasks_and_itself_are_paused(_):
    """A pause of the task and one of the run: it goes on when both have ended."""
    service, first = shop.client.workflow_service, step()
    handle = await submit((shop.stock, first), (shop.services.id("note"), step(after=["$task1.id"])))
    named = {"namespace": shop.project.id, "workflow_id": handle.id}
    task = {"namespace": shop.project.id, "execution": WorkflowExecution(workflow_id=handle.id), "id": "task1"}
    async with asyncio.timeout(20):
        while "task1" not in scheduled((await handle.fetch_history()).events):
            await asyncio.sleep(0.05)
    await service.pause_activity(PauseActivityRequest(**task, identity="ada", reason="to look"))
    await service.pause_workflow_execution(PauseWorkflowExecutionRequest(**named, identity="ada", reason="to look"))
    async with stock_worker():
        await asyncio.sleep(0.3)
        await service.unpause_activity(UnpauseActivityRequest(**task))
        await asyncio.sleep(0.3)
        assert first["id"] not in done
        assert (await shop.project.inspect(handle.id))["status"] == "processing"
        await service.unpause_workflow_execution(UnpauseWorkflowExecutionRequest(**named))
        events = await events_of(handle, WorkflowExecutionStatus.COMPLETED)
    assert done[first["id"]] == 1
    assert [name_of(event) for event in events].count("WorkflowExecutionPaused") == 1


async def test_what_it_returns_is_the_output(_):
    """Unless it is an object with the member `task`. Nothing is undone, where nothing was given to undo it by."""
    async with stock_worker():
        for returns in ({"id": "x"}, ["x"], "x", 7, None):
            handle = await submit((shop.stock, step(returns=returns)), (shop.services.id("note"), step(value="$task1.id")))
            events = await events_of(handle, WorkflowExecutionStatus.COMPLETED)
            view = await shop.project.inspect(handle.id)
            assert view["tasks"][0].get("output") == returns, (returns, view["tasks"][0])
            assert scheduled(events) == ["task1", "task2"]


async def test_what_it_returns_counts_however_long_it_is(_):
    """A result that closes the activity of a workflow as a failure: here it would leave undone what cannot be known to be done."""
    service, namespace = shop.client.workflow_service, shop.project.id
    long = await shop.project.add_service("long")
    handle = await submit((long, step()))
    poll = PollActivityTaskQueueRequest(namespace=namespace, task_queue=TaskQueue(name=long), identity="by hand")
    attempt = await service.poll_activity_task_queue(poll)
    text = Payload(metadata={"encoding": b"json/plain"}, data=b'{"id":"' + b"x" * (2 * 1024 * 1024) + b'"}')
    answer = RespondActivityTaskCompletedRequest(
        namespace=namespace, task_token=attempt.task_token, result=Payloads(payloads=[text]), identity="by hand"
    )
    await service.respond_activity_task_completed(answer)
    events = await events_of(handle, WorkflowExecutionStatus.COMPLETED)
    assert "ActivityTaskFailed" not in [name_of(event) for event in events]


async def test_its_errors_are_tried_again(_):
    order = step(fails=2)
    async with stock_worker():
        handle = await submit((shop.stock, order))
        await events_of(handle, WorkflowExecutionStatus.COMPLETED)
        assert done[order["id"]] == 3
        order = step(fails=2, for_good=True)
        handle = await submit((shop.stock, order))
        events = await events_of(handle, WorkflowExecutionStatus.FAILED)
        assert done[order["id"]] == 1
    assert "the shelf is locked" in last_of(events, "WorkflowExecutionFailed").failure.message


async def test_it_can_abort(_):
    async with stock_worker():
        handle = await submit(
            (shop.services.id("charge"), step()), (shop.stock, step(aborts={"reason": "sold"}, after="$task1.id"))
        )
        events = await events_of(handle, WorkflowExecutionStatus.FAILED)
    assert scheduled(events)[2:] == ["revert:task1"]
    view = await shop.project.inspect(handle.id)
    assert (view["status"], view["abortInfo"]["payload"]) == ("aborted", {"reason": "sold"})


async def test_a_revert_that_says_failed_has_failed(_):
    order = step(says={"status": "failed", "error": "it is broken"})
    async with stock_worker():
        handle = await submit((shop.stock, order), (shop.services.id("note"), step(after=["$task1.id"], abort_with="no road")))
        await events_of(handle, WorkflowExecutionStatus.FAILED)
    records = await shop.project.call("GET", "/compensation-failures")
    record = next(one for one in records if handle.id in one.values())
    assert (record["status"], record["failure"]) == ("failed", "it is broken"), record


async def test_a_compensation_whose_time_is_over_is_not_asked_for(_):
    async with stock_worker():
        after = step(after=["$task1.id"], sleep_ms=300, abort_with="no road")
        handle = await submit((shop.stock, step(ttl=100)), (shop.services.id("note"), after))
        events = await events_of(handle, WorkflowExecutionStatus.FAILED)
    assert scheduled(events) == ["task1", "task2"]


async def test_its_late_result_is_undone(_):
    order = step(sleeps=1)
    options = {"taskTimeout": "300ms", "taskAttempts": 1, "lateResultWait": "20s"}
    async with stock_worker():
        handle = await submit((shop.stock, order), options=options)
        events = await events_of(handle, WorkflowExecutionStatus.FAILED)
    assert scheduled(events) == ["task1", "revert:task1"]
    assert last_of(events, "WorkflowExecutionSignaled").signal_name == "orchestrion.late_result"


async def test_a_worker_that_polls_is_a_service_that_is_connected(_):
    quiet = await shop.project.add_service("quiet", takes=("sleeps",))
    async with stock_worker(task_queue=quiet, activities=[waits], max_concurrent_activities=1):

        async def healthy():
            services = await shop.project.call("GET", "/services")
            return next(one["healthy"] for one in services if one["id"] == quiet)

        while not await healthy():
            await asyncio.sleep(0.05)
        # The second waits behind the first for longer than a service may be offline.
        both = [await submit((quiet, step(sleeps=1.2)), grace="400ms") for _ in range(2)]
        for handle in both:
            await events_of(handle, WorkflowExecutionStatus.COMPLETED)


@activity.defn(name="quiet")
async def waits(order: dict) -> dict:
    await asyncio.sleep(order["sleeps"])
    return {"id": order["id"]}


# ---- an orra service as an activity --------------------------------------------------------


@workflow.defn
class Calls:
    """Calls a service, and undoes what it did if that is wanted."""

    @workflow.run
    async def run(self, queue: str, order: dict, undo: bool) -> dict:
        options = {
            "task_queue": queue,
            "start_to_close_timeout": 5 * S,
            "retry_policy": RetryPolicy(initial_interval=S / 20, maximum_attempts=3),
        }
        answer = await workflow.execute_activity("charge", order, **options)
        if undo:
            answer["undone"] = await workflow.execute_activity("charge.revert", answer["compensation"]["data"], **options)
        return answer


async def call(order, undo=False):
    queue = f"calls-{order['id']}"
    async with Worker(shop.client, task_queue=queue, workflows=[Calls], workflow_runner=UnsandboxedWorkflowRunner()):
        handle = await shop.client.start_workflow(
            Calls.run, args=[shop.services.id("charge"), order, undo], id=queue, task_queue=queue
        )
        try:
            return await handle.result()
        finally:
            replayer = Replayer(workflows=[Calls], workflow_runner=UnsandboxedWorkflowRunner())
            await replayer.replay_workflow(await handle.fetch_history())


async def why(order):
    try:
        await call(order)
    except WorkflowFailureError as error:
        assert isinstance(error.cause, ActivityError), error.cause
        assert isinstance(error.cause.cause, ApplicationError), error.cause.cause
        return error.cause.cause
    raise AssertionError("it worked")


def runs_of(order):
    return len([line for line in shop.services.logged("started") if line["id"] == order["id"]])


async def test_a_workflow_calls_a_service(_):
    order = step(value="seven")
    answer = await call(order)
    assert (answer["task"]["id"], answer["task"]["value"], answer["task"]["runs"]) == (order["id"], "seven", 1)
    data = answer["compensation"]["data"]
    assert (data["originalTask"]["id"], data["taskResult"]) == (order["id"], answer["task"])
    assert answer["compensation"]["ttl"] > 0


async def test_a_workflow_undoes_what_a_service_did(_):
    order = step()
    answer = await call(order, undo=True)
    assert answer["undone"]["status"] == "completed", answer
    assert order["id"] in [line["id"] for line in shop.services.logged("reverted")]
    assert runs_of(order) == 1


async def test_a_service_is_tried_again_as_the_workflow_says(_):
    order = step(fail_times=2)
    assert (await call(order))["task"]["runs"] == 3
    order = step(fail_times=9)
    error = await why(order)
    assert (error.type, runs_of(order)) == ("ServiceError", 3), error.type
    assert "does not work" in error.message


async def test_a_service_that_aborts_fails_its_activity_for_good(_):
    order = step(abort_with="enough")
    error = await why(order)
    assert (error.type, error.non_retryable, runs_of(order)) == ("abort", True, 1)
    assert list(error.details) == [{"reason": "enough"}]
