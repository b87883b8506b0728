"""`python -m orchestrion_replay FILE...`: replays histories in Temporal's JSON, each of one orchestration."""

import asyncio
import json
import os
import sys
from pathlib import Path

from temporalio.client import WorkflowHistory

from . import replay


async def _replay(path):
    try:
        held = json.loads(Path(path).read_text())
        started = held["events"][0]["workflowExecutionStartedEventAttributes"]
        history = WorkflowHistory.from_json(started.get("workflowId", Path(path).stem), held)
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        print(f"{path}: this is no history in Temporal's JSON: {error!r}")
        return False
    try:
        await replay(history)
    except Exception as error:
        print(f"{path}: {history.workflow_id} does NOT replay: {error}")
        return False
    print(f"{path}: {history.workflow_id} replays: {len(history.events)} events")
    return True


async def _all(paths):
    return [await _replay(path) for path in paths]


def main():
    paths = sys.argv[1:]
    if not paths:
        sys.exit("say which files: orchestrion-replay HISTORY.json...")
    code = 0 if all(asyncio.run(_all(paths))) else 1
    sys.stdout.flush()
    sys.stderr.flush()
    # Without the interpreter's own end: the SDK's native threads may still be about to call into it, which crashes it then.
    os._exit(code)


if __name__ == "__main__":
    main()
