"""Progress: a long task says how far it is. Makes small pictures of the photos of an album.

    ENGINE_KEY=sk-orra-… python progress.py
    orchestrion verify run "Make thumbnails of the photos of the album" -d album:holidays -d photos:=4 --follow
    orchestrion inspect <id> --detailed --long-updates

A task may take as long as its submission allows (`--timeout 10m`; 30 seconds unless said otherwise). Updates do not
prolong it: they are for the people who wait.
"""

import asyncio
import os

from orra import OrraService, Task
from pydantic import BaseModel, Field


class Album(BaseModel):
    album: str = Field(description="the album's name")
    photos: int = Field(description="how many photos the album has", ge=1)


class Thumbnails(BaseModel):
    folder: str
    made: int


async def main() -> None:
    thumbnails = OrraService(
        name="thumbnails",
        description="Makes thumbnails of the photos of an album",
        url=os.environ.get("ENGINE_URL", "http://localhost:8005"),
        api_key=os.environ["ENGINE_KEY"],
    )

    @thumbnails.handler()
    async def shrink(task: Task[Album]) -> Thumbnails:
        photos = task.input.photos
        for number in range(1, photos + 1):
            # Blocking work belongs into a thread (asyncio.to_thread): a handler that blocks the loop also
            # blocks the connection, and nobody hears of the progress.
            await asyncio.sleep(0.05)
            # Any object. The command line draws a bar from `progress` or `percentComplete`.
            await task.push_update({"progress": 100 * number // photos, "photo": f"{task.input.album}-{number}.jpg"})
        return Thumbnails(folder=f"{task.input.album}/small", made=photos)

    await thumbnails.start()
    print(f"thumbnails is {thumbnails.id}", flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
