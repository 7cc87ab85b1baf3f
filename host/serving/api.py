#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The server's HTTP interface: OpenAI's completions, so that clients of these work as they are; health, and Prometheus' metrics."""

import asyncio
import json
import random
import secrets
import time

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr

from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from host.device.batch import BatchText
from host.serving.engine import QueueFull, ServingEngine
from host.serving.metrics import registry_of
from host.serving.status import Recent, machine_status

from model.exact.sampling import Draws
from model.sampling import StopStrings
from model.tokenizer import TextStream

from operations.numerics import CANDIDATES

from tools.errors import CommandError

# Constants ----------------------------------------------------------------------------------------

DISCONNECT_POLL = 0.5 # Seconds after which it is looked whether a client is still there.
RETRY_AFTER     = 5   # Seconds, where the queue is full.
MAX_STRINGS     = 4   # `stop`.
MAX_PROMPTS     = 64
PAGE            = Path(__file__).with_name("page.html")
POLICY          = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'" # No other resources.

# Requests -----------------------------------------------------------------------------------------

Tokens = Annotated[list[StrictInt], Field(min_length=1)]


class StreamOptions(BaseModel):
    model_config  = ConfigDict(extra="forbid")
    include_usage : bool = False


class CompletionRequest(BaseModel):
    """As OpenAI's; what a device cannot do may be given with the value that asks for nothing."""
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    model             : StrictStr | None = Field(None, description="The served model's name.")
    prompt            : StrictStr | Tokens | Annotated[list[StrictStr] | list[Tokens], Field(min_length=1, max_length=MAX_PROMPTS)] = Field(
        description="A text, its tokens, or a list of either: a choice each.")
    max_tokens        : StrictInt = Field(16, ge=1, description="The most to generate, of each text.")
    temperature       : float = Field(1.0, ge=0, description="0: always the likeliest token.")
    top_p             : float = Field(1.0, gt=0, le=1, description="Draw from the likeliest tokens only whose probabilities are together so much of those of top_k.")
    top_k             : StrictInt = Field(CANDIDATES, ge=1, le=CANDIDATES, description="Draw from so many of the likeliest tokens; the device has no more.")
    seed              : StrictInt | None = Field(None, ge=0, lt=2**32, description="Of the draws; the next choice's is one more. Left out: a random one.")
    stop              : StrictStr | Annotated[list[StrictStr], Field(max_length=MAX_STRINGS)] | None = Field(None, description="Texts that end it, up to four.")
    stream            : bool = Field(False, description="Server-sent events, one each time that text has come.")
    stream_options    : StreamOptions | None = None
    echo              : bool = Field(False, description="Give the prompt back in front.")
    user              : StrictStr | None = Field(None, description="Ignored.")
    # What must ask for nothing:
    n                 : Literal[1]       = 1
    best_of           : Literal[1]       = 1
    frequency_penalty : Literal[0]       = 0
    presence_penalty  : Literal[0]       = 0
    logprobs          : None             = None
    logit_bias        : dict[str, float] | None = Field(None, max_length=0)
    suffix            : None             = None


@dataclass
class Choice:
    """A text of a request: its tokens come by a queue."""
    index   : int
    text    : BatchText
    stream  : TextStream
    stop    : StopStrings
    before  : str = "" # The prompt, where it is to be given back.
    reason  : str | None = None
    items   : "asyncio.Queue[int | None | CommandError]" = field(default_factory=asyncio.Queue)

    def take(self, item: int | None) -> str:
        """Text that may be shown now, with a token, or at the end."""
        if item is None:
            self.reason = "stop" if self.stop.found or len(self.text.tokens) < self.text.most else "length"
            return "" if self.stop.found else self.stop(self.stream.flush()) + self.stop.flush()
        if self.stop.found: # The device had run on.
            return ""
        piece = self.stop(self.stream([item]))
        if self.stop.found:
            self.text.ended = True
        return piece


@contextmanager
def dropped_at_end(choices: list[Choice]) -> Iterator[None]:
    """Whatever ends a request ends its texts on the device: there is nobody left to read them."""
    try:
        yield
    finally:
        for choice in choices:
            choice.text.drop()


class EventResponse(StreamingResponse):
    """Server-sent events of texts. A client may be gone before the first one is asked for: so the texts end with the response, not with what makes its events."""
    def __init__(self, events: AsyncIterator[str], choices: list[Choice]):
        super().__init__(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        self.choices = choices

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with dropped_at_end(self.choices):
            await super().__call__(scope, receive, send)

# Errors -------------------------------------------------------------------------------------------

def error_response(status: int, message: str, kind: str = "invalid_request_error", param: str | None = None, headers: dict[str, str] | None = None) \
        -> JSONResponse:
    """As OpenAI's clients understand it."""
    return JSONResponse({"error": {"message": message, "type": kind, "param": param, "code": None}}, status, headers)


class RequestError(Exception):
    """A request cannot be served. The arguments are error_response's."""
    def __init__(self, *arguments: Any, **named: Any):
        super().__init__(*arguments)
        self.response = error_response(*arguments, **named)


def validation_message(error: RequestValidationError) -> tuple[str, str | None]:
    """(One line, the field): of what is wrong the first."""
    first = error.errors()[0]
    place = [str(part) for part in first["loc"][1:]]
    name  = place[0] if place else None
    if first["type"] == "missing":
        return f"{name or 'The body'} must be given, is missing.", name
    if first["type"] == "extra_forbidden":
        return f"{'.'.join(place)} is not a field of a completion.", name
    if first["type"] == "json_invalid":
        return f"The body must be JSON: {first.get('ctx', {}).get('error', 'it is not')}.", None
    if isinstance(first["input"], bytes):
        return "The body must be JSON, and Content-Type say application/json.", None
    value = json.dumps(first["input"], default=repr)
    return f"{name or 'The body'}: {first['msg']}, is {value if len(value) < 80 else value[:76] + ' ...'}.", name

# Application --------------------------------------------------------------------------------------

class Server:
    """The routes of a served model.

    Parameters
    ----------
    engine    : runs the texts.
    name      : the model's.
    tokenizer : of :mod:`model.tokenizer`.
    stop_tokens : that end a text.
    api_key   : that clients must give; None: none.
    """
    def __init__(self, engine: ServingEngine, name: str, tokenizer: Any, stop_tokens: tuple[int, ...] = (), api_key: str | None = None):
        self.engine      = engine
        self.name        = name
        self.tokenizer   = tokenizer
        self.stop_tokens = stop_tokens
        self.api_key     = api_key
        self.created     = int(time.time())
        self.registry    = registry_of(engine)
        self.recent      = Recent(engine)

    def app(self) -> FastAPI:
        app = FastAPI(title="Mamba-2 on a LiteX SoC", docs_url=None, redoc_url=None)

        @app.exception_handler(RequestValidationError)
        async def invalid(request: Request, error: RequestValidationError) -> Response:
            message, name = validation_message(error)
            return error_response(400, message, param=name)

        @app.exception_handler(RequestError)
        async def refused(request: Request, error: RequestError) -> Response:
            return error.response

        @app.exception_handler(HTTPException)
        async def unknown(request: Request, error: HTTPException) -> Response:
            return error_response(error.status_code, f"{request.method} {request.url.path}: {error.detail}.", headers=dict(error.headers or {}))

        @app.get("/health")
        async def health() -> Response:
            failure = self.engine.failure
            return JSONResponse({"status": "ok" if failure is None else "error", "message": None if failure is None else str(failure),
                "running": self.engine.running, "waiting": self.engine.waiting}, 200 if failure is None else 503)

        @app.get("/")
        async def page() -> Response:
            return HTMLResponse(PAGE.read_text(), headers={"Content-Security-Policy": POLICY, "Cache-Control": "no-store"})

        @app.get("/status")
        async def status() -> dict[str, Any]:
            return machine_status(self.engine, self.recent, self.name)

        @app.get("/metrics")
        async def metrics() -> Response:
            return PlainTextResponse(generate_latest(self.registry), media_type=CONTENT_TYPE_LATEST)

        v1 = APIRouter(prefix="/v1", dependencies=[Depends(self.authorise)])

        @v1.get("/models")
        async def models() -> dict[str, Any]:
            return {"object": "list", "data": [self.model_card()]}

        @v1.get("/models/{name:path}")
        async def model(name: str) -> dict[str, Any]:
            self.check_model(name)
            return self.model_card()

        @v1.post("/completions")
        async def completions(asked: CompletionRequest, request: Request) -> Response:
            return await self.complete(asked, request)

        app.include_router(v1)
        return app

    async def authorise(self, request: Request) -> None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        if self.api_key is not None and not secrets.compare_digest(given.encode(), self.api_key.encode()):
            raise RequestError(401, "The API key must be the server's, is missing or another one.", "authentication_error")

    # Models.

    def model_card(self) -> dict[str, Any]:
        return {"id": self.name, "object": "model", "created": self.created, "owned_by": "mamba2-litex"}

    def check_model(self, name: str) -> None:
        if name != self.name:
            raise RequestError(404, f"model must be {self.name}, is {name}.", param="model")

    # Completions.

    def choices(self, asked: CompletionRequest) -> list[Choice]:
        """Those of a request. Raises RequestError where it cannot be served."""
        if asked.model is not None:
            self.check_model(asked.model)
        prompts = asked.prompt if isinstance(asked.prompt, list) and not isinstance(asked.prompt[0], int) else [asked.prompt]
        strings = [asked.stop] if isinstance(asked.stop, str) else asked.stop or []
        seed    = random.getrandbits(32) if asked.seed is None else asked.seed
        if asked.stream_options is not None and not asked.stream:
            raise RequestError(400, "stream_options must be left out without stream.", param="stream_options")
        found   = []
        try:
            draws = Draws.of(asked.temperature, asked.top_k, seed, asked.top_p)
            for index, prompt in enumerate(prompts):
                tokens = self.tokenizer.encode(prompt, continuing=False) if isinstance(prompt, str) else list(prompt)
                text   = BatchText(tokens, asked.max_tokens, replace(draws, seed=(seed + index) % 2**32), self.stop_tokens)
                self.engine.batch.check(text)
                choice = Choice(index, text, TextStream(self.tokenizer), StopStrings(strings))
                before = choice.stream(tokens)
                if isinstance(prompt, str): # A text ends with a whole character.
                    before += choice.stream.flush()
                choice.before = before if asked.echo else ""
                found.append(choice)
        except ValueError as error: # CheckpointError is one.
            raise RequestError(400, str(error)) from error
        return found

    async def complete(self, asked: CompletionRequest, request: Request) -> Response:
        choices = self.choices(asked)
        loop    = asyncio.get_running_loop()
        def listener(choice: Choice) -> Any:
            return lambda item: loop.call_soon_threadsafe(choice.items.put_nowait, item)
        try:
            self.engine.submit([choice.text for choice in choices], [listener(choice) for choice in choices])
        except QueueFull:
            raise RequestError(429, f"The queue is full: {self.engine.waiting} texts wait, of {self.engine.queue} that may.", "rate_limit_error",
                headers={"Retry-After": str(RETRY_AFTER)}) from None
        except CommandError as error:
            raise RequestError(503, str(error), "server_error") from None
        head = {"id": f"cmpl-{secrets.token_hex(12)}", "object": "text_completion", "created": int(time.time()), "model": self.name}
        if asked.stream:
            usage = asked.stream_options is not None and asked.stream_options.include_usage
            return EventResponse(self.events(choices, head, usage), choices)
        pieces = [choice.before for choice in choices]
        with dropped_at_end(choices):
            try:
                async for choice, piece in self.pieces(choices, request):
                    pieces[choice.index] += piece
            except CommandError as error:
                raise RequestError(503, str(error), "server_error") from None
        return JSONResponse({**head, "choices": [self.choice_of(choice, piece) for choice, piece in zip(choices, pieces)], "usage": self.usage(choices)})

    @staticmethod
    async def pieces(choices: list[Choice], request: Request | None = None) -> AsyncIterator[tuple[Choice, str]]:
        """(choice, text) as it comes, up to the end of all, or until the client goes away.

        Raises
        ------
        CommandError : the device failed.
        """
        takers = {asyncio.ensure_future(choice.items.get()): choice for choice in choices}
        try:
            while takers:
                done, _ = await asyncio.wait(takers, timeout=DISCONNECT_POLL if request else None, return_when=asyncio.FIRST_COMPLETED)
                if request and await request.is_disconnected():
                    return
                for taker in done:
                    choice = takers.pop(taker)
                    item   = taker.result()
                    if isinstance(item, CommandError):
                        raise item
                    piece  = choice.take(item)
                    if item is not None:
                        takers[asyncio.ensure_future(choice.items.get())] = choice
                    if piece or choice.reason:
                        yield choice, piece
        finally:
            for taker in takers:
                taker.cancel()

    async def events(self, choices: list[Choice], head: dict[str, Any], usage: bool) -> AsyncIterator[str]:
        """Server-sent events."""
        def event(content: dict[str, Any]) -> str:
            return f"data: {json.dumps(content)}\n\n"
        more = {"usage": None} if usage else {}
        for choice in choices:
            if choice.before:
                yield event({**head, "choices": [self.choice_of(choice, choice.before)], **more})
        try:
            async for choice, piece in self.pieces(choices):
                yield event({**head, "choices": [self.choice_of(choice, piece)], **more})
        except CommandError as error:
            yield event({"error": {"message": str(error), "type": "server_error", "param": None, "code": None}})
            return
        if usage:
            yield event({**head, "choices": [], "usage": self.usage(choices)})
        yield "data: [DONE]\n\n"

    @staticmethod
    def choice_of(choice: Choice, text: str) -> dict[str, Any]:
        return {"text": text, "index": choice.index, "logprobs": None, "finish_reason": choice.reason}

    @staticmethod
    def usage(choices: list[Choice]) -> dict[str, int]:
        prompt, completion = (sum(len(getattr(choice.text, name)) for choice in choices) for name in ("prompt", "tokens"))
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
