"""What every file of tests here uses: a stage with a client and a worker, and the check of a history.

A history is checked event by event against the order that is written down, then for what holds of every history (ids, references,
times, nothing behind the end), and then it is replayed by the SDK itself.
"""

import asyncio
import sys
import uuid
from contextlib import asynccontextmanager

import reports
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowHistory
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner, Worker

CLOSING = {
    "WorkflowExecutionCompleted",
    "WorkflowExecutionFailed",
    "WorkflowExecutionTimedOut",
    "WorkflowExecutionCanceled",
    "WorkflowExecutionTerminated",
    "WorkflowExecutionContinuedAsNew",
}
# A workflow task that went well, in one word.
TASK = ["WorkflowTaskScheduled", "WorkflowTaskStarted", "WorkflowTaskCompleted"]
STARTED = "WorkflowExecutionStarted"
DONE = "WorkflowExecutionCompleted"


def name_of(event):
    """`EVENT_TYPE_WORKFLOW_TASK_STARTED` as `WorkflowTaskStarted`."""
    words = EventType.Name(event.event_type).removeprefix("EVENT_TYPE_").split("_")
    return "".join(word.capitalize() for word in words)


def attributes(event):
    return getattr(event, event.WhichOneof("attributes"))


def shape(events):
    """The names of the events, a workflow task that went well as `task`."""
    names = [name_of(event) for event in events]
    short, at = [], 0
    while at < len(names):
        if names[at : at + 3] == TASK:
            short.append("task")
            at += 3
        else:
            short.append(names[at])
            at += 1
    return short


def check_sound(events):
    """What holds of every history, of whatever workflow. Times may go back: an event that waited keeps the time it happened."""
    by_id, last_completed = {}, 0
    for number, event in enumerate(events, 1):
        name, at = name_of(event), attributes(event)
        assert event.event_id == number, f"event {number} has the id {event.event_id}"
        assert event.HasField("event_time"), f"{number} {name} has no time"
        assert (name == STARTED) == (number == 1), f"{name} is event {number}"
        for field in ("scheduled_event_id", "started_event_id", "initiated_event_id"):
            refers = getattr(at, field, 0)
            if refers:
                assert refers < number, f"{number} {name} refers to {refers}"
                wanted = {"scheduled_event_id": "Scheduled", "started_event_id": "Started", "initiated_event_id": "Initiated"}
                assert name_of(by_id[refers]).endswith(wanted[field]), f"{number} {name}: {refers} is {name_of(by_id[refers])}"
        completed = getattr(at, "workflow_task_completed_event_id", 0)
        if completed:
            assert completed == last_completed, f"{number} {name}: of the workflow task {completed}, the last is {last_completed}"
        if name == "WorkflowTaskCompleted":
            last_completed = number
        if name in CLOSING:
            assert number == len(events), f"{name} is followed by {[name_of(e) for e in events[number:]]}"
        by_id[number] = event


def look(message, path):
    for part in path.split("."):
        message = getattr(message, part)
    return message


def check_order(events, expected):
    """`expected` names each event; a pair of a name and a dict says what its attributes are, by path."""
    names = [entry if isinstance(entry, str) else entry[0] for entry in expected]
    assert shape(events) == names, f"the history is\n  {shape(events)}\nexpected\n  {names}"
    at = 0
    for entry in expected:
        if not isinstance(entry, str):
            for path, wanted in entry[1].items():
                found = look(attributes(events[at]), path)
                assert found == wanted, f"event {at + 1} {entry[0]}: {path} is {found!r}, expected {wanted!r}"
        at += 3 if entry == "task" else 1


class Stage:
    """A client, its worker, and the server behind them."""

    def __init__(self, client, queue, workflows, activities):
        self.client = client
        self.queue = queue
        self.workflows = workflows
        self.activities = activities

    def id(self, what="w"):
        return f"{what}-{uuid.uuid4().hex[:12]}"

    def worker(self, **options):
        given = {
            "task_queue": self.queue,
            "workflows": self.workflows,
            "activities": self.activities,
            "workflow_runner": UnsandboxedWorkflowRunner(),
        }
        return Worker(self.client, **{**given, **options})

    async def start(self, workflow, *args, **options):
        given = {"id": self.id(), "task_queue": self.queue, "args": args}
        return await self.client.start_workflow(workflow, **{**given, **options})

    async def run(self, workflow, *args, **options):
        handle = await self.start(workflow, *args, **options)
        return handle, await handle.result()

    async def check(self, handle, expected=None, replay=True):
        """The events of a run, after all checks."""
        events = (await handle.fetch_history()).events
        check_sound(events)
        if expected is not None:
            check_order(events, expected)
        if replay:
            replayer = Replayer(workflows=self.workflows, workflow_runner=UnsandboxedWorkflowRunner())
            await replayer.replay_workflow(WorkflowHistory(handle.id, events))
        return events

    async def eventually(self, what, ask, timeout=20.0):
        """Waits until `ask` answers something true."""
        deadline = asyncio.get_running_loop().time() + timeout
        while True:
            answer = await ask()
            if answer:
                return answer
            assert asyncio.get_running_loop().time() < deadline, f"never: {what}"
            await asyncio.sleep(0.05)

    async def until(self, handle, name, count=1):
        """Waits until a run's history holds an event of that name."""

        async def there():
            events = (await handle.fetch_history()).events
            return shape(events).count(name) >= count

        await self.eventually(f"{name} in {handle.id}", there)

    async def kill(self):
        """Kills the server as a power cut would, and waits until it is back."""
        reports.say({"ask": "kill"})
        answer = await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        assert answer.strip() == "back", answer


async def raises(kind, awaitable, says=""):
    """The error of that kind, which is awaited."""
    try:
        found = await awaitable
    except kind as error:
        assert says in str(error), f"{error!r} does not say {says!r}"
        return error
    raise AssertionError(f"expected {kind.__name__}, got {found!r}")


@asynccontextmanager
async def stage(address, namespace, workflows, activities, worker=True):
    client = await Client.connect(address, namespace=namespace)
    made = Stage(client, f"q-{uuid.uuid4().hex[:12]}", workflows, activities)
    if worker:
        async with made.worker():
            yield made
    else:
        yield made
