"""What Temporal's replayer does not look at: it compares ids, types and order, and neither inputs, queues, headers nor results.

The witness is an interceptor that writes down what the workflow asks for and how it ends; `differences` holds it against a history.
"""

import json

from temporalio import workflow
from temporalio.api.enums.v1 import EventType
from temporalio.common import RawValue
from temporalio.converter import DefaultPayloadConverter
from temporalio.exceptions import ApplicationError, is_cancelled_exception
from temporalio.worker import Interceptor, WorkflowInboundInterceptor, WorkflowOutboundInterceptor


class Headers(Interceptor):
    """Puts the headers on activities that the workflow wants on them: interceptors alone can."""

    def workflow_interceptor_class(self, input):
        return _HeadersInbound


class _HeadersInbound(WorkflowInboundInterceptor):
    def init(self, outbound):
        self.next.init(_HeadersOutbound(outbound))


class _HeadersOutbound(WorkflowOutboundInterceptor):
    def start_activity(self, input):
        input.headers = {**input.headers, **workflow.instance().headers}
        return self.next.start_activity(input)


class Witness(Interceptor):
    """Writes down the activities that a workflow schedules, and its end."""

    def __init__(self):
        self.activities = []
        self.end = None

    def workflow_interceptor_class(self, input):
        witness = self

        class Inbound(WorkflowInboundInterceptor):
            def init(self, outbound):
                self.next.init(Outbound(outbound))

            async def execute_workflow(self, input):
                try:
                    result = await self.next.execute_workflow(input)
                except ApplicationError as error:
                    witness.end = {"type": error.type, "message": error.message, "details": list(error.details)}
                    raise
                except BaseException as error:
                    if is_cancelled_exception(error):
                        witness.end = "canceled"
                    raise
                witness.end = {"result": result}
                return result

        class Outbound(WorkflowOutboundInterceptor):
            def start_activity(self, input):
                witness.activities.append(
                    {
                        "id": input.activity_id,
                        "type": input.activity,
                        "queue": input.task_queue,
                        "input": [_json(arg) for arg in input.args],
                        "header": {name: _json(RawValue(value)) for name, value in input.headers.items()},
                    }
                )
                return self.next.start_activity(input)

        return Inbound

    def differences(self, events):
        """What the history says otherwise, in words."""
        recorded, end = [], None
        for event in events:
            kind = EventType.Name(event.event_type)
            if kind == "EVENT_TYPE_ACTIVITY_TASK_SCHEDULED":
                at = event.activity_task_scheduled_event_attributes
                recorded.append(
                    {
                        "id": at.activity_id,
                        "type": at.activity_type.name,
                        "queue": at.task_queue.name,
                        "input": [_json(RawValue(one)) for one in at.input.payloads],
                        "header": {name: _json(RawValue(value)) for name, value in at.header.fields.items()},
                    }
                )
            elif kind == "EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED":
                result = event.workflow_execution_completed_event_attributes.result.payloads
                end = {"result": _json(RawValue(result[0]))}
            elif kind == "EVENT_TYPE_WORKFLOW_EXECUTION_FAILED":
                failure = event.workflow_execution_failed_event_attributes.failure
                info = failure.application_failure_info
                details = [_json(RawValue(one)) for one in info.details.payloads]
                end = {"type": info.type, "message": failure.message, "details": details}
            elif kind == "EVENT_TYPE_WORKFLOW_EXECUTION_CANCELED":
                end = "canceled"
        found = []
        for number, (asked, written) in enumerate(zip(self.activities, recorded), 1):
            for part in written:
                if asked[part] != written[part]:
                    found.append(
                        f"activity {number} ({written['id']}): the history has the {part} {written[part]!r}, the plan's code asks for {asked[part]!r}"
                    )
        if len(self.activities) != len(recorded):
            found.append(f"the history has {len(recorded)} activities, the plan's code asks for {len(self.activities)}")
        if end is not None and end != self.end:
            found.append(f"the history ends with {end!r}, the plan's code with {self.end!r}")
        return found


def _json(given):
    """The JSON of an argument, as a value."""
    if not isinstance(given, RawValue):
        return given
    converted = DefaultPayloadConverter().from_payloads([given.payload])[0]
    return json.loads(json.dumps(converted))
