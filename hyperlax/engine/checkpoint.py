"""Lanes on disk: what a killed run goes on from.

A checkpoint is one file with every array of the lanes and, by lane, which task it runs and how far that is. It is
replaced as a whole, so that there is always one that is complete, and it is written at most a twentieth of the time.
"""

from __future__ import annotations

import json
import logging
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from hyperlax.results.storage import replacing

log = logging.getLogger(__name__)

SECONDS = 60.0  # between two checkpoints, at least
SHARE = 20  # and at least so many times what the last one took
_HEADER = "__header__"
Result = TypeVar("Result")


class SavedSlot(NamedTuple):
    """Where a lane was.

    Attributes:
        lane: its number.
        sample_id: of its task.
        seed: likewise.
        updates: done.
        passed: grid points evaluated.
        target: updates to be done in the present round.
        started: seconds since the run began.
        turn: its place in the order of lanes.
        held: whether it waits for others.
    """

    lane: int
    sample_id: int
    seed: int
    updates: int
    passed: int
    target: int
    started: float
    turn: int
    held: bool


class Restored(NamedTuple):
    """What a checkpoint holds.

    Attributes:
        arrays: the leaves of the lanes, in the order of their tree; None if there are none, or those of other lanes.
        slots: of the lanes that had a task.
        queue: what the queue of tasks had to say of itself.
    """

    arrays: list[np.ndarray] | None
    slots: list[SavedSlot]
    queue: Any


@dataclass
class Checkpoints:
    """The checkpoint of one program.

    Args:
        path: its file.
        clock: seconds; replaced in tests.
        seconds: between two checkpoints, at least.
    """

    path: Path
    clock: Callable[[], float] = time.monotonic
    seconds: float = field(default_factory=lambda: SECONDS)  # as it is then: `make chaos` changes it

    def __post_init__(self) -> None:
        self._due = self.clock() + self.seconds

    @property
    def due(self) -> bool:
        """Whether it is time for the next."""
        return self.clock() >= self._due

    def save(self, lanes: Any, slots: list[SavedSlot], queue: Any = None) -> None:
        """Replaces the checkpoint; ``lanes`` None saves the queue alone."""
        started = self.clock()
        arrays = {f"{number:04d}": leaf for number, leaf in enumerate(jax.device_get(jax.tree.leaves(lanes)))}
        self.path.parent.mkdir(exist_ok=True)
        with replacing(self.path) as file:
            np.savez(file, allow_pickle=False, **{_HEADER: np.array(json.dumps([slots, queue]))}, **arrays)
        ended = self.clock()
        self._due = ended + max(self.seconds, SHARE * (ended - started))

    def slots(self) -> list[SavedSlot]:
        """Returns where the lanes were; none where there is no checkpoint, or a damaged one, which is named."""
        header = self._read(_header_of)
        return header[0] if header is not None else []

    def load(self, like: Any) -> Restored | None:
        """Returns the checkpoint, or None where there is none; of lanes that are not ``like`` these only the queue."""
        restored = self._read(lambda content: Restored(_arrays_of(content), *_header_of(content)))
        if restored is None or not restored.slots:
            return restored and Restored(None, [], restored.queue)
        wanted = [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(like)]
        if [(array.shape, array.dtype) for array in restored.arrays or ()] != wanted:
            log.warning("%s is of another plan, its lanes begin anew", self.path)
            return Restored(None, [], restored.queue)
        return restored

    def _read(self, what: Callable[[Any], Result]) -> Result | None:
        if not self.path.exists():
            return None
        try:
            with np.load(self.path, allow_pickle=False) as content:
                return what(content)
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            log.warning("%s is damaged, its lanes begin anew: %s", self.path, " ".join(str(error).split()))
            return None

    def remove(self) -> None:
        """Removes it: the program has ended."""
        self.path.unlink(missing_ok=True)


def _header_of(content: Any) -> tuple[list[SavedSlot], Any]:
    slots, queue = json.loads(str(content[_HEADER]))
    return [SavedSlot(*slot) for slot in slots], queue


def _arrays_of(content: Any) -> list[np.ndarray]:
    return [content[name] for name in sorted(set(content.files) - {_HEADER})]
