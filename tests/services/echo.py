"""The smallest service: answers what it was sent."""

import asyncio

from orra import OrraService, Task
from pydantic import BaseModel

from common import KEY, SDK_LOG_LEVEL, URL, identity, log, serve


class Said(BaseModel):
    message: str


class Heard(BaseModel):
    echo: str


async def main() -> None:
    echo = OrraService(
        name="echo",
        description="Echoes a message back to its sender",
        url=URL,
        api_key=KEY,
        persistence_file_path=identity("echo"),
        log_level=SDK_LOG_LEVEL,
    )

    @echo.handler()
    async def handle(task: Task[Said]) -> Heard:
        log("executed", "echo", id=task.input.message)
        return Heard(echo=task.input.message)

    await serve({"echo": echo})


asyncio.run(main())
