#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""A server on a fake device, and what it is made of."""

import threading
import time

import httpx
import numpy as np
import openai
import uvicorn

from connection import Connection, loaded
from models import random_model

from host.device.batch import DeviceBatch
from host.serving.api import Server
from host.serving.engine import ServingEngine

from model.exact.decoder import ExactDecoder
from model.exact.network import ExactNetwork
from model.exact.sampling import Draws
from model.tokenizer import ByteTokenizer

# Constants ----------------------------------------------------------------------------------------

VOCABULARY = 128 # Bytes that are characters.

# Served -------------------------------------------------------------------------------------------

class ASCIITokenizer(ByteTokenizer):
    def decode(self, tokens):
        return bytes(tokens).decode("latin-1")


class Served:
    """Context manager: a server in a thread. options: of DeviceBatch."""
    def __init__(self, folder, queue=32, api_key=None, stop_tokens=(), kept=None, **options):
        self.model      = random_model(vocab_size=VOCABULARY)
        self.connection = Connection(folder)
        self.options    = queue, stop_tokens, api_key, dict(options, kept=kept)

    def __enter__(self):
        queue, stop_tokens, api_key, options = self.options
        self.device = self.connection.__enter__()
        self.engine = ServingEngine(DeviceBatch(loaded(self.device, self.model), **options), queue).__enter__()
        self.app    = Server(self.engine, "random", ASCIITokenizer(), stop_tokens, api_key).app()
        self.http   = uvicorn.Server(uvicorn.Config(self.app, port=0, log_level="warning", lifespan="off", timeout_graceful_shutdown=1))
        self.thread = threading.Thread(target=self.http.run)
        self.thread.start()
        while not self.http.started:
            time.sleep(0.01)
        self.url    = f"http://127.0.0.1:{self.http.servers[0].sockets[0].getsockname()[1]}"
        self.client = openai.OpenAI(base_url=f"{self.url}/v1", api_key=api_key or "none", max_retries=0)
        return self

    def __exit__(self, *exception):
        self.client.close()
        self.http.should_exit = True
        self.engine.close()
        self.thread.join(10)
        assert not self.thread.is_alive() and not self.engine._thread.is_alive()
        self.connection.__exit__(*exception)

    def post(self, **fields):
        return httpx.post(f"{self.url}/v1/completions", json={"prompt": "ab", **fields}, timeout=60)

    def alone(self, prompt, tokens, draws=Draws(), stop=()):
        """What the exact model writes."""
        decoder = ExactDecoder(ExactNetwork(self.model), draws)
        decoder.prefill(list(prompt.encode()))
        return "".join(map(chr, decoder.generate(tokens, stop)))

    def logprobs(self, tokens):
        """float64 (T, vocabulary): the log softmax of what may follow each token, by the exact model."""
        logits = ExactNetwork(self.model)(tokens)[0].astype(np.float64)
        return logits - logits.max(-1, keepdims=True) - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
