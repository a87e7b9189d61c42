"""For all tests: two devices on any machine, programs that ``pytest -n`` compiles once, disks that fail."""

from __future__ import annotations

import errno
import logging
import os
import runpy
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

os.environ.setdefault("JAX_NUM_CPU_DEVICES", "2")  # read when JAX is imported, by whichever test comes first

# Here tests of one file with the same parameters share fixtures that take seconds to compile.
TOGETHER = ("tests/algorithms/", "tests/engine/", "tests/networks/")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Sends such tests to one process; pytest-xdist 3.8's own groups have no effect under pytest 9.2."""
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file, _, parameters = nodeid.partition("[")
            return f"{file.partition('::')[0]}[{parameters}" if nodeid.startswith(TOGETHER) else nodeid

    return Together(config, log) if config.option.dist == "load" else None


@pytest.fixture(autouse=True)
def _logger() -> Iterator[None]:
    """Puts back the log's handlers, which write to a stream that is gone after the command."""
    logger = logging.getLogger("hyperlax")
    before = logger.handlers, logger.level, logger.propagate
    yield
    logger.handlers, logger.level, logger.propagate = before


class Killed(BaseException):
    """The process is no more."""


class Disk:
    """Writes and replacements of files: when so many have gone well, every other one fails.

    Attributes:
        left: how many still go well; None for all.
        error: raised by the others, in the middle of a write.
        count: of all so far.
    """

    def __init__(self, system: ModuleType) -> None:
        self._system = system
        self.left: int | None = None
        self.error: BaseException = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.count = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._system, name)

    def fails(self, after: int | None, error: BaseException | None = None) -> None:
        """Sets when it fails from now on, and what is raised then."""
        self.left, self.error = after, error or self.error

    def write(self, file: int, content: Any) -> int:
        """Writes, or half of it."""
        if self._is_bad():
            self._system.write(file, bytes(content)[: len(content) // 2])
            raise self.error
        return self._system.write(file, content)

    def fsync(self, file: int) -> None:
        """Stands for all writes of a file that is about to take another's place."""
        if self._is_bad():
            raise self.error

    def replace(self, source: Any, target: Any) -> None:
        """Replaces a file, and fails before or thereafter."""
        self._system.replace(source, target)
        if self._is_bad():
            raise self.error

    def _is_bad(self) -> bool:
        self.count += 1
        if self.left is None:
            return False
        self.left -= 1
        return self.left < 0


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """What all results are written to."""
    from hyperlax.results import storage

    disk = Disk(os)
    monkeypatch.setattr(storage, "os", disk)
    return disk


@pytest.fixture
def killed() -> type[BaseException]:
    """What a disk raises whose process is no more."""
    return Killed


@pytest.fixture
def many_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lanes are saved after every tick."""
    from hyperlax.engine import checkpoint

    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    monkeypatch.setattr(checkpoint, "SHARE", 0)


@pytest.fixture
def compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of this process share what they compile, which a run that goes on would compile again."""
    from hyperlax.engine.sweep import Sweep
    from hyperlax.search.one_program import OneProgram

    for kind in (Sweep, OneProgram):
        monkeypatch.setattr(kind, "_compiled", _remembering(kind._compiled))


_PROGRAMS: dict[str, Any] = {}


def _remembering(compiled: Any) -> Any:
    def remembered(self: Any, *planned: Any) -> Any:
        program = planned[0] if planned else self.plan.programs[0]
        key = repr((program.shape, program.num_lanes, program.group, program.real_tasks[0].hyperparams, planned[1:]))
        key += repr((type(self), self.length, self.mesh.size))
        if key not in _PROGRAMS:
            _PROGRAMS[key] = compiled(self, *planned)
        return _PROGRAMS[key]

    return remembered


@pytest.fixture(scope="session")
def differences() -> Any:
    """Names the files of two directories that are not equal, but for times: see benchmarks/chaos.py."""
    chaos = runpy.run_path(str(Path(__file__).resolve().parents[1] / "benchmarks" / "chaos.py"))
    return lambda one, other: chaos["different"](chaos["contents"](one), chaos["contents"](other))
