#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The manifest: as a file, on a device in software, and what happens when versions, sizes or contents do not fit."""

import dataclasses
import hashlib
import json
import os
import random
import zlib

import pytest

from hypothesis import HealthCheck, given, settings, strategies


from fake_device import RAM_BASE

from host.device.manifest import FORMAT_VERSION, HEADER, MAGIC, Manifest, adopt, load
from host.errors import AllocationError, VersionMismatch

from operations.protocol import DATA_OFFSET, MANIFEST_OFFSET, MANIFEST_SIZE, PROTOCOL_VERSION

from tools.errors import UsageError

# Helpers ------------------------------------------------------------------------------------------

BASE     = RAM_BASE + DATA_OFFSET
GEOMETRY = {"heads": 4, "headdim": 8, "d_state": 16, "groups": 1, "lanes": 16, "layers": 2}


@pytest.fixture
def data():
    rng = random.Random(1)
    return {"weights": rng.randbytes(50_000), "norm": rng.randbytes(77), "empty": b"", "state": rng.randbytes(30_000)}


@pytest.fixture
def manifest(data):
    return Manifest.of(GEOMETRY, data)

# Contents, File -----------------------------------------------------------------------------------

def test_contents(manifest, data):
    assert [section.name for section in manifest.sections] == list(data)
    assert [section.offset for section in manifest.sections] == [0, 50_048, 50_176, 50_176]
    assert manifest.size == 50_176 + 30_016
    norm = manifest.section("norm")
    assert norm.sha256 == hashlib.sha256(data["norm"]).hexdigest()
    assert norm.crc32  == zlib.crc32(data["norm"] + bytes(51))
    with pytest.raises(UsageError, match="has no section bias: it has weights, norm, empty, state."):
        manifest.section("bias")


def test_file(manifest, tmp_path):
    path = tmp_path/"manifest.json"
    manifest.save(path)
    assert Manifest.open(path) == manifest
    assert os.listdir(tmp_path) == ["manifest.json"]
    assert json.loads(path.read_text())["sections"][1]["name"] == "norm"


def change(manifest, **words):
    return json.dumps(json.loads(manifest.to_json()) | words)


@pytest.mark.parametrize("words, error, message", [
    ({"format_version": 9},   VersionMismatch, "M: format version 9, this host has 2: load the model again"),
    ({"protocol_version": 1}, VersionMismatch, f"M: protocol version 1, this host has {PROTOCOL_VERSION}"),
    ({"colour": "red"},       UsageError,      "M: not a manifest .*colour"),
    ({"geometry": 3},         UsageError,      "M: not a manifest .geometry or complete is of another type"),
    ({"sections": [{"name": "a"}]}, UsageError, "M: not a manifest"),
    ({"sections": [dict(name="a", offset=8, size=1, sha256="", crc32=0)]},  UsageError, "section a at offset 8 is misaligned"),
    ({"sections": [dict(name="a", offset=0, size=-1, sha256="", crc32=0)]}, UsageError, "section 'a' has values of another"),
    ({"sections": [dict(name=name, offset=0, size=16, sha256="", crc32=0) for name in "ab"]}, UsageError,
        "section b at offset 0 is misaligned or overlaps"),
    ({"sections": [dict(name="a", offset=n, size=16, sha256="", crc32=0) for n in (0, 64)]}, UsageError, "the same name"),
])
def test_bad_text(manifest, words, error, message):
    with pytest.raises(error, match=message):
        Manifest.from_json(change(manifest, **words), "M")


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", "["*100_000])
def test_no_manifest(text):
    with pytest.raises(UsageError, match="M: not a manifest"):
        Manifest.from_json(text, "M")


VALUES = strategies.sampled_from([None, True, 0, -1, 2**70, 1.5, "x", "\ud800", [], [[]], {}])


@settings(max_examples=300, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=strategies.data())
def test_any_other_values(manifest, data):
    """A manifest with another value somewhere, or damaged bytes, is read or refused by an error of the project's."""
    words  = json.loads(manifest.to_json())
    target = data.draw(strategies.sampled_from([words, words["geometry"], *words["sections"]]))
    target[data.draw(strategies.sampled_from(sorted(target)))] = data.draw(VALUES)
    text   = bytearray(json.dumps(words).encode())
    if data.draw(strategies.booleans()):
        text[data.draw(strategies.integers(0, len(text) - 1))] = data.draw(strategies.integers(0, 255))
    try:
        Manifest.from_json(bytes(text), "M")
    except (UsageError, VersionMismatch):
        pass


def test_no_file(tmp_path):
    with pytest.raises(UsageError, match="nothing.json: cannot read the manifest"):
        Manifest.open(tmp_path/"nothing.json")

# Device -------------------------------------------------------------------------------------------

def test_load(booted, manifest, data):
    assert Manifest.fetch(booted) is None
    assert adopt(booted) is None
    result = load(booted, manifest, data)
    assert result.moved == result.size == manifest.size and result.again == 0
    for section in manifest.sections:
        padded = -(-section.size//16)*16
        assert booted.fake.load(BASE + section.offset, padded)[:section.size] == data[section.name]
    assert Manifest.fetch(booted) == dataclasses.replace(manifest, complete=True)
    assert booted.allocate(16) == BASE + manifest.size
    assert load(booted, manifest, data).moved == 0


def test_interrupted_load(booted, manifest, data):
    """The device knows that it is incomplete; what is there is not sent again."""
    def interrupt(size, left=[30_000]):
        left[0] -= size
        if left[0] < 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(booted, manifest, data, interrupt)
    assert not Manifest.fetch(booted).complete
    assert adopt(booted) is None
    assert 0 < load(booted, manifest, data).moved < manifest.size
    assert adopt(booted) == dataclasses.replace(manifest, complete=True)


def test_adopt(booted, manifest, data):
    """What another host finds; a wrong bit, and it is not adopted, but mended by the next load."""
    load(booted, manifest, data)
    booted.reserve(0)
    assert adopt(booted).same_content(manifest)
    assert booted.allocate(16) == BASE + manifest.size
    booted.fake.ram[(DATA_OFFSET + 50_048)//4] ^= 1
    assert manifest.verify(booted) == ["norm"]
    assert adopt(booted) is None
    assert load(booted, manifest, data).moved == 128
    assert manifest.verify(booted) == []


def test_manifest_that_is_not_marked_complete(booted, manifest, data):
    """All its sections are there and right, but nobody has said so."""
    load(booted, manifest, data)
    dataclasses.replace(manifest, complete=False).store(booted)
    assert manifest.verify(booted) == []
    assert adopt(booted) is None


def sized(size):
    """A manifest whose text has so many bytes."""
    empty = Manifest.of({"filler": ""}, {})
    return Manifest.of({"filler": "x"*(size - len(empty.to_json()))}, {})


def test_largest_manifest(booted):
    """The header counts: a byte more does not fit, and one that says it is longer is none."""
    most   = MANIFEST_SIZE - HEADER.size
    stored = sized(most)
    after  = booted.fake.ram[(MANIFEST_OFFSET + MANIFEST_SIZE)//4]
    stored.store(booted)
    assert Manifest.fetch(booted) == stored
    assert booted.fake.ram[(MANIFEST_OFFSET + MANIFEST_SIZE)//4] == after
    with pytest.raises(UsageError, match=f"A manifest must be of at most {most} bytes, is of {most + 1}"):
        sized(most + 1).store(booted)
    text   = sized(most + 4).to_json().encode()
    header = HEADER.pack(MAGIC, FORMAT_VERSION, len(text), zlib.crc32(text))
    booted.fake.store(RAM_BASE + MANIFEST_OFFSET, header + text)
    assert Manifest.fetch(booted) is None


def test_half_written_manifest(booted, manifest, data):
    load(booted, manifest, data)
    booted.fake.ram[MANIFEST_OFFSET//4 + 20] ^= 1
    assert Manifest.fetch(booted) is None


def test_manifest_of_another_version_on_the_device(booted, manifest, data):
    """It is refused, and replaced by a load."""
    load(booted, manifest, data)
    booted.fake.ram[MANIFEST_OFFSET//4 + 1] = 7
    with pytest.raises(VersionMismatch, match="The manifest on the device: format version 7, this host has 2"):
        adopt(booted)
    dataclasses.replace(manifest, protocol_version=2).store(booted)
    with pytest.raises(VersionMismatch, match="The manifest on the device: protocol version 2"):
        adopt(booted)
    assert load(booted, manifest, data).moved == 0
    assert adopt(booted) is not None


@pytest.mark.parametrize("geometry, error, message", [
    ({"lanes": 8},     VersionMismatch, "packed for 8 lanes, the gateware has 16: pack it again"),
    ({"headdim": 100}, VersionMismatch, r"cannot run the model of the manifest \(headdim must be an integer from 1 to 64, is 100"),
])
def test_geometry_that_does_not_fit(booted, data, geometry, error, message):
    with pytest.raises(error, match=message):
        load(booted, Manifest.of(GEOMETRY | geometry, data), data)


def test_geometry_says_what_to_build(booted):
    for headdim, message in ((100, r", is 100\); build the gateware with --max-headdim 100\."), ("x", r", is 'x'\)\.$")):
        with pytest.raises(VersionMismatch, match=message):
            Manifest.of(GEOMETRY | {"headdim": headdim}, {}).check(booted.info)


def test_too_large(booted):
    data = {"weights": bytes(0x20_0040)}
    with pytest.raises(AllocationError, match="take 2097216 bytes, the device's data region has 2097152"):
        load(booted, Manifest.of({}, data), data)


def test_too_many_regions(booted):
    data = {f"{n:0999}": b"" for n in range(1000)}
    with pytest.raises(UsageError, match=f"A manifest must be of at most {MANIFEST_SIZE - HEADER.size} bytes, is of"):
        Manifest.of({}, data).store(booted)


def test_other_data(booted, manifest, data):
    with pytest.raises(UsageError, match="The data of section norm is not what the manifest says"):
        load(booted, manifest, data | {"norm": b"x"})
    assert Manifest.fetch(booted) is None
