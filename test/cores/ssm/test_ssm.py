#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The SSM peripheral, compiled: driven by its CSRs, with a memory of random latency that is compared as a whole."""

from functools import cache

import numpy as np
import pytest

from core_harness import random_values


from litedram.common import LiteDRAMNativePort

from ssm_harness import REGION_BYTES, REGION_ORIGIN, SSMHarness, job_geometry

from cores.memory.region import Region, beat_shift

from operations.config import ALIGNMENT, GATEWARE_VERSION, SSMConfig, ceil_multiple
from operations.ssm import Geometry

# Helpers ------------------------------------------------------------------------------------------

CONFIGS = {
    "native"  : SSMConfig(lanes=4, max_headdim=20, max_d_state=24, queue_depth=4),
    "paged"   : SSMConfig(lanes=4, max_headdim=20, max_d_state=24, queue_depth=4, stochastic_rounding=True),
    "wishbone": SSMConfig(lanes=4, max_headdim=9,  max_d_state=24, queue_depth=2),
    "wide256" : SSMConfig(lanes=8, max_headdim=20, max_d_state=24, queue_depth=4),
    "wide512" : SSMConfig(lanes=4, max_headdim=20, max_d_state=24, queue_depth=4, stochastic_rounding=True),
}
PORTS = {"wide256": ("native", 256), "wide512": ("paged", 512)} # Kind and width, where they are not the name and 128.
END = REGION_ORIGIN + REGION_BYTES


@cache
def compiled_bench(bus):
    return SSMHarness(CONFIGS[bus], *PORTS.get(bus, (bus, 128)))


@pytest.fixture(params=[pytest.param(bus, marks=() if bus in ("paged", "wishbone") else pytest.mark.slow) for bus in CONFIGS])
def bench(request):
    bench = compiled_bench(request.param)
    bench.start(np.random.default_rng(1))
    return bench


def small_job(bench, rng, heads=2, tokens=2, **options):
    return bench.place(rng, Geometry(bench.config, heads, 5, 11), tokens, random_values, **options)

# Information --------------------------------------------------------------------------------------

def test_information(bench):
    capabilities = bench.read("capabilities")
    config       = bench.config
    assert bench.read("version") == GATEWARE_VERSION
    assert capabilities & 0xff         == config.lanes
    assert capabilities >> 8  & 0x3ff  == config.max_headdim
    assert capabilities >> 18 & 0x3ff  == config.max_d_state
    assert 1 << (capabilities >> 28)   == config.queue_depth


def test_after_power_up(bench):
    assert not bench.busy and bench.queue_free == bench.config.queue_depth
    assert bench.errors == set() and bench.read("tiles_done") == 0 and not bench.compiled.peek("irq")
    assert not any(bench.counters().values())

# Jobs ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("duty", [256, 128, 30])
def test_jobs(bench, duty):
    """Jobs of changing geometry and flags, one after the other: results, and not a byte elsewhere."""
    rng = np.random.default_rng(duty)
    bench.start(rng, duty)
    for _ in range(8):
        tokens = int(rng.integers(1, 5))
        bench.run(bench.place(rng, job_geometry(rng, bench.config), tokens, random_values, with_h0=rng.random() < 0.7,
            first_token=int(rng.integers(0, tokens + 1)), no_store=rng.random() < 0.3, in_place=rng.random() < 0.5))
        assert bench.errors == set()
        bench.check_memory()


@pytest.mark.parametrize("duty", [256, 60])
def test_heads(bench, duty):
    """All heads of a block by one push, more of them than the queue holds."""
    rng = np.random.default_rng(duty + 1)
    bench.start(rng, duty)
    for groups, heads in ((1, 1), (1, 7), (3, 9), (11, 11), (2, 6)):
        geometry = Geometry(bench.config, heads, int(rng.integers(1, 8)), int(rng.integers(1, 20)), groups)
        tokens   = int(rng.integers(1, 4))
        bench.run_heads(bench.place(rng, geometry, tokens, random_values, with_h0=rng.random() < 0.7,
            first_token=int(rng.integers(0, tokens + 1)), no_store=rng.random() < 0.3), groups)
        assert bench.errors == set()
        bench.check_memory()


def test_push_while_heads_wait(bench):
    """It is refused; the block goes on."""
    rng  = np.random.default_rng(31)
    jobs = bench.place(rng, Geometry(bench.config, 12, 5, 11), 2, random_values)
    bench.push(**jobs[0], heads=12, group_heads=12)
    assert bench.queue_free == 0
    bench.push(**jobs[0])
    assert bench.errors == {"queue_overflow"}
    bench.wait(lambda: bench.read("tiles_done") == 12)
    bench.wait_idle()
    bench.check_memory()


@pytest.mark.parametrize("bad, errors", [(False, {"queue_overflow"}), (True, {"queue_overflow", "bad_geometry"})])
def test_push_while_the_queue_fills(bench, bad, errors):
    """It is refused though there is room: that is for the heads of the push before."""
    rng  = np.random.default_rng(34)
    jobs = bench.place(rng, Geometry(bench.config, 12, 5, 11), 2, random_values)
    for name in ("x", "bc", "y", "state_in", "state_out"):
        bench.write(f"tile_{name}", jobs[0][name])
    if bench.config.stochastic_rounding:
        bench.write("tile_seed", jobs[0]["seed"])
    bench.write("tile_tokens", 2)
    bench.write("tile_heads", 12 | 12 << 16)
    flags = jobs[0]["zero_state"] | jobs[0]["no_store"] << 1
    bench.write("tile_push", flags)
    if bad:
        bench.write("tile_tokens", 0)
    bench.write("tile_push", flags)
    assert bench.errors == errors
    bench.wait(lambda: bench.read("tiles_done") == 12)
    bench.wait_idle()
    bench.check_memory()


def test_heads_that_come_back_into_the_region(bench):
    """A head outside ends the block, also where the next one's address wraps and is inside again."""
    rng = np.random.default_rng(35)
    bench.place(rng, Geometry(bench.config, 1, 5, 11), 1, random_values, with_h0=False)
    bench.write("x_step", 2**31)
    bench.push(zero_state=True, no_store=True, first_token=1, heads=5, group_heads=5)
    bench.wait_idle()
    assert bench.errors == {"out_of_range"} and bench.read("tiles_done") == 1


def test_heads_that_run_out_of_the_region(bench):
    """The first one that does is dropped with those after it, the ones before run."""
    rng  = np.random.default_rng(32)
    bench.place(rng, Geometry(bench.config, 1, 5, 11), 1, random_values, with_h0=False)
    bench.write("x_step", REGION_BYTES//2)
    for _ in range(2):
        bench.push(zero_state=True, no_store=True, first_token=1, heads=5, group_heads=5)
        bench.wait_idle()
    assert bench.errors == {"out_of_range"}
    assert bench.read("tiles_done") == 4


@pytest.mark.parametrize("heads, group_heads", [(0, 1), (1, 0)])
def test_no_heads(bench, heads, group_heads):
    bench.set_geometry(5, 11)
    bench.push(zero_state=True, no_store=True, first_token=1, heads=heads, group_heads=group_heads)
    assert bench.errors == {"bad_geometry"}
    assert bench.read("tiles_done") == 0 and not bench.busy


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(30))
def test_jobs_at_length(bench, seed):
    rng = np.random.default_rng(1000 + seed)
    bench.start(rng, int(rng.choice([256, 200, 60, 10])))
    for _ in range(40):
        tokens = int(rng.integers(1, 5))
        bench.run(bench.place(rng, job_geometry(rng, bench.config), tokens, random_values, with_h0=rng.random() < 0.7,
            first_token=int(rng.integers(0, tokens + 1)), no_store=rng.random() < 0.3, in_place=rng.random() < 0.5))
        bench.check_memory()


def test_largest_geometry(bench):
    rng      = np.random.default_rng(2)
    config   = bench.config
    geometry = Geometry(config, 3, config.max_headdim, config.max_d_state)
    bench.run(bench.place(rng, geometry, 3, random_values))
    bench.check_memory()


def test_results_are_there_when_tiles_done_counts(bench):
    """The memory is compared in the very cycles in which the count is seen."""
    rng = np.random.default_rng(3)
    bench.start(rng, 20)
    for _ in range(10):
        bench.push(**small_job(bench, rng, heads=1, tokens=1)[0])
        done = bench.read("tiles_done")
        bench.wait(lambda: bench.read("tiles_done") != done, step=1)
        bench.compiled.poke(duty=0)
        bench.check_memory()
        bench.compiled.poke(duty=20)


def test_a_stored_tile_is_the_next_ones_state(bench):
    """Chunk after chunk of the same heads, states kept in memory: as one long chunk."""
    rng = np.random.default_rng(4)
    bench.start(rng, 100)
    descriptors = small_job(bench, rng, tokens=6)
    x_stride, bc_stride, y_stride = (bench.read(f"{name}_stride") for name in ("x", "bc", "y"))
    for token in range(0, 6, 2):
        bench.run([{**descriptor, "tokens": 2,
            "x" : descriptor["x"]  + token*x_stride,
            "bc": descriptor["bc"] + token*bc_stride,
            "y" : descriptor["y"]  + token*y_stride,
            "seed": (descriptor["seed"] + token) % 2**32} for descriptor in descriptors])
    bench.check_memory()

# Queue and Interrupts -----------------------------------------------------------------------------

def test_queue(bench):
    """With memory at a standstill the queue fills; one descriptor too many is dropped, the others run."""
    rng   = np.random.default_rng(5)
    depth = bench.config.queue_depth
    jobs  = small_job(bench, rng, heads=depth)
    bench.compiled.poke(duty=0)
    for n, descriptor in enumerate(jobs):
        assert bench.queue_free == depth - n
        bench.push(**descriptor)
    assert bench.queue_free == 0 and bench.busy and bench.errors == set()
    bench.push(**{**jobs[0], "y": jobs[0]["y"] ^ 0x100})
    assert bench.errors == {"queue_overflow"} and bench.queue_free == 0
    bench.compiled.poke(duty=256)
    bench.wait_idle()
    assert bench.read("tiles_done") == depth and bench.queue_free == depth
    bench.check_memory()
    assert bench.errors == {"queue_overflow"}
    bench.write("control", 1)
    bench.wait_idle()
    assert bench.errors == set() and bench.read("tiles_done") == 0


def test_interrupt_of_the_tile_that_asks_for_it(bench):
    rng  = np.random.default_rng(6)
    jobs = small_job(bench, rng)
    bench.write("ev_enable", 1)
    bench.run(jobs)
    assert bench.read("ev_pending") == 0 and not bench.compiled.peek("irq")
    bench.run([{**small_job(bench, rng, heads=1)[0], "interrupt": True}])
    assert bench.read("ev_pending") == 1 and bench.compiled.peek("irq")
    bench.write("ev_pending", 1)
    assert bench.read("ev_pending") == 0 and not bench.compiled.peek("irq")
    bench.check_memory()


def test_interrupt_of_an_error(bench):
    bench.write("ev_enable", 2)
    bench.set_geometry(1, 1)
    bench.push(tokens=0)
    assert bench.compiled.peek("irq") and bench.read("ev_pending") == 2

# Errors -------------------------------------------------------------------------------------------

def check_dropped(bench, error, geometry=(5, 11), strides=(ALIGNMENT,)*3, **descriptor):
    bench.set_geometry(*geometry, *strides)
    bench.push(**descriptor)
    assert bench.errors == {error}
    assert not bench.busy and bench.queue_free == bench.config.queue_depth
    bench.compiled.step(300)
    assert bench.read("tiles_done") == 0 and bench.read("ev_pending") & 2
    bench.check_memory()
    # Nothing is stuck: reset clears the error, and the next job runs.
    bench.write("control", 1)
    bench.wait_idle()
    assert bench.errors == set()
    bench.run(small_job(bench, np.random.default_rng(7)))
    bench.check_memory()


@pytest.mark.parametrize("headdim, d_state, tokens, first_token", [
    (0, 11, 1, 0), (5, 0, 1, 0), ("max", 11, 1, 0), (5, "max", 1, 0), (1023, 11, 1, 0), (5, 11, 0, 0), (5, 11, 1, 2),
    (5, 11, 0xfffe, 0xffff)])
def test_bad_geometry(bench, headdim, d_state, tokens, first_token):
    headdim = bench.config.max_headdim + 1 if headdim == "max" else headdim
    d_state = bench.config.max_d_state + 1 if d_state == "max" else d_state
    check_dropped(bench, "bad_geometry", (headdim, d_state), tokens=tokens, first_token=first_token)


@pytest.mark.parametrize("stride", range(3))
@pytest.mark.parametrize("excess", [1, 16, 32])
def test_misaligned_stride(bench, stride, excess):
    check_dropped(bench, "misaligned", strides=[ALIGNMENT + excess*(n == stride) for n in range(3)])


@pytest.mark.parametrize("step", range(4))
@pytest.mark.parametrize("excess", [1, 16, 32])
def test_misaligned_step(bench, step, excess):
    """Of x, BC, y and the state from head to head."""
    check_dropped(bench, "misaligned", strides=[ALIGNMENT]*3 + [ALIGNMENT + excess*(n == step) for n in range(4)])


@pytest.mark.parametrize("field", ["x", "bc", "y", "state_in", "state_out"])
@pytest.mark.parametrize("address, error", [
    (REGION_ORIGIN + 1, "misaligned"), (REGION_ORIGIN + 16, "misaligned"), (REGION_ORIGIN + 32, "misaligned"),
    (REGION_ORIGIN - 64, "out_of_range"),
    (END, "out_of_range"), (0, "out_of_range"), (0xffff_ffc0, "out_of_range")])
def test_bad_address(bench, field, address, error):
    check_dropped(bench, error, **{field: address})


def test_addresses_that_are_not_used_may_be_anything(bench):
    rng = np.random.default_rng(8)
    job = small_job(bench, rng, heads=1, with_h0=False, no_store=True)[0]
    bench.run([{**job, "state_in": 3, "state_out": 0xffff_ffff}])
    assert bench.errors == set()
    bench.check_memory()


@pytest.mark.parametrize("duty", [256, 60])
@pytest.mark.parametrize("field", ["y", "state_out"])
def test_records_written_over_the_end(bench, duty, field):
    """What lies beyond the region is not written, nor does it wrap to the region's start; the tile completes."""
    rng = np.random.default_rng(9)
    bench.start(rng, duty)
    job = small_job(bench, rng, heads=1, in_place=False)[0]
    bench.run([job])
    bench.check_memory()
    # Again, now with only the first bytes inside.
    first = job[field] - REGION_ORIGIN + REGION_BYTES
    used  = min(ALIGNMENT, ceil_multiple(10, bench.beat)) if field == "y" else ALIGNMENT
    bench.expect(END - ALIGNMENT, bench.image[first:first + used].tobytes())
    assert not bench.read("ev_pending") & 2
    bench.run([{**job, field: END - ALIGNMENT}])
    assert bench.errors == {"out_of_range"} and bench.read("ev_pending") & 2
    bench.check_memory()


@pytest.mark.parametrize("field", ["x", "bc", "state_in"])
def test_records_read_over_the_end(bench, field):
    """Nothing outside the region is read; the tile completes, with results that mean nothing."""
    rng = np.random.default_rng(10)
    job = small_job(bench, rng, heads=1, in_place=False)[0]
    bench.run([{**job, field: END - ALIGNMENT}])
    assert bench.errors == {"out_of_range"} and bench.read("ev_pending") & 2
    assert not bench.compiled.peek("outside") and not bench.compiled.peek("protocol_error")


@pytest.mark.parametrize("base, limit", [(0x4000_0020, 0x4000_3000), (0x4000_0000, 0x4000_0030), (0x4000_0000, 0x4000_0000),
    (0x2000, 0x1000), (0, 2**33)])
def test_region_raises(base, limit):
    with pytest.raises(ValueError, match="a memory region must lie between multiples of 64, the lower one first, is from "
        f"0x{base:x} to 0x{limit:x}."):
        Region(base, limit)


@pytest.mark.parametrize("width", [32, 64, 1024])
def test_port_width_raises(width):
    with pytest.raises(ValueError, match=f"data_width of a port must be one of 128, 256, 512, is {width}."):
        beat_shift(LiteDRAMNativePort("both", 24, width))

# Counters -----------------------------------------------------------------------------------------

@pytest.mark.parametrize("duty", [256, 40])
def test_counters(bench, duty):
    rng = np.random.default_rng(11)
    bench.start(rng, duty)
    expected = dict(lane_busy=0, read_beats=0, write_beats=0)
    tiles    = 0
    for _ in range(4):
        # Tokens of 14 vectors or more: shorter ones wait for their own state, which no counter names.
        geometry    = Geometry(bench.config, 4, int(rng.integers(5, 10)), int(rng.integers(17, 25)), 2)
        tokens      = int(rng.integers(1, 4))
        first_token = int(rng.integers(0, tokens + 1))
        with_h0, no_store = rng.random(2) < 0.5
        bench.run(bench.place(rng, geometry, tokens, random_values, with_h0=with_h0, first_token=first_token,
            no_store=bool(no_store)))
        beats      = lambda elements: -(-2*elements//bench.beat)
        tile_beats = beats(geometry.headdim*geometry.d_state_padded)
        expected["lane_busy"]   += 4*tokens*geometry.tile_words
        expected["read_beats"]  += 4*(tokens*(beats(8 + geometry.headdim_padded) + beats(2*geometry.d_state_padded))
            + with_h0*tile_beats)
        expected["write_beats"] += 4*((tokens - first_token)*beats(geometry.headdim) + (not no_store)*tile_beats)
        tiles += 4
    counters = bench.counters()
    assert {name: counters[name] for name in expected} == expected
    beats = counters["read_beats"] + counters["write_beats"]
    assert beats/6 <= counters["port_cycles"] <= counters["cycles"]
    # Every cycle is a vector's, a named wait's, or the one between the tiles.
    assert counters["cycles"] == tiles + counters["lane_busy"] + sum(
        counters[name] for name in counters if name.startswith("wait_"))
    # A snapshot: it stays while the counters run on; clear clears them, and the next snapshot shows it.
    bench.run(small_job(bench, rng))
    assert {name: bench.read(f"counters_{name}") for name in counters} == counters
    assert bench.counters()["lane_busy"] > counters["lane_busy"]
    bench.write("counters_clear", 1)
    assert not any(bench.counters().values())


@pytest.mark.parametrize("duty", [256, 50])
def test_load_compute_and_store_overlap(duty):
    """Many tiles take as long as the slowest of loading, computing and storing them, not the sum."""
    bench    = compiled_bench("native")
    rng      = np.random.default_rng(33)
    geometry = Geometry(bench.config, 40, 20, 24)

    def cycles(with_h0, no_store):
        bench.start(rng, duty)
        bench.run_heads(bench.place(rng, geometry, 1, random_values, with_h0=with_h0, no_store=no_store), 1)
        bench.check_memory()
        return bench.counters()["cycles"]

    everything = cycles(True, False)
    alone      = cycles(True, True), cycles(False, False), cycles(False, True) # Load, store, neither; each computes.
    assert everything <= 1.1*max(alone) + 300
    if duty == 256: # The lanes bind, and hide nearly all of it.
        assert everything <= 1.15*40*(geometry.tile_words + 1) + 300


def test_counters_name_the_wait(bench):
    """Memory at a standstill: the lanes wait for the tile; with no state to load, for inputs. No tile, no count."""
    rng = np.random.default_rng(12)
    for with_h0, name in ((True, "wait_state"), (False, "wait_input")):
        bench.start(rng, 0)
        bench.push(**small_job(bench, rng, heads=1, with_h0=with_h0)[0])
        bench.compiled.step(200)
        first = bench.counters()
        bench.compiled.step(1000)
        second = bench.counters()
        gained = {key: second[key] - first[key] for key in first if second[key] != first[key]}
        assert gained.keys() == {"cycles", "port_cycles", name} and gained["cycles"] == gained[name] >= 1000
    bench.start(rng)
    bench.compiled.step(100)
    assert not any(bench.counters().values())

# Reset --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("duty", [256, 40, 5])
def test_reset_in_flight(bench, duty):
    """A reset at any moment: busy until memory is quiet, then all is as after power-up, and the next job is right."""
    rng = np.random.default_rng(13)
    for _ in range(25):
        bench.start(rng, duty)
        for descriptor in small_job(bench, rng, heads=int(rng.integers(1, bench.config.queue_depth + 1)), tokens=4):
            bench.push(**descriptor)
        bench.compiled.step(int(rng.integers(0, 600 if duty == 256 else 3000)))
        bench.write("control", 1)
        assert bench.busy
        # A push in the course of a reset is dropped, without an error.
        bench.push()
        bench.wait_idle()
        assert bench.queue_free == bench.config.queue_depth and bench.errors == set() and bench.read("tiles_done") == 0
        # What the lost tiles wrote or not is not known; from here on it is.
        bench.compiled.step(50)
        bench.image[:] = bench.snapshot()
        bench.run(bench.place(rng, job_geometry(rng, bench.config), 2, random_values))
        bench.check_memory()


@pytest.mark.parametrize("duty", [256, 40, 5])
def test_memory_is_quiet_after_a_reset(bench, duty):
    """When a reset is over nothing more is written."""
    rng = np.random.default_rng(15)
    for _ in range(12):
        bench.start(rng, duty)
        for descriptor in small_job(bench, rng, heads=bench.config.queue_depth, tokens=2):
            bench.push(**descriptor)
        bench.compiled.step(int(rng.integers(100, 600 if duty == 256 else 3000)))
        bench.write("control", 1)
        bench.wait(lambda: not bench.busy, step=1)
        bench.compiled.poke(duty=0)
        image = bench.snapshot()
        bench.compiled.poke(duty=256)
        bench.compiled.step(500)
        assert np.array_equal(bench.snapshot(), image)
        assert not bench.compiled.peek("protocol_error") and not bench.compiled.peek("outside")


@pytest.mark.parametrize("register, value", [("tile_tokens", 0), ("tile_x", 3), ("tile_heads", 0), ("tile_x", 0), ("tile_x", REGION_ORIGIN)])
def test_push_in_the_course_of_a_reset(bench, register, value):
    """It is dropped, good or bad, without an error, and without an interrupt."""
    rng = np.random.default_rng(16)
    bench.push(**small_job(bench, rng, heads=1)[0])
    bench.wait_idle()
    bench.write(register, value)
    bench.write("control", 1)
    bench.write("tile_push", 0)
    assert bench.busy and bench.errors == set()
    bench.wait_idle()
    bench.compiled.step(500)
    assert bench.errors == set() and not bench.read("ev_pending") and bench.read("tiles_done") == 0
    assert bench.queue_free == bench.config.queue_depth


def test_reset_when_idle(bench):
    rng = np.random.default_rng(14)
    bench.run(small_job(bench, rng))
    bench.write("control", 1)
    bench.wait_idle()
    assert bench.read("tiles_done") == 0
    bench.run(small_job(bench, rng))
    bench.check_memory()
