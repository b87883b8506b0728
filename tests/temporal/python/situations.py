"""What users of the SDK come across: races, delays, resets with updates, large payloads, failures while nobody looks."""

import asyncio
from datetime import timedelta

from harness import DONE, STARTED, attributes, name_of, raises, shape
from temporalio import activity, workflow
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType, ResetReapplyType
from temporalio.api.workflowservice import v1 as service
from temporalio.client import (
    AsyncActivityCancelledError,
    WithStartWorkflowOperation,
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowHistoryEventFilterType,
    WorkflowQueryRejectedError,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
    WorkflowUpdateStage,
)
from temporalio.common import Priority, QueryRejectCondition, RetryPolicy, WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    ChildWorkflowError,
    TerminatedError,
    TimeoutError,
    WorkflowAlreadyStartedError,
)
from temporalio.service import RPCError, RPCStatusCode

S = timedelta(seconds=1)
tokens = asyncio.Queue()
LARGE = 700_000


@activity.defn
async def echo(text: str) -> str:
    return text


@activity.defn
async def from_elsewhere() -> str:
    await tokens.put((activity.info().workflow_id, activity.info().task_token))
    activity.raise_complete_async()


@activity.defn
async def fails() -> None:
    try:
        raise ValueError("the cause")
    except ValueError as error:
        raise ApplicationError("the failure", {"detail": 1}, type="Typed") from error


@workflow.defn
class Box:
    """Takes signals and updates until one says stop; tells what came, in its order."""

    def __init__(self):
        self.seen = []

    @workflow.signal
    def put(self, text: str):
        self.seen.append(text)

    @workflow.update
    async def add(self, text: str) -> int:
        if text == "wait":
            await workflow.wait_condition(lambda: "go" in self.seen)
        self.seen.append(text)
        return len(self.seen)

    @workflow.query
    def got(self) -> list:
        return self.seen

    @workflow.run
    async def run(self) -> list:
        try:
            await workflow.wait_condition(lambda: "stop" in self.seen)
        except asyncio.CancelledError:
            self.seen.append("cancelled")
            raise
        return self.seen


@workflow.defn
class Cancellable:
    """Ends well in spite of a cancellation, and tells what it saw of it and of signals."""

    def __init__(self):
        self.seen = []

    @workflow.signal
    def put(self, text: str):
        self.seen.append(text)

    @workflow.run
    async def run(self) -> list:
        try:
            await workflow.sleep(60)
        except asyncio.CancelledError:
            self.seen.append("cancelled")
        return self.seen


@workflow.defn
class Payloads:
    @workflow.run
    async def run(self, text: str, through_activity: bool) -> str:
        if through_activity:
            return await workflow.execute_activity(echo, text, start_to_close_timeout=10 * S)
        return text


@workflow.defn
class Outside:
    @workflow.run
    async def run(self, cancel: bool) -> str:
        task = workflow.start_activity(
            from_elsewhere,
            start_to_close_timeout=60 * S,
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        )
        if cancel:
            await workflow.sleep(0.1)
            task.cancel()
        try:
            return await task
        except ActivityError as error:
            return f"{type(error.cause).__name__} {list(getattr(error.cause, 'details', []))}"


@workflow.defn
class Fails:
    @workflow.run
    async def run(self, how: str) -> str:
        if how == "activity":
            await workflow.execute_activity(fails, start_to_close_timeout=5 * S, retry_policy=RetryPolicy(maximum_attempts=1))
        if how == "child":
            await workflow.execute_child_workflow(Fails.run, "activity")
        if how == "timeout":
            await workflow.execute_child_workflow(Cancellable.run, run_timeout=timedelta(milliseconds=400))
        if how == "terminated":
            child = await workflow.start_child_workflow(Cancellable.run, id=f"{workflow.info().workflow_id}-child")
            await child
        return how


@workflow.defn
class Prioritised:
    @workflow.run
    async def run(self, child: bool) -> str:
        if child:
            await workflow.execute_child_workflow(Prioritised.run, False, priority=Priority(priority_key=2))
        return await workflow.execute_activity(echo, "x", start_to_close_timeout=5 * S, priority=Priority(priority_key=4))


@workflow.defn
class Sized:
    @workflow.run
    async def run(self) -> list:
        info = workflow.info()
        first = [info.get_current_history_length(), info.get_current_history_size()]
        await workflow.sleep(0.02)
        return first + [info.get_current_history_length(), info.get_current_history_size(), info.is_continue_as_new_suggested()]


@workflow.defn
class Chained:
    @workflow.run
    async def run(self, left: int) -> dict:
        info = workflow.info()
        if left:
            workflow.continue_as_new(left - 1, memo={"left": left - 1})
        return {
            "memo": workflow.memo(),
            "timeout": info.execution_timeout.total_seconds(),
            "task": info.task_timeout.total_seconds(),
            "retry": info.retry_policy.maximum_attempts if info.retry_policy else None,
            "first": info.first_execution_run_id,
        }


WORKFLOWS = [Box, Cancellable, Payloads, Outside, Fails, Prioritised, Sized, Chained]
ACTIVITIES = [echo, from_elsewhere, fails]


async def test_a_signal_and_a_cancellation_before_the_first_task(stage):
    queue = stage.id("q")
    handle = await stage.start(Cancellable.run, task_queue=queue)
    await handle.signal(Cancellable.put, "a")
    await handle.cancel()
    await handle.signal(Cancellable.put, "b")
    async with stage.worker(task_queue=queue):
        assert await handle.result() == ["a", "b", "cancelled"]
    names = [name_of(e) for e in await stage.check(handle)]
    assert names[2:5] == ["WorkflowExecutionSignaled", "WorkflowExecutionCancelRequested", "WorkflowExecutionSignaled"], names


async def test_a_signal_alone_does_not_end_a_start_delay_but_one_with_a_start_does(stage):
    handle = await stage.start(Box.run, start_delay=60 * S)
    await handle.signal(Box.put, "a")
    names = [name_of(e) for e in (await handle.fetch_history()).events]
    assert names == [STARTED, "WorkflowExecutionSignaled"], names
    again = await stage.start(Box.run, id=handle.id, start_delay=60 * S, start_signal="put", start_signal_args=["stop"])
    assert await again.result() == ["a", "stop"]
    signal = "WorkflowExecutionSignaled"
    await stage.check(handle, [STARTED, signal, signal, "task", DONE])


async def test_a_cancellation_ends_a_start_delay(stage):
    handle = await stage.start(Cancellable.run, start_delay=60 * S)
    await handle.cancel()
    assert await handle.result() == ["cancelled"]
    await stage.check(handle)


async def test_a_signal_with_the_start_does_not_end_its_delay(stage):
    handle = await stage.start(Box.run, start_delay=1 * S, start_signal="put", start_signal_args=["stop"])
    assert await handle.result() == ["stop"]
    events = await stage.check(handle, [STARTED, "WorkflowExecutionSignaled", "task", DONE])
    waited = events[2].event_time.ToNanoseconds() - events[0].event_time.ToNanoseconds()
    assert waited >= 1_000_000_000, waited


async def test_an_update_waits_for_the_end_of_a_start_delay(stage):
    handle = await stage.start(Box.run, start_delay=1 * S)
    assert await handle.execute_update(Box.add, "a") == 1
    await handle.signal(Box.put, "stop")
    await handle.result()
    await stage.check(handle)


async def test_an_update_before_any_worker_is_there(stage):
    queue = stage.id("q")
    handle = await stage.start(Box.run, task_queue=queue)
    update = asyncio.ensure_future(handle.execute_update(Box.add, "a"))
    await asyncio.sleep(0.2)
    async with stage.worker(task_queue=queue):
        assert await update == 1
        await handle.signal(Box.put, "stop")
        await handle.result()
    await stage.check(handle)


async def test_an_update_that_nobody_takes_is_told_so_in_time(stage):
    handle = await stage.start(Box.run, task_queue=stage.id("nobody"))
    for call in (handle.execute_update, handle.start_update):
        options = {} if call == handle.execute_update else {"wait_for_stage": WorkflowUpdateStage.ACCEPTED}
        await raises(WorkflowUpdateRPCTimeoutOrCancelledError, call(Box.add, "a", rpc_timeout=1 * S, **options))
    await handle.terminate()


async def test_an_update_in_flight_when_its_run_ends(stage):
    handle = await stage.start(Box.run)
    accepted = await handle.start_update(Box.add, "wait", wait_for_stage=WorkflowUpdateStage.ACCEPTED)
    waiting = asyncio.ensure_future(accepted.result())
    await handle.signal(Box.put, "stop")
    await handle.result()
    error = await raises(WorkflowUpdateFailedError, waiting)
    assert error.cause.type == "AcceptedUpdateCompletedWorkflow", error.cause
    error = await raises(WorkflowUpdateFailedError, handle.get_update_handle(accepted.id).result())
    assert error.cause.type == "AcceptedUpdateCompletedWorkflow", error.cause
    await stage.check(handle)


async def test_an_update_that_no_worker_took_when_its_run_is_terminated(stage):
    handle = await stage.start(Box.run, task_queue=stage.id("nobody"))
    update = asyncio.ensure_future(handle.execute_update(Box.add, "a"))
    await asyncio.sleep(0.3)
    await handle.terminate()
    error = await raises((RPCError, WorkflowUpdateFailedError), update)
    assert isinstance(error, RPCError) and error.status == RPCStatusCode.NOT_FOUND, repr(error)


async def test_an_unknown_update_cannot_be_polled(stage):
    handle = await stage.start(Box.run)
    error = await raises(RPCError, handle.get_update_handle("unheard of").result())
    assert error.status == RPCStatusCode.NOT_FOUND, error
    await handle.terminate()


async def reset(stage, handle, event_id, **more):
    request = service.ResetWorkflowExecutionRequest(
        namespace=stage.client.namespace,
        workflow_execution=WorkflowExecution(workflow_id=handle.id, run_id=handle.result_run_id),
        reason="a test",
        request_id=stage.id(),
        workflow_task_finish_event_id=event_id,
        **more,
    )
    run_id = (await stage.client.workflow_service.reset_workflow_execution(request)).run_id
    return stage.client.get_workflow_handle_for(Box.run, handle.id, run_id=run_id)


async def test_updates_are_applied_again_behind_a_reset(stage):
    handle = await stage.start(Box.run)
    await stage.until(handle, "task")
    assert await handle.execute_update(Box.add, "a", id="first") == 1
    await handle.signal(Box.put, "b")
    assert await handle.execute_update(Box.add, "c", id="second") == 3
    again = await reset(stage, handle, 4)
    # Asked for by its id, and sent once more with the same id: it is the same update.
    assert await again.get_update_handle("first", result_type=int).result() == 1
    assert await again.execute_update(Box.add, "c", id="second") == 3
    assert await again.query(Box.got) == ["a", "b", "c"]
    await again.signal(Box.put, "stop")
    assert await again.result() == ["a", "b", "c", "stop"]
    events = await stage.check(again)
    names = [name_of(e) for e in events]
    assert names.count("WorkflowExecutionUpdateAdmitted") == 2, names
    assert names.count("WorkflowExecutionUpdateAccepted") == 2 == names.count("WorkflowExecutionUpdateCompleted"), names


async def test_a_reset_may_leave_things_out(stage):
    handle = await stage.start(Box.run)
    await stage.until(handle, "task")
    await handle.signal(Box.put, "a")
    assert await handle.execute_update(Box.add, "b") == 2
    again = await reset(stage, handle, 4, reset_reapply_type=ResetReapplyType.RESET_REAPPLY_TYPE_NONE)
    assert await again.query(Box.got) == []
    await again.signal(Box.put, "stop")
    assert await again.result() == ["stop"]
    await stage.check(again)


async def test_update_with_start_meets_each_kind_of_run(stage):
    def start(id, conflict, reuse=WorkflowIDReusePolicy.ALLOW_DUPLICATE):
        return WithStartWorkflowOperation(Box.run, id=id, task_queue=stage.queue, id_conflict_policy=conflict, id_reuse_policy=reuse)

    use, fail = WorkflowIDConflictPolicy.USE_EXISTING, WorkflowIDConflictPolicy.FAIL
    update = stage.client.execute_update_with_start_workflow
    id = stage.id()
    first = start(id, fail)
    assert await update(Box.add, "a", id="one", start_workflow_operation=first) == 1
    run = (await first.workflow_handle()).result_run_id
    # The same update again is the same, whatever the policy.
    again = start(id, use)
    assert await update(Box.add, "a", id="one", start_workflow_operation=again) == 1
    refused = start(id, fail)
    await raises(WorkflowAlreadyStartedError, update(Box.add, "b", start_workflow_operation=refused))
    await raises(WorkflowAlreadyStartedError, refused.workflow_handle())
    handle = stage.client.get_workflow_handle_for(Box.run, id)
    await handle.signal(Box.put, "stop")
    await handle.result()
    # Of a run that has ended: the same update is answered from its history, another one starts a new run.
    closed = start(id, use)
    assert await update(Box.add, "a", id="one", start_workflow_operation=closed) == 1
    assert (await closed.workflow_handle()).result_run_id == run
    rejected = start(id, use, WorkflowIDReusePolicy.REJECT_DUPLICATE)
    await raises(WorkflowAlreadyStartedError, update(Box.add, "b", start_workflow_operation=rejected))
    fresh = start(id, use)
    assert await update(Box.add, "b", start_workflow_operation=fresh) == 1
    assert (await fresh.workflow_handle()).result_run_id != run
    await handle.terminate()


async def test_large_payloads_come_and_go(stage):
    text = "x" * LARGE
    for through_activity in (False, True):
        handle, result = await stage.run(Payloads.run, text, through_activity)
        assert result == text
        events = await stage.check(handle)
        closing = [e async for e in handle.fetch_history_events(event_filter_type=WorkflowHistoryEventFilterType.CLOSE_EVENT)]
        assert closing == [events[-1]]
        backwards = await stage.client.workflow_service.get_workflow_execution_history_reverse(
            service.GetWorkflowExecutionHistoryReverseRequest(
                namespace=stage.client.namespace, execution=WorkflowExecution(workflow_id=handle.id), maximum_page_size=1
            )
        )
        assert backwards.history.events[0] == events[-1]


async def test_an_activity_elsewhere_hears_of_its_cancellation(stage):
    handle = await stage.start(Outside.run, True)
    while True:
        id, token = await asyncio.wait_for(tokens.get(), 20)
        if id == handle.id:
            break
        await tokens.put((id, token))
    await stage.until(handle, "ActivityTaskCancelRequested")
    elsewhere = stage.client.get_async_activity_handle(task_token=token)
    await raises(AsyncActivityCancelledError, elsewhere.heartbeat("beat"))
    await elsewhere.report_cancellation("why")
    assert await handle.result() == "CancelledError ['why']"
    error = await raises(RPCError, elsewhere.complete("late"))
    assert error.status == RPCStatusCode.NOT_FOUND, error
    await stage.check(handle)


async def test_failures_keep_their_causes_over_children(stage):
    error = await raises(WorkflowFailureError, stage.run(Fails.run, "activity"))
    assert isinstance(error.cause, ActivityError) and error.cause.cause.type == "Typed"
    assert list(error.cause.cause.details) == [{"detail": 1}]
    assert error.cause.cause.cause.message == "the cause"
    error = await raises(WorkflowFailureError, stage.run(Fails.run, "child"))
    assert isinstance(error.cause, ChildWorkflowError) and error.cause.cause.cause.type == "Typed"
    error = await raises(WorkflowFailureError, stage.run(Fails.run, "timeout"))
    assert isinstance(error.cause.cause, TimeoutError), error.cause.cause
    handle = await stage.start(Fails.run, "terminated")
    await stage.until(handle, "ChildWorkflowExecutionStarted")
    await stage.client.get_workflow_handle(f"{handle.id}-child").terminate("of a test")
    error = await raises(WorkflowFailureError, handle.result())
    assert isinstance(error.cause.cause, TerminatedError), error.cause.cause
    await stage.check(handle)


async def test_priorities_are_carried(stage):
    handle, _ = await stage.run(Prioritised.run, True, priority=Priority(priority_key=1))
    events = await stage.check(handle)
    found = {name_of(e): attributes(e).priority.priority_key for e in events if hasattr(attributes(e), "priority")}
    assert found == {STARTED: 1, "StartChildWorkflowExecutionInitiated": 2, "ActivityTaskScheduled": 4}, found
    assert (await handle.describe()).raw_description.workflow_execution_info.priority.priority_key == 1


async def test_a_workflow_knows_how_long_its_history_is(stage):
    handle, (events, size, later, more, suggested) = await stage.run(Sized.run)
    assert (events, later, suggested) == (3, 8, False), (events, later, suggested)
    assert 0 < size < more
    await stage.check(handle)


async def test_a_chain_keeps_what_it_was_started_with(stage):
    handle, told = await stage.run(
        Chained.run, 2, execution_timeout=100 * S, task_timeout=7 * S, retry_policy=RetryPolicy(maximum_attempts=3), memo={"left": 9}
    )
    wanted = {"memo": {"left": 0}, "timeout": 100, "task": 7, "retry": 3, "first": handle.first_execution_run_id}
    assert told == wanted, told


async def test_queries_are_refused_as_their_caller_asks(stage):
    handle = await stage.start(Box.run)
    for condition in (QueryRejectCondition.NOT_OPEN, QueryRejectCondition.NOT_COMPLETED_CLEANLY):
        assert await handle.query(Box.got, reject_condition=condition) == []
    await handle.terminate()
    for condition in (QueryRejectCondition.NOT_OPEN, QueryRejectCondition.NOT_COMPLETED_CLEANLY):
        error = await raises(WorkflowQueryRejectedError, handle.query(Box.got, reject_condition=condition))
        assert error.status == WorkflowExecutionStatus.TERMINATED
    assert await handle.query(Box.got) == []


async def test_a_start_terminates_what_runs_by_the_old_policy(stage):
    handle = await stage.start(Box.run)
    fresh = await stage.start(Box.run, id=handle.id, id_reuse_policy=WorkflowIDReusePolicy.TERMINATE_IF_RUNNING)
    assert fresh.result_run_id != handle.result_run_id
    old = stage.client.get_workflow_handle(handle.id, run_id=handle.result_run_id)
    assert (await old.describe()).status == WorkflowExecutionStatus.TERMINATED
    await fresh.terminate()


async def test_a_start_may_attach_to_the_run_that_is_open(stage):
    handle = await stage.start(Box.run)
    from temporalio.api.common.v1 import WorkflowType
    from temporalio.api.enums.v1 import WorkflowIdConflictPolicy as Wire
    from temporalio.api.taskqueue.v1 import TaskQueue
    from temporalio.api.workflow.v1 import OnConflictOptions

    request = service.StartWorkflowExecutionRequest(
        namespace=stage.client.namespace,
        workflow_id=handle.id,
        workflow_type=WorkflowType(name="Box"),
        task_queue=TaskQueue(name=stage.queue),
        request_id=stage.id(),
        workflow_id_conflict_policy=Wire.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
        on_conflict_options=OnConflictOptions(attach_request_id=True),
    )
    for _ in range(2):
        answer = await stage.client.workflow_service.start_workflow_execution(request)
        assert answer.run_id == handle.result_run_id and not answer.started
    await handle.signal(Box.put, "stop")
    await handle.result()
    names = [name_of(e) for e in await stage.check(handle)]
    assert names.count("WorkflowExecutionOptionsUpdated") == 1, names


async def test_capabilities_are_told(stage):
    info = await stage.client.workflow_service.get_system_info(service.GetSystemInfoRequest())
    for name in ("upsert_memo", "eager_workflow_start", "sdk_metadata", "encoded_failure_attributes", "count_group_by_execution_status"):
        assert getattr(info.capabilities, name), name
    described = await stage.client.workflow_service.describe_namespace(
        service.DescribeNamespaceRequest(namespace=stage.client.namespace)
    )
    for name in ("eager_workflow_start", "sync_update", "async_update"):
        assert getattr(described.namespace_info.capabilities, name), name


async def test_a_run_that_times_out_is_tried_again(stage):
    handle = await stage.start(
        Cancellable.run, run_timeout=timedelta(milliseconds=300), retry_policy=RetryPolicy(maximum_attempts=2, initial_interval=timedelta(milliseconds=20))
    )
    error = await raises(WorkflowFailureError, handle.result())
    assert isinstance(error.cause, TimeoutError)
    last = await stage.check(stage.client.get_workflow_handle(handle.id))
    assert attributes(last[0]).attempt == 2


async def test_histories_are_waited_for(stage):
    handle = await stage.start(Box.run)
    seen = []

    async def watch():
        async for event in handle.fetch_history_events(wait_new_event=True):
            seen.append(event.event_type)

    watching = asyncio.ensure_future(watch())
    for text in ("a", "b", "stop"):
        await handle.signal(Box.put, text)
        await asyncio.sleep(0.1)
    await asyncio.wait_for(watching, 10)
    events = await stage.check(handle)
    assert seen == [e.event_type for e in events]
    assert seen[-1] == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED
