"""What an orchestration does, as a Temporal workflow.

The engine runs orchestrations with code of its own. This is the same code once more, on Temporal's SDK: given the same history it asks
for the same commands, so Temporal's replayer can tell whether a history is what its plan, its results and its signals make of it.

One loop decides once per workflow task, on all that has come in since the last one. The order of a turn's commands is a promise:

    memo, cancel requests in plan order, timers in plan order, activities in plan order (or one revert), the end

Webhooks and the records of what could not be undone are no commands: the engine commits them beside the history, once, and a replay
repeats nothing of that kind.
"""

import asyncio
from functools import partial
from typing import Sequence

from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import ActivityError, ApplicationError

from .given import Options, Plan
from .ids import derived, rfc3339
from .references import LeadsNowhere, resolve
from .results import (
    RevertOutcome,
    TaskResult,
    Unreadable,
    abort_payload,
    canceled_in_doubt,
    exhausted,
    is_abort,
    is_unknown,
    late_result,
    payload,
    read,
    revert_failure,
    revert_outcome,
    said,
    task_result,
    text_in,
    timed_out,
    was_canceled,
)

LATE_RESULT = "orchestrion.late_result"
CANCEL = "orchestrion.cancel"
UNREASONED = "no reason was given"
REVERT_CONTEXT_HEADER = "orchestrion-compensation"
IDEMPOTENCY_HEADER = "orchestrion-idempotency-key"


class Turns:
    """What comes in between two turns is folded by callbacks at once, and decided upon when all of it has come."""

    def __init__(self):
        self.headers = {}  # Of the activity that is asked for next; see `interceptor.py`.
        self._something_came = False

    def came(self):
        self._something_came = True

    async def next_turn(self):
        """Waits for the next workflow task. Conditions are looked at when everything of a workflow task has been folded."""
        while True:
            try:
                await workflow.wait_condition(lambda: self._something_came)
            except asyncio.CancelledError:
                self.cancel_asked(workflow.cancellation_reason() or "", compensate=True)
                self.came()
                continue
            self._something_came = False
            return

    def ask(self, activity_type, activity_id, queue, given, options, closed, headers=None):
        """Schedules an activity. `closed` is called with its result (a payload) or its error."""
        self.headers = headers or {}
        handle = workflow.start_activity(
            activity_type,
            args=[RawValue(given)],
            task_queue=queue,
            result_type=RawValue,
            activity_id=activity_id,
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            **options,
        )
        self.headers = {}

        def close(done):
            error = done.exception()
            if error is None:
                closed(done.result().payload if done.result() is not None else None, None)
            elif isinstance(error, ActivityError):
                closed(None, error)
            else:
                raise error
            self.came()

        handle.add_done_callback(close)
        return handle

    async def request_cancels(self, handles):
        for handle in handles:
            handle.cancel()
        # The SDK asks for a cancellation when the activity's own task runs next: let it, before any other command.
        await asyncio.sleep(0)

    def cancel_asked(self, reason, compensate):
        raise NotImplementedError


@workflow.defn(name="orchestrion.plan")
class Orchestration(Turns):
    """An orchestration: a plan is made or given, its tasks run, and what was done is undone after a bad end."""

    def __init__(self):
        super().__init__()
        self.options = Options()
        self.rules = 0
        self.plan = None
        self.planning = None  # The payload or the error that the planning ended with.
        self.incident = None  # What ended the plan before its tasks were all complete: the first that came.
        self.canceled_planning = None
        self.compensate = True
        self.fresh = []  # Completed since the last turn.
        self.order = []  # Completed, oldest first; those of one turn in plan order.
        self.reverting = None
        self.context = None  # Given to every revert.
        self.summary = {"active": False, "total": 0, "completed": 0, "failed": 0}

    @workflow.run
    async def run(self, submission: RawValue) -> list:
        self.begin(submission.payload)
        memo = {}
        if self.plan is None:
            await self.make_plan(submission.payload)
            memo = {"status": "processing"}
        while True:
            self.settle()
            if self.incident is None and self.plan.is_complete():
                self.upsert(memo)
                return self.plan.results()
            ready = self.take_ready()
            if self.incident is not None:
                break
            self.upsert(memo)
            memo = {}
            for task, task_input in ready:
                self.start(task, task_input)
            await self.next_turn()
        await self.undo(memo)

    # ---- what comes in ----------------------------------------------------------------------

    @workflow.signal(dynamic=True)
    def signaled(self, name: str, args: Sequence[RawValue]) -> None:
        given = args[0].payload if args else None
        if name == LATE_RESULT:
            late = late_result(given, self.options.compensation_ttl_ms)
            task = self.plan.by_id.get(late[0]) if late and self.plan else None
            # Of a task that is pending, or has been completed, there is nothing to learn.
            if task is not None and task.stage in ("failed", "canceled", "unknown"):
                self.complete(task, late[1])
        elif name == CANCEL:
            # One that cannot be read asks for the end all the same, and for the undoing.
            try:
                asked = read(given)
                asked = asked if isinstance(asked, dict) else {}
            except Unreadable:
                asked = {}
            self.cancel_asked(asked.get("reason", UNREASONED), asked.get("compensate", True))
        self.came()

    def cancel_asked(self, reason, compensate):
        if self.plan is None:
            self.canceled_planning = reason if self.canceled_planning is None else self.canceled_planning
        elif self.incident is None:
            self.incident = ("canceled", None, {"reason": f"canceled: {reason}"})
            self.compensate = compensate

    def planned(self, answer, error):
        self.planning = (answer, error)

    def task_closed(self, task, answer, error):
        if error is None:
            try:
                self.complete(task, task_result(text_in(answer), self.options.compensation_ttl_ms))
            except Unreadable as bad:
                self.fail(task, "failed", f"the result of the task cannot be read: {bad}")
        elif was_canceled(error):
            task.closed_at = workflow.time_ns()
            self.fail(task, "unknown" if canceled_in_doubt(error) else "canceled", "the task was canceled")
        elif timed_out(error) and is_unknown(error):
            # No answer is not a no: it may have been done.
            task.closed_at = workflow.time_ns()
            text = f"no answer within {self.options.task_timeout_ms} ms: the outcome is unknown"
            self.fail(task, "unknown", exhausted(error, text))
        elif is_abort(error):
            self.fail(task, "failed", None, ("aborted", task, abort_payload(error)))
        else:
            text = said(error) if timed_out(error) else exhausted(error, said(error))
            self.fail(task, "failed", text)

    def complete(self, task, result: TaskResult):
        task.stage, task.output, task.compensation = "completed", result.output, result.compensation
        task.closed_at = workflow.time_ns()
        self.fresh.append(task)

    def fail(self, task, stage, text, incident=None):
        task.stage = stage
        if self.incident is None:
            self.incident = incident or ("failed", task, text)

    def reverted(self, task, answer, error):
        task.revert = revert_outcome(answer) if error is None else revert_failure(error)
        self.reverting = None

    def waited_enough(self, task):
        task.late_wait = "over"
        self.came()

    # ---- the plan ---------------------------------------------------------------------------

    def begin(self, submission):
        try:
            given = read(submission)
            self.options = Options.of(given.get("options"))
            self.rules = given.get("rules") or 0
            if given.get("plan") is not None:
                self.plan = Plan.of(given["plan"], given.get("taken_over") or ())
        except (Unreadable, AttributeError, KeyError, TypeError) as bad:
            self.end_unplanned("failed", "InvalidSubmission", f"the submission cannot run: {bad}")

    async def make_plan(self, submission):
        """The planner is an activity, asked once: its answer is in the history. Nothing runs yet, so a bad end undoes nothing."""
        options = self.options.for_the_planning()
        self.ask("plan.generate", "plan", "orchestrion.planner", submission, options, self.planned)
        while self.planning is None and self.canceled_planning is None:
            await self.next_turn()
        if self.canceled_planning is not None:
            payload_of_it = {"reason": f"canceled: {self.canceled_planning}"}
            self.upsert({"status": self.cancelled(), "abort": payload_of_it})
            raise asyncio.CancelledError
        answer, error = self.planning
        try:
            if error is not None:
                raise Unreadable(self.no_plan(error))
            result = read(answer)
            if result["outcome"] != "not_actionable":
                if result.get("plan") is None:
                    raise Unreadable("the planner answered with no plan")
                self.plan = Plan.of(result["plan"])
                return
        except (Unreadable, KeyError, TypeError) as bad:
            self.end_unplanned("failed", "PlanFailed", str(bad))
        message = f"preparation failed with status not_actionable: {result.get('reason') or ''}"
        self.end_unplanned("not_actionable", "NotActionable", message)

    def no_plan(self, error):
        if was_canceled(error):
            return "the planning was canceled"
        text = f"the planner gave no answer in time: {said(error)}" if timed_out(error) else said(error)
        if exhausted(error, text) != text:
            return f"exceeded maximum retries ({self.options.planning_attempts - 1}): {text}"
        return text

    def end_unplanned(self, status, kind, message):
        self.upsert({"status": status, "error": message})
        raise ApplicationError(message, type=kind, non_retryable=True)

    def settle(self):
        """Results that came before one turn count in plan order."""
        self.order += [task for task in self.plan.tasks if task in self.fresh]
        self.fresh = []

    def take_ready(self):
        """The tasks that can start, in plan order, with their inputs. The inputs of all resolve before the first is scheduled."""
        if self.incident is not None:
            return []
        tasks, ready = self.plan.ready(), []
        for task in tasks:
            try:
                ready.append((task, resolve(task.input, self.plan.constants, self.plan.outputs())))
            except LeadsNowhere as nowhere:
                self.incident = ("failed", task, str(nowhere))
                return []
        if not tasks and not self.plan.pending():
            stuck = next(task for task in self.plan.tasks if task.stage == "waiting")
            waits_for = ", ".join(stuck.depends_on)
            self.incident = ("failed", stuck, f"the task can never start: it waits for {waits_for}")
        return ready

    def start(self, task, task_input):
        given = workflow.payload_converter().to_payload(task_input)
        closed = partial(self.task_closed, task)
        task.handle = self.ask(task.service_name, task.id, task.service, given, self.options.for_a_task(), closed)
        task.stage = "pending"

    # ---- the undoing ------------------------------------------------------------------------

    async def undo(self, memo):
        """Callers learn the end at once (the memo says it); the run stays open until it is undone."""
        what, task, _ = self.incident
        told = self.told()
        memo["status"] = self.cancelled() if what == "canceled" else what
        if task is not None:
            memo["task"] = task.id
        memo["error" if what == "failed" else "abort"] = told
        self.context = {
            "orchestrationId": workflow.info().workflow_id,
            # As services know it: a cancel is an abort from outside.
            "reason": "failed" if what == "failed" else "aborted",
            "payload": told if told is None or isinstance(told, dict) else {"value": told},
            "timestamp": rfc3339(workflow.time_ns()),
        }
        while True:
            now = workflow.time_ns()
            self.settle()
            cancels = [t for t in self.plan.pending() if not t.cancel_requested]
            to_wait_for = [t for t in self.plan.tasks if self.may_answer_late(t) and t.late_wait == "no"]
            answered = [t for t in self.plan.tasks if t.stage == "completed" and t.late_wait == "waiting"]
            for task in to_wait_for:
                task.late_wait = "waiting"
            for task in answered:
                task.late_wait = "over"
            revert = None
            if not self.plan.pending() and self.reverting is None:
                revert = self.next_revert(now)
            summary = self.summarize()
            if memo or summary != self.summary:
                self.upsert({**memo, "compensation": summary})
                self.summary, memo = summary, {}
            for task in cancels:
                task.cancel_requested = True
            await self.request_cancels([task.handle for task in cancels])
            for task in self.plan.tasks:
                if task in to_wait_for:
                    self.wait_for_late_result(task, now)
                elif task in answered:
                    task.timer.cancel()
            if revert is not None:
                self.start_revert(*revert)
            waiting = any(task.late_wait == "waiting" for task in self.plan.tasks)
            if not self.plan.pending() and self.reverting is None and not waiting:
                break
            await self.next_turn()
        self.end_undone()

    def may_answer_late(self, task):
        """Whether a result that still comes would be one to undo."""
        return task.stage == "unknown" and task.revertible and self.compensate

    def wait_for_late_result(self, task, now):
        waited_ms = (now - task.closed_at) // 1_000_000
        left_ms = max(1, self.options.late_wait_ms - waited_ms)
        timer = asyncio.get_running_loop().call_later
        task.timer = timer(left_ms / 1_000, self.waited_enough, task)

    def next_revert(self, now):
        """The newest completed task that has something to undo and is not undone. Those whose time is over end here."""
        if not self.compensate:
            return None
        for task in reversed(self.order):
            if task.compensation is None or not task.revertible or task.revert is not None:
                continue
            left_ns = task.closed_at + task.compensation.ttl_ms * 1_000_000 - now
            left_ms = -(-left_ns // 1_000_000)
            if left_ms > 0:
                self.reverting = task
                return task, left_ms
            text = f"its time to live of {task.compensation.ttl_ms} ms is over"
            task.revert = RevertOutcome("expired", text)
        return None

    def start_revert(self, task, left_ms):
        self.ask(
            f"{task.service_name}.revert",
            f"revert:{task.id}",
            task.service,
            payload(task.compensation.data),
            self.options.for_a_revert(left_ms),
            partial(self.reverted, task),
            headers={REVERT_CONTEXT_HEADER: workflow.payload_converter().to_payload(self.context)},
        )

    def summarize(self):
        """How far the undoing is, for callers."""
        outcomes = []
        for task in self.plan.tasks if self.compensate else ():
            if not task.revertible:
                continue
            if task.stage == "completed" and task.compensation is not None:
                outcomes.append(task.revert)
            elif task.stage == "unknown":
                outcomes.append(RevertOutcome("unknown") if task.late_wait == "over" else None)
        ended = [outcome for outcome in outcomes if outcome is not None]
        failed = sum(outcome.needs_attention for outcome in ended)
        return {
            "active": len(ended) < len(outcomes),
            "total": len(outcomes),
            "completed": len(ended) - failed,
            "failed": failed,
        }

    def end_undone(self):
        what, task, text = self.incident
        if what == "canceled":
            raise asyncio.CancelledError
        if what == "failed":
            details = {"error": self.told(), "compensation": self.summary}
            raise ApplicationError(f"task {task.id} failed: {text}", details, type="TaskFailed", non_retryable=True)
        details = {"abort": self.told(), "compensation": self.summary}
        message = f"task {task.id} aborted the orchestration"
        raise ApplicationError(message, details, type="TaskAborted", non_retryable=True)

    # ---- in words ---------------------------------------------------------------------------

    def told(self):
        """What ended the plan, as callers read it."""
        what, task, told = self.incident
        if what != "failed":
            return told
        short = derived("task failure", workflow.info().run_id, task.id)
        return {"id": f"task_fail_{task.id}_{short}", "producer": task.service, "error": told}

    def cancelled(self):
        return "cancelled" if self.rules >= 1 else "aborted"

    def upsert(self, memo):
        if memo:
            workflow.upsert_memo(memo)


@workflow.defn(name="orchestrion.revert")
class RevertAgain(Turns):
    """A revert that is run again by itself: its orchestration has closed, and history takes no event behind its end."""

    def __init__(self):
        super().__init__()
        self.outcome = None
        self.handle = None
        self.cancel_wanted = False

    @workflow.run
    async def run(self, asked: RawValue, data: RawValue, context: RawValue) -> list:
        try:
            what = read(asked.payload)
            text_in(data.payload), text_in(context.payload)
            task, name, queue, time_ms = what["task_id"], what["service_name"], what["service"], what["time_ms"]
            options = Options.of(what.get("options")).for_a_revert(max(1, time_ms))
        except (Unreadable, KeyError, TypeError) as bad:
            message = f"the submission cannot run: {bad}"
            workflow.upsert_memo({"status": "failed", "error": message})
            raise ApplicationError(message, type="InvalidSubmission", non_retryable=True) from None
        headers = {REVERT_CONTEXT_HEADER: context.payload}
        if what.get("idempotency_key"):
            # The service may have done the one before: it is to know this one by the same key.
            headers[IDEMPOTENCY_HEADER] = workflow.payload_converter().to_payload(what["idempotency_key"])
        self.handle = self.ask(
            f"{name}.revert", f"revert:{task}", queue, data.payload, options, self.reverted, headers=headers
        )
        canceled = False
        while self.outcome is None:
            await self.next_turn()
            if self.outcome is None and self.cancel_wanted and not canceled:
                canceled = True
                await self.request_cancels([self.handle])
        said_of_it = {"status": self.outcome.status, "error": self.outcome.error}
        workflow.upsert_memo({"status": self.outcome.status})
        if self.outcome.needs_attention:
            message = f"the revert is {self.outcome.status}: {self.outcome.error or ''}"
            raise ApplicationError(message, said_of_it, type="RevertFailed", non_retryable=True)
        return [said_of_it]

    @workflow.signal(dynamic=True)
    def signaled(self, name: str, args: Sequence[RawValue]) -> None:
        if name == CANCEL:
            self.cancel_asked(UNREASONED, compensate=True)
        self.came()

    def cancel_asked(self, reason, compensate):
        self.cancel_wanted = True

    def reverted(self, answer, error):
        self.outcome = revert_outcome(answer) if error is None else revert_failure(error)


WORKFLOWS = [Orchestration, RevertAgain]
