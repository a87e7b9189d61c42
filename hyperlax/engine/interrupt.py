"""Ctrl-C and SIGTERM while lanes train: the tick that runs is finished and saved, then the run ends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Whether a signal has asked to stop.

    Attributes:
        requested: set by the first signal; a second one ends the run where it is.
    """

    def __init__(self) -> None:
        self.requested = False
        self._signal: tuple[int, FrameType | None] | None = None
        self._before: dict[int, Any] = {}

    def install(self) -> None:
        """Takes over the signals."""
        self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}

    def restore(self) -> None:
        """Gives them back, and passes on one that came."""
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        if self._signal is not None:
            self._pass_on(*self._signal)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested, self._signal = True, (number, frame)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        """Does what the signal does elsewhere, but never ends the process without a word."""
        handler = self._before[number]
        if callable(handler):
            handler(number, frame)
        raise KeyboardInterrupt


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Gives a :class:`Stop` while lanes train; after it, a signal that came ends the run as ``KeyboardInterrupt``.

    Only the main thread hears signals; elsewhere nothing ever asks to stop.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    stop.install()
    try:
        yield stop
    finally:
        stop.restore()
