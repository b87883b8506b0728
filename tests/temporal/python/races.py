"""Things that happen while a workflow task runs, or while code changes: nothing is lost, and the task is tried again."""

import asyncio
from datetime import timedelta

from harness import attributes, name_of, raises, shape
from temporalio import activity, workflow
from temporalio.api.enums.v1 import TimeoutType, WorkflowTaskFailedCause as Cause
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice import v1 as service
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError, WorkflowQueryFailedError
from temporalio.common import SearchAttributeKey, WorkflowIDReusePolicy
from temporalio.exceptions import ApplicationError, CancelledError, TerminatedError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

S = timedelta(seconds=1)
changed = set()
gates = {}
reached = {}


@activity.defn
async def at_gate(name: str) -> str:
    """Runs until the test opens its gate."""
    reached.setdefault(name, asyncio.Event()).set()
    await gates.setdefault(name, asyncio.Event()).wait()
    return name


@workflow.defn
class Busy:
    """Its first workflow task lasts until a gate is opened; then it ends at once."""

    def __init__(self):
        self.seen = []

    @workflow.signal
    def put(self, text: str):
        self.seen.append(text)

    @workflow.update
    def add(self, text: str) -> int:
        self.seen.append(text)
        return len(self.seen)

    @workflow.query
    def got(self) -> list:
        return self.seen

    @workflow.run
    async def run(self, how: str) -> list:
        name = workflow.info().workflow_id
        if how == "again":
            if workflow.info().continued_run_id:
                return self.seen
        await workflow.execute_local_activity(at_gate, name, start_to_close_timeout=30 * S)
        if how == "again":
            workflow.continue_as_new("again")
        return self.seen


@workflow.defn
class Changes:
    """Its code is another one after a change."""

    @workflow.run
    async def run(self) -> str:
        name = workflow.info().workflow_id
        if name in changed:
            await workflow.wait_condition(lambda: False, timeout=0.01)
            return "changed"
        await workflow.execute_activity(at_gate, name, start_to_close_timeout=30 * S)
        return "as it was"


@workflow.defn(failure_exception_types=[workflow.NondeterminismError])
class ChangesForGood:
    @workflow.run
    async def run(self) -> str:
        name = workflow.info().workflow_id
        if name in changed:
            await workflow.wait_condition(lambda: False, timeout=0.01)
            return "changed"
        await workflow.execute_activity(at_gate, name, start_to_close_timeout=30 * S)
        return "as it was"


@workflow.defn
class Wrong:
    """Asks for what the server refuses."""

    @workflow.run
    async def run(self, how: str) -> str:
        name = workflow.info().workflow_id
        if how == "attribute" and name not in changed:
            workflow.upsert_search_attributes([SearchAttributeKey.for_keyword("NobodyDefinedIt").value_set("x")])
        if how == "twice" and name not in changed:
            options = {"start_to_close_timeout": 5 * S, "activity_id": "same"}
            await asyncio.gather(*(workflow.execute_activity(at_gate, name, **options) for _ in range(2)))
        if how == "broken" and name not in changed:
            raise RuntimeError("a bug")
        return "right"

    @workflow.query
    def anything(self) -> str:
        return "answered"


@workflow.defn
class Family:
    @workflow.run
    async def run(self, depth: int) -> str:
        id = workflow.info().workflow_id
        if depth:
            return await workflow.execute_child_workflow(Family.run, depth - 1, id=f"{id}-child")
        await workflow.sleep(60)
        return "never"


@workflow.defn
class Root:
    @workflow.run
    async def run(self, depth: int) -> str:
        if depth:
            return await workflow.execute_child_workflow(Root.run, depth - 1)
        return workflow.info().root.workflow_id


@workflow.defn
class ToClosed:
    @workflow.run
    async def run(self, id: str, cancel: bool) -> str:
        other = workflow.get_external_workflow_handle(id)
        try:
            await (other.cancel() if cancel else other.signal("put", "x"))
        except ApplicationError as error:
            return error.message
        return "sent"


@workflow.defn
class LongTimers:
    @workflow.run
    async def run(self) -> int:
        ten_years = asyncio.ensure_future(workflow.sleep(timedelta(days=3650)))
        await workflow.sleep(timedelta(milliseconds=1))
        ten_years.cancel()
        return 1


@workflow.defn
class ChildOnce:
    @workflow.run
    async def run(self, id: str) -> str:
        try:
            return await workflow.execute_child_workflow(
                LongTimersResult.run, id=id, id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE
            )
        except WorkflowAlreadyStartedError as error:
            return f"taken {error.workflow_id} {error.workflow_type}"


@workflow.defn
class LongTimersResult:
    @workflow.run
    async def run(self) -> str:
        return "once"


WORKFLOWS = [Busy, Changes, ChangesForGood, Wrong, Family, Root, ToClosed, LongTimers, ChildOnce, LongTimersResult]
ACTIVITIES = [at_gate]


async def reach(name):
    await asyncio.wait_for(reached.setdefault(name, asyncio.Event()).wait(), 20)


def open_gate(name):
    gates.setdefault(name, asyncio.Event()).set()


async def test_a_signal_while_the_last_task_runs_is_seen(stage):
    handle = await stage.start(Busy.run, "end")
    await reach(handle.id)
    await handle.signal(Busy.put, "late")
    open_gate(handle.id)
    assert await handle.result() == ["late"]
    events = await stage.check(handle)
    failed = [e for e in events if name_of(e) == "WorkflowTaskFailed"]
    assert [attributes(e).cause for e in failed] in ([], [Cause.WORKFLOW_TASK_FAILED_CAUSE_UNHANDLED_COMMAND]), shape(events)


async def test_a_cancellation_while_the_last_task_runs_is_seen(stage):
    handle = await stage.start(Busy.run, "end")
    await reach(handle.id)
    await handle.cancel()
    open_gate(handle.id)
    # The local activity is cancelled, or it has ended; either way the cancellation is in the history, and nothing is behind the end.
    try:
        await handle.result()
    except WorkflowFailureError as error:
        assert isinstance(error.cause, CancelledError), error.cause
    names = [name_of(e) for e in await stage.check(handle)]
    assert "WorkflowExecutionCancelRequested" in names, names


async def test_a_signal_while_it_continues_as_new_is_not_lost(stage):
    handle = await stage.start(Busy.run, "again")
    await reach(handle.id)
    await handle.signal(Busy.put, "late")
    open_gate(handle.id)
    await handle.result()
    runs = [stage.client.get_workflow_handle(handle.id, run_id=handle.result_run_id), stage.client.get_workflow_handle(handle.id)]
    signals = [name_of(e) for run in runs for e in await stage.check(run)].count("WorkflowExecutionSignaled")
    assert signals == 1, signals


async def test_an_update_and_a_query_while_the_task_runs(stage):
    handle = await stage.start(Busy.run, "end")
    await reach(handle.id)
    update = asyncio.ensure_future(handle.execute_update(Busy.add, "new"))
    query = asyncio.ensure_future(handle.query(Busy.got))
    await asyncio.sleep(0.2)
    open_gate(handle.id)
    outcome, answer = await asyncio.gather(update, query, return_exceptions=True)
    assert outcome == 1 or isinstance(outcome, RPCError) and outcome.status == RPCStatusCode.NOT_FOUND, repr(outcome)
    assert answer in ([], ["new"]), answer
    await handle.result()
    await stage.check(handle)


async def test_a_termination_while_the_task_runs(stage):
    handle = await stage.start(Busy.run, "end")
    await reach(handle.id)
    await handle.terminate()
    open_gate(handle.id)
    error = await raises(WorkflowFailureError, handle.result())
    assert isinstance(error.cause, TerminatedError)
    names = [name_of(e) for e in await stage.check(handle, replay=False)]
    assert names[-1] == "WorkflowExecutionTerminated", names


async def test_a_task_whose_worker_never_answers_times_out(stage):
    queue = stage.id("q")
    handle = await stage.start(LongTimers.run, task_queue=queue, task_timeout=1 * S)
    poll = service.PollWorkflowTaskQueueRequest(namespace=stage.client.namespace, task_queue=TaskQueue(name=queue), identity="silent")
    taken = await stage.client.workflow_service.poll_workflow_task_queue(poll)
    assert taken.task_token
    await stage.until(handle, "WorkflowTaskTimedOut")
    answer = service.RespondWorkflowTaskCompletedRequest(task_token=taken.task_token, namespace=stage.client.namespace)
    error = await raises(RPCError, stage.client.workflow_service.respond_workflow_task_completed(answer))
    assert error.status == RPCStatusCode.NOT_FOUND, error
    async with stage.worker(task_queue=queue):
        assert await handle.result() == 1
    events = await stage.check(handle)
    late = next(e for e in events if name_of(e) == "WorkflowTaskTimedOut")
    assert attributes(late).timeout_type == TimeoutType.TIMEOUT_TYPE_START_TO_CLOSE


async def test_code_that_changed_is_found_out_and_tried_again(stage):
    queue = stage.id("q")
    async with stage.worker(task_queue=queue, max_cached_workflows=0):
        handle = await stage.start(Changes.run, task_queue=queue)
        await reach(handle.id)
        changed.add(handle.id)
        open_gate(handle.id)
        await stage.until(handle, "WorkflowTaskFailed")
        changed.discard(handle.id)
        assert await handle.result() == "as it was"
    events = await stage.check(handle)
    failed = next(e for e in events if name_of(e) == "WorkflowTaskFailed")
    assert attributes(failed).cause == Cause.WORKFLOW_TASK_FAILED_CAUSE_NON_DETERMINISTIC_ERROR, attributes(failed).cause


async def test_code_that_changed_may_fail_its_workflow(stage):
    queue = stage.id("q")
    async with stage.worker(task_queue=queue, max_cached_workflows=0):
        handle = await stage.start(ChangesForGood.run, task_queue=queue)
        await reach(handle.id)
        changed.add(handle.id)
        open_gate(handle.id)
        await raises(WorkflowFailureError, handle.result(), "")
    assert (await handle.describe()).status == WorkflowExecutionStatus.FAILED


async def test_refused_commands_fail_the_task_until_the_code_is_right(stage):
    causes = {
        "attribute": Cause.WORKFLOW_TASK_FAILED_CAUSE_BAD_SEARCH_ATTRIBUTES,
        "twice": Cause.WORKFLOW_TASK_FAILED_CAUSE_SCHEDULE_ACTIVITY_DUPLICATE_ID,
    }
    for how, cause in causes.items():
        handle = await stage.start(Wrong.run, how, task_timeout=1 * S)
        await stage.until(handle, "WorkflowTaskFailed")
        changed.add(handle.id)
        assert await handle.result() == "right"
        events = await stage.check(handle)
        failed = next(e for e in events if name_of(e) == "WorkflowTaskFailed")
        assert attributes(failed).cause == cause, (how, attributes(failed).cause, attributes(failed).failure.message)


async def test_a_query_of_a_run_whose_code_is_broken_is_told_so(stage):
    handle = await stage.start(Wrong.run, "broken", task_timeout=1 * S)
    await stage.until(handle, "WorkflowTaskFailed")
    error = await raises((RPCError, WorkflowQueryFailedError), handle.query(Wrong.anything, rpc_timeout=10 * S))
    assert not isinstance(error, RPCError) or error.status != RPCStatusCode.DEADLINE_EXCEEDED, error
    changed.add(handle.id)
    await handle.result()


async def test_a_family_ends_with_its_first(stage):
    handle = await stage.start(Family.run, 2)
    last = stage.client.get_workflow_handle(f"{handle.id}-child-child")

    async def there():
        try:
            return shape((await last.fetch_history()).events).count("TimerStarted")
        except RPCError:
            return False

    await stage.eventually("the grandchild", there)
    await handle.terminate()

    async def ended():
        return (await last.describe()).status == WorkflowExecutionStatus.TERMINATED

    await stage.eventually("the end of the grandchild", ended)
    await stage.check(last, replay=False)


async def test_the_root_of_a_family_is_known(stage):
    handle, root = await stage.run(Root.run, 3)
    assert root == handle.id
    await stage.check(handle)


async def test_what_is_sent_to_the_closed_fails(stage):
    closed, _ = await stage.run(LongTimers.run)
    for cancel in (False, True):
        handle, said = await stage.run(ToClosed.run, closed.id, cancel)
        assert "not found" in said or "completed" in said, said
        await stage.check(handle)


async def test_timers_may_be_long(stage):
    handle, _ = await stage.run(LongTimers.run)
    await stage.check(handle)


async def test_a_childs_id_is_given_once_if_its_policy_says_so(stage):
    id = stage.id("child")
    _, first = await stage.run(ChildOnce.run, id)
    handle, second = await stage.run(ChildOnce.run, id)
    assert (first, second) == ("once", f"taken {id} LongTimersResult")
    await stage.check(handle)


async def test_a_signal_with_start_of_a_closed_id_meets_the_reuse_policy(stage):
    closed, _ = await stage.run(LongTimersResult.run)
    again = stage.start(
        LongTimersResult.run, id=closed.id, id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE, start_signal="x"
    )
    await raises(WorkflowAlreadyStartedError, again)


async def test_many_updates_at_once_are_all_carried_out(stage):
    handle = await stage.start(Busy.run, "end")
    await reach(handle.id)
    updates = [asyncio.ensure_future(handle.execute_update(Busy.add, f"{i}")) for i in range(8)]
    await asyncio.sleep(0.1)
    more = [asyncio.ensure_future(handle.execute_update(Busy.add, f"more {i}")) for i in range(20)]
    open_gate(handle.id)
    results = await asyncio.gather(*updates, *more, return_exceptions=True)
    for result in results:
        assert isinstance(result, int) or isinstance(result, RPCError) and result.status == RPCStatusCode.NOT_FOUND, repr(result)
    events = await stage.check(handle)
    names = [name_of(e) for e in events]
    assert names.count("WorkflowExecutionUpdateCompleted") == sum(isinstance(r, int) for r in results), results
