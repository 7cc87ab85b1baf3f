#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Opens model, device and address for the command serve of stream.py, and serves until it is interrupted."""

import ipaddress
import socket

from argparse import Namespace
from pathlib import Path
from typing import Any

import uvicorn

from host.batch import check_rounding, sessions_of
from host.commands.whole_model import load_quantized, open_model
from host.device.batch import DeviceBatch
from host.generate import device_summary
from host.serving.api import Server
from host.serving.engine import ServingEngine

from model.checkpoint_config import checkpoint_path
from model.image import Image
from model.tokenizer import load_tokenizer

from tools.errors import UsageError
from tools.files import save_json

# Constants ----------------------------------------------------------------------------------------

JOB_SECONDS = 1 # Of a job, so that the page's figures are of what goes on now.
GRACE       = 5 # Seconds in which answers under way may end.

# Options ------------------------------------------------------------------------------------------

def read_key(path: str) -> str:
    """The key in a file. Raises UsageError where there is none."""
    try:
        lines = Path(path).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: must be a file with a key, cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    if not lines or not lines[0].strip():
        raise UsageError(f"{path}: must have a key in its first line, has none.")
    return lines[0].strip()


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_access(args: Namespace) -> str | None:
    """The key that clients must give, or None. Raises UsageError where others reach the address, and nothing is said of a key."""
    if args.api_key_file is not None and args.no_api_key:
        raise UsageError("--no-api-key must be left out with --api-key-file.")
    if args.api_key_file is not None:
        return read_key(args.api_key_file)
    if not is_loopback(args.host) and not args.no_api_key:
        raise UsageError(f"--host must be an address of this machine alone without --api-key-file, is {args.host}: others reach it. Give a key, or say "
            "--no-api-key.")
    return None


def listen(host: str, port: int) -> socket.socket:
    """Raises UsageError where that cannot be."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise UsageError(f"--host and --port must be an address that is free here, are {host} and {port}: {error.strerror or error}.") from None

# Command ------------------------------------------------------------------------------------------

class HTTPServer(uvicorn.Server):
    """Says where it is when it is there; at its end, the engine's texts end first."""
    def __init__(self, config: uvicorn.Config, engine: ServingEngine, message: str):
        super().__init__(config)
        self.engine  = engine
        self.message = message

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        print(self.message, flush=True)

    async def shutdown(self, sockets: Any = None) -> None:
        self.engine.stop()
        await super().shutdown(sockets)


def run(args: Namespace) -> None:
    """Serve a model, as the options of host/commands/serve.py say, until it is interrupted.

    Raises
    ------
    CommandError : an option, a file or the model is wrong; the device or the link failed at the start.
    """
    key = check_access(args)
    check_rounding(args)
    with listen(args.host, args.http_port) as there:
        try:
            model     = load_quantized(args)
            tokenizer = load_tokenizer(checkpoint_path(args.model), model.vocab_size, args.tokenizer)
            def sessions(image: Image) -> int:
                return sessions_of(args, image.device.sessions, image)
            with open_model(args, model, lambda image: sessions(image) + (args.kept_sessions or 0)) as loaded:
                batch = DeviceBatch(loaded, sessions=sessions(loaded.image), job_seconds=JOB_SECONDS, kept=args.kept_sessions)
                with ServingEngine(batch, args.queue) as engine:
                    name = Path(args.model).stem
                    app  = Server(engine, name, tokenizer, (*model.config.stop_tokens, *tokenizer.stop_tokens), key).app()
                    host, port = there.getsockname()[:2]
                    message    = f"{name}: http://{f'[{host}]' if ':' in host else host}:{port}/, {batch.sessions} texts at once" + \
                        ("" if key or is_loopback(args.host) else "; without an API key: whoever reaches it may use it") + ". Ctrl-C ends it."
                    config     = uvicorn.Config(app, log_level="info" if args.verbose else "critical", timeout_graceful_shutdown=GRACE, lifespan="off")
                    http       = HTTPServer(config, engine, message)
                    try:
                        http.run(sockets=[there])
                    finally:
                        engine.close()
                        save_json(args.json, {"model": args.model, "texts": engine.texts, "prompt_tokens": engine.prompt_tokens,
                            "generated_tokens": engine.generated_tokens, **device_summary(batch.figures, loaded.device.info)})
        except ValueError as error: # CheckpointError is one.
            raise UsageError(str(error)) from error
