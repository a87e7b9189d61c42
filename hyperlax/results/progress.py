"""Shows how far a run is: a live bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

_LINE_SECONDS = 30.0


class Progress:
    """The progress of one run, updated between ticks.

    Args:
        total_configurations: how many samples are to run.
        total_steps: environment steps of all of them together; 0 when not known.
        enabled: False shows nothing.
        stream: standard error by default, so that standard output stays clean for results.
        clock: seconds; replaced in tests.
    """

    def __init__(
        self,
        total_configurations: int,
        total_steps: int,
        enabled: bool = True,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total_configurations, self._total_steps = total_configurations, total_steps
        self._stream = stream if stream is not None else sys.stderr
        self._enabled, self._clock = enabled, clock
        self._start = self._last_line = clock()
        self._base: tuple[float, int, float] | None = None
        self._text, self._fraction, self._closed = "", 0.0, False
        self._live: Live | None = None
        if enabled and self._stream.isatty():
            self._live = Live(self._bar(), console=Console(file=self._stream), refresh_per_second=4)
            self._live.start()

    def update(
        self,
        configurations_done: int,
        env_steps: int,
        fraction_done: float,
        best: tuple[int, float] | None = None,
        note: str = "",
    ) -> None:
        """Shows a new state.

        Args:
            configurations_done: of the total, those that ended.
            env_steps: taken so far, all lanes together.
            fraction_done: part of all *work* done, in [0, 1]. Time left is estimated from
                it and not from steps, which cost differently from sample to sample.
            best: sample id and return of the best sample so far.
            note: a few words, such as what is being compiled.
        """
        self._fraction = min(1.0, max(0.0, fraction_done))
        now = self._clock()
        self._text = self._describe(now, configurations_done, env_steps, best, note)
        if self._base is None:
            # Rates count from here: what a resumed run did before cost no time now, and
            # the first compilation is not repeated by the work that is left.
            self._base = (now, env_steps, self._fraction)
        if self._live is not None:
            self._live.update(self._bar())
        elif self._enabled and now - self._last_line >= _LINE_SECONDS:
            self._print_line(now)

    def close(self) -> None:
        """Shows the last state for good; harmless when done twice."""
        if self._closed:
            return
        self._closed = True
        if self._live is not None:
            self._live.stop()
        elif self._enabled and self._text:
            self._print_line(self._clock())

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _bar(self) -> Table:
        # Two lines: beside a bar, a terminal of 80 columns would cut off the time left.
        lines = Table.grid()
        lines.add_row(ProgressBar(total=1.0, completed=self._fraction, width=60))
        lines.add_row(Text(f"{100 * self._fraction:3.0f}% {self._text or 'starting'}"))
        return lines

    def _print_line(self, now: float) -> None:
        self._last_line = now
        print(f"{100 * self._fraction:3.0f}% {self._text}", file=self._stream, flush=True)

    def _describe(self, now: float, done: int, steps: int, best: tuple[int, float] | None, note: str) -> str:
        total = f"/{_short(self._total_steps)}" if self._total_steps else ""
        parts = [f"{done}/{self._total_configurations} configurations done", f"{_short(steps)}{total} env steps"]
        rate = self._steps_per_second(now, steps)
        if rate is not None:
            parts.append(f"{_short(rate)} steps/s")
        if best is not None:
            parts.append(f"best {best[1]:.4g} (sample {best[0]})")
        parts.append(f"{_duration(now - self._start)} elapsed")
        left = self._seconds_left(now)
        if left is not None:
            parts.append(f"{_duration(left)} left")
        return ", ".join(parts + ([note] if note else []))

    def _steps_per_second(self, now: float, steps: int) -> float | None:
        since, steps_then = (self._start, 0) if self._base is None else self._base[:2]
        return (steps - steps_then) / (now - since) if now > since and steps > steps_then else None

    def _seconds_left(self, now: float) -> float | None:
        if self._fraction >= 1:
            return None
        since, _, fraction_then = (self._start, 0, 0.0) if self._base is None else self._base
        done = self._fraction - fraction_then
        return (now - since) * (1 - self._fraction) / done if done > 0 and now > since else None


def _short(value: float) -> str:
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"


def _duration(seconds: float) -> str:
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{whole % 60:02d}s" if minutes else f"{whole}s"
