"""How tasks and reverts end: the JSON of their results, and the failures they close with.

An ActivityError is what Temporal's SDK makes of ActivityTaskFailed, ActivityTaskTimedOut and ActivityTaskCanceled; its cause is
the failure that the event holds.
"""

import json
from dataclasses import dataclass
from typing import Any, Optional

from temporalio.api.common.v1 import Payload
from temporalio.exceptions import ApplicationError, CancelledError, FailureError, RetryState, TimeoutError, TimeoutType

from .references import text_of

ABORT = "abort"


class Unreadable(Exception):
    """A payload that does not hold the JSON it should."""


def payload(text):
    """A payload of JSON text, byte for byte."""
    return Payload(metadata={"encoding": b"json/plain"}, data=text if isinstance(text, bytes) else text.encode())


def read(given):
    """The JSON that a payload holds."""
    return json.loads(text_in(given))


def text_in(given):
    """The JSON text that a payload holds."""
    if given is None:
        raise Unreadable("there is no payload: send one with encoding json/plain")
    encoding = given.metadata.get("encoding", b"").decode()
    if encoding != "json/plain":
        raise Unreadable(f'the payload\'s encoding is "{encoding}": send json/plain')
    try:
        text = given.data.decode()
        json.loads(text)
    except ValueError as bad:
        raise Unreadable(f"the payload does not parse: {bad}") from None
    return text


def members(text):
    """The members of a JSON object, each as the text it was: what a service sent is given back to it byte for byte."""
    decoder, found, at = json.JSONDecoder(), {}, _blank(text, 0)
    if text[at] != "{":
        raise Unreadable("an object is expected")
    at = _blank(text, at + 1)
    while text[at] != "}":
        name, at = decoder.raw_decode(text, at)
        begin = _blank(text, _blank(text, at) + 1)  # Behind the colon.
        _, end = decoder.raw_decode(text, begin)
        found[name] = text[begin:end]
        at = _blank(text, end)
        at = _blank(text, at + 1) if text[at] == "," else at
    return found


def _blank(text, at):
    while text[at] in " \t\r\n":
        at += 1
    return at


# ---- tasks ------------------------------------------------------------------------------------


@dataclass
class Compensation:
    """What a service wants back when its task is undone."""

    data: str  # JSON text, verbatim.
    ttl_ms: int


@dataclass
class TaskResult:
    output: Any
    compensation: Optional[Compensation]


def task_result(text, ttl_ms_default):
    """Reads `{"task":…,"compensation":null|{"data":…,"ttl":ms}}`."""
    parts = members(text)
    if "task" not in parts:
        raise Unreadable("missing field `task`")
    compensation = None
    if parts.get("compensation", "null") != "null":
        asked = members(parts["compensation"])
        ttl = json.loads(asked.get("ttl", "null"))
        ttl_ms = ttl_ms_default if ttl is None else max(0, int(ttl))
        compensation = Compensation(asked.get("data", "null"), ttl_ms)
    return TaskResult(json.loads(parts["task"]), compensation)


def late_result(given, ttl_ms_default):
    """Reads the signal of a late result: `{"task":id,"result":{…}}`. Anything else is nobody's late result."""
    try:
        parts = members(text_in(given))
        return json.loads(parts["task"]), task_result(parts["result"], ttl_ms_default)
    except (Unreadable, KeyError, ValueError):
        return None


def was_canceled(error):
    return isinstance(error.cause, CancelledError)


def canceled_in_doubt(error):
    """Whether an attempt before the cancelled one timed out, so that the task may have been done all the same. Such a cancellation
    has a start, and is no worker's own."""
    return error.started_event_id > 0 and not error.identity


def timed_out(error):
    return isinstance(error.cause, TimeoutError)


def is_unknown(error):
    """Whether a task that timed out may have been done all the same. One that never started was not."""
    waited = (TimeoutType.SCHEDULE_TO_START, TimeoutType.SCHEDULE_TO_CLOSE)
    return error.started_event_id > 0 or error.cause.type not in waited


def is_abort(error):
    return isinstance(error.cause, ApplicationError) and error.cause.type == ABORT


def abort_payload(error):
    return next(iter(error.cause.details), None)


def said(error):
    """What is said of a failure, to people."""
    return error.cause.message if isinstance(error.cause, FailureError) else "no reason was given"


def exhausted(error, text):
    if error.retry_state == RetryState.MAXIMUM_ATTEMPTS_REACHED:
        return f"too many consecutive failures: {text}"
    return text


# ---- reverts ----------------------------------------------------------------------------------


@dataclass
class RevertOutcome:
    status: str  # completed, partial, failed, expired or unknown.
    error: Optional[str] = None

    @property
    def needs_attention(self):
        return self.status in ("failed", "expired", "unknown")


def revert_outcome(given):
    """Reads `{"status":"completed"|"partial"|"failed"|"expired","error"?}`. A handler that returns nothing has completed."""
    try:
        answer = read(given)
    except Unreadable:
        answer = None
    answer = answer if isinstance(answer, dict) else {}
    error = None if answer.get("error") is None else text_of(answer["error"])
    status = answer.get("status")
    if not isinstance(status, str) or status == "completed":
        return RevertOutcome("completed")
    if status == "partial":
        return RevertOutcome("partial", error)
    if status == "expired":
        otherwise = "the service says that it is too late"
    elif status == "failed":
        otherwise = "the service gave no reason"
    else:
        status, otherwise = "failed", f"the service answered with the unknown status {json.dumps(status)}"
    return RevertOutcome(status, otherwise if error is None else error)


def revert_failure(error):
    """Of a revert that came to no result."""
    if was_canceled(error):
        return RevertOutcome("failed", "the revert was canceled")
    if timed_out(error):
        too_late = error.cause.type in (TimeoutType.SCHEDULE_TO_START, TimeoutType.SCHEDULE_TO_CLOSE)
        return RevertOutcome("expired" if too_late else "unknown", said(error))
    no_time_left = error.retry_state == RetryState.TIMEOUT
    return RevertOutcome("expired" if no_time_left else "failed", said(error))
