"""Ctrl-C and SIGTERM while lanes train: the tick that runs is finished and saved, then the run ends.

So it is with SIGUSR2 where a program has a handler for it: submitit's queues a job again whose time is nearly over, and
ends the process. Where there is none, the signal is not ours.
"""

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
        self._came: dict[int, FrameType | None] = {}
        self._before: dict[int, Any] = {}

    def install(self) -> None:
        """Takes over the signals."""
        others = [signal.SIGUSR2] * callable(signal.getsignal(signal.SIGUSR2))
        self._before = {number: signal.signal(number, self._handle) for number in (*SIGNALS, *others)}

    def restore(self) -> None:
        """Gives them back, and passes on those that came."""
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        if self._came:
            self._pass_on()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        again = self.requested and number in SIGNALS  # SLURM sends SIGTERM before or after the other, to preempt
        self.requested = True
        self._came.setdefault(number, frame)
        if again:
            raise KeyboardInterrupt

    def _pass_on(self) -> None:
        """Does what the signals do elsewhere, but never ends the process without a word."""
        for number, frame in self._came.items():
            handler = self._before[number]
            if callable(handler):
                try:
                    handler(number, frame)
                except Exception as error:  # not one of the lanes', which would be trained one by one
                    raise KeyboardInterrupt from error
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
