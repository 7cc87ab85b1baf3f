#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Boot, memory, jobs and blocks, against a device in software."""

import time


import numpy as np
import pytest


from cases import random_case
from fake_device import CSR_BASE, RAM_BASE, FakeDevice, UARTBoneServer, fake_firmware

from host.device.block import run_block
from host.device.case import check_case
from host.device.csr import CSRMap
from host.device.device import GATEWARE, REBOOT, Device, Job
from host.errors import AllocationError, DeviceError, DeviceTimeout, VersionMismatch
from host.link.uartbone import UARTBone

from model.bitexact import ssm_block

from operations.config import GATEWARE_VERSION, SSMConfig
from operations.operations import Engine
from operations.protocol import DATA_OFFSET, ENGINE_INFO, INFO_HEAD, INFO_OFFSET, PROTOCOL_VERSION, RING_ENTRIES, Error, Opcode
from operations.ssm import Geometry

from tools.errors import UsageError

# Helpers ------------------------------------------------------------------------------------------

def small_case(T=3, H=4, P=5, G=2, N=20, h0=True, seed=0, config=SSMConfig()):
    return check_case(random_case(np.random.default_rng(seed), T, H, P, N, G, h0), config)


def assert_as_model(result, case):
    y, h = ssm_block(case.x, case.dt, case.dA, case.B, case.C, case.D, case.h0)
    assert result.y.dtype == result.h.dtype == np.float16
    assert result.y.tobytes() == y.tobytes()
    assert result.h.tobytes() == h.tobytes()

def test_seed(connect, firmware):
    """Stochastic rounding: decoding takes up the seed where the job before left it."""
    with FakeDevice(config=SSMConfig(lanes=8, stochastic_rounding=True)) as fake, connect(fake) as device:
        device.boot(firmware)
        case = small_case(config=device.info.config)
        y, h = ssm_block(case.x, case.dt, case.dA, case.B, case.C, case.D, case.h0, 2**32 - 1)
        for mode in ("prefill", "decode"):
            result = run_block(device, case, mode, seed=2**32 - 1)
            assert result.summary["rounding"] == "stochastic"
            assert result.y.tobytes() == y.tobytes() and result.h.tobytes() == h.tobytes()

def test_state_on_chip(connect, firmware):
    """Decoding leaves the state on chip where there is room, and stores it at the end."""
    for tiles in (8, 3):
        with FakeDevice(config=SSMConfig(lanes=8, resident_tiles=tiles)) as fake, connect(fake) as device:
            device.boot(firmware)
            assert device.info.config.resident_tiles == tiles
            case   = small_case(config=device.info.config)
            state  = 4*Geometry(device.info.config, 4, 5, 20).tile_bytes
            result = run_block(device, case, "decode")
            assert_as_model(result, case)
            moved  = 1 if tiles >= case.heads else case.tokens
            assert result.summary["dma_read_bytes"] == result.summary["dma_write_bytes"] == moved*state
            assert_as_model(run_block(device, case, "decode", store_every=2), case)
            assert_as_model(run_block(device, case), case)

# Boot ---------------------------------------------------------------------------------------------

def test_boot(connect, firmware):
    with FakeDevice() as fake, connect(fake) as device:
        assert device.info is None
        assert device.boot(firmware) is True
        assert fake.running
        assert fake.load(RAM_BASE, 5000) == open(firmware, "rb").read()
        assert device.info.lanes == 16
        assert device.info.config == SSMConfig()
        assert device.info.data_base == RAM_BASE + DATA_OFFSET


def test_running_firmware_is_kept(connect, firmware):
    with FakeDevice() as fake:
        with connect(fake) as device:
            device.boot(firmware)
            device.run(Job(Opcode.NOP))
        for image in (firmware, None):
            with connect(fake) as device:
                assert device.boot(image) is False
                device.run(Job(Opcode.NOP))
        assert fake.boots == 1


def test_reload_and_other_firmware(connect, firmware, tmp_path):
    other = tmp_path/"other.bin"
    other.write_bytes(fake_firmware(size=6001))
    with FakeDevice() as fake, connect(fake) as device:
        device.boot(firmware)
        assert device.boot(firmware, reload=True) is True
        assert fake.boots == 2
        assert device.boot(str(other)) is True
        assert fake.boots == 3
        assert fake.load(RAM_BASE, 6004) == other.read_bytes() + bytes(3)
        device.run(Job(Opcode.NOP))


def slow_to_start(fake, seconds):
    """Let the firmware of a fake device write its info block so much later."""
    start = fake._firmware

    def later(version):
        time.sleep(seconds)
        start(version)

    fake._firmware = later


def test_info_left_over_from_before_a_reset(connect, firmware):
    """DRAM keeps its content through a reset of the SoC: a valid block is no proof of a running firmware, nor that a new one
    has started. What is used is what the new one wrote."""
    with FakeDevice() as fake, connect(fake, patience=0.3) as device:
        device.boot(firmware)
        content = fake.ram.copy()
        content[INFO_OFFSET//4 + device.info._fields.index("boot_count")] = 77
        with FakeDevice() as reset, connect(reset, patience=0.3) as device:
            reset.ram[:] = content
            slow_to_start(reset, 0.2)
            assert device.boot(firmware) is True
            assert reset.running and reset.boots == 1
            assert device.info.boot_count == 1
            device.run(Job(Opcode.NOP))
            assert reset.jobs == 1


def lose_first(fake, value):
    """Lose the first write of `value` to mailbox_boot."""
    write, lost = fake.bus_write, []

    def losing(address, word):
        if address == CSR_BASE and word == value and not lost:
            lost.append(word)
        else:
            write(address, word)

    fake.bus_write = losing
    return lost


@pytest.mark.parametrize("value", [REBOOT, RAM_BASE], ids=["reboot", "boot"])
def test_lost_request_to_boot(connect, firmware, value):
    with FakeDevice() as fake, connect(fake, patience=0.3) as device:
        device.boot(firmware)
        lost = lose_first(fake, value)
        assert device.boot(firmware, reload=True) is True
        assert lost == [value] and fake.boots == 2
        device.run(Job(Opcode.NOP))


def test_interrupted_before_the_stamp(connect, firmware, tmp_path):
    """A firmware whose loading was interrupted at its very end is not taken for the one before it."""
    other = tmp_path/"other.bin"
    other.write_bytes(fake_firmware(size=6001))
    with FakeDevice() as fake:
        with connect(fake) as device:
            device.boot(firmware)
            device._start_ring = lambda: (_ for _ in ()).throw(KeyboardInterrupt)
            with pytest.raises(KeyboardInterrupt):
                device.boot(str(other))
            assert fake.running and fake.boots == 2
        with connect(fake) as device:
            assert device.boot(firmware) is True
            assert fake.load(RAM_BASE, 5000) == open(firmware, "rb").read()


def test_no_firmware(connect):
    with FakeDevice() as fake, connect(fake) as device:
        with pytest.raises(UsageError, match="No firmware answers on the device: name one to load"):
            device.boot()


def test_running_firmware_of_another_version(connect, firmware, tmp_path):
    old = tmp_path/"old.bin"
    old.write_bytes(fake_firmware(version=PROTOCOL_VERSION + 1))
    with FakeDevice() as fake, connect(fake) as device:
        with pytest.raises(VersionMismatch, match=f"firmware speaks protocol version {PROTOCOL_VERSION + 1}, this host version {PROTOCOL_VERSION}"):
            device.boot(str(old))
        with pytest.raises(VersionMismatch, match=f"firmware speaks protocol version {PROTOCOL_VERSION + 1}, this host version {PROTOCOL_VERSION}"):
            device.boot()
        assert device.boot(firmware) is True # Naming the right one replaces it.
        device.run(Job(Opcode.NOP))


@pytest.mark.parametrize("word, value, message", [
    ("ring_entries", 8, r"ring of 8 x 128 bytes, this host one of 16 x 128"),
    ("lanes",        5, r"gateware this host does not know \(lanes must be one of 4, 8, 16, 32, 64, is 5"),
])
def test_info_that_does_not_fit(booted, word, value, message):
    words = INFO_HEAD + ("kind", *ENGINE_INFO[Engine.SSM])
    index = words.index(word)
    booted.fake.ram[INFO_OFFSET//4 + index] = value
    with pytest.raises(VersionMismatch, match=message):
        booted.boot()


def test_cpu_that_never_reaches_the_boot_rom(connect, firmware):
    with FakeDevice() as fake, connect(fake, patience=0.1) as device:
        fake.__exit__() # Its thread has ended.
        with pytest.raises(DeviceTimeout, match=r"Waited 0.2 s for the CPU to reach the boot ROM; if it never does"):
            device.boot(firmware)


@pytest.mark.parametrize("content, message", [
    (None,              "cannot read the firmware"),
    (b"",               "a firmware must be of 1 to 1048576 bytes, is of 0."),
    (bytes(1048577),    "a firmware must be of 1 to 1048576 bytes, is of 1048577."),
])
def test_bad_firmware_file(connect, tmp_path, content, message):
    path = tmp_path/"bad.bin"
    if content is not None:
        path.write_bytes(content)
    with FakeDevice() as fake, connect(fake) as device:
        with pytest.raises(UsageError, match=message):
            device.boot(str(path))

# Memory -------------------------------------------------------------------------------------------

def test_memory_and_csrs(booted):
    address = booted.allocate(100)
    booted.write(address, bytes(range(100)))
    assert booted.read(address, 100) == bytes(range(100))
    booted.write_csr("mailbox_completed", 0x12345678)
    assert booted.read_csr("mailbox_completed") == 0x12345678


def test_wide_csr_is_read_high_word_first(booted):
    booted.csr.registers["wide"] = (RAM_BASE, 2)
    booted.write(RAM_BASE, bytes([1, 0, 0, 0, 2, 0, 0, 0]))
    assert booted.read_csr("wide") == 0x1_0000_0002


def test_allocation(booted):
    first  = booted.allocate(1)
    second = booted.allocate(64)
    third  = booted.allocate(16)
    assert (first, second, third) == tuple(RAM_BASE + DATA_OFFSET + offset for offset in (0, 64, 128))
    size = booted.info.data_size
    with pytest.raises(AllocationError, match=f"y of {size} bytes does not fit: {size - 192} of {size} bytes"):
        booted.allocate(size, "y")
    booted.free()
    assert booted.allocate(size) == first

# Jobs ---------------------------------------------------------------------------------------------

def test_ring_wraps(booted):
    """More jobs than entries, all submitted before any is waited for."""
    indices = [booted.submit(Job(Opcode.NOP)) for _ in range(3*RING_ENTRIES)]
    assert [booted.wait(index).index for index in indices] == indices == list(range(3*RING_ENTRIES))
    assert booted.fake.max_jobs <= RING_ENTRIES
    with pytest.raises(ValueError, match="index must be that of a submitted job not yet waited for, is 0."):
        booted.wait(0)


def test_indices_wrap(connect, firmware):
    with FakeDevice() as fake, connect(fake) as device:
        device.boot(firmware)
        fake.jobs = fake.csrs["doorbell"] = fake.csrs["completed"] = 2**32 - 3
        device._start_ring()
        for index in (2**32 - 3, 2**32 - 2, 2**32 - 1):
            assert device.submit(Job(Opcode.NOP)) == index
        assert device._rung == 0
        assert device.wait(2**32 - 3).index == 2**32 - 3


def test_failing_job(booted):
    booted.fake.fail = {1: (Error.TIMEOUT, 0xbad), 2: (99, 5)}
    indices = [booted.submit(Job(Opcode.NOP)) for _ in range(4)]
    assert booted.wait(0).index == 0
    with pytest.raises(DeviceError, match=r"Job 1 failed: TIMEOUT \(error 14, detail 0xbad\)") as error:
        booted.wait(1)
    assert (error.value.index, error.value.error, error.value.detail) == (1, Error.TIMEOUT, 0xbad)
    with pytest.raises(DeviceError, match=r"Job 2 failed: unknown \(error 99, detail 0x5\)"):
        booted.wait(2)
    assert booted.wait(indices[3]).index == 3


def test_job_the_firmware_refuses(booted):
    small = dict(heads=1, headdim=1, d_state=1, groups=1, tokens=1, x_address=0, bc_address=0, y_address=0, state_in=0, state_out=0)
    with pytest.raises(DeviceError, match="BAD_HEADS"):
        booted.run(Job(Opcode.SSM, **small | dict(heads=0)))


def test_job_the_host_refuses():
    with pytest.raises(ValueError, match="heads must be 1 to max_heads, is missing."):
        Job(Opcode.SSM)
    with pytest.raises(ValueError, match="opcode must be one of 0, 1, 2, 3, 4, 5, 6, is 77."):
        Job(77)
    with pytest.raises(ValueError, match="timeout must be an integer from 0 to 4294967295, is -1."):
        Job(Opcode.NOP, timeout=-1)


def test_silent_firmware(connect, firmware):
    with FakeDevice(deaf=1) as fake, connect(fake, patience=0.2) as device:
        device.boot(firmware)
        device.run(Job(Opcode.NOP))
        with pytest.raises(DeviceTimeout, match=r"Waited 0.4 s for job 1 \(opcode 0\)"):
            device.run(Job(Opcode.NOP), timeout=2)


def test_answer_that_is_not_of_this_job(booted):
    booted.wait(booted.submit(Job(Opcode.NOP)))
    booted.fake.deaf = 0
    index = booted.submit(Job(Opcode.NOP))
    booted.fake.csrs["completed"] = 2 # But nothing was written to the ring.
    with pytest.raises(DeviceError, match="Job 1 counts as completed, but its ring entry reports job"):
        booted.wait(index)


def test_result_of_an_earlier_job_in_the_same_entry(booted):
    """It is complete and in order, but of another job."""
    for _ in range(RING_ENTRIES):
        booted.run(Job(Opcode.NOP))
    booted.fake.deaf = 0
    index = booted.submit(Job(Opcode.NOP))
    booted.fake.csrs["completed"] = RING_ENTRIES + 1
    with pytest.raises(DeviceError, match=f"Job {RING_ENTRIES} counts as completed, but its ring entry reports job 0, status"):
        booted.wait(index)


def test_lost_doorbell_where_indices_wrap(connect, firmware):
    with FakeDevice() as fake, connect(fake) as device:
        device.boot(firmware)
        fake.jobs = fake.csrs["doorbell"] = fake.csrs["completed"] = 2**32 - 1
        device._start_ring()
        fake.deaf = 0
        index = device.submit(Job(Opcode.NOP))
        assert index == 2**32 - 1 and fake.csrs["doorbell"] == 0
        fake.csrs["doorbell"] = 2**32 - 1
        fake.listen()
        assert device.wait(index).index == index and fake.jobs == 0


@pytest.mark.parametrize("completed, doorbell", [(20, 19), (20, 3), (0, 2**32 - 1), (2**32 - 1, 2**32 - 2), (5, 5)])
@pytest.mark.parametrize("named", [True, False])
def test_late_doorbell(connect, firmware, completed, doorbell, named):
    """A late copy of an earlier doorbell, which asks for nothing: the next host begins with the job after the last one."""
    with FakeDevice() as fake:
        with connect(fake) as device:
            device.boot(firmware)
        fake.jobs = fake.csrs["completed"] = completed
        fake.csrs["doorbell"] = doorbell
        boot = fake.writes[CSR_BASE]
        with connect(fake, patience=0.5) as device:
            assert device.boot(firmware if named else None) is False
            assert device.run(Job(Opcode.NOP)).index == (completed + 1) % 2**32
        assert fake.boots == 1 and fake.writes[CSR_BASE] == boot # As it must be with --protect, where that cannot be written.


def test_lost_doorbell_is_rung_again(booted):
    booted.fake.deaf = 0
    index = booted.submit(Job(Opcode.NOP))
    booted.fake.csrs["doorbell"] = 0
    booted.fake.listen()
    assert booted.wait(index).index == 0


def test_jobs_of_an_interrupted_host_are_waited_for(connect, firmware):
    with FakeDevice() as fake:
        with connect(fake) as device:
            device.boot(firmware)
            fake.deaf = 0
            device.submit(Job(Opcode.NOP))
        fake.listen()
        with connect(fake) as device:
            assert device.boot(firmware) is False
            assert device.submit(Job(Opcode.NOP)) == 2 # After the earlier host's job and the one that tries it out.

# Blocks -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("mode", ["prefill", "decode"])
@pytest.mark.parametrize("lanes", [4, 8, 16, 32])
def test_block(connect, firmware, mode, lanes):
    with FakeDevice(SSMConfig(lanes=lanes)) as fake, connect(fake) as device:
        device.boot(firmware)
        for seed, h0 in enumerate((True, False)):
            case = small_case(T=5, h0=h0, seed=seed)
            assert_as_model(run_block(device, case, mode), case)


@pytest.mark.parametrize("sizes", [
    dict(T=1, H=1, P=1,  G=1, N=1),
    dict(T=2, H=7, P=13, G=7, N=33),
    dict(T=2, H=3, P=64, G=1, N=128),
    dict(T=9, H=6, P=8,  G=3, N=16),
])
def test_geometries(booted, sizes):
    for mode in ("prefill", "decode"):
        case = small_case(**sizes)
        assert_as_model(run_block(booted, case, mode), case)


def test_decode_goes_around_the_ring(booted):
    case   = small_case(T=3*RING_ENTRIES + 1)
    result = run_block(booted, case, "decode")
    assert_as_model(result, case)
    assert booted.fake.jobs == case.tokens
    assert result.summary["per_token_cycles"] == [1000]*case.tokens


def test_summary(booted):
    case    = small_case(T=4, H=4, P=8, N=32)
    summary = run_block(booted, case).summary
    state   = 4*8*32*2
    written = 4*(4*64 + 2*128) + state
    assert summary == {
        "mode": "prefill", "store_every": None, "tokens": 4, "cycles": 4000, "cycles_per_token": 1000,
        "per_token_cycles": None,
        "lane_busy_cycles": 4*4*8*32//16, "dma_read_bytes": state, "dma_write_bytes": state, "clock_hz": 100_000_000, "data_width": 128,
        "lanes": 16, "transport": "etherbone", "firmware": "1.2.3", "gateware": "0.1.0",
        "bytes_streamed": written + 4*4*64 + state, "bytes_verified": written + 72, # 72: the job.
        "rounding": "nearest", "port_cycles": 0, "dram_share": 0.0,
        "wait_cycles": dict.fromkeys(("state", "input", "output", "descriptor"), 0), "not_finite": {"h": 0, "y": 0},
    }


def test_progress(booted):
    seen = {}
    run_block(booted, small_case(T=4), "decode", lambda what, done, total: seen.update({what: (done, total)}))
    assert set(seen) == {"upload", "jobs", "download"}
    assert all(done == total for done, total in seen.values())


def test_block_that_does_not_fit(booted):
    with pytest.raises(AllocationError, match=r"x of 60000 tokens of \d+ bytes does not fit: \d+ of 2097152 bytes"):
        run_block(booted, small_case(T=60000, H=2, P=4, G=1, N=4))


def test_bad_mode(booted):
    with pytest.raises(ValueError, match="mode must be one of prefill, decode, is 'train'."):
        run_block(booted, small_case(), "train")


def test_failing_block_leaves_a_usable_device(booted):
    case = small_case(T=30)
    booted.fake.fail = {5: (Error.GATEWARE, 1)}
    with pytest.raises(DeviceError, match="Job 5 failed: GATEWARE"):
        run_block(booted, case, "decode")
    assert_as_model(run_block(booted, case, "decode"), case)


@pytest.mark.parametrize("seed", range(3))
def test_block_on_a_bad_network(connect, firmware, seed):
    with FakeDevice() as fake, connect(fake, timeout=0.02, seed=seed, loss=0.05, duplicate=0.05, late=0.05,
                                       delay=0.003) as device:
        device.boot(firmware)
        case = small_case(T=20, seed=seed)
        assert_as_model(run_block(device, case, "decode"), case)
        assert device.transport.statistics.timeouts


def test_block_by_uart(csr_map, firmware):
    with FakeDevice() as fake, UARTBoneServer(fake) as server, UARTBone(server.port) as transport:
        device = Device(transport, csr_map(fake))
        device.boot(firmware)
        case   = small_case(T=20)
        result = run_block(device, case, "decode")
        assert_as_model(result, case)
        assert result.summary["transport"] == "uart"

# Gateware -----------------------------------------------------------------------------------------

def test_gateware_version():
    assert GATEWARE == (GATEWARE_VERSION >> 16, GATEWARE_VERSION >> 8 & 0xff)


@pytest.mark.parametrize("change, message", [
    (dict(identifier="SoC, of another kind"), "identifier must be 'soc, with a comma', as csr.csv has it, is 'SoC, of another "),
    (dict(identifier=""),                     "identifier must be 'soc, with a comma', as csr.csv has it, is ''"),
    (dict(version=0x000300),                  "version must be 0.2.x, reads 0.3.0"),
    (dict(version=0xffff_ffff),               "version must be 0.2.x, reads 65535.255.255"),
    (dict(config=SSMConfig(lanes=8)),         "lanes must be 16, as csr.csv has it, is 8"),
    (dict(config=SSMConfig(max_d_state=64)),  "max_d_state must be 128, as csr.csv has it, is 64"),
])
def test_map_of_another_gateware(connect, firmware, change, message):
    """Nothing is written by it, whether a firmware is named or not."""
    with FakeDevice() as fake, connect(fake) as device:
        for name, value in change.items():
            setattr(fake, name, value)
        for image in (firmware, None):
            with pytest.raises(VersionMismatch, match=f"The gateware's {message}.*: give csr.csv from the folder that"):
                device.boot(image)
        assert not fake.writes

# CSR Map ------------------------------------------------------------------------------------------

def test_csr_map(csr_map):
    with FakeDevice() as fake:
        csr = csr_map(fake)
        assert csr.registers["mailbox_doorbell"] == (CSR_BASE + 4, 1)
        assert csr.memories["main_ram"] == (RAM_BASE, fake.ram.nbytes)
        assert csr.constants == {"config_csr_data_width": 32, "config_cpu_type": "vexriscv",
            "config_cpu_has_interrupt": "None", "config_identifier": "soc, with a comma", "ssm_lanes": 16, "ssm_max_headdim": 64,
            "ssm_max_d_state": 128}


@pytest.mark.parametrize("edit, message", [
    (lambda text: "a,b\n",                                              "not a csr.csv of LiteX"),
    (lambda text: "\0",                                                 "not a csr.csv of LiteX"),
    (lambda text: text.replace("main_ram", "sub_ram"),                  "has no main_ram"),
    (lambda text: text.replace("mailbox_", "letterbox_"),               "has no mailbox_doorbell"),
    (lambda text: text.replace("csr_data_width,32", "csr_data_width,8"), "csr_data_width must be 32, is 8."),
])
def test_bad_csr_map(tmp_path, edit, message):
    path = tmp_path/"csr.csv"
    with FakeDevice() as fake:
        path.write_text(edit(fake.csr_csv()))
    with pytest.raises(UsageError, match=message):
        CSRMap.from_csv(path)


def test_no_csr_map(tmp_path):
    with pytest.raises(UsageError, match="none.csv: cannot read the SoC's map .No such file"):
        CSRMap.from_csv(tmp_path/"none.csv")
