"""From a FastAPI application to a service: the routes stay, and the engine can ask for the same work.

    pip install fastapi uvicorn
    ENGINE_KEY=sk-orra-… uvicorn fastapi_service:app --port 8090
    curl -s localhost:8090/quotes -H 'Content-Type: application/json' -d '{"weightKg": 3, "country": "FR"}'
    orchestrion verify run "Quote the shipping price of the parcel" -d weightKg:=3 -d country:FR --follow

What there was before: `Parcel`, `Quote`, `price` and the two routes. What was added: `as_service`, and its two lines in
`lifespan`. Models are shared, so what the API documents and what the planner knows is the same.
"""

import os
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException
from orra import OrraService, Task
from pydantic import BaseModel, Field

RATES = {"DE": 1.5, "FR": 2.25, "NO": 4.0}  # a kilogram


class Parcel(BaseModel):
    weightKg: float = Field(description="the parcel's weight in kilograms", gt=0)
    country: str = Field(description="the country it is shipped to, as two letters")


class Quote(BaseModel):
    price: float = Field(description="what shipping the parcel costs")
    currency: str = "EUR"


def price(parcel: Parcel) -> Quote:
    """The work itself knows neither HTTP nor the engine."""
    if parcel.country not in RATES:
        raise LookupError(f"nothing is shipped to {parcel.country}")
    return Quote(price=round(RATES[parcel.country] * parcel.weightKg, 2))


def as_service() -> OrraService:
    quotes = OrraService(
        name="shipping-quotes",
        description="Quotes the shipping price of a parcel to a country",
        url=os.environ.get("ENGINE_URL", "http://localhost:8005"),
        api_key=os.environ["ENGINE_KEY"],
    )

    @quotes.handler()
    async def quote(task: Task[Parcel]) -> Quote:
        try:
            return price(task.input)
        except LookupError as unknown:
            # What is a 404 there is an abort here: to try again would not help.
            await task.abort({"reason": str(unknown)})
            raise

    return quotes


@asynccontextmanager
async def lifespan(_: FastAPI):
    # In here the event loop runs, which the SDK needs. When the server stops, the loop and the connection end with it,
    # and what was being worked on is sent again, to this process or the next.
    quotes = as_service()
    await quotes.start()
    print(f"shipping-quotes is {quotes.id}", flush=True)
    yield


app = FastAPI(title="Shipping quotes", lifespan=lifespan)


@app.get("/health")
async def health() -> dict:
    return {"status": "ok"}


@app.post("/quotes")
async def quote_over_http(parcel: Parcel) -> Quote:
    try:
        return price(parcel)
    except LookupError as unknown:
        raise HTTPException(status_code=404, detail=str(unknown)) from unknown


if __name__ == "__main__":
    import uvicorn

    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8090")), log_level="warning")
