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

from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr

from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from host.device.batch import BatchText, Item
from host.device.scores import Score
from host.serving.engine import QueueFull, ServingEngine
from host.serving.metrics import registry_of
from host.serving.status import machine_status

from model.exact.sampling import Draws
from model.sampling import StopStrings
from model.tokenizer import REPLACEMENT, TextStream

from operations.numerics import CANDIDATES

from tools.errors import CommandError

# Constants ----------------------------------------------------------------------------------------

DISCONNECT_POLL = 0.5 # Seconds after which it is looked whether a client is still there.
RETRY_AFTER     = 5   # Seconds, where the queue is full.
MAX_STRINGS     = 4   # `stop`.
MAX_PROMPTS     = 64
MAX_LOGPROBS    = 5
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
    max_tokens        : StrictInt = Field(16, ge=0, description="The most to generate, of each text; 0: with echo and logprobs alone.")
    temperature       : float = Field(1.0, ge=0, description="0: always the likeliest token.")
    top_p             : float = Field(1.0, gt=0, le=1, description="Draw from the likeliest tokens only whose probabilities are together so much of those of top_k.")
    top_k             : StrictInt = Field(CANDIDATES, ge=1, le=CANDIDATES, description="Draw from so many of the likeliest tokens; the device has no more.")
    seed              : StrictInt | None = Field(None, ge=0, lt=2**32, description="Of the draws; the next choice's is one more. Left out: a random one.")
    stop              : StrictStr | Annotated[list[StrictStr], Field(max_length=MAX_STRINGS)] | None = Field(None, description="Texts that end it, up to four.")
    stream            : bool = Field(False, description="Server-sent events, one each time that text has come.")
    stream_options    : StreamOptions | None = None
    echo              : bool = Field(False, description="Give the prompt back in front.")
    logprobs          : StrictInt | None = Field(None, ge=0, le=MAX_LOGPROBS,
        description="Give the natural logarithm of each token's probability, at temperature 1, and of so many of the likeliest in its place.")
    user              : StrictStr | None = Field(None, description="Ignored.")
    # What must ask for nothing:
    n                 : Literal[1]       = 1
    best_of           : Literal[1]       = 1
    frequency_penalty : Literal[0]       = 0
    presence_penalty  : Literal[0]       = 0
    logit_bias        : dict[str, float] | None = Field(None, max_length=0)
    suffix            : None             = None


def token_name(tokenizer: Any, token: int) -> str:
    """Its text; token_id:N where that is none, or part of a character."""
    text = tokenizer.decode([token])
    return text if text and REPLACEMENT not in text else f"token_id:{token}"


@dataclass
class Logprobs:
    """Those of some tokens, as a completion has them; together with others of the same text in their order."""
    tokens         : list[str] = field(default_factory=list)
    token_logprobs : list[float | None] = field(default_factory=list)
    top_logprobs   : list[dict[str, float] | None] = field(default_factory=list)
    text_offset    : list[int] = field(default_factory=list)

    def add(self, tokenizer: Any, score: Score, offset: int) -> None:
        """The token that came is one of top_logprobs in any case."""
        top: dict[str, tuple[int, float]] = {}
        for token, logprob in (*score.best, *(() if score.logprob is None else ((score.token, score.logprob),))):
            if all(token != there for there, _ in top.values()):
                name = token_name(tokenizer, token)
                top[name if name not in top else f"token_id:{token}"] = token, logprob
        self.tokens.append(token_name(tokenizer, score.token))
        self.token_logprobs.append(score.logprob)
        self.top_logprobs.append({name: logprob for name, (_, logprob) in top.items()} if top else None)
        self.text_offset.append(offset)

    def extend(self, other: "Logprobs") -> None:
        self.tokens         += other.tokens
        self.token_logprobs += other.token_logprobs
        self.top_logprobs   += other.top_logprobs
        self.text_offset    += other.text_offset


@dataclass
class Choice:
    """A text of a request: its tokens come by a queue. Where they are scored, all that it shows waits for the scores."""
    index     : int
    text      : BatchText
    tokenizer : Any
    strings   : list[str]
    echo      : bool
    reason    : str | None = None
    before    : str = "" # The prompt, where it is to be given back, and is not scored.
    items     : "asyncio.Queue[Item]" = field(default_factory=asyncio.Queue)

    def __post_init__(self) -> None:
        self.stream = TextStream(self.tokenizer)
        self.stop   = StopStrings(self.strings)
        self.length = 0 # Of the text, also of what is held back,
        self.passed = 0 # and of what is let through.
        self.unscored: deque[tuple[int, str]] = deque() # (offset, text let through) of each token that waits for its score.

    def begin(self, whole: bool) -> None:
        """Take the prompt. whole: it is a text, which ends with a whole character."""
        prompt = self.text.prompt
        if self.echo and self.text.best is not None:
            for number, token in enumerate(prompt, 1):
                piece = self.stream([token]) + (self.stream.flush() if whole and number == len(prompt) else "")
                self._wait(piece, piece)
            return
        before = self.stream(prompt) + (self.stream.flush() if whole else "")
        if self.echo:
            self.before = before

    def _wait(self, piece: str, passed: str) -> None:
        """For a token's score."""
        self.unscored.append((self.length, passed))
        self.length += len(piece)
        self.passed += len(passed)

    def take(self, item: int | Score | None) -> tuple[str, Logprobs | None]:
        """(text that may be shown now, with a token, its score, or at the end; what of the score is shown)."""
        if item is None:
            self.reason = "stop" if self.stop.found or len(self.text.tokens) < self.text.most else "length"
            return "" if self.stop.found else self.stop(self.stream.flush()) + self.stop.flush(), None
        if isinstance(item, Score):
            if not self.unscored: # The device had run on.
                return "", None
            offset, passed = self.unscored.popleft()
            if self.stop.found and offset >= self.passed: # A token of the stop string.
                return passed, None
            logprobs = Logprobs()
            logprobs.add(self.tokenizer, item, offset)
            return passed, logprobs
        if self.stop.found: # The device had run on.
            return "", None
        piece  = self.stream([item])
        passed = self.stop(piece)
        if self.stop.found:
            self.text.ended = True
        if self.text.best is None:
            return passed, None
        self._wait(piece, passed)
        return "", None


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
            return machine_status(self.engine, self.name)

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
        if not asked.max_tokens and (asked.logprobs is None or not asked.echo):
            raise RequestError(400, "max_tokens must be 1 or more without echo and logprobs, is 0.", param="max_tokens")
        found   = []
        try:
            draws = Draws.of(asked.temperature, asked.top_k, seed, asked.top_p)
            for index, prompt in enumerate(prompts):
                tokens = self.tokenizer.encode(prompt, continuing=False) if isinstance(prompt, str) else list(prompt)
                text   = BatchText(tokens, asked.max_tokens, replace(draws, seed=(seed + index) % 2**32), self.stop_tokens, asked.logprobs, asked.echo)
                self.engine.batch.check(text)
                choice = Choice(index, text, self.tokenizer, strings, asked.echo)
                choice.begin(isinstance(prompt, str))
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
        texts    = [choice.before for choice in choices]
        logprobs = [None if asked.logprobs is None else Logprobs() for _ in choices]
        with dropped_at_end(choices):
            try:
                async for choice, piece, more in self.pieces(choices, request):
                    texts[choice.index] += piece
                    there = logprobs[choice.index]
                    if there is not None and more is not None:
                        there.extend(more)
            except CommandError as error:
                raise RequestError(503, str(error), "server_error") from None
        return JSONResponse({**head, "choices": [self.choice_of(*of) for of in zip(choices, texts, logprobs)], "usage": self.usage(choices)})

    @staticmethod
    async def pieces(choices: list[Choice], request: Request | None = None) -> AsyncIterator[tuple[Choice, str, Logprobs | None]]:
        """(choice, text, its tokens' logprobs) as it comes, up to the end of all, or until the client goes away.

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
                    piece, logprobs = choice.take(item)
                    if item is not None:
                        takers[asyncio.ensure_future(choice.items.get())] = choice
                    if piece or logprobs or choice.reason:
                        yield choice, piece, logprobs
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
            async for choice, piece, logprobs in self.pieces(choices):
                yield event({**head, "choices": [self.choice_of(choice, piece, logprobs)], **more})
        except CommandError as error:
            yield event({"error": {"message": str(error), "type": "server_error", "param": None, "code": None}})
            return
        if usage:
            yield event({**head, "choices": [], "usage": self.usage(choices)})
        yield "data: [DONE]\n\n"

    @staticmethod
    def choice_of(choice: Choice, text: str, logprobs: Logprobs | None = None) -> dict[str, Any]:
        return {"text": text, "index": choice.index, "logprobs": logprobs and asdict(logprobs), "finish_reason": choice.reason}

    @staticmethod
    def usage(choices: list[Choice]) -> dict[str, Any]:
        prompt, completion = (sum(len(getattr(choice.text, name)) for choice in choices) for name in ("prompt", "tokens"))
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": sum(choice.text.cached for choice in choices)}}
