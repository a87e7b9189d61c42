"""For all tests: two devices on any machine, and compiled programs that ``pytest -n`` compiles once."""

from __future__ import annotations

import os
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
