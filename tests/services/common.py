"""What every test service needs: where the engine is, a log that survives kill -9, and a memory.

Environment: ENGINE_URL, ENGINE_KEY, and SERVICE_HOME (a folder: the identity of each service, its memory, log.jsonl).
The real, unmodified `orra-sdk` does the talking; nothing here touches its internals.
"""

import asyncio
import json
import os
import sys
import threading
from pathlib import Path

URL = os.environ["ENGINE_URL"]
KEY = os.environ["ENGINE_KEY"]
HOME = Path(os.environ["SERVICE_HOME"])
SDK_LOG_LEVEL = os.environ.get("SDK_LOG_LEVEL", "WARNING")


def log(event: str, service: str, **fields) -> None:
    """One line, on disk before this returns: a killed process has logged what it did."""
    line = json.dumps({"event": event, "service": service, "pid": os.getpid(), **fields}) + "\n"
    handle = os.open(HOME / "log.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(handle, line.encode())
        os.fsync(handle)
    finally:
        os.close(handle)


def remembered(key: str):
    """What `remember` kept under this key, in this process or an earlier one."""
    path = HOME / "memory" / f"{key}.json"
    return json.loads(path.read_text()) if path.exists() else None


def remember(key: str, value) -> None:
    """Keeps a value: all of it or nothing, whenever the process dies."""
    path = HOME / "memory" / f"{key}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    with open(draft, "w") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def identity(name: str) -> Path:
    """Where the SDK keeps the id it was given: a restarted process is the same service."""
    return HOME / "identity" / f"{name}.json"


async def serve(services: dict) -> None:
    """Starts each service, says so in the log, and runs until standard input ends or the process is killed."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    for name, service in services.items():
        await service.start()
        log("registered", name, id=service.id, version=service.version)
    await asyncio.Event().wait()


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)
