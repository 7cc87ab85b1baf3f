#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Etherbone on a network that sends anything: nothing blocks it, and only what is right is executed."""

import random

import pytest

from etherbone_harness import (HEADER, PROBE, Datagram, EtherboneBench, good_payload, random_datagram, read, record, write)

# Fixtures -----------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def guarded_bench():
    return EtherboneBench()


@pytest.fixture(scope="module")
def bare_bench():
    return EtherboneBench(guarded=False)


@pytest.fixture
def guarded(guarded_bench):
    guarded_bench.compiled.reset()
    return guarded_bench


@pytest.fixture
def bare(bare_bench):
    bare_bench.compiled.reset()
    return bare_bench

# Datagrams ----------------------------------------------------------------------------------------

GOOD = [Datagram(write(0x4020_0000, [1, 2, 3])), Datagram(read(7, [0x4020_0000, 0xf000_0000])), Datagram(PROBE)]

BAD = {
    "nothing but a word"     : Datagram(HEADER[:4]),
    "headers only"           : Datagram(HEADER),
    "record header only"     : Datagram(HEADER + record(writes=1)),
    "no writes, no reads"    : Datagram(HEADER + record() + bytes(4)),
    "a word missing"         : Datagram(write(0x4020_0000, [1, 2, 3])[:-4]),
    "a word too many"        : Datagram(write(0x4020_0000, [1, 2, 3]) + bytes(4)),
    "an address missing"     : Datagram(read(7, [0x4020_0000]*3)[:-4]),
    "an address too many"    : Datagram(read(7, [0x4020_0000]*3) + bytes(4)),
    "writes and reads"       : Datagram(HEADER + record(1, 1) + bytes(16)),
    "two records"            : Datagram(write(0x4020_0000, [1]) + write(0x4020_0000, [2])[8:]),
    "longer than the FIFO"   : Datagram(HEADER + record(writes=255) + bytes(4*300)),
    "a probe of 16 bytes"    : Datagram(PROBE + bytes(4)),
    "a damaged frame"        : Datagram(write(0x4020_0000, [1]), error=True),
    "a frame cut short"      : Datagram(write(0x4020_0000, [1, 2])[:-4], length=24),
    "half a word missing"    : Datagram(write(0x4020_0000, [1, 2])[:-2]),
    "a write to one address" : Datagram(write(0x4020_0000, [1, 2], flags=0x40)),
    "the configuration space": Datagram(write(0x4020_0000, [1, 2], flags=0x20)),
    "8-byte addresses"       : Datagram(HEADER[:3] + b"\x88" + write(0x4020_0000, [1])[4:]),
    "version 2"              : Datagram(HEADER[:2] + b"\x20" + write(0x4020_0000, [1])[3:]),
}

# Of these LiteEth 2024.12 by itself executes something, or never works again. It does drop what is not Etherbone.
HARMLESS = {"no writes, no reads"}


@pytest.mark.parametrize("name", BAD)
def test_bad_datagram(guarded, name):
    """It is dropped, and what comes after it is executed, however the bus stalls."""
    for duty in (256, 90):
        guarded.run([*GOOD, BAD[name], *GOOD, BAD[name], BAD[name], *GOOD], duty=duty)


@pytest.mark.parametrize("name", BAD)
def test_what_liteeth_does_with_it(bare, name):
    """The reason for the guard. If this fails, LiteEth has become better: guard less."""
    bare.run(GOOD)
    if name in HARMLESS:
        bare.run([BAD[name], *GOOD])
    else:
        with pytest.raises((AssertionError, TimeoutError)):
            bare.run([BAD[name], *GOOD], limit=50_000)


READS = [Datagram(read(n, range(0, 4*127, 4))) for n in range(6)]

def test_reads_at_once(guarded):
    """More of them than LiteEth's FIFOs hold."""
    for duty in (256, {"access": 60}, {"reply": 40}):
        guarded.run(READS + [Datagram(read(9, range(0, 4*255, 4)))]*4, duty=duty)


def test_reads_at_once_without_the_corrected_fifos(bare):
    with pytest.raises((AssertionError, TimeoutError)):
        bare.run(READS, duty={"reply": 40}, limit=200_000)


@pytest.mark.parametrize("duty", [256, {"access": 50}, {"reply": 50}, 60])
def test_two_hosts(guarded, duty):
    """Each gets the replies to its own reads."""
    rng = random.Random(3)
    guarded.run([Datagram(good_payload(rng), ip=0x0a00_0001 + rng.randrange(2)) for _ in range(200)], duty=duty)


def run_random(bench, seed, rounds, size):
    rng = random.Random(seed)
    for number in range(rounds):
        duty = rng.choice((256, 200, {"access": 40}, {"reply": 40}, {"in": 60}))
        bench.run([random_datagram(rng) for _ in range(size)] + GOOD, duty, seed=number)


def test_random_datagrams(guarded):
    """5,000 of them: exactly the accesses and replies of the good ones."""
    run_random(guarded, 1, 10, 500)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_million_random_datagrams(guarded):
    run_random(guarded, 2, 500, 2000)
