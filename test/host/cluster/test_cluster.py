#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""From the file of boards to texts: fake devices, reached by Etherbone, in threads of this process; and what the commands refuse."""

from contextlib import ExitStack, contextmanager

import pytest

from fake_device import EtherboneServer, FakeDevice, fake_firmware
from models import random_model

from host.cluster.boards import read_boards
from host.cluster.cluster import cut, open_pipelines, report, stage_summaries
from host.cluster.driver import ClusterText, Driver
from host.cluster.errors import BoardError
from host.cluster.stage import StageDevice
from host.cluster.workers import ThreadWorker, gather
from host.stream import main

from model.exact.decoder import ExactDecoder
from model.exact.network import ExactNetwork
from model.exact.sampling import Draws

from operations.config import ProgramConfig, SSMConfig
from operations.protocol import Error

from tools.errors import UsageError

# Helpers ------------------------------------------------------------------------------------------

MODEL = random_model(seed=5, n_layer=3, d_model=32, d_state=8)


@contextmanager
def fakes(folder, builds, head=""):
    """Fake devices, one for each (config, pass_tokens), and the file that names them: ([device], path)."""
    text = head
    with ExitStack() as stack:
        devices = []
        for number, (config, tokens) in enumerate(builds):
            fake   = stack.enter_context(FakeDevice(config, program=ProgramConfig(pass_tokens=tokens), ram_size=0x100_0000))
            server = stack.enter_context(EtherboneServer(fake))
            (folder/f"csr{number}.csv").write_text(fake.csr_csv())
            (folder/"firmware.bin").write_bytes(fake_firmware())
            text += f'[[board]]\nname = "fake {number}"\ntransport = "etherbone"\nip = "{server.ip}"\nudp_port = {server.port}\n' \
                f'csr_csv = "csr{number}.csv"\nfirmware = "firmware.bin"\ntimeout_scale = 0.001\n'
            devices.append(fake)
        (folder/"boards.toml").write_text(text)
        yield devices, folder/"boards.toml"


@contextmanager
def opened(path, model=MODEL, sessions=2):
    boards  = read_boards(path)
    workers = [ThreadWorker(board.name, StageDevice(board.name, board.options)) for board in boards.all]
    try:
        yield Driver(open_pipelines(boards, workers, model, sessions), model.vocab_size)
    finally:
        for worker in workers:
            worker.stop()


def write(driver, count=2, tokens=2):
    draws = [Draws.of(1.1, 30, seed) for seed in range(count)]
    texts = [ClusterText([3, 1, 4, 1, 5][:2 + n], tokens, draw) for n, draw in enumerate(draws)]
    for text in texts:
        driver.add(text)
    list(driver.run())
    return texts


def exact(text):
    decoder = ExactDecoder(ExactNetwork(MODEL), text.draws)
    decoder.prefill(text.prompt)
    return list(decoder.generate(text.most))

# Clusters -----------------------------------------------------------------------------------------

def test_boards_of_different_builds(tmp_path):
    """Lanes and tokens of a pass differ: the least of these is run."""
    with fakes(tmp_path, [(SSMConfig(), 4), (SSMConfig(lanes=8), 2)], "layers = [2, 1]\n") as (devices, path), opened(path) as driver:
        assert driver.pipelines[0].pass_tokens == 2
        texts = write(driver)
        assert [text.tokens for text in texts] == [exact(text) for text in texts]
        assert [(board["board"], board["layers"], board["error"]) for board in stage_summaries(driver)] == [("fake 0", [0, 2], None), ("fake 1", [2, 3], None)]
        assert report(driver)[0].startswith("board fake 0: layers 0 to 1, ") and report(driver)[0].endswith(" cycles for one of a token")


def test_a_board_fails(tmp_path):
    """The other one has the whole model too."""
    with fakes(tmp_path, [(SSMConfig(), 2)]*2, "stages = 1\n") as (devices, path), opened(path) as driver:
        devices[1].fail_generate = Error.TIMEOUT, 7
        texts = write(driver)
        assert [text.tokens for text in texts] == [exact(text) for text in texts]
        assert [error.board for error in driver.failed] == ["fake 1"]
        assert report(driver)[-1].startswith("failed: board fake 1: Job ") and "failed: TIMEOUT (error 14, detail 0x7)." in report(driver)[-1]
        assert [board["error"] for board in stage_summaries(driver)] == [None, str(driver.failed[0])]


def test_a_board_without_engines(tmp_path):
    with fakes(tmp_path, [(SSMConfig(), 1)]*2) as (devices, path):
        devices[1].program = None
        with pytest.raises(BoardError, match="^board fake 1: The gateware must have the engines that run whole models, has none: "), opened(path):
            pass


def test_rounding_differs(tmp_path):
    with fakes(tmp_path, [(SSMConfig(), 1), (SSMConfig(stochastic_rounding=True), 1)]) as (_, path):
        with pytest.raises(UsageError, match="^board fake 1: rounding must be that of board fake 0, nearest, is stochastic.$"), opened(path):
            pass


def test_a_stage_that_does_not_fit(tmp_path):
    """Sessions take all the memory."""
    with fakes(tmp_path, [(SSMConfig(), 1)]*2) as (_, path):
        with pytest.raises(BoardError, match="^board fake 0: the model takes .* bytes of the device's memory") as caught, opened(path, sessions=100_000):
            pass
    assert caught.value.exit_code == 2


def test_a_board_that_is_not_there(tmp_path):
    with fakes(tmp_path, [(SSMConfig(), 1)]*2) as (_, path):
        path.write_text(path.read_text().replace("csr1.csv", "csr7.csv"))
        with pytest.raises(BoardError, match="^board fake 1: .*csr7.csv"), opened(path):
            pass


def test_more_stages_than_layers(tmp_path):
    path = tmp_path/"boards.toml"
    path.write_text("".join(f'[[board]]\nname = "{n}"\n' for n in range(4)))
    with pytest.raises(UsageError, match="^stages must be at most the model's 3 layers, are 4.$"):
        cut(MODEL, read_boards(path))


def test_gather_says_who_it_waits_for():
    class Slow:
        def nap(self):
            import time
            time.sleep(0.5)

        def close(self):
            pass
    workers = [ThreadWorker("a", Slow()), ThreadWorker("b", Slow())]
    with pytest.raises(BoardError, match="^board a: waited 0 s for it to nap.$"):
        gather([(worker, worker.submit("nap")) for worker in workers], 0.1, "nap")
    for worker in workers:
        worker.stop()

# Commands -----------------------------------------------------------------------------------------

@pytest.mark.parametrize("command, options, message", [
    ("generate", ("--on", "exact"),              "--boards must be left out with --on exact."),
    ("generate", ("--speculate",),               "--speculate must be left out with --boards: it is of a single device."),
    ("generate", ("--store-every", "2"),         "--store-every must be left out with --boards: it is of a single device."),
    ("generate", ("--save-session", "session"),  "--save-session must be left out with --boards: it is of a single device."),
    ("generate", ("--lanes", "8"),               "--lanes must be left out with --boards, is 8: boards.toml has what each board needs."),
    ("batch",    ("--transport", "uart"),        "--transport must be left out with --boards, is uart: boards.toml has what each board needs."),
    ("batch",    ("--on", "exact"),              "--boards must be left out with --on exact."),
    ("batch",    (),                             "boards.toml: a key must be stages, layers, board, is 'colour'."),
    ("generate", (),                             "boards.toml: a key must be stages, layers, board, is 'colour'."),
])
def test_options_that_do_not_go_with_boards(tmp_path, monkeypatch, capsys, command, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path/"boards.toml").write_text("colour = 3\n")
    assert main([command, "--boards", "boards.toml", "--prompt", "In", *options]) == 2
    assert capsys.readouterr().err == f"stream.py: error: {message}\n"
