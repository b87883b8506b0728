"""Fails the first N executions of each order, then succeeds. Usage: flaky.py N"""

import asyncio
import sys

from orra import OrraService, Task
from pydantic import BaseModel

from common import KEY, SDK_LOG_LEVEL, URL, identity, log, remember, remembered, serve

FAILURES = int(sys.argv[1])


class Order(BaseModel):
    order: str


class Done(BaseModel):
    order: str
    attempts: int


async def main() -> None:
    flaky = OrraService(
        name="flaky",
        description="Processes an order, but not at the first attempt",
        url=URL,
        api_key=KEY,
        persistence_file_path=identity("flaky"),
        log_level=SDK_LOG_LEVEL,
    )

    @flaky.handler()
    async def handle(task: Task[Order]) -> Done:
        key = f"flaky-{task.input.order}"
        attempts = (remembered(key) or 0) + 1
        remember(key, attempts)
        log("attempted", "flaky", id=task.input.order, attempt=attempts)
        if attempts <= FAILURES:
            raise RuntimeError(f"the card reader did not answer (attempt {attempts})")
        return Done(order=task.input.order, attempts=attempts)

    await serve({"flaky": flaky})


asyncio.run(main())
