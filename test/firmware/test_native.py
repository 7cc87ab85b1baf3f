#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The firmware's ring, checks, scheduler, driver and self-test, compiled for the host against a fake SoC.

AddressSanitizer watches every access: only info block, ring and the self-test's scratch are open to the CPU.
"""

import subprocess

from dataclasses import replace

import numpy as np
import pytest

from hypothesis import HealthCheck, given, settings, strategies as st

from litex.build.sim import SimPlatform

from litex.soc.integration.export import get_soc_header
from litex.soc.integration.soc_core import SoCMini


from cases import random_case
from native import build as native
from native.device import DATA_BASE, RAM_BASE, RAM_END, Device

from model.bitexact import ssm_block
from model.exact.network import ExactNetwork
from model.machine import Machine

from operations.config import (ALIGNMENT, DATA_WIDTHS, GATEWARE_VERSION, UNITS, MemoryConfig, ProgramConfig, SSMConfig, SystemConfig,
    ceil_multiple)
from operations.image import ProgramKind
from operations.operations import Engine, JobFlag, Opcode
from operations.protocol import INFO_MAGIC, JOB_BYTES, PROTOCOL_VERSION, RING_ENTRIES, RING_OFFSET, TABLE_OFFSET, Error, Status
from operations.ssm import CAPABILITIES, Geometry, pack_bc, pack_state, pack_x, unpack_state, unpack_y
from operations.timeouts import checksum_timeout, ssm_timeout

from soc.accelerator import add_ssm

from tools.firmware import bootrom, vectors
from tools.firmware.model_vectors import PASSES, UNTOUCHED, model_vector, small_tokens, squeeze
from tools.firmware.build import DIRECTORY, BuildError, build, built_config, write_headers

# Constants ----------------------------------------------------------------------------------------

CONFIG = SSMConfig()

INTERRUPT = 4 # Flag of a descriptor.

REGIONS = ("x_address", "bc_address", "y_address", "state_in", "state_out")

# Fixtures -----------------------------------------------------------------------------------------

@pytest.fixture(scope="session")
def start(tmp_path_factory):
    """start(config, built_for): a device whose core is of a configuration, its firmware built for another one, once."""
    devices = {}

    def start(config=CONFIG, built_for=CONFIG):
        if built_for not in devices:
            devices[built_for] = Device(native.build(str(tmp_path_factory.mktemp("native")), built_for))
        devices[built_for].power_up(lanes=config.lanes, max_headdim=config.max_headdim,
            max_d_state=config.max_d_state, queue_depth=config.queue_depth)
        return devices[built_for]

    yield start
    for device in devices.values():
        device.close()


@pytest.fixture
def device(start):
    return start()

# Helpers ------------------------------------------------------------------------------------------

def region_bytes(geometry, tokens):
    """Bytes of the regions of a job, by the name of its address."""
    return dict(zip(REGIONS, (
        tokens*geometry.heads*geometry.x_record_bytes,
        tokens*geometry.groups*geometry.bc_record_bytes,
        tokens*geometry.heads*geometry.y_record_bytes,
        geometry.heads*geometry.tile_bytes,
        geometry.heads*geometry.tile_bytes)))


def small_job(heads=2, headdim=8, d_state=16, groups=1, tokens=3, config=CONFIG, **words):
    """A good job: its regions one after the other."""
    geometry = Geometry(config, heads, headdim, d_state, groups)
    job      = dict(heads=heads, headdim=headdim, d_state=d_state, groups=groups, tokens=tokens)
    address  = DATA_BASE
    for name, size in region_bytes(geometry, tokens).items():
        job[name] = address
        address  += size
    return job | words


def assert_fails(device, error, detail, **words):
    result = device.run(**words)
    assert Error(result["error"])   == error
    assert Status(result["status"]) == Status.FAILED
    assert result["error_detail"]   == detail % 2**32
    return result


def assert_done(device, **words):
    result = device.run(**words)
    assert Error(result["error"])   == Error.NONE
    assert Status(result["status"]) == Status.DONE
    assert result["error_detail"]   == 0
    return result


def compute(device, geometry):
    """A handler of "done" that computes a tile as the gateware would, by the bit-accurate model."""
    head = Geometry(geometry.config, 1, geometry.headdim, geometry.d_state)
    P, N = geometry.headdim, geometry.d_state
    on_chip = {} # Place: state (1, P, N).

    def records(address, stride, size, tokens):
        data = [np.frombuffer(device.read(address + t*stride, size), "<f2") for t in range(tokens)]
        return np.stack(data)

    def handler(tile):
        tokens, first_token = tile.tokens & 0xffff, tile.tokens >> 16
        x  = records(tile.x,  tile.x_stride,  head.x_record_bytes,  tokens)
        bc = records(tile.bc, tile.bc_stride, head.bc_record_bytes, tokens)
        h0 = None
        place = tile.flags >> 8
        if tile.flags & JobFlag.RESIDENT:
            h0 = on_chip[place]
        elif not tile.flags & JobFlag.ZERO_STATE:
            h0 = unpack_state(head, device.read(tile.state_in, head.tile_bytes))
        y, h = ssm_block(x[:, None, 8:8 + P], x[:, :1], x[:, 1:2], bc[:, None, :N],
            bc[:, None, head.d_state_padded:head.d_state_padded + N], x[0, 2:3], h0,
            tile.seed if geometry.config.stochastic_rounding else None)
        on_chip[place] = h
        for t in range(first_token, tokens):
            device.write(tile.y + (t - first_token)*tile.y_stride, vectors.pack_y(head, y[t:t + 1]))
        if not tile.flags & JobFlag.NO_STORE:
            device.write(tile.state_out, pack_state(head, h))

    return handler

# Info Block ---------------------------------------------------------------------------------------

def test_info(start):
    config = SSMConfig(lanes=8, max_headdim=48, max_d_state=64)
    info   = start(config).info()
    assert info["magic"]            == INFO_MAGIC
    assert info["protocol_version"] == PROTOCOL_VERSION
    words  = info["engines"][Engine.SSM]
    for name in ("lanes", "max_headdim", "max_d_state", "max_heads", "max_groups", "max_tokens", "resident_tiles"):
        assert words[name] == getattr(config, name)
    assert not words["stochastic_rounding"]
    assert list(info["engines"]) == [Engine.SSM, Engine.CHECKSUM]
    assert info["firmware_version"] == GATEWARE_VERSION
    assert info["clock_hz"]     == 100_000_000
    assert info["data_base"]    == DATA_BASE
    assert info["data_size"]    == RAM_END - DATA_BASE
    assert info["data_width"]   == native.DATA_WIDTH
    assert info["ring_base"]    == RAM_BASE + RING_OFFSET
    assert info["ring_entries"] == RING_ENTRIES
    assert info["job_bytes"]    == JOB_BYTES
    assert info["boot_count"]   == 1


def test_start_again(device):
    """A started firmware counts its starts and begins with an empty ring."""
    assert_done(device, opcode=Opcode.NOP)
    device.command("start")
    assert device.info()["boot_count"]     == 2
    assert device.csr("mailbox_doorbell")  == 0
    assert device.csr("mailbox_completed") == 0
    device.rung = 0
    assert_done(device, opcode=Opcode.NOP)


@pytest.mark.parametrize("engine, opcodes", [(Engine.SSM, (Opcode.SSM, Opcode.SELFTEST, Opcode.GENERATE)),
    (Engine.CHECKSUM, (Opcode.CHECKSUM,)), (Engine.PROGRAM, (Opcode.GENERATE,))])
def test_absent_engine(tmp_path, engine, opcodes):
    """It is not listed, and its operations are refused; the others run."""
    device = Device(native.build(str(tmp_path), CONFIG, without=(engine.name,), program=ProgramConfig()))
    device.power_up()
    assert list(device.info()["engines"]) == [other for other in Engine if other != engine]
    jobs = {Opcode.NOP: {}, Opcode.SSM: small_job(), Opcode.CHECKSUM: dict(region=DATA_BASE, region_bytes=64, block_bytes=64,
        table=RAM_BASE + TABLE_OFFSET)}
    for opcode in opcodes:
        assert_fails(device, Error.BAD_OPCODE, opcode, opcode=opcode, **jobs.get(opcode, {}))
    for opcode in jobs.keys() - set(opcodes):
        assert_done(device, opcode=opcode, **jobs[opcode])
    device.close()

# Scheduling ---------------------------------------------------------------------------------------

@settings(deadline=None, max_examples=60, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    lanes       = st.sampled_from([4, 16, 32]),
    heads       = st.integers(1, 24),
    group_heads = st.integers(1, 4),
    headdim     = st.integers(1, 64),
    d_state     = st.integers(1, 128),
    tokens      = st.integers(1, 5),
    first_token = st.integers(0, 5),
    flags       = st.integers(0, 3),
    queue_depth = st.sampled_from([2, 8, 32]),
)
def test_descriptors(start, lanes, heads, group_heads, headdim, d_state, tokens, first_token, flags, queue_depth):
    """Every descriptor against the Python geometry."""
    groups      = max(1, heads//group_heads)
    heads       = groups*group_heads
    first_token = min(first_token, tokens)
    config      = SSMConfig(lanes=lanes)
    geometry    = Geometry(config, heads, headdim, d_state, groups)
    device      = start(config)
    device.set(queue_depth=queue_depth)
    job    = small_job(heads, headdim, d_state, groups, tokens, config, first_token=first_token, flags=flags)
    result = assert_done(device, **job)
    assert result["units"] == len(device.tiles) == heads
    first_y = job["y_address"] + first_token*heads*geometry.y_record_bytes
    for head, tile in enumerate(device.tiles):
        assert tile.x         == job["x_address"]  + head*geometry.x_record_bytes
        assert tile.bc        == job["bc_address"] + head//group_heads*geometry.bc_record_bytes
        assert tile.x_stride  == heads*geometry.x_record_bytes
        assert tile.bc_stride == groups*geometry.bc_record_bytes
        assert tile.y_stride  == heads*geometry.y_record_bytes
        assert tile.headdim   == headdim
        assert tile.d_state   == d_state
        assert tile.tokens    == first_token << 16 | tokens
        assert tile.flags     == flags | (INTERRUPT if head == heads - 1 else 0)
        used = {
            "y"         : (first_token < tokens,           first_y,          geometry.y_record_bytes),
            "state_in"  : (not flags & JobFlag.ZERO_STATE, job["state_in"],  geometry.tile_bytes),
            "state_out" : (not flags & JobFlag.NO_STORE,   job["state_out"], geometry.tile_bytes),
        }
        for name, (is_used, address, size) in used.items():
            if is_used:
                assert getattr(tile, name) == address + head*size
            elif name == "y": # Something legal all the same.
                assert job["x_address"] <= tile.y <= tile.x


@pytest.mark.parametrize("seed", range(4))
def test_results(start, seed):
    """A case through layout, firmware and the model of a tile is the model's block, bit for bit; also in two jobs."""
    random   = np.random.default_rng(seed)
    config   = SSMConfig(lanes=(4, 16, 32, 16)[seed])
    groups   = int(random.integers(1, 3))
    T, H     = int(random.integers(2, 5)), groups*int(random.integers(1, 4))
    P, N     = int(random.integers(1, 20)), int(random.integers(1, 40))
    geometry = Geometry(config, H, P, N, groups)
    device   = start(config)
    case     = random_case(random, T, H, P, N, groups)
    job      = small_job(H, P, N, groups, T, config)
    device.on("done", compute(device, geometry))
    device.write(job["state_in"],   pack_state(geometry, case["h0"]))
    device.write(job["x_address"],  pack_x(geometry, case["x"], case["dt"], case["dA"], case["D"]))
    device.write(job["bc_address"], pack_bc(geometry, case["B"], case["C"]))
    assert_done(device, **job)
    sizes = region_bytes(geometry, T)
    y, h  = ssm_block(**case)
    assert unpack_y(geometry, device.read(job["y_address"], sizes["y_address"])).tobytes() == y.tobytes()
    assert unpack_state(geometry, device.read(job["state_out"], sizes["state_out"])).tobytes() == h.tobytes()

    # First token in place, then all tokens replayed without a store, y written from the second on: the same y.
    device.write(job["y_address"], bytes(sizes["y_address"]))
    assert_done(device, **job | dict(tokens=1, state_out=job["state_in"]))
    device.write(job["state_in"], pack_state(geometry, case["h0"]))
    assert_done(device, **job | dict(first_token=1, flags=JobFlag.NO_STORE))
    assert unpack_y(geometry, device.read(job["y_address"], sizes["y_address"])).tobytes() == y.tobytes()


def test_seeds(start):
    """Each head has its own seed, that of the model; without stochastic rounding the register is not there."""
    config   = SSMConfig(lanes=8, stochastic_rounding=True)
    geometry = Geometry(config, 3, 5, 9)
    device   = start(config, config)
    assert device.info()["engines"][Engine.SSM]["stochastic_rounding"]
    case     = random_case(np.random.default_rng(5), 3, 3, 5, 9, 1)
    job      = small_job(3, 5, 9, 1, 3, config, seed=2**32 - 2)
    device.on("done", compute(device, geometry))
    device.write(job["state_in"],   pack_state(geometry, case["h0"]))
    device.write(job["x_address"],  pack_x(geometry, case["x"], case["dt"], case["dA"], case["D"]))
    device.write(job["bc_address"], pack_bc(geometry, case["B"], case["C"]))
    assert_done(device, **job)
    y, h = ssm_block(**case, seed=2**32 - 2)
    assert unpack_y(geometry, device.read(job["y_address"], 9*geometry.y_record_bytes)).tobytes() == y.tobytes()
    assert unpack_state(geometry, device.read(job["state_out"], 3*geometry.tile_bytes)).tobytes() == h.tobytes()

    device = start()
    assert_done(device, **small_job(seed=5))
    assert {tile.seed for tile in device.tiles} == {0}


RESIDENT = SSMConfig(lanes=8, resident_tiles=6)


def test_resident(start):
    """Loaded once, run token by token on chip, stored once: the model's bits, and each head in its place."""
    geometry = Geometry(RESIDENT, 3, 5, 9)
    device   = start(RESIDENT, RESIDENT)
    assert device.info()["engines"][Engine.SSM]["resident_tiles"] == 6
    case     = random_case(np.random.default_rng(5), 4, 3, 5, 9, 1)
    job      = small_job(3, 5, 9, 1, 4, RESIDENT, tile=2)
    x, bc, y = (job[name] for name in ("x_address", "bc_address", "y_address"))
    device.on("done", compute(device, geometry))
    device.write(job["state_in"], pack_state(geometry, case["h0"]))
    device.write(x,  pack_x(geometry, case["x"], case["dt"], case["dA"], case["D"]))
    device.write(bc, pack_bc(geometry, case["B"], case["C"]))
    for t in range(4):
        flags = (JobFlag.RESIDENT if t > 0 else 0) | (JobFlag.NO_STORE if t < 3 else 0)
        assert_done(device, **job | dict(tokens=1, flags=flags, x_address=x + t*3*geometry.x_record_bytes,
            bc_address=bc + t*geometry.bc_record_bytes, y_address=y + t*3*geometry.y_record_bytes))
    expected_y, h = ssm_block(**case)
    assert unpack_y(geometry, device.read(y, 12*geometry.y_record_bytes)).tobytes() == expected_y.tobytes()
    assert unpack_state(geometry, device.read(job["state_out"], 3*geometry.tile_bytes)).tobytes() == h.tobytes()
    assert [tile.flags >> 8 for tile in device.tiles] == [2, 3, 4] # Of the last job.


@pytest.mark.parametrize("tile, heads", [(0, 7), (5, 2), (6, 1), (2**32 - 1, 2)])
def test_resident_out_of_range(start, tile, heads):
    device = start(RESIDENT, RESIDENT)
    words  = small_job(heads, 5, 9, 1, 1, RESIDENT, tile=tile)
    assert_fails(device, Error.BAD_TILE, tile, **words | dict(flags=JobFlag.RESIDENT))
    # What is not to stay may be anywhere, the places taken in turn.
    assert_done(device, **words)
    assert [tile.flags >> 8 for tile in device.tiles] == [(tile + head) % 6 for head in range(heads)]


def test_posts_ahead(device):
    """The queue is kept full, and never overflows."""
    depths = []

    def handler(tile):
        depths.append(len(device.tiles) - len(depths))

    device.on("done", handler)
    device.set(tile_cycles=2000)
    assert_done(device, **small_job(heads=32))
    assert len(depths) == 32
    assert all(depth >= 7 for depth in depths[1:24])


def test_counters(device):
    for heads in (3, 5):
        result = assert_done(device, **small_job(heads=heads))
        assert result["units"]           == heads
        assert result["busy_cycles_low"]   == 1000*heads
        assert result["bytes_read_low"]    == 200*heads*native.DATA_WIDTH//8
        assert result["bytes_written_low"] == 100*heads*native.DATA_WIDTH//8
        assert result["cycles_low"]      >= 100*heads
        assert result["cycles_high"]     == 0


def test_interrupt_is_cleared(device):
    """After a job none is pending, so that none comes again."""
    for heads in (1, 3, 20):
        assert_done(device, **small_job(heads=heads))
        assert device.csr("ssm_ev_pending") == 0


def test_without_interrupt(device):
    """A lost interrupt costs time only."""
    device.set(deaf=1)
    assert_done(device, **small_job())

# Checks of a Request ------------------------------------------------------------------------------

@pytest.mark.parametrize("error, word, value", [
    (Error.BAD_VERSION,     "version",     0),
    (Error.BAD_VERSION,     "version",     PROTOCOL_VERSION + 1),
    (Error.BAD_OPCODE,      "opcode",      max(Opcode) + 1),
    (Error.BAD_OPCODE,      "opcode",      0xffffffff),
    (Error.BAD_FLAGS,       "flags",       4),
    (Error.BAD_FLAGS,       "flags",       JobFlag.RESIDENT), # Not in this gateware.
    (Error.BAD_FLAGS,       "flags",       0x80000000),
    (Error.BAD_HEADS,       "heads",       0),
    (Error.BAD_HEADS,       "heads",       CONFIG.max_heads + 1),
    (Error.BAD_HEADS,       "heads",       0xffffffff),
    (Error.BAD_HEADDIM,     "headdim",     0),
    (Error.BAD_HEADDIM,     "headdim",     CONFIG.max_headdim + 1),
    (Error.BAD_D_STATE,     "d_state",     0),
    (Error.BAD_D_STATE,     "d_state",     CONFIG.max_d_state + 1),
    (Error.BAD_GROUPS,      "groups",      0),
    (Error.BAD_GROUPS,      "groups",      3), # Does not divide heads = 2.
    (Error.BAD_GROUPS,      "groups",      CONFIG.max_groups + 1),
    (Error.BAD_TOKENS,      "tokens",      0),
    (Error.BAD_TOKENS,      "tokens",      CONFIG.max_tokens + 1),
    (Error.BAD_FIRST_TOKEN, "first_token", 4), # tokens = 3.
    (Error.BAD_FIRST_TOKEN, "first_token", 0xffffffff),
    *((Error.BAD_ALIGNMENT, region,        DATA_BASE + 0x10008) for region in REGIONS),
    *((Error.BAD_ADDRESS,   region,        address)
        for region  in REGIONS
        for address in (0, DATA_BASE - ALIGNMENT, RAM_END - ALIGNMENT, RAM_END, 2**32 - ALIGNMENT)),
    (Error.OVERLAP,         "y_address",   DATA_BASE),
])
def test_bad_word(device, error, word, value):
    assert_fails(device, error, value, **small_job() | {word: value})
    assert not device.tiles
    assert_done(device, **small_job())


def test_groups_beyond_the_maximum(device):
    """Also where they divide the heads."""
    groups = CONFIG.max_groups + 1
    assert_fails(device, Error.BAD_GROUPS, groups, **small_job() | dict(heads=groups, groups=groups))


@pytest.mark.parametrize("opcode", [Opcode.NOP, Opcode.SELFTEST])
def test_flags_of_other_opcodes(device, opcode):
    assert_fails(device, Error.BAD_FLAGS, 1, opcode=opcode, flags=1)


def test_sizes_beyond_32_bits(start):
    """Regions of multiples of 2**32 bytes are not taken for empty ones."""
    config = SSMConfig(max_heads=65535)
    job    = dict(heads=2**15, headdim=64, d_state=16, groups=1, tokens=2**13, flags=3)
    sizes  = region_bytes(Geometry(config, 2**15, 64, 16), 2**13)
    assert sizes["x_address"] % 2**32 == sizes["y_address"] % 2**32 == 0
    job   |= dict(x_address=DATA_BASE, bc_address=DATA_BASE, y_address=DATA_BASE)
    assert_fails(start(config, config), Error.BAD_ADDRESS, DATA_BASE, **job)


def test_state_beyond_32_bits(start):
    """A state of 2**32 bytes is not taken for none."""
    config = SSMConfig(max_heads=65535, max_headdim=256, max_d_state=512)
    device = start(config, config)
    device.set(max_headdim=256, max_d_state=512)
    job    = dict(heads=2**14, headdim=256, d_state=512, groups=1, tokens=1, x_address=DATA_BASE, first_token=1,
        bc_address=DATA_BASE, state_in=DATA_BASE + ALIGNMENT, state_out=DATA_BASE + 2*ALIGNMENT)
    assert Geometry(config, 2**14, 256, 512).tile_bytes*2**14 == 2**32
    for flags, region in ((0, "state_in"), (JobFlag.ZERO_STATE, "state_out"), (JobFlag.NO_STORE, "state_in")):
        assert_fails(device, Error.BAD_ADDRESS, job[region], **job | dict(flags=flags))
        assert not device.tiles


def test_exact_fit(device):
    """A region may end where the data region ends."""
    geometry = Geometry(CONFIG, 2, 8, 16)
    for name, size in region_bytes(geometry, 3).items():
        assert_done(device, **small_job(**{name: RAM_END - size}))
        beyond = RAM_END - size + ALIGNMENT
        assert_fails(device, Error.BAD_ADDRESS, beyond, **small_job(**{name: beyond}))


@pytest.mark.parametrize("other",   REGIONS)
@pytest.mark.parametrize("written", ["y_address", "state_out"])
def test_overlap(device, written, other):
    """A written region that shares its first or last ALIGNMENT bytes with another one."""
    sizes = region_bytes(Geometry(CONFIG, 2, 8, 16), 3)
    job   = small_job() | {region: DATA_BASE + 0x10000*(k + 1) for k, region in enumerate(REGIONS)}
    assert_done(device, **job)
    if other == written:
        return
    for address in (job[other] + sizes[other] - ALIGNMENT, job[other] - sizes[written] + ALIGNMENT):
        clash = job | {written: address}
        first = "y_address" if other == "y_address" else written # The one that is named.
        assert_fails(device, Error.OVERLAP, clash[first], **clash)
    for address in (job[other] + sizes[other], job[other] - sizes[written]):
        assert_done(device, **job | {written: address})


def test_overlap_allowed(device):
    """The state in place; regions that are only read."""
    job = small_job()
    assert_done(device, **job | dict(state_out=job["state_in"]))
    assert_done(device, **job | dict(bc_address=job["x_address"]))


def test_unused_regions(device):
    """The address of a region that the job does not touch is not looked at."""
    assert_done(device, **small_job(flags=JobFlag.ZERO_STATE, state_in=1))
    assert_done(device, **small_job(flags=JobFlag.NO_STORE,   state_out=1))
    assert_done(device, **small_job(first_token=3,            y_address=1))
    assert_done(device, **small_job(flags=JobFlag.ZERO_STATE, state_in=DATA_BASE))


addresses = st.one_of(
    st.integers(0, (RAM_END - DATA_BASE)//ALIGNMENT).map(lambda n: DATA_BASE + ALIGNMENT*n),
    st.integers(0, 64).map(lambda n: DATA_BASE + 0x1000*n),
    st.integers(0, 2**32 - 1))


def sizes(maximum):
    return st.one_of(st.integers(1, min(maximum, 8)), st.integers(1, maximum + 1), st.integers(0, 2**32 - 1))


@settings(deadline=None, max_examples=400, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    request = st.fixed_dictionaries(dict(
        heads       = sizes(CONFIG.max_heads),
        headdim     = sizes(CONFIG.max_headdim),
        d_state     = sizes(CONFIG.max_d_state),
        groups      = st.one_of(st.just(1), sizes(CONFIG.max_groups)),
        tokens      = sizes(CONFIG.max_tokens),
        x_address   = addresses,
        bc_address  = addresses,
        y_address   = addresses,
        state_in    = addresses,
        state_out   = addresses,
        first_token = st.one_of(st.just(0), sizes(CONFIG.max_tokens)),
        timeout     = st.integers(0, 2**32 - 1),
    )),
    version = st.one_of(st.just(PROTOCOL_VERSION), st.integers(0, 2**32 - 1)),
    flags   = st.one_of(st.integers(0, 3), st.integers(0, 2**32 - 1)),
    in_place = st.booleans(),
)
def test_random_requests(start, request, version, flags, in_place):
    """Whatever is asked for: an answer, and no descriptor that leads outside the regions named."""
    device = start()
    if in_place:
        request = request | dict(state_out=request["state_in"])
    result = device.run(version=version, flags=flags, **request)
    assert Status(result["status"]) in (Status.DONE, Status.FAILED)
    assert (Error(result["error"]) == Error.NONE) == (result["status"] == Status.DONE)
    if Error(result["error"]) not in (Error.NONE, Error.TIMEOUT):
        assert not device.tiles
    if not device.tiles:
        return
    geometry = Geometry(CONFIG, request["heads"], request["headdim"], request["d_state"], request["groups"])
    named    = region_bytes(geometry, request["tokens"])
    tokens   = request["tokens"]

    def inside(name, first, last_end):
        assert request[name] <= first and last_end <= request[name] + named[name]
        assert DATA_BASE <= first and last_end <= RAM_END

    for tile in device.tiles:
        assert tile.tokens == request["first_token"] << 16 | tokens
        last = tokens - 1
        inside("x_address",  tile.x,  tile.x  + last*tile.x_stride  + geometry.x_record_bytes)
        inside("bc_address", tile.bc, tile.bc + last*tile.bc_stride + geometry.bc_record_bytes)
        if request["first_token"] < tokens:
            written = tokens - 1 - request["first_token"]
            inside("y_address", tile.y, tile.y + written*tile.y_stride + geometry.y_record_bytes)
        if not tile.flags & JobFlag.ZERO_STATE:
            inside("state_in",  tile.state_in,  tile.state_in  + geometry.tile_bytes)
        if not tile.flags & JobFlag.NO_STORE:
            inside("state_out", tile.state_out, tile.state_out + geometry.tile_bytes)
        for address in (tile.x, tile.bc, tile.y, tile.state_in, tile.state_out):
            assert DATA_BASE <= address < RAM_END and address % ALIGNMENT == 0

# Ring ---------------------------------------------------------------------------------------------

def test_nothing_rung(device):
    device.post(0, **small_job())
    assert device.poll() == 0
    assert device.result(0)["status"] == Status.EMPTY


def test_full_ring(device):
    """RING_ENTRIES jobs at once are taken in order, one a poll, each timed from the end of the one before."""
    for index in range(RING_ENTRIES):
        device.post(index, sequence=1000 + index, **small_job(heads=index + 1))
    device.ring(RING_ENTRIES)
    for index in range(RING_ENTRIES):
        assert device.poll() == index + 1
        result = device.result(index)
        assert result["status"]          == Status.DONE
        assert result["result_sequence"] == 1000 + index
        assert result["units"]           == index + 1
        assert result["cycles_low"]      < 3000 + 100*(index + 1)


def test_status_while_running(device):
    device.on("push", lambda tile: statuses.append(device.result(0)["status"]))
    statuses = []
    assert_done(device, **small_job())
    assert statuses == [Status.RUNNING, Status.RUNNING]


def test_request_changed_while_running(device):
    """What was checked is what is run."""
    def handler(tile):
        if len(device.tiles) == 1:
            device.post(0, **small_job(heads=1, x_address=0, y_address=0, state_out=0))

    device.on("push", handler)
    job    = small_job(heads=12)
    result = device.run(**job)
    assert result["status"] == Status.DONE
    assert [tile.state_out for tile in device.tiles] == [job["state_out"] + 8*16*2*head for head in range(12)]


def test_doorbell_while_running(device):
    def handler(tile):
        if len(device.tiles) == 1:
            device.post(1, **small_job(heads=1))
            device.csr("mailbox_doorbell", 2)

    device.post(0, **small_job())
    device.on("push", handler)
    device.ring(1)
    assert device.poll() == 1
    assert device.poll() == 2
    assert device.result(1)["status"] == Status.DONE
    assert device.result(1)["cycles_low"] < 2000


@pytest.mark.parametrize("doorbell", [RING_ENTRIES + 1, 1000, 2**31 - 1])
def test_overrun(device, doorbell):
    """All slots are answered, no job is run, and the ring works again from there."""
    for index in range(RING_ENTRIES):
        device.post(index, sequence=500 + index, **small_job())
    device.ring(doorbell)
    assert device.poll() == doorbell
    assert not device.tiles
    for index in range(RING_ENTRIES):
        result = device.result(index)
        assert Status(result["status"]) == Status.FAILED
        assert Error(result["error"])   == Error.RING_OVERRUN
        assert result["error_detail"]   == doorbell
        assert result["result_sequence"] == 500 + index
    assert_done(device, **small_job())


@pytest.mark.parametrize("doorbell", [0, 1, 2**31 + 2, 2**32 - 1])
def test_doorbell_backwards(device, doorbell):
    """A doorbell below completed is a late copy of an earlier one: nothing happens."""
    assert_done(device, opcode=Opcode.NOP)
    assert_done(device, opcode=Opcode.NOP)
    device.csr("mailbox_doorbell", doorbell)
    assert device.poll() == 2
    assert_done(device, **small_job())


def test_indices_wrap(device):
    for doorbell in (2**31 - 1, 2**32 - 8): # By overruns.
        device.ring(doorbell)
        assert device.poll() == doorbell
    for index in range(2**32 - 8, 2**32 + 24):
        device.rung = index % 2**32
        device.post(index, **small_job(heads=1))
        device.ring(index + 1)
        assert device.poll() == (index + 1) % 2**32
        result = device.result(index)
        assert result["status"]          == Status.DONE
        assert result["result_sequence"] == index % 2**32

# Jobs Back to Back --------------------------------------------------------------------------------

def chain(heads, tokens=1, distance=0x8000, **words):
    """Two jobs, each with inputs and outputs of its own; the second one's state is the first one's, in place."""
    jobs = [small_job(heads=heads, tokens=tokens) | words for _ in range(2)]
    for region in ("x_address", "bc_address", "y_address"):
        jobs[1][region] += distance
    for job in jobs:
        job["state_out"] = job["state_in"]
    return jobs


def run_chain(device, jobs):
    """Rings for all jobs at once. Returns, for each tile pushed, how many were completed by then."""
    for index, job in enumerate(jobs):
        device.post(index, sequence=index, **job)
    done, seen = [], []
    device.on("done", lambda tile: done.append(tile))
    device.on("push", lambda tile: seen.append(len(done)))
    device.ring(len(jobs))
    for index in range(len(jobs)):
        assert device.poll() == index + 1
    return seen


@pytest.mark.parametrize("heads", [8, 24])
def test_next_job_follows(device, heads):
    """Its tiles are pushed while the last ones of the job before are in flight, none before its state is there."""
    device.set(tile_cycles=2000)
    seen = run_chain(device, chain(heads))
    assert all(device.result(index)["status"] == Status.DONE for index in range(2))
    assert min(seen[heads:]) < heads
    assert all(done > head for head, done in enumerate(seen[heads:])) # The head's tile of the job before.
    tiles = device.tiles
    assert [tile.x for tile in tiles[heads:]] == [tile.x + 0x8000 for tile in tiles[:heads]]
    assert [tile.state_in for tile in tiles[heads:]] == [tile.state_out for tile in tiles[:heads]]


@pytest.mark.parametrize("change", [
    dict(heads=4),                                        # Fewer heads than the queue holds: their state may not be there.
    dict(heads=8, second=dict(headdim=4)),                # Another geometry.
    dict(heads=8, second=dict(d_state=15)),
    dict(heads=8, second=dict(heads=9)),
    dict(heads=8, second=dict(groups=2, bc_address=DATA_BASE + 0x40000)),
    dict(heads=8, read="x_address",  written="y_address"), # What the first one writes, the second one reads.
    dict(heads=8, read="bc_address", written="y_address"),
    dict(heads=8, read="x_address",  written="state_out"),
    dict(heads=8, read="state_in",   written="y_address"),
    dict(heads=CONFIG.queue_depth - 1),                   # One head too few.
    dict(heads=8, first=dict(y_address=DATA_BASE + 0x40000), # Both write it.
        second=dict(state_out=DATA_BASE + 0x40000, flags=JobFlag.ZERO_STATE)),
    dict(heads=8, first=dict(state_out=DATA_BASE + 0x40000),
        second=dict(y_address=DATA_BASE + 0x40000, flags=JobFlag.ZERO_STATE | JobFlag.NO_STORE)),
    dict(heads=8, first=dict(state_out=DATA_BASE + 0x40000), # The state, but not head by head.
        second=dict(state_in=DATA_BASE + 0x40100, flags=JobFlag.NO_STORE)),
])
def test_next_job_waits(device, change):
    """Where the next one depends on the job before, or is of another kind, it begins when that one is completed."""
    heads     = change["heads"]
    jobs      = chain(heads)
    jobs[0]  |= change.get("first",  {})
    jobs[1]  |= change.get("second", {})
    if "read" in change:
        jobs[1] |= dict(flags=JobFlag.NO_STORE)
        jobs[1][change["read"]] = jobs[0][change["written"]]
    device.set(tile_cycles=2000)
    seen = run_chain(device, jobs)
    assert all(device.result(index)["status"] == Status.DONE for index in range(2))
    assert min(seen[heads:]) == heads


def test_few_heads_follow_where_nothing_is_stored(device):
    """Replayed tokens: the stored state is only read."""
    device.set(tile_cycles=2000)
    seen = run_chain(device, chain(4, flags=JobFlag.NO_STORE))
    assert min(seen[4:]) < 4


def test_full_ring_back_to_back(device):
    """Each job is answered in its turn; together they take the time of their tiles."""
    device.set(tile_cycles=500)
    jobs = [chain(8, distance=0x1000*index)[1] for index in range(RING_ENTRIES)]
    run_chain(device, jobs)
    results = [device.result(index) for index in range(RING_ENTRIES)]
    assert [result["result_sequence"] for result in results] == list(range(RING_ENTRIES))
    assert all(result["status"] == Status.DONE and result["units"] == 8 for result in results)
    total = sum(result["cycles_low"] for result in results)
    assert 8*500*RING_ENTRIES <= total < 8*500*RING_ENTRIES + 3000
    assert sum(result["busy_cycles_low"] for result in results) == 8*1000*RING_ENTRIES


def test_a_failing_job_takes_the_one_behind_along(device):
    """What had begun is not begun again: its state may be half stored. The third job runs."""
    jobs = chain(8) + chain(8)[1:]
    for index, job in enumerate(jobs):
        device.post(index, sequence=70 + index, timeout=4000 if index == 0 else 0, **job)
    device.set(hang=1, tile_cycles=100)
    device.ring(3)
    assert device.poll() == 1
    device.set(hang=0)
    assert device.poll() == 2
    assert device.poll() == 3
    errors = [Error(device.result(index)["error"]) for index in range(3)]
    # With a full queue nothing of the second job was pushed: it had begun all the same.
    assert errors == [Error.TIMEOUT, Error.ABORTED, Error.NONE]
    assert device.result(1)["error_detail"] == 70
    assert [device.result(index)["units"] for index in range(3)] == [0, 0, 8]


def test_a_failing_job_leaves_others_alone(device):
    """One that had not begun runs as if nothing had happened."""
    jobs = chain(4)
    for index, job in enumerate(jobs):
        device.post(index, timeout=4000 if index == 0 else 0, **job)
    device.set(hang=1)
    device.ring(2)
    assert device.poll() == 1
    device.set(hang=0)
    assert device.poll() == 2
    assert [Error(device.result(index)["error"]) for index in range(2)] == [Error.TIMEOUT, Error.NONE]


def test_bad_job_behind_a_running_one(device):
    """It is answered with its own error, and only in its turn."""
    jobs = chain(8) + chain(8)
    jobs[1]["headdim"] = 0
    for index, job in enumerate(jobs):
        device.post(index, **job)
    device.ring(4)
    for index in range(4):
        assert device.poll() == index + 1
    assert [Error(device.result(index)["error"]) for index in range(4)] == [Error.NONE, Error.BAD_HEADDIM, Error.NONE,
        Error.NONE]


def test_other_opcodes_in_between(device):
    device.on("done", selftest_handler(device, CONFIG))
    for index, words in enumerate((small_job(heads=8), dict(opcode=Opcode.NOP), small_job(heads=8),
        dict(opcode=Opcode.SELFTEST), small_job(heads=8))):
        device.post(index, **words)
    device.ring(5)
    for index in range(5):
        assert device.poll() == index + 1
        assert device.result(index)["status"] == Status.DONE


def test_restart_with_a_job_behind(device):
    """The host asks for the boot ROM in mid-run: a new start knows nothing of the jobs."""
    for index, job in enumerate(chain(8)):
        device.post(index, **job)
    device.set(hang=1)
    device.on("push", lambda tile: device.csr("mailbox_boot", 0xffffffff))
    device.ring(2)
    assert device.poll() == 1
    assert Error(device.result(0)["error"]) == Error.TIMEOUT
    device.set(hang=0)
    device.csr("mailbox_boot", 0)
    device.on("push", lambda tile: None)
    device.command("start")
    device.rung = 0
    assert device.poll() == 0
    assert_done(device, **small_job())

# Time-outs and Gateware Errors --------------------------------------------------------------------

def test_timeout(device):
    device.set(hang=1)
    result = assert_fails(device, Error.TIMEOUT, 1 | 6 << 8, timeout=5000, **small_job())
    assert result["units"] == 0
    assert 5000 <= result["cycles_low"] < 10000
    device.set(hang=0)
    assert_done(device, **small_job())


@pytest.mark.parametrize("job", [small_job(), dict(opcode=Opcode.SELFTEST),
    dict(opcode=Opcode.CHECKSUM, region=DATA_BASE, region_bytes=64, block_bytes=64, table=RAM_BASE + TABLE_OFFSET)],
    ids=["SSM", "SELFTEST", "CHECKSUM"])
@pytest.mark.parametrize("deaf", [0, 1])
def test_completed_too_late(device, job, deaf):
    """A job's own time-out counts also where the job is completed before anybody looks."""
    device.on("done", selftest_handler(device, CONFIG) if job.get("opcode") == Opcode.SELFTEST else lambda tile: None)
    device.set(deaf=deaf)
    cycles = assert_done(device, **job)["cycles_low"]
    for timeout in (1, cycles//2):
        result = device.run(**job, timeout=timeout)
        assert (Status(result["status"]), Error(result["error"])) == (Status.FAILED, Error.TIMEOUT)
    assert_done(device, **job, timeout=2*cycles)
    assert_done(device, **job)


def test_selftest_has_one_timeout(device):
    """For all of its vectors together."""
    device.on("done", selftest_handler(device, CONFIG))
    cycles = assert_done(device, opcode=Opcode.SELFTEST)["cycles_low"]
    result = device.run(opcode=Opcode.SELFTEST, timeout=cycles*3//4) # More than any vector takes.
    assert Error(result["error"]) == Error.TIMEOUT and result["units"] > 0


def test_timeout_while_posting(device):
    device.set(hang=1)
    assert_fails(device, Error.TIMEOUT, 1, timeout=5000, **small_job(heads=20))
    assert len(device.tiles) == CONFIG.queue_depth
    device.set(hang=0)
    assert_done(device, **small_job(heads=20))


def test_own_timeout(device):
    """Without a time-out in the job the firmware ends it anyway, but not one that is merely slow."""
    device.set(hang=1, access_cycles=100)
    assert_fails(device, Error.TIMEOUT, 1 | 7 << 8, **small_job(heads=1))
    tile_cycles = 3*(8*16//4 + (32 + 64 + 16)//16) + 2*8*16*2//16 # Fewest lanes, no overlap.
    device.set(hang=0, tile_cycles=4*tile_cycles)
    assert_done(device, **small_job(heads=24))


@pytest.mark.parametrize("sizes", [(1, 8, 16, 1, 1), (4, 64, 128, 2, 7)])
def test_own_timeout_is_the_hosts(device, sizes):
    """Both go by operations/timeouts.py."""
    device.set(hang=1, access_cycles=100)
    *block, tokens = sizes
    cycles = device.run(**small_job(*sizes))["cycles_low"]
    assert 0 <= cycles - ssm_timeout(Geometry(CONFIG, *block), tokens) < 60_000
    region = dict(region=DATA_BASE, region_bytes=4096, block_bytes=1024, table=RAM_BASE + TABLE_OFFSET)
    cycles = device.run(opcode=Opcode.CHECKSUM, **region)["cycles_low"]
    assert 0 <= cycles - checksum_timeout(4096, 1024) < 20_000


def test_stuck_reset(device):
    """A core that does not come back from its reset fails this job and the next, in bounded time."""
    device.set(hang=1, stuck=1, access_cycles=1000)
    assert_fails(device, Error.TIMEOUT, 1 | 6 << 8, timeout=5000, **small_job())
    assert_fails(device, Error.TIMEOUT, 1 | 8 << 8, timeout=5000, **small_job())
    assert not device.tiles
    device.set(hang=0, stuck=0)
    assert_done(device, **small_job())


def test_reboot_request_ends_job(device):
    device.on("push", lambda tile: device.csr("mailbox_boot", 0xffffffff))
    device.set(hang=1)
    result = assert_fails(device, Error.TIMEOUT, 1 | 7 << 8, **small_job(heads=1))
    assert result["cycles_low"] < 5000


@pytest.mark.parametrize("errors", [1, 2, 4, 8, 0xff])
@pytest.mark.parametrize("heads", [1, 20])
def test_gateware_error(device, errors, heads):
    device.set(push_errors=errors)
    assert_fails(device, Error.GATEWARE, errors, **small_job(heads=heads))
    result = assert_done(device, **small_job(heads=heads))
    assert result["busy_cycles_low"] == 1000*heads


def test_gateware_error_without_interrupt(device):
    device.set(push_errors=2, deaf=1)
    assert_fails(device, Error.GATEWARE, 2, **small_job())

# Self-test ----------------------------------------------------------------------------------------

def selftest_handler(device, config):
    """The model of a tile for whatever geometry a vector has."""
    return lambda tile: compute(device, Geometry(config, 1, tile.headdim, tile.d_state))(tile)


@pytest.mark.parametrize("config", [CONFIG, SSMConfig(lanes=32), SSMConfig(lanes=8, max_headdim=2, max_d_state=8),
    SSMConfig(lanes=4, stochastic_rounding=True)], ids=lambda config: f"{config.lanes} lanes")
def test_selftest(start, config):
    device = start(config, config)
    device.on("done", selftest_handler(device, config))
    result = assert_done(device, opcode=Opcode.SELFTEST)
    assert result["units"] == sum(vector.geometry.heads for vector in vectors.selftest_vectors(config))


@pytest.mark.parametrize("vector", range(len(vectors.selftest_vectors(CONFIG))))
@pytest.mark.parametrize("region", ["y", "state_out"])
def test_selftest_mismatch(device, vector, region):
    """One wrong bit of any vector's results is found."""
    first = sum(one.geometry.heads for one in vectors.selftest_vectors(CONFIG)[:vector])
    right = selftest_handler(device, CONFIG)
    count = 0

    def handler(tile):
        nonlocal count
        right(tile)
        if count == first:
            address = getattr(tile, region)
            device.write(address, bytes([device.read(address, 1)[0] ^ 1]))
        count += 1

    device.on("done", handler)
    assert_fails(device, Error.SELFTEST_MISMATCH, vector, opcode=Opcode.SELFTEST)


def test_selftest_of_a_dead_core(device):
    assert_fails(device, Error.SELFTEST_MISMATCH, 0, opcode=Opcode.SELFTEST) # Completes, but writes nothing.
    device.set(hang=1)
    assert_fails(device, Error.TIMEOUT, 1 | 6 << 8, opcode=Opcode.SELFTEST, timeout=3000)


def test_selftest_of_other_lanes(start):
    """A firmware built for other lanes has no vectors for the core."""
    device = start(SSMConfig(lanes=8))
    assert_fails(device, Error.SELFTEST_MISMATCH, 0, opcode=Opcode.SELFTEST)
    assert not device.tiles


@pytest.mark.parametrize("lanes", [4, 8, 16, 32])
def test_vectors_are_small(lanes):
    for vector in vectors.selftest_vectors(SSMConfig(lanes=lanes)):
        assert vector.geometry.d_state % vector.geometry.config.d_state_multiple == 0
    text = vectors.vectors_header(SSMConfig(lanes=lanes))
    assert 4*text.count("0x") < 8192

# Self-test of Whole Models ------------------------------------------------------------------------

MODELS = [(CONFIG, ProgramConfig(1)), (CONFIG, ProgramConfig(8)), (SSMConfig(lanes=4, stochastic_rounding=True), ProgramConfig(2))]
WIDTH  = native.DATA_WIDTH


@pytest.fixture(scope="module")
def with_programs(tmp_path_factory):
    """with_programs(config, program): a device that runs whole models, built once."""
    devices = {}

    def start(config, program):
        key = config, program
        if key not in devices:
            devices[key] = Device(native.build(str(tmp_path_factory.mktemp("native")), config, program=program))
        devices[key].power_up(lanes=config.lanes)
        devices[key].on("done", selftest_handler(devices[key], config))
        return devices[key]

    yield start
    for device in devices.values():
        device.close()


def run_programs(device, config, program, after=lambda kind, machine, vector: None):
    """From now on the golden machine runs programs. after: called with a program's kind, the machine and the vector once it has."""
    vector  = model_vector(config, program, WIDTH)
    size    = ceil_multiple(vector.size, ALIGNMENT)
    base    = RAM_END - size
    kinds   = {place: kind for (kind, _), place in vector.image.program_places.items()}
    machine = Machine(np.zeros(size, np.uint8), WIDTH, config, program.elements, program.activations, program.pass_tokens)

    def handler(started):
        machine.memory[:]  = np.frombuffer(device.read(base, size), np.uint8)
        machine.registers  = {register: address - base for register, address in started.bases.items()}
        machine.tokens     = [*started.tokens, *[0]*(program.pass_tokens - len(started.tokens))]
        machine.seed       = started.seed if config.stochastic_rounding else None
        machine.zero_state = bool(started.zero_state)
        machine.no_store   = bool(started.no_store)
        machine.run(started.address - base)
        after(kinds[started.address - base], machine, vector)
        device.write(base, machine.memory.tobytes())

    device.on("program", handler)


@pytest.mark.parametrize("config, program", MODELS, ids=["1 token", "8 tokens", "stochastic"])
def test_selftest_of_a_model(with_programs, config, program):
    device = with_programs(config, program)
    run_programs(device, config, program)
    result = assert_done(device, opcode=Opcode.SELFTEST)
    tokens = PASSES*program.pass_tokens
    assert result["units"] == sum(vector.geometry.heads for vector in vectors.selftest_vectors(config)) + tokens
    assert [token for started in device.programs for token in started.tokens] == small_tokens(tokens)
    assert result["busy_cycles_low"] == 1000*(PASSES + 2)
    cycles = result["cycles_low"]
    assert_done(device, opcode=Opcode.SELFTEST, timeout=2*cycles)
    result = device.run(opcode=Opcode.SELFTEST, timeout=cycles - 1500) # In the last program.
    assert Error(result["error"]) == Error.TIMEOUT and len(device.programs) > PASSES


@pytest.mark.parametrize("config, program", MODELS, ids=["1 token", "8 tokens", "stochastic"])
@pytest.mark.parametrize("engine, place", [
    ("logits",     lambda vector, program: (vector.logits, vector.image.logit_bytes(program.pass_tokens))),
    ("candidates", lambda vector, program: (vector.image.results, vector.session - vector.image.results)),
    ("state",      lambda vector, program: (vector.session, vector.image.device.sizes.state)),
    ("window",     lambda vector, program: (vector.session + vector.image.device.sizes.state, 3*vector.image.device.window_step)),
])
def test_selftest_of_a_wrong_model(with_programs, config, program, engine, place):
    """One wrong bit is found; and results that are not written."""
    device = with_programs(config, program)
    first, size = place(model_vector(config, program, WIDTH), program)
    wrong = len(vectors.selftest_vectors(config))
    for at in (0, size//2, size - 1):
        def flip(kind, machine, vector, at=at):
            if kind == ProgramKind.EACH: # The last one.
                machine.memory[first + at] ^= 0x40
        run_programs(device, config, program, flip)
        assert_fails(device, Error.SELFTEST_MISMATCH, wrong, opcode=Opcode.SELFTEST)

    def forget(kind, machine, vector):
        machine.memory[first:first + size].view("<u4")[:] = UNTOUCHED
    run_programs(device, config, program, forget)
    assert_fails(device, Error.SELFTEST_MISMATCH, wrong, opcode=Opcode.SELFTEST)
    run_programs(device, config, program)
    assert_done(device, opcode=Opcode.SELFTEST)


def test_selftest_of_dead_engines(with_programs):
    """They complete, and write nothing; or they do not complete."""
    config, program = MODELS[0]
    device = with_programs(config, program)
    wrong  = len(vectors.selftest_vectors(config))
    assert_fails(device, Error.SELFTEST_MISMATCH, wrong, opcode=Opcode.SELFTEST)
    device.on("program", lambda started: device.set(hang=1))
    result = device.run(opcode=Opcode.SELFTEST)
    assert Error(result["error"]) == Error.TIMEOUT and len(device.programs) == 1
    device.set(hang=0, program_errors=2)
    device.on("program", lambda started: None)
    result = device.run(opcode=Opcode.SELFTEST)
    assert Error(result["error"]) == Error.GATEWARE and result["error_detail"] & 0xff == 2


@pytest.mark.parametrize("config, program", MODELS, ids=["1 token", "8 tokens", "stochastic"])
@pytest.mark.parametrize("width", DATA_WIDTHS)
def test_model_vector(config, program, width):
    """What is expected is what the exact model computes; it is small, and no result of it is missing."""
    vector = model_vector(config, replace(program, vector_lanes=8), width)
    image, tokens, expected = vector.image, program.pass_tokens, vector.expected.tobytes()
    seed   = 0 if config.stochastic_rounding else None
    logits, states = ExactNetwork(image.model, seed=seed)(small_tokens(PASSES*tokens))
    found  = lambda place: expected[place - image.results:]
    assert image.unpack_logits(found(vector.logits), tokens).tobytes() == logits[-tokens:].tobytes()
    assert np.isfinite(logits).all() and np.ptp(logits) > 1
    for mine, its in zip(image.unpack_session(found(vector.session)), states, strict=True):
        assert mine.h.tobytes() == its.h.tobytes() and mine.window.tobytes() == its.window.tobytes()
    text   = vectors.vectors_header(config, replace(program, vector_lanes=8), width)
    assert 4*text.count("0x") < 32768
    others = vectors.vectors_header(config, replace(program, vector_lanes=8, units=UNITS[:4]), width)
    assert others == vectors.vectors_header(config)
    words  = np.array([0, 0, 5, 0, 7, 0, 0, 0], np.uint32)
    assert squeeze(words) == [0, 2, 5, 0, 1, 7, 0, 3] and squeeze(words[2:3]) == [5]


def test_build_too_small_for_a_model(tmp_path):
    with pytest.raises(BuildError, match=r"self-test .* does not fit: .*scratchpad must be of at most 1024 elements .* is of \d+"):
        write_headers(str(tmp_path), SystemConfig(program=ProgramConfig(scratch=1024)))

# Boot ROM and Build -------------------------------------------------------------------------------

def test_bootrom():
    words = bootrom.bootrom_image(0xf0000800)
    assert len(words) % bootrom.LINE_WORDS == 0
    assert words[1:3] == [0xf0001537, 0x80050513] # lui a0, 0xf0001; addi a0, a0, -0x800.
    assert 0x500f in words and 0x100f in words
    assert 0x500f not in bootrom.bootrom_image(0xf0000800, has_dcache=False)


@pytest.mark.parametrize("address", [-4, 2**32, 0xf0000002])
def test_bootrom_address(address):
    with pytest.raises(ValueError, match=f"mailbox_boot_address must be .*, is {address:#x}."):
        bootrom.bootrom_image(address)


def test_build_without_soc(tmp_path):
    with pytest.raises(BuildError, match="soc.h does not exist: build the SoC's software first"):
        build(str(tmp_path))


def test_build_without_accelerator(tmp_path):
    directory = tmp_path/"software"/"include"/"generated"
    directory.mkdir(parents=True)
    (directory/"soc.h").write_text("#define SSM_LANES 16\n")
    with pytest.raises(BuildError, match="does not define SSM_MAX_HEADDIM.*: the SoC was built without"):
        build(str(tmp_path))


@pytest.mark.parametrize("config", [CONFIG, SSMConfig(lanes=8, max_d_state=64, pipelined=False)])
def test_built_config(tmp_path, config):
    """A configuration survives its way through the SoC's constants."""
    soc = SoCMini(SimPlatform("SIM", []), 100e6, cpu_type="vexriscv", integrated_main_ram_size=0x1000)
    add_ssm(soc, SystemConfig(ssm=config))
    directory = tmp_path/"software"/"include"/"generated"
    directory.mkdir(parents=True)
    (directory/"soc.h").write_text(get_soc_header(soc.constants))
    assert built_config(str(tmp_path)) == SystemConfig(MemoryConfig(128), config)
    fields = {field.name: (field.offset, field.size) for field in soc.ssm._capabilities.fields.fields}
    assert CAPABILITIES.items() <= fields.items()


@pytest.mark.parametrize("program", [None, ProgramConfig()], ids=["without programs", "with programs"])
def test_firmware_is_self_contained(tmp_path, program):
    """No allocation, no library: the firmware's objects need each other, CSRs and interrupts."""
    write_headers(str(tmp_path), SystemConfig(MemoryConfig(native.DATA_WIDTH), CONFIG, program=program))
    undefined, defined = set(), set()
    for name in native.FIRMWARE:
        subprocess.run(["gcc", "-std=gnu99", "-Os", "-c", "-fno-builtin", f"-I{tmp_path}", f"-I{native.DIRECTORY}",
            f"-I{DIRECTORY}", *native.defines(CONFIG, program),
            f"{DIRECTORY}/{name}", "-o", str(tmp_path/"object.o")], check=True)
        symbols = subprocess.run(["nm", str(tmp_path/"object.o")], check=True, capture_output=True, text=True).stdout
        for line in symbols.splitlines():
            *_, kind, symbol = line.split()
            (undefined if kind == "U" else defined).add(symbol)
    assert undefined - defined <= {"fake_csr_read", "fake_csr_write", "irq_setmask", "irq_setie", "irq_pending",
        "_GLOBAL_OFFSET_TABLE_"}
