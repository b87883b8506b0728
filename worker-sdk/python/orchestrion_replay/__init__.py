"""The code of Orchestrion's orchestrations as a Temporal workflow, to replay their histories with Temporal's own replayer.

    from orchestrion_replay import WORKFLOWS, replay

    await replay(history)                                              # all that can be compared
    await Replayer(workflows=WORKFLOWS).replay_workflow(history)       # Temporal's replayer by itself
"""

from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer

from .interceptor import Headers, Witness
from .workflow import WORKFLOWS, Orchestration, RevertAgain

__all__ = ["WORKFLOWS", "Different", "Headers", "Orchestration", "RevertAgain", "replay"]


class Different(Exception):
    """Temporal's replayer has no objection, but the history holds other inputs, headers or results than the plan's code gives."""


async def replay(history: WorkflowHistory) -> None:
    """Replays a history; raises when it is not what the plan's code makes of it."""
    witness = Witness()
    # What the workflow calls passes the last interceptor first.
    replayer = Replayer(workflows=WORKFLOWS, interceptors=[witness, Headers()])
    await replayer.replay_workflow(history)
    differences = witness.differences(history.events)
    if differences:
        raise Different("\n".join(differences))
