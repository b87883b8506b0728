"""What the demo's three services share: where the engine is, and a ledger of what they did to the world."""

import asyncio
import json
import os
import sys
import threading
from pathlib import Path

URL = os.environ["ENGINE_URL"]
KEY = os.environ["ENGINE_KEY"]
FOLDER = Path(os.environ["SHOP_FOLDER"])


def record(service: str, event: str, number: str) -> None:
    """Writes a deed into the ledger, on disk before this returns: nobody can unbook it by dying."""
    line = json.dumps({"service": service, "event": event, "number": number}) + "\n"
    with open(FOLDER / "ledger.jsonl", "a") as ledger:
        ledger.write(line)
        ledger.flush()
        os.fsync(ledger.fileno())


def identity(name: str) -> Path:
    """Where the SDK keeps the id that the engine gave the service."""
    return FOLDER / f"{name}.id.json"


async def open_shop(name: str, service) -> None:
    """Registers the service and works until the demo ends."""
    threading.Thread(target=_close_with_demo, daemon=True).start()
    await service.start()
    record(name, "opened", service.id)
    await asyncio.Event().wait()


def _close_with_demo() -> None:
    sys.stdin.buffer.read()
    os._exit(0)
