"""What no honest client sends: every one of it is refused in words, and nothing that was there suffers from it."""

import asyncio
import sys
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration
from harness import attributes, name_of, raises
from temporalio import activity, workflow
from temporalio.api.command.v1 import (
    Command,
    CompleteWorkflowExecutionCommandAttributes,
    ScheduleActivityTaskCommandAttributes,
    StartTimerCommandAttributes,
)
from temporalio.api.common.v1 import (
    ActivityType,
    Memo,
    Payload,
    Payloads,
    SearchAttributes,
    WorkflowExecution,
    WorkflowType,
)
from temporalio.api.enums.v1 import CommandType, QueryResultType, TaskQueueKind, WorkflowTaskFailedCause
from temporalio.api.taskqueue.v1 import StickyExecutionAttributes, TaskQueue
from temporalio.api.workflowservice.v1 import (
    DescribeTaskQueueRequest,
    PollActivityTaskQueueRequest,
    PollWorkflowTaskQueueRequest,
    RecordActivityTaskHeartbeatRequest,
    RegisterNamespaceRequest,
    RespondActivityTaskCompletedRequest,
    RespondQueryTaskCompletedRequest,
    RespondWorkflowTaskCompletedRequest,
    SignalWorkflowExecutionRequest,
    StartWorkflowExecutionRequest,
)
from temporalio.client import Client
from temporalio.common import RetryPolicy
from temporalio.service import RPCError, RPCStatusCode

S = timedelta(seconds=1)
NOT_UTF8 = b"\xff\xfe\x00\x80 no text"
LONG = "x" * 1_001


@activity.defn
async def back(payload: str) -> str:
    return payload


@activity.defn
async def once(name: str) -> str:
    return f"{name} {activity.info().attempt}"


@workflow.defn
class Calls:
    @workflow.run
    async def run(self, name: str) -> str:
        return await workflow.execute_activity(
            once, name, start_to_close_timeout=30 * S, retry_policy=RetryPolicy(maximum_attempts=1)
        )


@workflow.defn
class Hears:
    def __init__(self):
        self.heard = 0

    @workflow.signal
    def put(self, _: int):
        self.heard += 1

    @workflow.signal
    def end(self):
        self.heard += 1_000_000

    @workflow.run
    async def run(self) -> int:
        await workflow.wait_condition(lambda: self.heard >= 1_000_000)
        return self.heard - 1_000_000


@workflow.defn
class TooMany:
    @workflow.run
    async def run(self, count: int) -> int:
        calls = [workflow.execute_activity(back, str(n), start_to_close_timeout=30 * S) for n in range(count)]
        return len(await asyncio.gather(*calls))


WORKFLOWS = [Calls, Hears, TooMany]
ACTIVITIES = [back, once]


async def refused(status, awaitable, says=""):
    error = await raises(RPCError, awaitable)
    assert error.status == status, f"{error.status.name}: {error}"
    assert says in str(error), error
    return error


class ByHand:
    """A worker that answers by hand what it is given."""

    def __init__(self, stage):
        self.stage, self.service = stage, stage.client.workflow_service
        self.namespace = stage.client.namespace
        self.queue = TaskQueue(name=stage.id("by-hand"))

    async def start(self, **fields):
        given = {
            "namespace": self.namespace,
            "workflow_id": self.stage.id(),
            "workflow_type": WorkflowType(name="ByHand"),
            "task_queue": self.queue,
            "request_id": self.stage.id("r"),
        }
        request = StartWorkflowExecutionRequest(**{**given, **fields})
        await self.service.start_workflow_execution(request)
        return self.stage.client.get_workflow_handle(request.workflow_id)

    async def task(self, queue=None):
        queue = queue or self.queue
        return await self.service.poll_workflow_task_queue(
            PollWorkflowTaskQueueRequest(namespace=self.namespace, task_queue=queue, identity="by hand")
        )

    async def activity(self):
        return await self.service.poll_activity_task_queue(
            PollActivityTaskQueueRequest(namespace=self.namespace, task_queue=self.queue, identity="by hand")
        )

    async def answer(self, token, *commands, **fields):
        given = {"namespace": self.namespace, "task_token": token, "commands": commands, "identity": "by hand"}
        return await self.service.respond_workflow_task_completed(RespondWorkflowTaskCompletedRequest(**{**given, **fields}))

    async def done(self, token, **fields):
        given = {"namespace": self.namespace, "task_token": token, "identity": "by hand"}
        return await self.service.respond_activity_task_completed(RespondActivityTaskCompletedRequest(**{**given, **fields}))

    def schedule(self, **fields):
        given = {"activity_id": "a", "activity_type": ActivityType(name="by-hand"), "task_queue": self.queue}
        return Command(
            command_type=CommandType.COMMAND_TYPE_SCHEDULE_ACTIVITY_TASK,
            schedule_activity_task_command_attributes=ScheduleActivityTaskCommandAttributes(**{**given, **fields}),
        )


COMPLETE = Command(
    command_type=CommandType.COMMAND_TYPE_COMPLETE_WORKFLOW_EXECUTION,
    complete_workflow_execution_command_attributes=CompleteWorkflowExecutionCommandAttributes(),
)


async def test_tokens_of_other_runs_attempts_and_namespaces(stage):
    hand = ByHand(stage)
    first, second = await hand.start(), await hand.start()
    one, two = await hand.task(), await hand.task()
    # Cut, lengthened, of another kind, and none at all.
    for token in (one.task_token[:-2], one.task_token[:7], b"", b"nonsense", b"\xff" * 4_000):
        await refused(RPCStatusCode.INVALID_ARGUMENT, hand.answer(token, COMPLETE))
    await refused(RPCStatusCode.INVALID_ARGUMENT, hand.done(one.task_token))
    # Forged: the token of one run with the id of another.
    import uuid

    run_of = {task.workflow_execution.run_id: task for task in (one, two)}
    runs = [uuid.UUID(run).bytes for run in run_of]
    assert runs[0] in one.task_token
    await refused(RPCStatusCode.NOT_FOUND, hand.answer(one.task_token.replace(runs[0], runs[1]), COMPLETE))
    # Of another namespace.
    other = stage.id("n")
    await hand.service.register_namespace(
        RegisterNamespaceRequest(namespace=other, workflow_execution_retention_period=timedelta(days=1))
    )
    error = await raises(RPCError, hand.answer(one.task_token, COMPLETE, namespace=other))
    assert error.status in (RPCStatusCode.INVALID_ARGUMENT, RPCStatusCode.NOT_FOUND), error
    for handle in (first, second):
        assert (await handle.describe()).status.name == "RUNNING"
    # And the true ones still count, once.
    for task in (one, two):
        await hand.answer(task.task_token, COMPLETE)
        await refused(RPCStatusCode.NOT_FOUND, hand.answer(task.task_token, COMPLETE))


async def test_the_token_of_an_attempt_that_is_over(stage):
    hand = ByHand(stage)
    handle = await hand.start()
    task = await hand.task()
    from temporalio.api.common.v1 import RetryPolicy as Policy

    await hand.answer(
        task.task_token,
        hand.schedule(
            start_to_close_timeout=Duration(nanos=300_000_000),
            retry_policy=Policy(initial_interval=Duration(nanos=1_000_000), maximum_attempts=2),
        ),
    )
    first = await hand.activity()
    second = await hand.activity()  # Once the first has timed out.
    assert (first.attempt, second.attempt) == (1, 2)
    await refused(RPCStatusCode.NOT_FOUND, hand.done(first.task_token))
    result = Payloads(payloads=[Payload(metadata={"encoding": b"binary/plain"}, data=NOT_UTF8)])
    await hand.done(second.task_token, result=result)
    await hand.answer((await hand.task()).task_token, COMPLETE)
    events = await stage.check(handle, replay=False)
    completed = [attributes(e) for e in events if name_of(e) == "ActivityTaskCompleted"]
    assert [c.result for c in completed] == [result]


async def test_ids_that_are_too_long(stage):
    hand = ByHand(stage)
    for fields in (
        {"workflow_id": LONG},
        {"workflow_type": WorkflowType(name=LONG)},
        {"task_queue": TaskQueue(name=LONG)},
        {"request_id": LONG},
        {"workflow_id": ""},
        {"workflow_type": WorkflowType(name="")},
        {"task_queue": TaskQueue(name="")},
    ):
        await refused(RPCStatusCode.INVALID_ARGUMENT, hand.start(**fields))
    handle = await hand.start(workflow_id="y" * 1_000)
    await refused(RPCStatusCode.INVALID_ARGUMENT, handle.signal(LONG))
    await handle.terminate()
    # An activity's id comes with a command: the task fails, and the run goes on.
    handle = await hand.start()
    task = await hand.task()
    error = await raises(RPCError, hand.answer(task.task_token, hand.schedule(activity_id=LONG, start_to_close_timeout=S)))
    assert error.status == RPCStatusCode.INVALID_ARGUMENT, error
    failed = [attributes(e) for e in (await handle.fetch_history()).events if name_of(e) == "WorkflowTaskFailed"]
    assert [f.cause for f in failed] == [WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_BAD_SCHEDULE_ACTIVITY_ATTRIBUTES]
    await hand.answer((await hand.task()).task_token, COMPLETE)


async def test_pieces_that_are_too_large(stage):
    hand = ByHand(stage)
    large = Payloads(payloads=[Payload(data=b"x" * (2 * 1024 * 1024 + 1))])
    await refused(RPCStatusCode.INVALID_ARGUMENT, hand.start(input=large), "the input has 2097")
    await refused(RPCStatusCode.INVALID_ARGUMENT, hand.start(memo=Memo(fields={"m": large.payloads[0]})), "the memo has 2097")
    handle = await hand.start()
    signal = SignalWorkflowExecutionRequest(
        namespace=hand.namespace, workflow_execution=WorkflowExecution(workflow_id=handle.id), signal_name="s", input=large
    )
    await refused(
        RPCStatusCode.INVALID_ARGUMENT, hand.service.signal_workflow_execution(signal), "the signal's input has 2097"
    )
    # What a worker cannot answer otherwise closes its activity: another attempt would send the same.
    for field in ("result", "heartbeat"):
        task = await hand.task()
        await hand.answer(task.task_token, hand.schedule(activity_id=field, start_to_close_timeout=Duration(seconds=30)))
        attempt = await hand.activity()
        if field == "result":
            await hand.done(attempt.task_token, result=large)
        else:
            beat = RecordActivityTaskHeartbeatRequest(namespace=hand.namespace, task_token=attempt.task_token, details=large)
            assert (await hand.service.record_activity_task_heartbeat(beat)).cancel_requested
    await hand.answer((await hand.task()).task_token, COMPLETE)
    events = await stage.check(handle, replay=False)
    failures = [attributes(e).failure for e in events if name_of(e) == "ActivityTaskFailed"]
    assert [f.server_failure_info.non_retryable for f in failures] == [True, True]
    assert [f.message.split(",")[0][:18] for f in failures] == ["the result has 209", "the heartbeat has "]


async def test_a_question_whose_sticky_worker_is_silent_goes_to_another(stage):
    hand = ByHand(stage)
    sticky = TaskQueue(name=stage.id("sticky"), kind=TaskQueueKind.TASK_QUEUE_KIND_STICKY, normal_name=hand.queue.name)
    handle = await hand.start()
    keeps = StickyExecutionAttributes(worker_task_queue=sticky, schedule_to_start_timeout=Duration(seconds=10))
    await hand.answer((await hand.task()).task_token, sticky_attributes=keeps)
    silent = asyncio.create_task(hand.task(sticky))

    async def polls():
        request = DescribeTaskQueueRequest(namespace=hand.namespace, task_queue=sticky, task_queue_type=1)
        return (await hand.service.describe_task_queue(request)).pollers

    await stage.eventually("a poll of the sticky queue", polls)
    question = asyncio.create_task(handle.query("how"))
    assert (await silent).query.query_type == "how"
    asked = await hand.task()
    assert asked.query.query_type == "how" and asked.history.events
    answer = RespondQueryTaskCompletedRequest(
        namespace=hand.namespace,
        task_token=asked.task_token,
        completed_type=QueryResultType.QUERY_RESULT_TYPE_ANSWERED,
        query_result=Payloads(payloads=[Payload(metadata={"encoding": b"json/plain"}, data=b'"well"')]),
    )
    await hand.service.respond_query_task_completed(answer)
    assert await question == "well"
    await handle.terminate()


async def test_durations_that_are_negative_or_absent(stage):
    hand = ByHand(stage)
    for name in ("workflow_execution_timeout", "workflow_run_timeout", "workflow_task_timeout", "workflow_start_delay"):
        await refused(RPCStatusCode.INVALID_ARGUMENT, hand.start(**{name: -1 * S}))
    BAD = WorkflowTaskFailedCause
    timer = StartTimerCommandAttributes(timer_id="t", start_to_fire_timeout=-1 * S)
    cases = (
        (hand.schedule(), BAD.WORKFLOW_TASK_FAILED_CAUSE_BAD_SCHEDULE_ACTIVITY_ATTRIBUTES),
        (hand.schedule(start_to_close_timeout=-1 * S), BAD.WORKFLOW_TASK_FAILED_CAUSE_BAD_SCHEDULE_ACTIVITY_ATTRIBUTES),
        (
            hand.schedule(start_to_close_timeout=S, heartbeat_timeout=-1 * S),
            BAD.WORKFLOW_TASK_FAILED_CAUSE_BAD_SCHEDULE_ACTIVITY_ATTRIBUTES,
        ),
        (
            Command(command_type=CommandType.COMMAND_TYPE_START_TIMER, start_timer_command_attributes=timer),
            BAD.WORKFLOW_TASK_FAILED_CAUSE_BAD_START_TIMER_ATTRIBUTES,
        ),
        (
            Command(
                command_type=CommandType.COMMAND_TYPE_START_TIMER,
                start_timer_command_attributes=StartTimerCommandAttributes(timer_id="t"),
            ),
            BAD.WORKFLOW_TASK_FAILED_CAUSE_BAD_START_TIMER_ATTRIBUTES,
        ),
    )
    for command, cause in cases:
        handle = await hand.start()
        task = await hand.task()
        await refused(RPCStatusCode.INVALID_ARGUMENT, hand.answer(task.task_token, command))
        failed = [attributes(e) for e in (await handle.fetch_history()).events if name_of(e) == "WorkflowTaskFailed"]
        assert [f.cause for f in failed] == [cause], (command, failed)
        await hand.answer((await hand.task()).task_token, COMPLETE)


async def test_payloads_that_are_no_text(stage):
    hand = ByHand(stage)
    payload = Payload(metadata={"encoding": b"json/plain", "odd": NOT_UTF8}, data=NOT_UTF8)
    handle = await hand.start(input=Payloads(payloads=[payload]), memo=Memo(fields={"m": payload}))
    task = await hand.task()
    assert list(attributes(task.history.events[0]).input.payloads) == [payload]
    await hand.answer(task.task_token, COMPLETE)
    described = await handle.describe()
    assert described.raw_info.memo.fields["m"] == payload
    odd = SearchAttributes(indexed_fields={"CustomKeywordField": Payload(metadata={"encoding": b"json/plain"}, data=NOT_UTF8)})
    await refused(RPCStatusCode.INVALID_ARGUMENT, hand.start(search_attributes=odd))


async def test_ten_thousand_signals_and_one(stage):
    handle = await stage.start(Hears.run, task_queue=stage.id("later"))
    for _ in range(100):
        await asyncio.gather(*(handle.signal(Hears.put, 0) for _ in range(100)))
    error = await raises(RPCError, handle.signal(Hears.put, 0))
    assert "10000" in str(error).replace(",", ""), error
    assert (await handle.describe()).status.name == "RUNNING"
    history = await handle.fetch_history()
    assert sum(name_of(e) == "WorkflowExecutionSignaled" for e in history.events) == 10_000
    await handle.terminate()


async def test_two_thousand_activities_and_one(stage):
    handle = await stage.start(TooMany.run, 2_001)
    await stage.until(handle, "WorkflowTaskFailed")
    events = (await handle.fetch_history()).events
    failed = next(attributes(e) for e in events if name_of(e) == "WorkflowTaskFailed")
    assert failed.cause == WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_PENDING_ACTIVITIES_LIMIT_EXCEEDED
    assert not any(name_of(e) == "ActivityTaskScheduled" for e in events), "of a refused turn nothing stays"
    assert (await handle.describe()).status.name == "RUNNING"
    await handle.terminate()


POLLS = """
import asyncio, sys
from temporalio.client import Client
from temporalio.api.taskqueue.v1 import StickyExecutionAttributes, TaskQueue
from temporalio.api.workflowservice.v1 import PollActivityTaskQueueRequest, PollWorkflowTaskQueueRequest

async def main(address, namespace, queue):
    service = (await Client.connect(address, namespace=namespace)).workflow_service
    fields = {"namespace": namespace, "task_queue": TaskQueue(name=queue), "identity": "dies"}
    polls = [service.poll_workflow_task_queue(PollWorkflowTaskQueueRequest(**fields)) for _ in range(20)]
    polls += [service.poll_activity_task_queue(PollActivityTaskQueueRequest(**fields)) for _ in range(20)]
    waiting = asyncio.gather(*polls)
    print("polls", flush=True)
    await waiting

asyncio.run(main(*sys.argv[1:]))
"""


async def test_no_task_is_lost_to_clients_that_are_gone(stage):
    queue = stage.id("gone")
    address = stage.client.service_client.config.target_host
    clients = []
    for _ in range(3):
        client = await asyncio.create_subprocess_exec(
            sys.executable, "-c", POLLS, address, stage.client.namespace, queue, stdout=asyncio.subprocess.PIPE
        )
        assert (await client.stdout.readline()).strip() == b"polls"
        clients.append(client)
    for client in clients:
        client.kill()
        await client.wait()
    handles = [await stage.start(Calls.run, f"n{n}", task_queue=queue) for n in range(30)]
    async with stage.worker(task_queue=queue):
        results = await asyncio.wait_for(asyncio.gather(*(handle.result() for handle in handles)), 60)
    # At most one attempt: had one been given to a dead client, its run would have failed.
    assert results == [f"n{n} 1" for n in range(30)]
