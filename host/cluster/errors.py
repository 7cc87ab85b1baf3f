#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""What can go wrong with the boards of a cluster."""

from tools.errors import CommandError


class BoardError(CommandError):
    """A board of a cluster failed, or did not answer in time.

    Attributes
    ----------
    board : its name.
    """
    def __init__(self, board: str, message: str, exit_code: int = CommandError.exit_code):
        super().__init__(f"board {board}: {message}")
        self.board     = board
        self.message   = message
        self.exit_code = exit_code

    def __reduce__(self) -> tuple[type["BoardError"], tuple[str, str, int]]: # To another process.
        return BoardError, (self.board, self.message, self.exit_code)


def board_error(name: str, error: BaseException) -> BoardError:
    """What a board's call has raised, as an error that names the board. Ray wraps errors of other processes: their cause counts."""
    cause = getattr(error, "cause", None)
    error = cause if isinstance(cause, BaseException) else error
    if isinstance(error, BoardError):
        return error
    if isinstance(error, CommandError):
        return BoardError(name, str(error), error.exit_code)
    if isinstance(error, ValueError):
        return BoardError(name, str(error), 2)
    if type(error).__name__ in ("ActorDiedError", "ActorUnavailableError", "WorkerCrashedError"):
        return BoardError(name, "its process has ended.")
    return BoardError(name, f"unexpected {type(error).__name__}: {error}")
