"""Persistence: where a service keeps the id that the engine gave it. Here, in a database of its own.

    ENGINE_KEY=sk-orra-… python persistence.py        # twice: it is the same service
    orchestrion verify run "Look up the meaning of the word" -d word:orchestrion --follow

The id is what makes a restarted process the same service: its waiting tasks come to it, and its version counts on.
Without anything said, the SDK keeps it in ./.orra-data/<name>-orra-service-key.json; another file is
`persistence_file_path=Path(…)`. Where there is no disk that outlives the process, keep it where the service keeps
its other data, as here.
"""

import asyncio
import os
import sqlite3
from typing import Optional

from orra import OrraService, Task
from pydantic import BaseModel, Field

DATABASE = os.environ.get("DATABASE", "dictionary.sqlite")


def database() -> sqlite3.Connection:
    connection = sqlite3.connect(DATABASE)
    connection.execute("CREATE TABLE IF NOT EXISTS identity (service TEXT PRIMARY KEY, id TEXT NOT NULL)")
    return connection


async def save(service_id: str) -> None:
    with database() as connection:
        connection.execute("INSERT OR REPLACE INTO identity VALUES ('dictionary', ?)", (service_id,))


async def load() -> Optional[str]:
    """None at the very first start: the engine then gives an id."""
    row = database().execute("SELECT id FROM identity WHERE service = 'dictionary'").fetchone()
    return row[0] if row else None


class Word(BaseModel):
    word: str = Field(description="the word to look up")


class Meaning(BaseModel):
    meaning: str


async def main() -> None:
    dictionary = OrraService(
        name="dictionary",
        description="Looks up the meaning of a word",
        url=os.environ.get("ENGINE_URL", "http://localhost:8005"),
        api_key=os.environ["ENGINE_KEY"],
        persistence_method="custom",
        custom_save=save,
        custom_load=load,
    )

    @dictionary.handler()
    async def look_up(task: Task[Word]) -> Meaning:
        known = {"orchestrion": "a machine that plays a whole orchestra from a roll"}
        return Meaning(meaning=known.get(task.input.word.lower(), "not in this dictionary"))

    await dictionary.start()
    print(f"dictionary is {dictionary.id}, version {dictionary.version}", flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
