#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The command serve of stream.py: an HTTP server that clients of OpenAI's completions can use."""

from argparse import ArgumentParser, Namespace

from host.commands.whole_model import add_model_arguments

from tools import environment
from tools.arguments import number

# Command Line -------------------------------------------------------------------------------------

def add_serve_arguments(parser: ArgumentParser) -> None:
    """Add the options of serve; those of the device come on top."""
    add_model_arguments(parser)
    parser.add_argument("--tokenizer", metavar="FILE",
        help="A tokenizer.json, of a checkpoint that comes without one (default: the folder's).")
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS",
        help="Address to listen on; one that others reach needs --api-key-file (default: %(default)s, this machine alone).")
    parser.add_argument("--port", dest="http_port", type=number(int, "an integer", 0, 65535), default=8000, metavar="PORT",
        help="Port to listen on; 0: any that is free (default: %(default)s).")
    parser.add_argument("--api-key-file", metavar="FILE", help="Its first line is the key that clients must give.")
    parser.add_argument("--no-api-key", action="store_true", help="Let everybody in who reaches the address.")
    parser.add_argument("--queue", type=number(int, "an integer", 0), default=32, metavar="N",
        help="Texts that may wait; past it requests are answered 429 (default: %(default)s).")
    parser.add_argument("--sessions", type=number(int, "an integer", 1), metavar="S",
        help="Texts under way at once, up to the device's --pass-tokens (default: as many as there can be).")
    parser.add_argument("--kept-sessions", type=number(int, "an integer", 0), metavar="N",
        help="Sessions that stay in the device's memory, of prompts and of texts that have ended: a prompt that begins with their tokens runs "
             "only what is new. 0: none (default: as many as there is room for, at most 64).")

# Command ------------------------------------------------------------------------------------------

def serve(args: Namespace) -> None:
    """Answer HTTP requests as OpenAI's completions do, with texts that a model writes on the device."""
    environment.require("serve", "fastapi", "uvicorn", "prometheus_client")
    environment.require("model", "torch", "safetensors", "tokenizers", "gguf")
    from host.serving.serve import run # These take seconds to load: for this command only.
    run(args)
