#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The server over a fake device: what clients are answered, against the exact model."""

import asyncio
import json
import time

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import httpx
import pytest

from served import Served

from model.exact.sampling import Draws, inverse_of, top_p_of

# Fixtures -----------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with Served(tmp_path_factory.mktemp("served")) as server:
        yield server

# Completions --------------------------------------------------------------------------------------

def test_openai_client(served):
    """Whole, and as it comes."""
    wanted = served.alone("Hello", 12)
    answer = served.client.completions.create(model="random", prompt="Hello", max_tokens=12, temperature=0)
    assert (answer.choices[0].text, answer.choices[0].finish_reason, answer.object) == (wanted, "length", "text_completion")
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (5, 12, 17)
    events = list(served.client.completions.create(model="random", prompt="Hello", max_tokens=12, temperature=0, stream=True,
        stream_options={"include_usage": True}))
    assert "".join(event.choices[0].text for event in events[:-1]) == wanted and len(events) > 10
    assert [event.choices[0].finish_reason for event in events[:-1]] == [None]*(len(events) - 2) + ["length"]
    assert events[-1].usage.total_tokens == 17 and events[-1].choices == []
    assert [model.id for model in served.client.models.list()] == ["random"]


def test_draws(served):
    """By the seed alone; left out, it is another one each time."""
    draws  = Draws(inverse_of(0.9), 40, 7, top_p_of(0.8))
    wanted = served.alone("xyz", 20, draws)
    answer = served.client.completions.create(model="random", prompt="xyz", max_tokens=20, temperature=0.9, top_p=0.8, seed=7, extra_body={"top_k": 40})
    assert answer.choices[0].text == wanted
    assert len({served.post(max_tokens=20, temperature=5).json()["choices"][0]["text"] for _ in range(3)}) == 3


def test_several_prompts(served):
    """A choice each, in their order; texts or tokens; with the prompt in front."""
    prompts = ["ab", "Hello", "q"]
    answer  = served.post(prompt=prompts, max_tokens=6, temperature=0, echo=True).json()
    assert [choice["text"] for choice in answer["choices"]] == [prompt + served.alone(prompt, 6) for prompt in prompts]
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2] and answer["usage"]["total_tokens"] == 8 + 18
    again   = served.post(prompt=[list(prompt.encode()) for prompt in prompts], max_tokens=6, temperature=0, echo=True).json()
    assert again["choices"] == answer["choices"]
    texts   = ["", "", ""]
    with httpx.stream("POST", f"{served.url}/v1/completions", json={"prompt": prompts, "max_tokens": 6, "temperature": 0, "echo": True,
            "stream": True}) as response:
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert lines.pop() == "[DONE]" and response.headers["content-type"].startswith("text/event-stream")
    for line in lines:
        choice = json.loads(line)["choices"][0]
        texts[choice["index"]] += choice["text"]
    assert texts == [choice["text"] for choice in answer["choices"]]


def test_stop(served):
    text   = served.alone("ab", 30)
    answer = served.post(max_tokens=30, temperature=0, stop=["\0\0\0never", text[10:13]]).json()["choices"][0]
    assert (answer["text"], answer["finish_reason"]) == (text[:text.index(text[10:13])], "stop")
    assert served.post(max_tokens=30, temperature=0, stop=text[:1]).json()["choices"][0]["text"] == ""


def test_stop_tokens(tmp_path):
    """They end a text, and are none of it."""
    with Served(tmp_path) as server:
        text   = server.alone("ab", 12)
        server.engine.close()
    with Served(tmp_path, stop_tokens=(ord(text[5]),)) as server:
        answer = server.post(max_tokens=12, temperature=0).json()
        assert answer["choices"][0]["text"] == text[:text.index(text[5])] and answer["choices"][0]["finish_reason"] == "stop"
        assert answer["usage"]["completion_tokens"] == text.index(text[5])


def test_many_clients(served):
    """Together, greedy and drawn, of all lengths: each is answered as if it were alone."""
    def ask(number):
        prompt, most, temperature = "prompt"[:number % 6 + 1]*(number % 3 + 1), 4 + number % 7, (0, 0.8)[number % 4 == 3]
        answer = served.post(prompt=prompt, max_tokens=most, temperature=temperature, seed=number, stream=False).json()
        return answer["choices"][0]["text"], served.alone(prompt, most, Draws(inverse_of(temperature) if temperature else 0, seed=number))
    before = served.engine.batch.figures.decode_passes, served.engine.batch.figures.decode_tokens
    with ThreadPoolExecutor(16) as pool:
        for found, wanted in pool.map(ask, range(24)):
            assert found == wanted
    passes, tokens = served.engine.batch.figures.decode_passes - before[0], served.engine.batch.figures.decode_tokens - before[1]
    assert tokens > 1.5*passes # They were under way together.
    assert served.engine.running == served.engine.waiting == 0

# Logprobs -----------------------------------------------------------------------------------------

def check_logprobs(served, prompt, choice, count, echo):
    """Against the exact model. Byte tokens: their texts are their characters."""
    found, first = choice["logprobs"], 0 if echo else len(prompt)
    tokens = list((prompt + choice["text"][len(prompt)*echo:]).encode("latin-1"))
    wanted = served.logprobs(tokens)
    assert found["tokens"] == [chr(token) for token in tokens[first:]]
    assert found["text_offset"] == list(range(len(tokens) - first))
    for n, token in enumerate(tokens[first:], first):
        logprob, top = found["token_logprobs"][n - first], found["top_logprobs"][n - first]
        if n == 0:
            assert logprob is None and top is None
            continue
        row  = wanted[n - 1]
        best = sorted(range(len(row)), key=lambda there: (-row[there], there))[:count]
        assert logprob == pytest.approx(row[token], abs=1e-12)
        assert top == pytest.approx({chr(there): row[there] for there in {*best, token}}, abs=1e-12)


@pytest.mark.parametrize("fields", [dict(temperature=0), dict(temperature=0.8, seed=3), dict(temperature=0, echo=True), dict(max_tokens=0, echo=True),
    dict(temperature=2, seed=1, echo=True)])
@pytest.mark.parametrize("count", [0, 1, 5])
def test_logprobs(served, fields, count):
    """Of the exact model's logits; the text is that without."""
    prompt, fields = "In the beginning"*(1 + count), {"max_tokens": 6, **fields}
    answer = served.post(prompt=prompt, logprobs=count, **fields).json()
    choice = answer["choices"][0]
    check_logprobs(served, prompt, choice, count, fields.get("echo", False))
    assert choice["finish_reason"] == "length" and answer["usage"]["completion_tokens"] == fields["max_tokens"]
    if fields["max_tokens"]:
        assert choice["text"] == served.post(prompt=prompt, **fields).json()["choices"][0]["text"]
    parts = {name: [] for name in choice["logprobs"]}
    text  = ""
    with httpx.stream("POST", f"{served.url}/v1/completions", json=dict(prompt=prompt, logprobs=count, stream=True, **fields), timeout=60) as response:
        for line in response.iter_lines():
            if line and line != "data: [DONE]":
                event = json.loads(line.removeprefix("data: "))["choices"][0]
                text += event["text"]
                for name, values in (event["logprobs"] or {}).items():
                    parts[name] += values
    assert (text, parts) == (choice["text"], choice["logprobs"])


def test_logprobs_of_several(served):
    """With others at once, and with a stop string, whose tokens are none of the text."""
    whole = served.alone("ab", 20)
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda n: served.post(prompt=["ab", "a"*(n + 1)], max_tokens=20, temperature=0, stop=whole[9:11],
            logprobs=2 if n % 2 else None).json(), range(6)))
    for n, answer in enumerate(answers):
        for choice, prompt in zip(answer["choices"], ["ab", "a"*(n + 1)]):
            assert choice["text"] == served.alone(prompt, 20).partition(whole[9:11])[0]
            assert (choice["logprobs"] is None) == (n % 2 == 0)
            if n % 2:
                check_logprobs(served, prompt, choice, 2, False)


def test_scored_text_is_dropped(served):
    asyncio.run(ask_and_leave(served, 0, prompt=["ab"*2000]*3, max_tokens=0, echo=True, logprobs=1, stream=True))
    assert served.post(max_tokens=3, temperature=0).json()["choices"][0]["text"] == served.alone("ab", 3)
    assert not served.engine.running and not served.engine.batch.scoring

# Kept sessions ------------------------------------------------------------------------------------

def test_conversation(served):
    """A prompt that begins with what was run before runs only what is new, and its answer is the same."""
    text, before = "A conversation, ", 0
    for turn in range(3):
        answer = served.post(prompt=text, max_tokens=7, temperature=0).json()
        assert answer["choices"][0]["text"] == served.alone(text, 7)
        assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == before
        before = len(text) + 7
        text  += answer["choices"][0]["text"] + f" and {turn}"
    again  = served.post(prompt=text + "?", max_tokens=1, temperature=0).json()
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] == before

# Clients that go ----------------------------------------------------------------------------------

@pytest.mark.parametrize("stream", [False, True])
def test_client_goes_away(served, stream):
    """Its text ends on the device, and leaves room for others."""
    made = served.engine.generated_tokens
    with pytest.raises(httpx.ReadTimeout):
        with httpx.stream("POST", f"{served.url}/v1/completions", json={"prompt": "ab", "max_tokens": 10**6, "stream": stream}, timeout=1) as response:
            for _ in response.iter_lines():
                if served.engine.generated_tokens > made + 5:
                    raise httpx.ReadTimeout("enough")
    deadline = time.monotonic() + 20
    while served.engine.running:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert served.post(max_tokens=3, temperature=0).json()["choices"][0]["text"] == served.alone("ab", 3)


async def ask_and_leave(server, after, **fields):
    """A request straight to the application, whose client is gone after so many messages of the answer."""
    sent = 0

    async def receive():
        if not receive.asked:
            receive.asked = True
            return {"type": "http.request", "body": json.dumps({"prompt": "ab", "max_tokens": 10**6, **fields}).encode(), "more_body": False}
        while sent < after:
            await asyncio.sleep(0.01)
        return {"type": "http.disconnect"}

    async def send(message):
        nonlocal sent
        if sent >= after:
            raise OSError("gone")
        sent += 1
    receive.asked = False
    scope = {"type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1", "method": "POST", "scheme": "http", "root_path": "",
        "path": "/v1/completions", "raw_path": b"/v1/completions", "query_string": b"", "headers": [(b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2)}
    with suppress(Exception):
        await server.app(scope, receive, send)


@pytest.mark.parametrize("after, fields", [
    (0, dict(stream=True)),                                # Before the first event is asked for,
    (0, dict(stream=True, prompt=["ab", "c", "de", "f", "g", "h"])), # also of texts that wait,
    (1, dict(stream=True, prompt=["ab", "c"])),            # with the answer's head,
    (2, dict(stream=True, prompt=["ab", "c"], echo=True)), # at an event,
    (0, dict(prompt=["ab", "c", "de", "f", "g", "h"])),    # or while nothing is sent yet.
])
def test_client_is_gone(served, after, fields):
    """Wherever a request is dropped, its texts end on the device."""
    asyncio.run(ask_and_leave(served, after, **fields))
    deadline = time.monotonic() + 20
    while served.engine.running or served.engine.waiting or served.engine._listeners:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_gone_leave_the_queue(tmp_path):
    """At once, though all sessions are taken: others may wait there."""
    with Served(tmp_path, queue=1, sessions=1) as server:
        with ThreadPoolExecutor(1) as pool:
            long = pool.submit(server.post, max_tokens=10**6)
            while server.engine.generated_tokens < 2:
                time.sleep(0.01)
            asyncio.run(ask_and_leave(server, 0))
            assert server.engine.texts == 2
            deadline = time.monotonic() + 20
            while len(server.engine._listeners) > 1:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            assert server.engine.running == 1 and not long.done()
            server.engine.close()


def test_queue(tmp_path):
    """Past it a client is told to come again; when there is room it is served."""
    with Served(tmp_path, queue=1, sessions=1) as server:
        with ThreadPoolExecutor(2) as pool:
            long = [pool.submit(server.post, max_tokens=60, temperature=0) for _ in range(2)]
            while server.engine.texts < 2:
                time.sleep(0.01)
            refused = server.post(max_tokens=1)
            assert refused.status_code == 429 and int(refused.headers["Retry-After"]) > 0
            assert refused.json()["error"]["message"].startswith("The queue is full: ") and refused.json()["error"]["type"] == "rate_limit_error"
            assert all(answer.result().status_code == 200 for answer in long)
        assert server.post(max_tokens=1).status_code == 200


def test_end(tmp_path):
    """A server that ends says so to those that wait, and leaves no thread."""
    with Served(tmp_path) as server:
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(server.post, max_tokens=10**6)
            while server.engine.generated_tokens < 3:
                time.sleep(0.01)
            server.engine.close()
            for refused in (answer.result(), server.post()):
                assert refused.status_code == 503 and refused.json()["error"]["message"] == "The server ends."

# Faults -------------------------------------------------------------------------------------------

def test_device_fails(tmp_path):
    """The error is answered, health tells it, and the next request is tried again."""
    with Served(tmp_path) as server:
        server.device.fake.hang = server.device.fake.generated + 1
        server.device.patience  = 0.3
        answer = server.post(max_tokens=3)
        assert answer.status_code == 503 and answer.json()["error"]["type"] == "server_error"
        health = httpx.get(f"{server.url}/health")
        assert health.status_code == 503 and health.json()["message"] == answer.json()["error"]["message"]
        server.device.fake.go_on()
        server.device.patience  = 5
        assert server.post(max_tokens=3, temperature=0).json()["choices"][0]["text"] == server.alone("ab", 3)
        assert httpx.get(f"{server.url}/health").status_code == 200


@pytest.mark.parametrize("fields, status, param, message", [
    (dict(prompt=""),                   400, None,          "tokens must be one or more, are none."),
    (dict(prompt=[]),                   400, "prompt",      "prompt: "),
    (dict(prompt=[200]),                400, None,          "token must be a number from 0 to 127, is 200."),
    (dict(prompt=None),                 400, "prompt",      "prompt: Input should be a valid string, is null."),
    (dict(max_tokens=-1),               400, "max_tokens",  "max_tokens: Input should be greater than or equal to 0, is -1."),
    (dict(max_tokens=0, echo=True),     400, "max_tokens",  "max_tokens must be 1 or more without echo and logprobs, is 0."),
    (dict(max_tokens="9"),              400, "max_tokens",  "max_tokens: Input should be a valid integer, is \"9\"."),
    (dict(temperature=-1),              400, "temperature", "temperature: Input should be greater than or equal to 0, is -1."),
    (dict(temperature=1e-9),            400, None,          "temperature must be from 0.0000153 to 131071, is 1e-09."),
    (dict(top_k=65),                    400, "top_k",       "top_k: Input should be less than or equal to 64, is 65."),
    (dict(top_p=0),                     400, "top_p",       "top_p: Input should be greater than 0, is 0."),
    (dict(n=2),                         400, "n",           "n: Input should be 1, is 2."),
    (dict(logprobs=6),                  400, "logprobs",    "logprobs: Input should be less than or equal to 5, is 6."),
    (dict(best_of=2),                   400, "best_of",     "best_of: Input should be 1, is 2."),
    (dict(seed=2**32),                  400, "seed",        "seed: Input should be less than 4294967296, is 4294967296."),
    (dict(stop=["a"]*5),                400, "stop",        "stop: "),
    (dict(stop=[""]),                   400, None,          "stop must be a text, is empty."),
    (dict(stream_options={}),           400, "stream_options", "stream_options must be left out without stream."),
    (dict(messages=[]),                 400, "messages",    "messages is not a field of a completion."),
    (dict(model="gpt"),                 404, "model",       "model must be random, is gpt."),
])
def test_refused(served, fields, status, param, message):
    answer = served.post(**fields)
    error  = answer.json()["error"]
    assert answer.status_code == status and error["param"] == param and error["message"].startswith(message)
    assert "\n" not in error["message"]


def test_other_paths(served):
    for headers, message in (({}, "The body must be JSON, and Content-Type say application/json."), ({"Content-Type": "application/json"}, "The body must be JSON: ")):
        answer = httpx.post(f"{served.url}/v1/completions", content=b"{", headers=headers)
        assert answer.status_code == 400 and answer.json()["error"]["message"].startswith(message)
    assert httpx.get(f"{served.url}/v1/completions").json()["error"]["message"] == "GET /v1/completions: Method Not Allowed."
    assert httpx.get(f"{served.url}/v1/nothing").status_code == 404
    assert httpx.get(f"{served.url}/v1/models/gpt").json()["error"]["message"] == "model must be random, is gpt."
    assert httpx.get(f"{served.url}/v1/models/random").json()["id"] == "random"


def test_api_key(tmp_path):
    with Served(tmp_path, api_key="secret") as server:
        assert server.client.completions.create(model="random", prompt="ab", max_tokens=2).choices[0].text
        for headers in ({}, {"Authorization": "Bearer other"}):
            answer = httpx.get(f"{server.url}/v1/models", headers=headers)
            assert answer.status_code == 401 and answer.json()["error"]["type"] == "authentication_error"
        assert httpx.get(f"{server.url}/health").json() == {"status": "ok", "message": None, "running": 0, "waiting": 0}


def test_metrics(served):
    """Of the engine's and the device's counts."""
    served.post(max_tokens=4, temperature=0)
    lines  = httpx.get(f"{served.url}/metrics").text.splitlines()
    values = {name: float(value) for name, value in (line.split() for line in lines if not line.startswith("#"))}
    assert values["mamba2_generated_tokens_total"] == served.engine.generated_tokens > 0
    assert values["mamba2_decode_cycles_total"] == served.engine.batch.figures.decode_cycles > 0
    assert values["mamba2_sessions"] == 4 and values["mamba2_healthy"] == 1 and 0 < values["mamba2_dram_share"] < 1
    assert values["mamba2_link_rewrites_total"] == 0
    assert values["mamba2_kept_sessions"] == len(served.engine.batch.kept) > 0
    assert values["mamba2_reused_tokens_total"] == served.engine.batch.kept.reused and values["mamba2_evicted_sessions_total"] == 0


def test_status(served):
    """Of the page: shares are of the last jobs, and parts of the memory no more than it has."""
    served.post(max_tokens=4, temperature=0)
    status = httpx.get(f"{served.url}/status").json()
    assert status["model"] == "random" and status["failure"] is None and status["sessions"] == [None]*4
    assert 0 < status["dram"]["read"] < 1 and 0 < status["dram"]["written"] < 1 and set(status["waits"]) >= {"gemv", "ssm", "vector", "move", "head"}
    assert status["tokens"]["generated"] == served.engine.generated_tokens and status["tokens"]["cycles"] > 0
    again  = httpx.get(f"{served.url}/status").json()
    assert (again["dram"], again["waits"]) == (status["dram"], status["waits"]) # Those of the last jobs stay.
    assert status["kept"]["sessions"] == len(served.engine.batch.kept) and status["kept"]["most"] == 64
    assert sum(part["bytes"] for part in status["memory"]["parts"]) <= status["memory"]["size"]
    json.dumps(status, allow_nan=False)
