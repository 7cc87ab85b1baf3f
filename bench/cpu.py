#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""A model token by token on this machine's processor: llama.cpp, where the package llama_cpp is installed, and PyTorch."""

import importlib.util
import os
import time

from dataclasses import dataclass

import torch

from model.checkpoint import to_network
from model.decoder import Decoder, TorchBlocks
from model.gguf import read_gguf

# Rates --------------------------------------------------------------------------------------------

TOKENS = 16
BYTES  = 2**29 # Read to see how fast memory is.
CORES  = len(os.sched_getaffinity(0)) # This process may use; more threads than that would wait for each other.


@dataclass
class Rate:
    """What ran, how many of the model's bytes each token reads, and seconds a token."""
    name    : str
    bytes   : int
    seconds : float

    @property
    def tokens(self):
        """A second."""
        return 1/self.seconds

    @property
    def bandwidth(self):
        """Bytes a second."""
        return self.bytes/self.seconds


def _seconds(take):
    """Of a token: take(n) runs the n-th one; the first one warms up."""
    take(0)
    start = time.perf_counter()
    for n in range(1, TOKENS + 1):
        take(n)
    return (time.perf_counter() - start)/TOKENS


def memory_bandwidth():
    """Bytes a second that all cores read."""
    data = torch.ones(BYTES//4)
    data.sum()
    start = time.perf_counter()
    for _ in range(4):
        data.sum()
    return 4*BYTES/(time.perf_counter() - start)


def torch_rate(path):
    """PyTorch in float32 on the weights of a GGUF file."""
    network = to_network(read_gguf(path))
    decoder = Decoder(network, TorchBlocks(network.config))
    weights = sum(weight.nbytes for name, weight in network.state_dict().items() if "embedding" not in name)
    return Rate(f"PyTorch {torch.__version__.partition('+')[0]}, float32", weights, _seconds(lambda n: decoder.take([n])))


def llama_rate(path):
    """llama.cpp on a GGUF file; None without the package."""
    if importlib.util.find_spec("llama_cpp") is None:
        return None
    import llama_cpp
    model  = read_gguf(path)
    kind   = model.layers[0].in_proj.type.upper()
    llama  = llama_cpp.Llama(str(path), n_ctx=4*TOKENS, n_threads=CORES, verbose=False)
    result = Rate(f"llama.cpp (llama_cpp {llama_cpp.__version__}), {kind}", os.path.getsize(path), _seconds(lambda n: llama.eval([n])))
    llama.close()
    return result


def measure_cpu(path):
    """([:class:`Rate`], bytes a second that memory gives). path: of a GGUF file whose embedding is its head."""
    torch.set_num_threads(CORES)
    rates = [rate for rate in (llama_rate(path), torch_rate(path)) if rate]
    return rates, memory_bandwidth()
