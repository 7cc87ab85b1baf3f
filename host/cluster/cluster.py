#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""From a file of boards and a model to pipelines that run it: builds known, layers cut, images loaded."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from host.cluster.actors import ray_workers
from host.cluster.boards import Board, Boards, check_rounding, read_boards
from host.cluster.cut import balanced, check_stages, ranges
from host.cluster.driver import Driver, Pipeline, Stage
from host.cluster.errors import BoardError
from host.cluster.stage import Build, StageImage, pass_bytes
from host.cluster.workers import Worker, gather
from host.commands.whole_model import LINK_BYTES
from host.device.device import PATIENCE
from host.device.maxima import model_geometry

from model.image import Image
from model.program import DeviceModel

from tools.errors import UsageError

# Constants ----------------------------------------------------------------------------------------

OPEN_SECONDS = 1800.0 # In which a board boots; a simulation is built first.
LOAD_RATE    = 1e4    # Bytes a second that a link loads at the least, with LOAD_SECONDS beside them.
LOAD_SECONDS = 120.0
MARGIN       = 30.0   # Seconds of a pass beside those that the board's own host waits: that says more of what is wrong.

Log = Callable[[str], None]

# Cut ----------------------------------------------------------------------------------------------

def layer_costs(model: Any) -> tuple[list[int], int]:
    """(bytes a token of each layer, and of the head): weights, and the state, which is read and written."""
    device = DeviceModel(model)
    layers = [sum(device.matrix_bytes[3*n:3*n + 3]) + 2*device.tile_bytes for n in range(model.n_layer)]
    return layers, device.matrix_bytes[device.layer_matrices]


def cut(model: Any, boards: Boards) -> list[tuple[int, int]]:
    """(first, end) of the layers of each stage.

    Raises
    ------
    UsageError : there are more stages than layers, or the file's layers are not the model's.
    """
    stages = len(boards.pipelines[0])
    check_stages(model.n_layer, stages)
    return ranges(boards.layers or balanced(*layer_costs(model), stages), model.n_layer)


def stage_image(board: Board, build: Build, model: Any, layers: tuple[int, int], sessions: int) -> Image:
    """The image of a stage for a board.

    Raises
    ------
    BoardError : it does not fit: by how much, and what would.
    """
    try:
        model_geometry(build.ssm, model.config.layer)
        image = Image(model, build.data_width, build.ssm, build.program, layers)
        image.check_memory(build.data_size, sessions, pass_bytes(image))
        return image
    except (ValueError, UsageError) as error:
        raise BoardError(board.name, str(error), UsageError.exit_code) from error

# Cluster ------------------------------------------------------------------------------------------

def sessions_that_fit(build: Build, image: Image, most: int) -> int:
    """So many, up to `most`, that a board has room for beside a stage; 1 at least."""
    return next((count for count in range(most, 1, -1) if image.memory_bytes(count, pass_bytes(image)) <= build.data_size), 1)


def open_pipelines(boards: Boards, workers: Sequence[Worker], model: Any, sessions: int | None = None, log: Log = lambda message: None) -> list[Pipeline]:
    """Open the boards, and load each with its stage of a quantised model.

    sessions: texts at once, of each pipeline. None: two for each stage, so that one waits there while one runs, or as many as there is room for.

    Raises
    ------
    BoardError : a board cannot be reached, or its stage does not fit.
    UsageError : the model cannot be cut so, or boards do not round alike.
    """
    stages = cut(model, boards)
    cuts   = stages*len(boards.pipelines)
    # What does not fit is said before a simulation is built.
    filled: list[np.ndarray | None] = []
    for board, layers in zip(boards.all, cuts):
        data = None
        if board.options.transport == "sim":
            image = stage_image(board, Build.simulated(board.options), model, layers, sessions or 1)
            data  = image.to_bytes() if image.size > LINK_BYTES else None
        filled.append(data)
    log(f"Opening {len(boards.all)} boards.")
    builds = gather([(worker, worker.submit("open", data)) for worker, data in zip(workers, filled)], OPEN_SECONDS, "boot")
    check_rounding([(board.name, build.ssm.stochastic_rounding) for board, build in zip(boards.all, builds)])
    whole  = [stage_image(board, build, model, layers, sessions or 1) for board, build, layers in zip(boards.all, builds, cuts)]
    room   = sessions or min(sessions_that_fit(build, image, 2*len(stages)) for build, image in zip(builds, whole))
    images = [StageImage.of(image) for image in whole]
    most   = max(image.size for image in images)
    log(f"Loading stages of {', '.join(f'{end - first}' for first, end in stages)} layers.")
    gather([(worker, worker.submit("load", image, room, data is not None)) for worker, image, data in zip(workers, images, filled)],
        LOAD_SECONDS + most/LOAD_RATE, "load its stage")
    log(f"Loaded, with room for {room} texts at once.")
    made = [Stage(worker, {tokens: MARGIN + 2*(PATIENCE + cycles/build.clock_hz*board.timeout_scale) for tokens, cycles in image.cycles.items()},
        image.layers) for worker, build, board, image in zip(workers, builds, boards.all, images)]
    result, size = [], len(stages)
    for first in range(0, len(made), size):
        tokens = min(image.pass_tokens for image in images[first:first + size])
        result.append(Pipeline(made[first:first + size], room, tokens))
    return result


@contextmanager
def open_cluster(path: str, model: Any, sessions: int | None = None, log: Log = lambda message: None) -> Iterator[Driver]:
    """Context manager: the :class:`Driver` of a quantised model on the boards of a file, each a Ray actor.

    Raises
    ------
    CommandError : the file is wrong, a board cannot be reached, or the model does not fit.
    """
    boards = read_boards(path)
    cut(model, boards) # Before Ray is started.
    with ray_workers(boards.all) as workers:
        yield Driver(open_pipelines(boards, workers, model, sessions, log), model.vocab_size)

# Report -------------------------------------------------------------------------------------------

def stage_summaries(driver: Driver) -> list[dict[str, Any]]:
    """Figures of each board, ready for JSON."""
    return [{"board": stage.worker.name, "layers": list(stage.layers), "passes": sum(stage.passes.values()), "cycles": sum(stage.cycles.values()),
        "cycles_per_token": stage.cycles_per_pass(), "read_bytes": stage.read, "write_bytes": stage.written,
        "error": None if pipeline.failed is None or pipeline.failed.board != stage.worker.name else str(pipeline.failed)}
        for pipeline in driver.pipelines for stage in pipeline.stages]


def report(driver: Driver) -> list[str]:
    """The same in lines."""
    lines = []
    for pipeline in driver.pipelines:
        for stage in pipeline.stages:
            cycles = stage.cycles_per_pass()
            first, end = stage.layers
            lines.append(f"board {stage.worker.name}: layers {first} to {end - 1}, {sum(stage.passes.values())} passes" +
                (f", {cycles:.0f} cycles for one of a token" if cycles else ""))
    return lines + [f"failed: {error}" for error in driver.failed]
