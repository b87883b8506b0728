"""A service: the smallest whole one. Counts the words of a text.

    ENGINE_KEY=sk-orra-… python service.py
    orchestrion verify run "Count the words of the text" -d text:"to be or not to be" --follow
"""

import asyncio
import os

from orra import OrraService, Task
from pydantic import BaseModel, Field


# What comes in and what goes out. Descriptions are read by the planner, so they are worth a thought.
class Text(BaseModel):
    text: str = Field(description="the text whose words are counted")


class Count(BaseModel):
    words: int = Field(description="how many words the text has")


async def main() -> None:
    # An OrraService needs a running event loop: make it in here.
    counter = OrraService(
        name="word-counter",
        description="Counts the words of a text",
        url=os.environ.get("ENGINE_URL", "http://localhost:8005"),
        api_key=os.environ["ENGINE_KEY"],
    )

    # What is raised in here fails the attempt; the engine tries again, a few times and ever more slowly.
    @counter.handler()
    async def count(task: Task[Text]) -> Count:
        return Count(words=len(task.input.text.split()))

    await counter.start()  # registers; the connection is kept in the background
    print(f"word-counter is {counter.id}", flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
