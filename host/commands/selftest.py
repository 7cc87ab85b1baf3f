#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""``stream.py selftest``: whether a device works."""

from argparse import Namespace

import numpy as np

from host.connect import open_device
from host.device.block import run_block
from host.device.case import Case
from host.device.device import Device, Job, version_string
from host.device.model import DeviceDecoder, ModelOnDevice, device_image
from host.device.verified import BLOCK_BYTES, block_checksums
from host.errors import SelfTestFailed
from host.progress import Progress

from model.bitexact import ssm_block
from model.exact.network import ExactNetwork

from operations.config import UNITS, ProgramConfig, ceil_multiple
from operations.protocol import Opcode

from tools.files import save_json
from tools.firmware.model_vectors import PASSES, small_model, small_tokens

# Constants ----------------------------------------------------------------------------------------

SEED         = 7
PLACES       = 8           # Of the data region that the DRAM test writes, from its start to its end.
TEST_BYTES   = {True: 64*1024, False: 4*1024*1024}  # Of DRAM and link, in the simulation and on a board.

# Helpers ------------------------------------------------------------------------------------------

def whole_models(device: Device) -> ProgramConfig | None:
    """What runs whole models; None: nothing does, or not all units are there."""
    program = device.info.program
    return program if program and set(UNITS) <= set(program.units) else None

# Self-Test ----------------------------------------------------------------------------------------

def test_firmware(device: Device, size: int, progress: Progress) -> str:
    """The firmware's vectors through the core, and the engines of whole models."""
    result  = device.run(Job(Opcode.SELFTEST))
    program = whole_models(device)
    tokens  = PASSES*program.pass_tokens if program else 0 # The firmware counts both.
    model   = f", and {tokens} tokens of a model through all engines," if tokens else ""
    return f"{result.units - tokens} head tiles{model} in {result.cycles} cycles"


def test_link(device: Device, size: int, progress: Progress) -> str:
    """Words written, each read back by the host."""
    data    = np.random.default_rng(SEED).bytes(size//4)
    address = device.allocate(len(data), "the link test")
    meter   = progress.meter("link", 2*len(data))
    device.write(address, data, progress=meter)
    if device.read(address, len(data), meter) != data:
        raise SelfTestFailed(f"link: {len(data)} bytes at 0x{address:08x} read back differently.")
    statistics = device.transport.statistics
    return f"{len(data)} bytes, {statistics.timeouts} time-outs, {statistics.rewrites} written again"


def test_dram(device: Device, size: int, progress: Progress) -> str:
    """Random data, then its complement, in places from the start of the data region to its end; all are then checked."""
    step   = ceil_multiple(size//PLACES, BLOCK_BYTES)
    base   = ceil_multiple(device.allocate(0), BLOCK_BYTES)
    end    = device.info.data_base + device.info.data_size
    places = [base + (end - base - step)//(PLACES - 1)//BLOCK_BYTES*BLOCK_BYTES*n for n in range(PLACES)]
    data   = [np.frombuffer(np.random.default_rng(SEED + n).bytes(step), np.uint8) for n in range(PLACES)]
    meter  = progress.meter("DRAM", 2*step*PLACES)
    for mask in (0, 0xff):
        for place, content in zip(places, data):
            device.upload(place, (content ^ mask).tobytes(), meter, resume=False)
        for place, content in zip(places, data): # An address line that is stuck shows only when all are written.
            if not np.array_equal(device.checksums(place, step, step), block_checksums((content ^ mask).tobytes(), step)):
                raise SelfTestFailed(f"DRAM: {step} bytes at 0x{place:08x} changed when other places were written.")
    return f"{2*step*PLACES} bytes in {PLACES} places"


def test_core(device: Device, size: int, progress: Progress) -> str:
    """A case of several heads and tokens, against the bit-accurate model."""
    random = np.random.default_rng(SEED)
    config = device.info.config
    P, N   = min(24, config.max_headdim), min(32, config.max_d_state)

    def draw(*shape: int) -> np.ndarray:
        return random.standard_normal(shape).astype(np.float16)

    case   = Case(x=draw(3, 4, P), dt=abs(draw(3, 4)), dA=np.exp(-abs(draw(3, 4))), B=draw(3, 2, N), C=draw(3, 2, N), D=draw(4),
        h0=draw(4, P, N))
    expected = ssm_block(case.x, case.dt, case.dA, case.B, case.C, case.D, case.h0, 0 if config.stochastic_rounding else None)
    for mode in ("prefill", "decode"):
        result = run_block(device, case, mode)
        for name, got, wanted in (("y", result.y, expected[0]), ("h", result.h, expected[1])):
            differ = int((got.view(np.uint16) != wanted.view(np.uint16)).sum())
            if differ:
                raise SelfTestFailed(f"core: {differ} of {got.size} values of {name} differ from the bit-accurate model, {mode}.")
    return "y and state of 3 tokens, bit for bit"


def test_engines(device: Device, size: int, progress: Progress) -> str:
    """A small model, loaded, in a pass of as many tokens as there can be and one of a single token, against the exact model."""
    config = device.info.config
    there  = ModelOnDevice(device, device_image(device, small_model(config)))
    there.load(progress.meter("engines", there.image.size))
    most   = there.image.program.pass_tokens
    tokens = small_tokens(most + 1)
    found  = DeviceDecoder(there).logits(tokens)
    wanted = ExactNetwork(there.image.model, seed=0 if config.stochastic_rounding else None)(tokens)[0]
    differ = found.view(np.uint32) != wanted.view(np.uint32)
    for count, part in ((most, differ[:most]), (1, differ[most:])):
        if part.any():
            raise SelfTestFailed(f"engines: {part.sum()} of {part.size} logits differ from the exact model's, pass of {count} "
                f"{'token' if count == 1 else 'tokens'}.")
    return f"logits of {len(tokens)} tokens of a model, bit for bit"


# Those of a device; "engines" of one that runs whole models.
TESTS = {"firmware": test_firmware, "link": test_link, "DRAM": test_dram, "core": test_core, "engines": test_engines}


def selftest(args: Namespace) -> None:
    """Test firmware, link, DRAM, core, and the engines of whole models."""
    results = {}
    with open_device(args, args.log) as device, Progress() as progress:
        size = min(TEST_BYTES[args.transport == "sim"], device.info.data_size//2)
        for name, test in TESTS.items():
            if test is test_engines and not whole_models(device):
                continue
            results[name] = test(device, size, progress)
            progress.close()
            print(f"{name:<10} passed: {results[name]}", flush=True)
        summary = {
            "passed"    : True,
            "tests"     : results,
            "lanes"     : device.info.lanes,
            "transport" : device.transport.name,
            "firmware"  : version_string(device.info.firmware_version),
        }
    save_json(args.json, summary)
