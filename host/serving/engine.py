#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The device behind a server: a thread runs what requests ask for, several texts together, and tells each of its tokens."""

import threading

from collections.abc import Callable
from contextlib import suppress

from host.device.batch import BatchText, DeviceBatch, Item

from tools.errors import CommandError

# Constants ----------------------------------------------------------------------------------------

CLOSE_TIMEOUT = 30.0 # Seconds in which the device ends the pass that it runs.

Listener = Callable[[Item], None]

# Engine -------------------------------------------------------------------------------------------

class QueueFull(Exception):
    """There are as many texts as may be."""


class ServingEngine:
    """Runs texts on a :class:`host.device.batch.DeviceBatch`, in a thread of its own.

    Parameters
    ----------
    batch : on a loaded model; nobody else may use its device until :meth:`close`.
    queue : texts that may wait, beside those under way.

    Attributes
    ----------
    failure : what the last job failed by; None: it did not.
    prompt_tokens, generated_tokens, texts : how many there were.
    """
    def __init__(self, batch: DeviceBatch, queue: int):
        self.batch   = batch
        self.queue   = queue
        self.failure: CommandError | None = None
        self.prompt_tokens    = 0
        self.generated_tokens = 0
        self.texts            = 0
        self._listeners: dict[int, tuple[BatchText, Listener]] = {}
        self._changed = threading.Condition()
        self._closing = False
        self._stopped: set[int] = set() # Texts that ended with the server.
        self._thread  = threading.Thread(target=self._serve, name="device", daemon=True)

    def __enter__(self) -> "ServingEngine":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def waiting(self) -> int:
        """Texts that have not begun."""
        return sum(not text.ended for text in tuple(self.batch.waiting))

    @property
    def running(self) -> int:
        """Texts under way."""
        return max(len(self._listeners) - self.waiting, 0)

    def under_way(self) -> list[BatchText | None]:
        """The text in each session."""
        slots = list(self.batch.slots)
        return [slots[n] if n < len(slots) and not slots[n].ended else None for n in range(self.batch.sessions)]

    def submit(self, texts: list[BatchText], listeners: list[Listener]) -> None:
        """Have texts written, all or none. A listener is called, by the device's thread, with each token of its text, and each score, as
        :meth:`host.device.batch.DeviceBatch.run` has them; with None at its end; or with the error that ended it.

        Raises
        ------
        QueueFull : too many are waiting.
        ValueError : a prompt has no tokens, or some that are none of the model's.
        """
        for text in texts:
            self.batch.check(text)
        with self._changed:
            if len(self._listeners) + len(texts) > self.batch.sessions + self.queue:
                raise QueueFull
            if self._closing:
                raise CommandError("The server ends.")
            for text, listener in zip(texts, listeners):
                self._listeners[id(text)] = text, listener
                self.texts         += 1
                self.prompt_tokens += len(text.prompt)
                self.batch.waiting.append(text)
            self._changed.notify()

    def stop(self) -> None:
        """Take no more texts, and end those that there are."""
        with self._changed:
            self._closing = True
            for number, (text, _) in self._listeners.items():
                if not text.ended:
                    self._stopped.add(number)
                    text.drop()
            self._changed.notify()

    def close(self) -> None:
        """As stop, and wait until the pass under way has ended."""
        self.stop()
        self._thread.join(CLOSE_TIMEOUT)

    # The device's thread.

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self.batch.waiting or self._closing)
                if self._closing and not self.batch.waiting:
                    return
            try:
                for text, token in self.batch.run():
                    self.generated_tokens += isinstance(token, int)
                    self._tell(text, CommandError("The server ends.") if token is None and id(text) in self._stopped else token)
                self.failure = None
            except CommandError as error:
                self._fail(error)
            except Exception as error: # A fault of this program's: nobody is to wait for ever.
                self._fail(CommandError(f"unexpected {type(error).__name__}: {error}"))

    def _tell(self, text: BatchText, item: Item) -> None:
        with self._changed:
            _, listener = self._listeners.pop(id(text)) if item is None or isinstance(item, CommandError) else self._listeners[id(text)]
        with suppress(RuntimeError): # Its event loop is closed.
            listener(item)

    def _fail(self, error: CommandError) -> None:
        """Texts under way cannot go on, and those that wait would fail likewise."""
        self.failure = error
        with self._changed:
            texts = [text for text, _ in self._listeners.values()]
            self.batch.waiting.clear()
        for text in texts:
            text.ended = text.told = True
            self._tell(text, error)
