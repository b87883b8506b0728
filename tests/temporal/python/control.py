"""Timers, signals, queries, cancellation, termination, starts with their policies, failing workflow tasks, the sticky cache."""

import asyncio
from datetime import timedelta

from harness import DONE, STARTED, attributes, name_of, raises, shape
from temporalio import workflow
from temporalio.api.enums.v1 import WorkflowTaskFailedCause
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError, WorkflowQueryFailedError
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import ApplicationError, CancelledError, TerminatedError, TimeoutError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

S = timedelta(seconds=1)
broken = set()
evictions = {}


@workflow.defn
class Timers:
    @workflow.run
    async def run(self) -> list:
        long = asyncio.ensure_future(workflow.sleep(60))
        await workflow.sleep(0.1)
        long.cancel()
        await workflow.sleep(0.05)
        return ["done"]


@workflow.defn
class Inbox:
    """Takes signals until one says stop."""

    def __init__(self):
        self.got = []

    @workflow.signal
    def put(self, text: str):
        self.got.append(text)

    @workflow.query
    def all(self) -> list:
        return self.got

    @workflow.query
    def nth(self, n: int) -> str:
        return self.got[n]

    @workflow.run
    async def run(self) -> list:
        await workflow.wait_condition(lambda: "stop" in self.got)
        return self.got


@workflow.defn
class Careful:
    """Cleans up when it is cancelled."""

    @workflow.run
    async def run(self, swallow: bool) -> str:
        try:
            await workflow.sleep(60)
        except asyncio.CancelledError:
            await workflow.sleep(0.05)
            if swallow:
                return "cleaned up"
            raise
        return "never"


@workflow.defn
class Returns:
    @workflow.run
    async def run(self, value: str) -> str:
        if value == "fail":
            raise ApplicationError("as asked", type="asked", non_retryable=True)
        return value


@workflow.defn
class Breaks:
    """Its code raises until the test repairs it."""

    @workflow.run
    async def run(self, name: str) -> str:
        if name in broken:
            raise ValueError("a bug")
        return "repaired"


@workflow.defn
class Steps:
    """Several workflow tasks, so that a cache matters."""

    def __init__(self):
        self.step = 0

    @workflow.query
    def at(self) -> int:
        return self.step

    @workflow.signal
    def stop(self):
        self.stopped = True

    @workflow.run
    async def run(self, count: int) -> int:
        for _ in range(count):
            await workflow.sleep(0.02)
            self.step += 1
        return self.step


WORKFLOWS = [Timers, Inbox, Careful, Returns, Breaks, Steps]
ACTIVITIES = []


async def test_timers_fire_and_are_cancelled(stage):
    handle, _ = await stage.run(Timers.run)
    await stage.check(
        handle,
        [
            STARTED,
            "task",
            ("TimerStarted", {"timer_id": "1"}),
            ("TimerStarted", {"timer_id": "2"}),
            ("TimerFired", {"timer_id": "1", "started_event_id": 5}),
            "task",
            "TimerStarted",
            ("TimerCanceled", {"timer_id": "2", "started_event_id": 6}),
            "TimerFired",
            "task",
            DONE,
        ],
    )


async def test_signals_before_the_first_task_are_all_seen(stage):
    queue = stage.id("q")
    handle = await stage.start(Inbox.run, task_queue=queue)
    for text in ("a", "b", "stop"):
        await handle.signal(Inbox.put, text)
    async with stage.worker(task_queue=queue):
        assert await handle.result() == ["a", "b", "stop"]
    signal = "WorkflowExecutionSignaled"
    await stage.check(
        handle,
        [
            STARTED,
            "WorkflowTaskScheduled",
            (signal, {"signal_name": "put"}),
            signal,
            signal,
            ("WorkflowTaskStarted", {"scheduled_event_id": 2}),
            "WorkflowTaskCompleted",
            DONE,
        ],
    )


async def test_each_signal_wakes_the_workflow(stage):
    handle = await stage.start(Inbox.run)
    await stage.until(handle, "task")
    await handle.signal(Inbox.put, "a")
    await stage.until(handle, "task", 2)
    await handle.signal(Inbox.put, "stop")
    assert await handle.result() == ["a", "stop"]
    signal = "WorkflowExecutionSignaled"
    await stage.check(handle, [STARTED, "task", signal, "task", signal, "task", DONE])


async def test_many_signals_at_once_lose_none(stage):
    handle = await stage.start(Inbox.run)
    await asyncio.gather(*(handle.signal(Inbox.put, f"{i}") for i in range(100)))
    await handle.signal(Inbox.put, "stop")
    got = await handle.result()
    assert len(got) == 101 and set(got) == {"stop", *(f"{i}" for i in range(100))}, got
    await stage.check(handle)


async def test_a_signal_to_what_is_closed_or_unknown_is_refused(stage):
    handle, _ = await stage.run(Returns.run, "x")
    error = await raises(RPCError, handle.signal("put", "late"))
    assert error.status == RPCStatusCode.NOT_FOUND, error
    error = await raises(RPCError, stage.client.get_workflow_handle(stage.id()).signal("put", "x"))
    assert error.status == RPCStatusCode.NOT_FOUND, error


async def test_queries_of_open_and_closed_runs(stage):
    handle = await stage.start(Inbox.run)
    assert await handle.query(Inbox.all) == []
    await handle.signal(Inbox.put, "a")
    assert await handle.query(Inbox.all) == ["a"], "a query sees the signals before it"
    assert await handle.query(Inbox.nth, 0) == "a"
    await raises(WorkflowQueryFailedError, handle.query(Inbox.nth, 9))
    await raises(WorkflowQueryFailedError, handle.query("nothing"), "nothing")
    await handle.signal(Inbox.put, "stop")
    await handle.result()
    assert await handle.query(Inbox.all) == ["a", "stop"]
    events = await stage.check(handle)
    assert not any("Query" in name_of(e) for e in events)


async def test_queries_from_many_at_once(stage):
    handle = await stage.start(Inbox.run)
    await handle.signal(Inbox.put, "a")
    answers = await asyncio.gather(*(handle.query(Inbox.all) for _ in range(20)))
    assert answers == [["a"]] * 20, answers
    await handle.signal(Inbox.put, "stop")
    await handle.result()
    await stage.check(handle)


async def test_a_query_without_a_worker_says_so(stage):
    handle = await stage.start(Inbox.run, task_queue=stage.id("nobody"))
    error = await raises((RPCError, WorkflowQueryFailedError), handle.query(Inbox.all, rpc_timeout=5 * S))
    assert str(error)
    await handle.terminate()


async def test_cancellation_is_confirmed(stage):
    handle = await stage.start(Careful.run, False)
    await stage.until(handle, "TimerStarted")
    await handle.cancel()
    error = await raises(WorkflowFailureError, handle.result())
    assert isinstance(error.cause, CancelledError), error.cause
    await stage.check(
        handle,
        [
            STARTED,
            "task",
            "TimerStarted",
            "WorkflowExecutionCancelRequested",
            "task",
            "TimerCanceled",
            "TimerStarted",
            "TimerFired",
            "task",
            "WorkflowExecutionCanceled",
        ],
    )


async def test_cancellation_may_be_swallowed(stage):
    handle = await stage.start(Careful.run, True)
    await stage.until(handle, "TimerStarted")
    await handle.cancel()
    assert await handle.result() == "cleaned up"
    await stage.check(handle)


async def test_termination_is_the_end(stage):
    handle = await stage.start(Careful.run, True)
    await stage.until(handle, "TimerStarted")
    await handle.terminate("detail", reason="because")
    error = await raises(WorkflowFailureError, handle.result())
    assert isinstance(error.cause, TerminatedError), error.cause
    await stage.check(
        handle, [STARTED, "task", "TimerStarted", ("WorkflowExecutionTerminated", {"reason": "because"})]
    )
    error = await raises(RPCError, handle.terminate())
    assert error.status == RPCStatusCode.NOT_FOUND


async def test_a_workflow_fails_with_its_own_failure(stage):
    handle = await stage.start(Returns.run, "fail")
    error = await raises(WorkflowFailureError, handle.result())
    assert error.cause.type == "asked" and error.cause.message == "as asked"
    await stage.check(handle, [STARTED, "task", ("WorkflowExecutionFailed", {"failure.message": "as asked"})])


async def test_a_run_times_out(stage):
    handle = await stage.start(Careful.run, False, run_timeout=1 * S)
    error = await raises(WorkflowFailureError, handle.result())
    assert isinstance(error.cause, TimeoutError), error.cause
    await stage.check(handle, [STARTED, "task", "TimerStarted", "WorkflowExecutionTimedOut"])


async def test_signal_with_start(stage):
    options = {"id": stage.id(), "task_queue": stage.queue, "start_signal": "put"}
    first = await stage.client.start_workflow(Inbox.run, **options, start_signal_args=["a"])
    second = await stage.client.start_workflow(Inbox.run, **options, start_signal_args=["stop"])
    assert first.result_run_id == second.result_run_id
    assert await first.result() == ["a", "stop"]
    events = await stage.check(first)
    assert [name_of(e) for e in events[:3]] == [STARTED, "WorkflowExecutionSignaled", "WorkflowTaskScheduled"]


async def test_an_id_has_one_open_run(stage):
    handle = await stage.start(Inbox.run)
    error = await raises(WorkflowAlreadyStartedError, stage.start(Inbox.run, id=handle.id))
    assert error.run_id == handle.result_run_id
    existing = await stage.start(Inbox.run, id=handle.id, id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING)
    assert existing.result_run_id == handle.result_run_id
    fresh = await stage.start(Inbox.run, id=handle.id, id_conflict_policy=WorkflowIDConflictPolicy.TERMINATE_EXISTING)
    assert fresh.result_run_id != handle.result_run_id
    error = await raises(WorkflowFailureError, handle.result(follow_runs=False))
    assert isinstance(error.cause, TerminatedError)
    await fresh.signal(Inbox.put, "stop")
    await fresh.result()
    old = stage.client.get_workflow_handle(handle.id, run_id=handle.result_run_id)
    await stage.check(old, replay=False)
    await stage.check(fresh)


async def test_a_closed_id_is_given_anew_as_the_policy_says(stage):
    done, _ = await stage.run(Returns.run, "x")
    for policy in (WorkflowIDReusePolicy.REJECT_DUPLICATE, WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY):
        again = stage.start(Returns.run, "y", id=done.id, id_reuse_policy=policy)
        await raises(WorkflowAlreadyStartedError, again)
    again, result = await stage.run(Returns.run, "y", id=done.id)
    assert result == "y" and again.result_run_id != done.result_run_id
    failed = await stage.start(Returns.run, "fail")
    await raises(WorkflowFailureError, failed.result())
    policy = WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY
    _, result = await stage.run(Returns.run, "z", id=failed.id, id_reuse_policy=policy)
    assert result == "z"


async def test_a_start_may_wait(stage):
    handle, result = await stage.run(Returns.run, "x", start_delay=1 * S)
    assert result == "x"
    events = await stage.check(handle, [STARTED, "task", DONE])
    waited = events[1].event_time.ToNanoseconds() - events[0].event_time.ToNanoseconds()
    assert waited >= 1_000_000_000, waited
    assert attributes(events[0]).first_workflow_task_backoff.ToMilliseconds() == 1000


async def test_an_eager_start_needs_no_poll(stage):
    handle, result = await stage.run(Returns.run, "x", request_eager_start=True)
    assert result == "x"
    events = await stage.check(handle, [STARTED, "task", DONE])
    assert attributes(events[0]).eager_execution_accepted


async def test_a_failing_task_is_tried_again_until_the_code_is_repaired(stage):
    name = stage.id()
    broken.add(name)
    handle = await stage.start(Breaks.run, name, id=name)
    await stage.until(handle, "WorkflowTaskFailed")
    await asyncio.sleep(0.5)
    events = (await handle.fetch_history()).events
    names = [name_of(e) for e in events if e.event_type]
    assert names.count("WorkflowTaskFailed") == 1, f"only the first failure is written: {names}"
    broken.discard(name)
    assert await handle.result() == "repaired"
    events = await stage.check(handle)
    cause = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_WORKFLOW_WORKER_UNHANDLED_FAILURE
    failed = next(e for e in events if name_of(e) == "WorkflowTaskFailed")
    assert attributes(failed).cause == cause
    assert shape(events)[-2:] == ["task", DONE], shape(events)
    last = next(e for e in reversed(events) if name_of(e) == "WorkflowTaskScheduled")
    assert attributes(last).attempt >= 2, "the attempt is written when it succeeds"


async def test_a_worker_without_a_cache_replays_every_task(stage):
    queue = stage.id("q")
    async with stage.worker(task_queue=queue, max_cached_workflows=0):
        handle, result = await stage.run(Steps.run, 5, task_queue=queue)
        assert result == 5
        assert await handle.query(Steps.at) == 5
    await stage.check(handle)


async def test_a_sticky_worker_that_leaves_is_replaced(stage):
    queue = stage.id("q")
    async with stage.worker(task_queue=queue):
        handle = await stage.start(Inbox.run, task_queue=queue)
        await handle.signal(Inbox.put, "a")
        assert await handle.query(Inbox.all) == ["a"]
    await handle.signal(Inbox.put, "stop")
    async with stage.worker(task_queue=queue):
        assert await handle.result() == ["a", "stop"]
        assert await handle.query(Inbox.all) == ["a", "stop"]
    await stage.check(handle)


async def test_the_history_backwards_is_the_history(stage):
    from temporalio.api.common.v1 import WorkflowExecution
    from temporalio.api.workflowservice.v1 import GetWorkflowExecutionHistoryReverseRequest as Reverse

    handle, _ = await stage.run(Steps.run, 12)
    events = await stage.check(handle)
    backwards, token = [], b""
    while True:
        answer = await stage.client.workflow_service.get_workflow_execution_history_reverse(
            Reverse(
                namespace=stage.client.namespace,
                execution=WorkflowExecution(workflow_id=handle.id, run_id=handle.result_run_id),
                maximum_page_size=7,
                next_page_token=token,
            )
        )
        backwards += answer.history.events
        token = answer.next_page_token
        if not token:
            break
    assert list(reversed(backwards)) == list(events)


async def test_descriptions_say_where_a_run_stands(stage):
    handle = await stage.start(Inbox.run, memo={"note": "here"})
    described = await handle.describe()
    assert described.status == WorkflowExecutionStatus.RUNNING
    assert described.workflow_type == "Inbox" and described.task_queue == stage.queue
    assert described.run_id == handle.result_run_id and described.close_time is None
    assert await described.memo() == {"note": "here"}
    await handle.signal(Inbox.put, "stop")
    await handle.result()
    described = await handle.describe()
    assert described.status == WorkflowExecutionStatus.COMPLETED
    events = await stage.check(handle)
    assert described.history_length == len(events)
    assert described.close_time >= described.start_time
