"""Orchestrations as Temporal's tools see them, and their histories replayed by Temporal's own replayer with the published code.

Submitted over orra's HTTP, done by services on orra's SDK; each way an orchestration can go is a test.
"""

import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path

from harness import attributes, check_sound, name_of, raises, shape
from orra import HTTP, Model, Project, Services
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import History
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowHistory
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import Replayer
from temporalio.workflow import NondeterminismError

PACKAGES = Path(__file__).parents[3] / "worker-sdk/python"
sys.path.insert(0, str(PACKAGES))
from orchestrion_replay import WORKFLOWS as PUBLISHED  # noqa: E402
from orchestrion_replay import Different, replay  # noqa: E402

WORKFLOWS = []
ACTIVITIES = []
WITH_WORKER = False
ONE_BY_ONE = True
PLAN = "orchestrion.plan"


class Shop:
    """A project with services that do as they are told."""

    project: Project
    services: Services
    model: Model
    client: Client


shop = Shop()
steps = 0


async def prepare(stage):
    shop.project = await Project.add()
    shop.model = Model()
    await shop.model.serve(int(os.environ["MODEL_PORT"]))
    shop.services = await Services.start(
        shop.project, "reserve+revert", "charge+revert", "deliver+revert", "note", "slow+revert"
    )
    shop.client = await Client.connect(stage.client.service_client.config.target_host, namespace=shop.project.id)


def step(service, **given):
    """A task of a service, with an id of its own to work on."""
    global steps
    steps += 1
    return shop.services.id(service), {"id": f"{service}-{steps}", **given}


async def submit(*tasks, **given):
    """Submits a plan; a handle of Temporal's client."""
    return shop.client.get_workflow_handle(await shop.project.submit(tasks, **given))


async def ended(handle):
    async def closed():
        return (await handle.describe()).status != WorkflowExecutionStatus.RUNNING

    while not await closed():
        await asyncio.sleep(0.05)
    return await handle.describe()


async def until(handle, name, count=1):
    """Waits until a history holds an event of that name."""
    while shape((await handle.fetch_history()).events).count(name) < count:
        await asyncio.sleep(0.05)


async def checked(handle):
    """The history of a run, sound and replayed: as it was fetched, and as it was saved and loaded again."""
    history = await handle.fetch_history()
    check_sound(history.events)
    await replay(history)
    loaded = WorkflowHistory.from_json(handle.id, history.to_json())
    assert loaded.events == history.events
    await Replayer(workflows=PUBLISHED).replay_workflow(loaded)
    return history.events


async def checked_end(handle, status):
    assert (await ended(handle)).status == status
    return await checked(handle)


def all_of(events, name):
    return [attributes(event) for event in events if name_of(event) == name]


def scheduled(events):
    return [at.activity_id for at in all_of(events, "ActivityTaskScheduled")]


# ---- plans that work ----------------------------------------------------------------------


async def test_a_plan_that_completes(_):
    handle = await submit(
        step("reserve", value="lamp"),
        step("note", value="$task0.remark, $5 or $$task1.id of $task0.n"),
        step("charge", value="$task1.value", after=["$task1.id", "$task1.receipt.lines[1].sku"]),
        step("deliver", value="for $task3.id: $task1.receipt", after=["$task3.id", "$task2.id"]),
        constants={"remark": "gently", "n": [1e21, 1e16, 1234567890123456.5, 1.5e-5, 1.5e-7, 2.0, 7, "é\n", {"a b": None}]},
    )
    events = await checked_end(handle, WorkflowExecutionStatus.COMPLETED)
    assert scheduled(events) == ["task1", "task2", "task3", "task4"], scheduled(events)


async def test_tasks_side_by_side_in_any_order(_):
    handle = await submit(
        step("reserve", sleep_ms=300),
        step("charge", sleep_ms=100),
        step("note"),
        step("deliver", after=["$task1.id", "$task2.id", "$task3.id"]),
    )
    events = await checked_end(handle, WorkflowExecutionStatus.COMPLETED)
    assert len(all_of(events, "WorkflowTaskCompleted")) == 5


async def test_retries(_):
    handle = await submit(step("reserve", fail_times=2), step("note", after=["$task1.id"]))
    events = await checked_end(handle, WorkflowExecutionStatus.COMPLETED)
    assert all_of(events, "ActivityTaskStarted")[0].attempt == 3


async def test_a_run_that_goes_on_replays_too(_):
    task = step("slow", sleep_ms=600)
    handle = await submit(task)
    await shop.services.until("started", task[1]["id"])
    await checked(handle)
    await checked_end(handle, WorkflowExecutionStatus.COMPLETED)


# ---- plans that are made ------------------------------------------------------------------


async def act(content, status=(202,)):
    body = {"action": {"type": "", "content": content}, "data": []}
    await shop.project.call("POST", "/orchestrations", body, status=status)
    found = [one async for one in shop.client.list_workflows(f"WorkflowType = '{PLAN}' ORDER BY StartTime DESC", page_size=1)]
    return shop.client.get_workflow_handle(found[0].id)


async def test_a_plan_of_the_planner(_):
    task1, task2 = step("reserve"), step("note", value="$task1.id")
    tasks = [{"id": f"task{n}", "service": service, "input": given} for n, (service, given) in enumerate([task1, task2], 1)]
    shop.model.answers["reserve by day"] = {"tasks": [{"id": "task0", "input": {}}, *tasks], "parallel_groups": []}
    handle = await act("reserve by day")
    events = await checked_end(handle, WorkflowExecutionStatus.COMPLETED)
    assert scheduled(events) == ["plan", "task1", "task2"]


async def test_an_action_that_cannot_be_done(_):
    final = {"id": "final", "input": {"error": "there is no bakery"}}
    shop.model.answers["bake a cake"] = {"tasks": [{"id": "task0", "input": {}}, final], "parallel_groups": []}
    events = await checked_end(await act("bake a cake", status=(400,)), WorkflowExecutionStatus.FAILED)
    failure = attributes(events[-1]).failure
    assert failure.application_failure_info.type == "NotActionable", failure


async def test_a_planner_that_only_makes_mistakes(_):
    shop.model.answers["reserve by night"] = {"tasks": [{"id": "task1", "service": "s_nobody", "input": {}}], "parallel_groups": []}
    events = await checked_end(await act("reserve by night", status=(400, 422, 500)), WorkflowExecutionStatus.FAILED)
    failure = attributes(events[-1]).failure
    assert failure.application_failure_info.type == "PlanFailed", failure


async def test_a_cancel_while_the_planner_thinks(_):
    body = {"action": {"type": "", "content": "think for ever"}, "data": []}
    submission = asyncio.ensure_future(shop.project.http.post("/orchestrations", json=body))
    while True:
        found = [one async for one in shop.client.list_workflows(f"WorkflowType = '{PLAN}' AND ExecutionStatus = 'Running'")]
        if found:
            break
        await asyncio.sleep(0.05)
    handle = shop.client.get_workflow_handle(found[0].id)
    await handle.cancel()
    events = await checked_end(handle, WorkflowExecutionStatus.CANCELED)
    assert shape(events)[-2:] == ["WorkflowPropertiesModified", "WorkflowExecutionCanceled"]
    await submission


# ---- plans that come to a bad end ---------------------------------------------------------


async def test_a_failure_is_undone_newest_first(_):
    handle = await submit(
        step("reserve"),
        step("charge", after=["$task1.id"]),
        step("deliver", after=["$task2.id"], fail_times=99),
    )
    events = await checked_end(handle, WorkflowExecutionStatus.FAILED)
    assert scheduled(events)[3:] == ["revert:task2", "revert:task1"]
    assert (await handle.describe()).raw_description.workflow_execution_info.memo.fields["status"].data == b'"failed"'


async def test_an_abort_is_undone_while_others_run(_):
    handle = await submit(
        step("reserve"),
        step("note", sleep_ms=300, after=["$task1.id"]),
        step("charge", sleep_ms=400, after=["$task1.id"]),
        step("deliver", after=["$task1.id"], abort_with="no road"),
    )
    events = await checked_end(handle, WorkflowExecutionStatus.FAILED)
    assert scheduled(events)[4:] == ["revert:task3", "revert:task1"]
    assert len(all_of(events, "ActivityTaskCancelRequested")) == 2
    assert attributes(events[-1]).failure.application_failure_info.type == "TaskAborted"


async def test_an_abort_without_a_payload(_):
    handle = await submit(step("reserve"), step("deliver", after=["$task1.id"], abort_bare=True))
    await checked_end(handle, WorkflowExecutionStatus.FAILED)


async def test_reverts_end_in_many_ways(_):
    handle = await submit(
        step("reserve", revert_as="partial"),
        step("charge", after=["$task1.id"], revert_as="failed"),
        step("reserve", after=["$task2.id"], revert_as="raise"),
        step("charge", after=["$task3.id"], revert_fail_times=1),
        step("reserve", after=["$task4.id"], revert_as="expired"),
        step("deliver", after=["$task5.id"], abort_with="no road"),
    )
    events = await checked_end(handle, WorkflowExecutionStatus.FAILED)
    assert scheduled(events)[6:] == [f"revert:task{n}" for n in (5, 4, 3, 2, 1)]


async def test_a_reference_that_leads_nowhere(_):
    handle = await submit(step("reserve"), step("note", after=["$task1.receipt.lines[7].sku"]))
    events = await checked_end(handle, WorkflowExecutionStatus.FAILED)
    assert "leads nowhere" in attributes(events[-1]).failure.message
    assert scheduled(events) == ["task1", "revert:task1"]


async def test_a_task_that_waits_for_its_next_attempt_when_it_is_cancelled(_):
    handle = await submit(
        step("reserve", fail_times=99),
        step("charge", sleep_ms=300, abort_with="enough"),
        options={"retryInitial": "30s", "retryMax": "30s"},
    )
    events = await checked_end(handle, WorkflowExecutionStatus.FAILED)
    at = shape(events).index("ActivityTaskCancelRequested")
    assert shape(events)[at + 1] == "ActivityTaskCanceled", shape(events)


# ---- unknown outcomes ---------------------------------------------------------------------


async def test_a_late_result_is_undone(_):
    handle = await submit(
        step("reserve"),
        step("slow", after=["$task1.id"], sleep_ms=1_000),
        options={"taskTimeout": "300ms", "taskAttempts": 1, "lateResultWait": "20s"},
    )
    events = await checked_end(handle, WorkflowExecutionStatus.FAILED)
    assert scheduled(events)[2:] == ["revert:task1", "revert:task2"]
    assert [at.timer_id for at in all_of(events, "TimerStarted")] == ["1"]
    assert len(all_of(events, "TimerCanceled")) == 1


async def test_a_late_result_that_never_comes(_):
    slow = step("slow", after=["$task1.id"], sleep_ms=2_000)
    handle = await submit(
        step("reserve"),
        slow,
        options={"taskTimeout": "200ms", "taskAttempts": 1, "lateResultWait": "300ms"},
    )
    events = await checked_end(handle, WorkflowExecutionStatus.FAILED)
    assert scheduled(events)[2:] == ["revert:task1"]
    assert len(all_of(events, "TimerFired")) == 1
    await shop.services.until("executed", slow[1]["id"])


async def test_a_cancelled_task_whose_first_attempt_timed_out_is_waited_for(_):
    handle = await submit(
        step("slow", sleep_ms=2_500),
        step("note", sleep_ms=600),
        step("charge", sleep_ms=600, after=["$task2.id"], abort_with="enough"),
        timeout="1s",
        options={"retryInitial": "20s", "retryMax": "20s", "lateResultWait": "20s"},
    )
    events = await checked_end(handle, WorkflowExecutionStatus.FAILED)
    at = shape(events).index("ActivityTaskCancelRequested")
    assert shape(events)[at + 1 : at + 3] == ["ActivityTaskStarted", "ActivityTaskCanceled"], shape(events)
    assert scheduled(events)[3:] == ["revert:task1"]
    assert len(all_of(events, "TimerCanceled")) == 1


async def test_a_service_that_never_connects(_):
    nobody = await shop.project.add_service("nobody", revertible=True)
    handle = await submit(step("reserve"), (nobody, {"id": "$task1.id"}), grace="300ms")
    events = await checked_end(handle, WorkflowExecutionStatus.FAILED)
    assert scheduled(events) == ["task1", "task2", "revert:task1"]


# ---- cancels ------------------------------------------------------------------------------


async def running(**given):
    """An orchestration of which one task is done and one runs."""
    handle = await submit(step("reserve"), step("note", after=["$task1.id"], sleep_ms=600), **given)
    await until(handle, "ActivityTaskScheduled", 2)
    return handle


async def test_a_cancel_of_temporals_client(_):
    handle = await running()
    await handle.cancel()
    events = await checked_end(handle, WorkflowExecutionStatus.CANCELED)
    assert scheduled(events)[2:] == ["revert:task1"]


async def test_a_cancel_without_compensation(_):
    handle = await running()
    await shop.project.call("POST", f"/v1/orchestrations/{handle.id}/cancel", {"reason": "enough", "compensate": False})
    events = await checked_end(handle, WorkflowExecutionStatus.CANCELED)
    assert scheduled(events) == ["task1", "task2"]
    assert len(all_of(events, "WorkflowExecutionCancelRequested")) == 1


async def test_a_cancel_by_signal(_):
    handle = await running()
    await handle.signal("orchestrion.cancel", {"reason": "changed my mind", "compensate": True})
    await handle.signal("orchestrion.cancel", {"reason": "really"})
    events = await checked_end(handle, WorkflowExecutionStatus.CANCELED)
    assert scheduled(events)[2:] == ["revert:task1"]
    assert len(all_of(events, "WorkflowExecutionCancelRequested")) == 1


async def test_a_cancel_by_a_signal_that_cannot_be_read(_):
    handle = await running()
    await handle.signal("orchestrion.cancel")
    events = await checked_end(handle, WorkflowExecutionStatus.CANCELED)
    assert scheduled(events)[2:] == ["revert:task1"]


async def test_a_cancel_of_what_is_being_undone_changes_nothing(_):
    handle = await submit(step("reserve", revert_sleep_ms=400), step("deliver", after=["$task1.id"], abort_with="no road"))
    await until(handle, "ActivityTaskScheduled", 3)
    await handle.cancel()
    events = await checked_end(handle, WorkflowExecutionStatus.FAILED)
    assert len(all_of(events, "WorkflowExecutionCancelRequested")) == 1


# ---- what comes after ---------------------------------------------------------------------


async def test_a_fork_takes_results_over(_):
    handle = await submit(step("note"), step("reserve", value="$task1.id"), step("note", value="$task2.id"))
    await ended(handle)
    forked = await shop.project.call("POST", f"/v1/orchestrations/{handle.id}/fork", {"from": "task2"})
    fork = shop.client.get_workflow_handle(forked["executionId"])
    events = await checked_end(fork, WorkflowExecutionStatus.COMPLETED)
    assert scheduled(events) == ["task2", "task3"]


async def test_a_revert_that_is_run_again(_):
    for revert_as, ends in [("raise", WorkflowExecutionStatus.FAILED), ("failed", WorkflowExecutionStatus.COMPLETED)]:
        handle = await submit(step("reserve", revert_as=revert_as), step("deliver", after=["$task1.id"], abort_with="no road"))
        await ended(handle)
        records = await shop.project.call("GET", "/compensation-failures")
        record = next(one for one in records if handle.id in one.values())
        before = await reverts()
        await shop.project.call("POST", f"/compensation-failures/{record['id']}/retry")
        while not (new := await reverts() - before):
            await asyncio.sleep(0.05)
        await checked_end(shop.client.get_workflow_handle(new.pop()), ends)


async def reverts():
    return {one.id async for one in shop.client.list_workflows("WorkflowType = 'orchestrion.revert'")}


# ---- what Temporal's client does with one --------------------------------------------------


async def test_listed_described_shown_signalled_and_terminated(_):
    handle = await running()
    listed = [one.id async for one in shop.client.list_workflows(f"WorkflowType = '{PLAN}' AND ExecutionStatus = 'Running'")]
    assert handle.id in listed, listed
    described = await handle.describe()
    assert (described.workflow_type, described.status) == (PLAN, WorkflowExecutionStatus.RUNNING)
    pending = described.raw_description.pending_activities
    assert [one.activity_id for one in pending] == ["task2"]
    await handle.signal("anything", "that nobody waits for")
    await handle.terminate("seen enough")
    described = await handle.describe()
    assert described.status == WorkflowExecutionStatus.TERMINATED
    events = await checked(handle)
    assert shape(events)[-1] == "WorkflowExecutionTerminated"
    assert all_of(events, "WorkflowExecutionSignaled")[0].signal_name == "anything"


async def test_built_in_types_and_queues_are_closed(_):
    for kind, queue in [(PLAN, "mine"), ("orchestrion.revert", "mine"), ("mine", PLAN)]:
        error = await raises(RPCError, shop.client.start_workflow(kind, {}, id=f"closed-{kind}-{queue}", task_queue=queue))
        assert error.status in (RPCStatusCode.INVALID_ARGUMENT, RPCStatusCode.PERMISSION_DENIED), error


# ---- a history that was changed ------------------------------------------------------------


def copied(events):
    copy = History()
    copy.events.extend(events)
    return copy.events


def first(events, name, number=0):
    return attributes([event for event in events if name_of(event) == name][number])


async def test_a_changed_history_is_refused(_):
    handle = await submit(
        step("reserve"),
        step("charge"),
        step("deliver", after=["$task1.id", "$task2.id"], abort_with="no road"),
        step("slow", sleep_ms=900),
        options={"taskTimeout": "400ms", "taskAttempts": 1, "lateResultWait": "10s"},
    )
    events = await checked_end(handle, WorkflowExecutionStatus.FAILED)

    def id_of_an_activity(changed):
        first(changed, "ActivityTaskScheduled").activity_id = "task9"

    def type_of_an_activity(changed):
        first(changed, "ActivityTaskScheduled").activity_type.name = "charge"

    def order_of_two(changed):
        one, other = first(changed, "ActivityTaskScheduled"), first(changed, "ActivityTaskScheduled", 1)
        one.activity_id, other.activity_id = other.activity_id, one.activity_id

    def what_was_undone_first(changed):
        one, other = first(changed, "ActivityTaskScheduled", 4), first(changed, "ActivityTaskScheduled", 5)
        one.activity_id, other.activity_id = other.activity_id, one.activity_id
        one.activity_type.name, other.activity_type.name = other.activity_type.name, one.activity_type.name

    def another_plan(changed):
        data = first(changed, "WorkflowExecutionStarted").input.payloads[0]
        data.data = data.data.replace(b'"revertible":true', b'"revertible":false')

    def the_end(changed):
        changed[-1].workflow_execution_completed_event_attributes.workflow_task_completed_event_id = len(changed) - 2
        changed[-1].event_type = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED

    for change in (id_of_an_activity, type_of_an_activity, order_of_two, what_was_undone_first, another_plan, the_end):
        changed = copied(events)
        change(changed)
        assert changed != events, change.__name__
        try:
            await Replayer(workflows=PUBLISHED).replay_workflow(WorkflowHistory(handle.id, changed))
        except NondeterminismError:
            continue
        raise AssertionError(f"replays although it was changed: {change.__name__}")


async def test_inputs_and_results_are_compared_too(_):
    handle = await submit(step("reserve", value="lamp"), step("deliver", after=["$task1.id"], abort_with="no road"))
    events = await checked_end(handle, WorkflowExecutionStatus.FAILED)

    def an_input(changed):
        data = first(changed, "ActivityTaskScheduled").input.payloads[0]
        data.data = data.data.replace(b"lamp", b"desk")

    def a_queue(changed):
        first(changed, "ActivityTaskScheduled").task_queue.name = "elsewhere"

    def why_it_was_undone(changed):
        context = first(changed, "ActivityTaskScheduled", 2).header.fields["orchestrion-compensation"]
        context.data = context.data.replace(b"no road", b"no time")

    def no_abort(changed):
        first(changed, "ActivityTaskFailed").failure.application_failure_info.type = "ServiceError"

    def the_end(changed):
        failure = first(changed, "WorkflowExecutionFailed").failure
        failure.message = failure.message.replace("task2", "task1")

    for change in (an_input, a_queue, why_it_was_undone, no_abort, the_end):
        changed = copied(events)
        change(changed)
        assert changed != events, change.__name__
        await raises(Different, replay(WorkflowHistory(handle.id, changed)))


# ---- a history in a file --------------------------------------------------------------------


async def cli(*args, **environment):
    """Runs the engine's command line, and answers what it printed."""
    process = await asyncio.create_subprocess_exec(
        os.environ["ENGINE_BINARY"], *args, env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, told = await process.communicate()
    assert process.returncode == 0, f"{args}: {told.decode()}"
    return out.decode()


async def test_a_history_that_the_command_line_wrote(_):
    handle = await submit(step("reserve", value="é"), step("deliver", after=["$task1.id"], abort_with="no road"))
    events = await checked_end(handle, WorkflowExecutionStatus.FAILED)
    with tempfile.TemporaryDirectory() as folder:
        config, export, history = (str(Path(folder) / name) for name in ("config.json", "run.jsonl", "history.json"))
        known = {"id": shop.project.id, "cli_auth": shop.project.key, "server_addr": HTTP}
        Path(config).write_text(json.dumps({"current_project": "shop", "projects": {"shop": known}}))
        printed = await cli("--config", config, "history", handle.id)
        assert WorkflowHistory.from_json(handle.id, printed).events == events
        await cli("--config", config, "audit", "export", handle.id, "--output", export)
        await cli("--config", config, "history", "--file", export, "--output", history)
        assert WorkflowHistory.from_json(handle.id, Path(history).read_text()).events == events
        # The package's own command: 0 and a word for a history that replays, 1 for one that does not.
        assert "replays: " in await package(history)
        changed = Path(history).read_text().replace('"activityId": "task1"', '"activityId": "task9"')
        Path(history).write_text(changed)
        assert "does NOT replay" in await package(history, code=1)


async def package(*files, code=0):
    environment = {**os.environ, "PYTHONPATH": str(PACKAGES)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-B", "-m", "orchestrion_replay", *files, env=environment, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == code, out
    return out.decode()


# ---- a run over a kill of the engine --------------------------------------------------------


async def test_a_run_that_survives_a_kill_of_the_engine(stage):
    task = step("slow", after=["$task1.id"], sleep_ms=1_500)
    handle = await submit(step("reserve"), task, step("deliver", after=["$task2.id"], abort_with="no road"))
    await shop.services.until("started", task[1]["id"])
    await stage.kill()
    events = await checked_end(handle, WorkflowExecutionStatus.FAILED)
    assert scheduled(events) == ["task1", "task2", "task3", "revert:task2", "revert:task1"]
